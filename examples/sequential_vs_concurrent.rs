//! What waiting for one call after the other costs, measured: the same calls one by one, all together, and together
//! under a limit.
//!
//! `cargo run --example sequential_vs_concurrent` calls a real local server that takes 50 ms for each answer. It takes
//! about four seconds, and exits with an error if the limit was not kept.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use futures::future::try_join_all;
use tokio::net::TcpListener;
use tollgate::Concurrency;

const CALLS: usize = 60;
const LATENCY: Duration = Duration::from_millis(50);
const AT_ONCE: u64 = 10;

/// How many calls the server has at this instant, and had at most.
#[derive(Default)]
struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn answer(State(load): State<Arc<Load>>) -> &'static str {
    load.most.fetch_max(load.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    tokio::time::sleep(LATENCY).await;
    load.now.fetch_sub(1, Ordering::Relaxed);
    "hello"
}

async fn call(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn Error>> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

async fn one_by_one(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn Error>> {
    for _ in 0..CALLS {
        call(client, url).await?;
    }
    Ok(())
}

/// The fastest, and as many connections as there are calls: fine for sixty, not for sixty thousand.
async fn all_together(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn Error>> {
    try_join_all((0..CALLS).map(|_| call(client, url))).await?;
    Ok(())
}

/// The same line with a permit before the call: those beyond the limit wait in line for one to end.
async fn under_a_limit(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn Error>> {
    let limit = Concurrency::new(AT_ONCE);
    let calls = (0..CALLS).map(async |_| {
        let _permit = limit.acquire(1).await?;
        call(client, url).await
    });
    try_join_all(calls).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let load = Arc::new(Load::default());
    let app = Router::new().route("/", get(answer)).with_state(Arc::clone(&load));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let client = reqwest::Client::new();
    println!("{CALLS} calls of {LATENCY:?} each:");
    println!("{:<16} {:>8} {:>10} {:>18}", "", "seconds", "calls/s", "at once, at most");
    let report = |way: &str, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        let most = load.most.swap(0, Ordering::Relaxed);
        println!("{way:<16} {seconds:>8.2} {:>10.0} {most:>18}", CALLS as f64 / seconds);
        (seconds, most)
    };

    let start = Instant::now();
    one_by_one(&client, &url).await?;
    let (alone, most) = report("one by one", start);
    assert_eq!(most, 1);

    let start = Instant::now();
    all_together(&client, &url).await?;
    let (together, _) = report("all together", start);

    let start = Instant::now();
    under_a_limit(&client, &url).await?;
    let (limited, most) = report("under a limit", start);
    assert_eq!(most as u64, AT_ONCE, "the limit was not kept, or not used");

    println!("\ntogether is {:.0} times as fast as one by one,", alone / together);
    println!("and {:.0} times under a limit of {AT_ONCE} at once", alone / limited);
    Ok(())
}
