//! A limit on a real service, and a real client that breaks it, then keeps to it.
//!
//! `cargo run --example quickstart` starts an axum server on a free port with a limit of 50 requests a second, drives
//! it from eight tasks as fast as they can, and shows second by second what was admitted beside what the quota
//! promises. Then the same tasks await a permit before each call, and nothing is refused. Ends by itself; exits with
//! an error if the limit was not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tollgate::{Error, LimitLayer, Quota, TokenBucket};

const TASKS: usize = 8;
const RUDE_SECONDS: usize = 3;
const RATE: u64 = 50;
const BURST: u64 = 10;
const SERVED: Quota = Quota::per_second(RATE).burst(BURST).checked();
// The server refills a little faster than the polite client spends: its requests take no constant time to arrive.
const POLITE: Quota = Quota::per_second(RATE * 9 / 10).burst(1).checked();

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limit = TokenBucket::builder(SERVED).name("quickstart").build()?;
    let refuse = |error: Error| {
        let Error::Denied(denied) = error;
        (StatusCode::TOO_MANY_REQUESTS, denied.to_string()).into_response()
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(LimitLayer::new(limit).shed().answer(refuse));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    println!("a server at {url} admits {SERVED}\n");

    let client = reqwest::Client::new();
    rude(&client, &url).await?;
    polite(&client, &url).await
}

/// As many requests as eight tasks can make.
async fn rude(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn std::error::Error>> {
    println!("{TASKS} tasks call it as fast as they can:");
    println!("{:>8} {:>10} {:>10} {:>18}", "second", "admitted", "refused", "promised at most");
    let counts: Arc<[[AtomicU64; 2]; RUDE_SECONDS]> = Arc::default();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (client, url, counts) = (client.clone(), url.to_owned(), Arc::clone(&counts));
        tasks.spawn(async move {
            while start.elapsed() < Duration::from_secs(RUDE_SECONDS as u64) {
                let refused = match client.get(&url).send().await?.status() {
                    StatusCode::OK => false,
                    StatusCode::TOO_MANY_REQUESTS => true,
                    other => return Err(format!("the server answered {other}").into()),
                };
                // A request that straddles the end counts where it ended, in the last second.
                let second = (start.elapsed().as_secs() as usize).min(RUDE_SECONDS - 1);
                counts[second][usize::from(refused)].fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?.map_err(|error| error.to_string())?;
    }
    let elapsed = start.elapsed();
    let mut admitted = 0;
    for (second, [ok, refused]) in counts.iter().enumerate() {
        let (ok, refused) = (ok.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        admitted += ok;
        println!("{:>8} {ok:>10} {refused:>10} {:>18}", second + 1, RATE + BURST);
    }
    let promised = BURST + (RATE as f64 * elapsed.as_secs_f64()) as u64;
    println!("in all {admitted} were admitted; {SERVED} promises at most {promised} in {elapsed:.2?}\n");
    if admitted > promised {
        return Err(format!("{admitted} requests were admitted where {promised} were promised").into());
    }
    // A limiter that refuses too much is broken as well; a busy machine may cost it a little.
    if admitted < promised * 8 / 10 {
        return Err(format!("only {admitted} requests were admitted of the {promised} that might").into());
    }
    Ok(())
}

/// The same tasks, each call behind a permit.
async fn polite(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let calls = 2 * RATE;
    println!("then {TASKS} tasks await a permit before each of {calls} calls ({POLITE}):");
    // What is left of the rude visit has to refill, or its refusals would be counted here.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let permits = TokenBucket::new(POLITE)?;
    let (left, longest_line) = (Arc::new(AtomicU64::new(calls)), Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (client, url, permits) = (client.clone(), url.to_owned(), permits.clone());
        let (left, longest_line) = (Arc::clone(&left), Arc::clone(&longest_line));
        tasks.spawn(async move {
            let mut refused = 0;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                longest_line.fetch_max(permits.snapshot().waiting, Ordering::Relaxed);
                let permit = permits.acquire(1).await.map_err(|error| error.to_string())?;
                let status = client.get(&url).send().await.map_err(|error| error.to_string())?.status();
                refused += u64::from(status != StatusCode::OK);
                drop(permit);
            }
            Ok::<u64, String>(refused)
        });
    }
    let mut refused = 0;
    while let Some(done) = tasks.join_next().await {
        refused += done??;
    }
    let longest_line = longest_line.load(Ordering::Relaxed);
    println!(
        "{calls} calls in {:.2?}, {refused} refused, at most {longest_line} waited in line",
        start.elapsed()
    );
    if refused > 0 {
        return Err(format!("{refused} calls were refused though each had a permit").into());
    }
    Ok(())
}
