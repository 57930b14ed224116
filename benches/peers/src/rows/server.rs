//! The HTTP layer in a real axum server: the time of a request over connections that stay open, beside the server
//! without the layer.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::HeaderName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tollgate::http::{ClientIp, Header};
use tollgate::{LimitLayer, LimiterExt, Quota, TokenBucket};

use crate::bench::Bench;
use crate::ours;

const CONNECTIONS: usize = 16;
const KEYS: usize = 100_000;
const TENANT: HeaderName = HeaderName::from_static("x-tenant");
/// Never reached: all requests are admitted.
const PLENTY: Quota = Quota::per_second(1_000_000_000);

#[derive(Clone, Copy)]
enum Keys {
    One,
    Many,
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// The fields cost time on the wire in any case.
fn app_with_fields() -> Router {
    let fields =
        [("ratelimit-policy", r#""load";q=1000000000;w=1"#), ("ratelimit", r#""load";r=999999999;t=1"#)];
    Router::new().route("/", get(async move || (fields, "hello")))
}

fn by_address(fields: bool) -> Router {
    let limit = TokenBucket::builder(PLENTY).name("load").build().unwrap();
    let layer = LimitLayer::http(limit.keyed().by(ClientIp::peer()));
    app().layer(if fields { layer } else { layer.without_fields() })
}

fn by_tenant() -> Router {
    app().layer(LimitLayer::http(ours::keyed(PLENTY, 4 * KEYS).by(Header::named(TENANT))).without_fields())
}

async fn serve(app: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    });
    Ok(address)
}

/// Requests answered within `span`, one at a time on each connection.
async fn requests(server: SocketAddr, keys: Keys, span: Duration) -> Result<u64, Box<dyn Error>> {
    let until = Instant::now() + span;
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let (mut answered, mut buffer) = (0u64, [0u8; 2048]);
            while Instant::now() < until {
                let tenant = match keys {
                    Keys::One => 0,
                    // A step coprime to the number of keys: all come, in no order.
                    Keys::Many => (connection * 6_151 + answered as usize * 7_919) % KEYS,
                };
                let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-tenant: {tenant:08}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut length = 0;
                while !buffer[..length].ends_with(b"\r\n\r\nhello") {
                    let read = stream.read(&mut buffer[length..]).await?;
                    if read == 0 {
                        return Err(io::Error::other("the server closed the connection"));
                    }
                    length += read;
                }
                if !buffer.starts_with(b"HTTP/1.1 200") {
                    return Err(io::Error::other("a request was refused"));
                }
                answered += 1;
            }
            Ok(answered)
        }));
    }
    let mut all = 0;
    for task in tasks {
        all += task.await??;
    }
    Ok(all)
}

/// A sample of a server: nanoseconds a request.
fn sample(runtime: &Runtime, app: Router, keys: Keys) -> impl FnMut(Duration) -> f64 {
    let server = runtime.block_on(serve(app)).unwrap();
    move |span| {
        let answered = runtime.block_on(requests(server, keys, span)).unwrap();
        span.as_nanos() as f64 / answered as f64
    }
}

pub fn measure(bench: &mut Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let span = Duration::from_millis(bench.choose(100, 300) as u64);
    let pairs = bench.pairs();
    bench
        .against("axum server, one client", || sample(&runtime, by_address(true), Keys::One))
        .peer_in("the server with constant fields", span, pairs, || {
            sample(&runtime, app_with_fields(), Keys::One)
        })
        .peer_in("the server without a layer", span, pairs, || sample(&runtime, app(), Keys::One));
    bench
        .against("axum server, one client, no fields", || sample(&runtime, by_address(false), Keys::One))
        .peer_in("the server without a layer", span, pairs, || sample(&runtime, app(), Keys::One));
    bench
        .against("axum server, 100,000 tenants, no fields", || sample(&runtime, by_tenant(), Keys::Many))
        .peer_in("the server without a layer", span, pairs, || sample(&runtime, app(), Keys::Many));
}
