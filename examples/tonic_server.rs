//! A tonic server limited per client, and a real client that breaks the limit, then keeps to it.
//!
//! `cargo run --example tonic_server --features tonic` starts tonic's health service on a free port with a limit of
//! five calls a second for each client, calls it ten times in a row, and then calls it ten times more, each time after
//! the wait that it was told. Ends by itself; exits with an error if the limit was not kept.

use std::error::Error;
use std::time::Duration;

use tokio::net::TcpListener;
use tollgate::http::ClientIp;
use tollgate::{LimitLayer, LimiterExt, Quota, TokenBucket};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CALLS: u32 = 10;
const LIMIT: Quota = Quota::per_second(5).burst(3).checked();

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let per_client = TokenBucket::builder(LIMIT).name("per-client").build()?.keyed().by(ClientIp::peer());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(LimitLayer::http(per_client)).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    println!("a server at {url} admits {LIMIT} of each client\n");

    let mut client = HealthClient::new(Endpoint::from_shared(url)?.connect().await?);
    println!("{CALLS} calls in a row:");
    let mut refused = 0;
    for call in 1..=CALLS {
        refused += u32::from(check(&mut client, call).await?.is_some());
    }
    println!("{refused} were refused\n");

    println!("{CALLS} calls, each refused one again after the wait it was told:");
    for call in 1..=CALLS {
        if let Some(wait) = check(&mut client, call).await? {
            tokio::time::sleep(wait).await;
            if check(&mut client, call).await?.is_some() {
                return Err("refused after the wait that the server had asked for".into());
            }
        }
    }
    if refused == 0 {
        return Err(format!("{CALLS} calls passed where 3 may").into());
    }
    Ok(())
}

/// One call: `None` if it was answered, or how long the server asks to wait.
async fn check(client: &mut HealthClient<Channel>, call: u32) -> Result<Option<Duration>, Box<dyn Error>> {
    match client.check(HealthCheckRequest::default()).await {
        Ok(answer) => {
            println!("{call:>4}  {:<20} serving: {}", "Ok", answer.get_ref().status == 1);
            Ok(None)
        }
        Err(status) if status.code() == Code::ResourceExhausted => {
            let wait = pushback(&status).ok_or("refused without a word of when to come back")?;
            println!("{call:>4}  {:<20} {}, retry after {wait:?}", "ResourceExhausted", status.message());
            Ok(Some(wait))
        }
        Err(status) => Err(status.into()),
    }
}

/// How long a refused call is asked to wait: `grpc-retry-pushback-ms`. `RetryInfo` in the details says the same.
fn pushback(status: &Status) -> Option<Duration> {
    let ms = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}
