//! A web service with a limit for each client: 5 requests a minute, and the headers that say so.
//!
//! `cargo run --features axum --example axum_per_client` serves, calls itself as two clients behind a proxy, prints
//! what they see, and ends; with an error if the limit was not kept. With `-- --stay` it goes on serving, for `curl -i http://127.0.0.1:3000/`.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tollgate::http::{ClientIp, Source};
use tollgate::{LimitLayer, LimiterExt, Quota, SlidingWindow};

const PER_CLIENT: Quota = Quota::per_minute(5).checked();

fn app() -> Result<Router, Box<dyn Error>> {
    let per_client = SlidingWindow::builder(PER_CLIENT).name("per-client").build()?.keyed();
    // The proxy runs on this machine: whom it names is believed, and nobody else.
    let client = ClientIp::behind(Source::x_forwarded_for(), ["127.0.0.0/8"])?;
    Ok(Router::new().route("/", get(|| async { "hello\n" })).layer(LimitLayer::http(per_client.by(client))))
}

/// What one client sees of one request, sent by way of the proxy, which is to be answered with this status.
async fn ask(client: &reqwest::Client, url: &str, from: &str, status: u16) -> Result<(), Box<dyn Error>> {
    let response = client.get(url).header("x-forwarded-for", from).send().await?;
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    println!(
        "{from:<14} {}  ratelimit: {}  retry-after: {}",
        response.status().as_u16(),
        header("ratelimit"),
        header("retry-after"),
    );
    if response.status() != status {
        return Err(format!("answered {} where {status} was due", response.status()).into());
    }
    if !response.status().is_success() {
        println!("{:>19}{}", "", response.text().await?);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stays = std::env::args().any(|argument| argument == "--stay");
    let listener = TcpListener::bind(if stays { "127.0.0.1:3000" } else { "127.0.0.1:0" }).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let server = axum::serve(listener, app()?.into_make_service_with_connect_info::<SocketAddr>());
    if stays {
        println!("serving {url}");
        return Ok(server.await?);
    }
    tokio::spawn(async move { server.await });

    let client = reqwest::Client::new();
    for status in [200, 200, 200, 200, 200, 429] {
        ask(&client, &url, "203.0.113.7", status).await?;
    }
    ask(&client, &url, "203.0.113.8", 200).await?;
    // Whatever a client writes before its own address, it is its address that counts.
    ask(&client, &url, "198.51.100.1, 203.0.113.7", 429).await?;
    Ok(())
}
