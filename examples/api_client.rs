//! A client of an API that allows 100 calls a minute and answers 429 beyond: what a tutorial writes as
//! `RateLimiter(100, 60)`.
//!
//! `cargo run --example api_client` calls a real local API 120 times at once. Nobody waits longer than five seconds, so
//! the last 20 are told at once when to come back. Then an API whose window is two seconds: there they wait, and all
//! are answered. With `-- --patient` they wait a minute as well. Exits with an error if either API ever had to answer
//! 429.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures::future::join_all;
use tokio::net::TcpListener;
use tollgate::{Ask, Denied, Quota, QuotaError, SlidingWindow};

const ALLOWED: u64 = 100;
const CALLS: usize = 120;
/// The most that a call may be late: from its permit to where the API counts it. Without it this API answers 429.
const LATE: Duration = Duration::from_secs(1);

type BoxError = Box<dyn Error + Send + Sync>;

/// Clones share the limit: give one to every task.
#[derive(Clone)]
struct ApiClient {
    http: reqwest::Client,
    url: String,
    limit: SlidingWindow,
}

impl ApiClient {
    /// For an API that allows `calls` in any `window`.
    fn new(url: String, calls: u64, window: Duration) -> Result<Self, QuotaError> {
        // The limit counts a permit when it is given, the API a call when it arrives. Between a call that was slow on
        // its way and a later one that was quick, the API sees less time than the limit: it is given as much more.
        let limit = SlidingWindow::new(Quota::per(calls, window + LATE))?;
        Ok(Self { http: reqwest::Client::new(), url, limit })
    }

    /// The answer, after at most `patience` in line.
    async fn get(&self, path: &str, patience: Duration) -> Result<String, BoxError> {
        let _permit = self.limit.acquire(Ask::ONE.within(patience)).await?;
        let response = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }
}

/// The API. It counts for itself, in its own way.
fn api(window: Duration) -> Router {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let answer = move || async move {
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        calls.retain(|call| now.duration_since(*call) < window);
        if calls.len() as u64 == ALLOWED {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        calls.push(now);
        Ok("hello")
    };
    Router::new().route("/hello", get(answer))
}

async fn run(window: Duration, patience: Duration) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, api(window)).await });
    let client = ApiClient::new(url, ALLOWED, window)?;

    println!("{CALLS} calls where {ALLOWED} are allowed in {window:?}, each waits {patience:?} at most:");
    let start = Instant::now();
    let answers = join_all((0..CALLS).map(|_| client.get("/hello", patience))).await;
    let took = start.elapsed();
    let mut waits = Vec::new();
    for error in answers.into_iter().filter_map(Result::err) {
        // A refusal by our own limit is expected. A 429, or anything else, is not.
        waits.extend(error.downcast::<tollgate::Error>()?.denied().and_then(Denied::retry_after));
    }
    println!("  {} answered in {took:.2?}", CALLS - waits.len());
    if let Some(wait) = waits.first() {
        println!("  {} refused at once, to come back in {wait:.2?}", waits.len());
    }

    let refused = if patience < window { CALLS - ALLOWED as usize } else { 0 };
    assert_eq!(waits.len(), refused, "a call was refused that might pass, or passed that might not");
    assert!(waits.iter().all(|wait| *wait > patience), "a call was refused that might have waited");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let patient = std::env::args().any(|argument| argument == "--patient");
    let patience = Duration::from_secs(if patient { 120 } else { 5 });
    run(Duration::from_secs(60), patience).await?;
    run(Duration::from_secs(2), patience).await
}
