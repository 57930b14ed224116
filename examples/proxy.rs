//! A service that calls an upstream through a guard: callers wait a little, the upstream never sees more than it allows.
//!
//! `cargo run --features reqwest,axum --example proxy`
//!
//! The upstream serves 50 calls a second and says so in no header. Whoever would have to wait longer than a second is
//! told when to come back.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use tollgate::client::Guard;
use tollgate::{Ask, Concurrency, Error, LimiterExt, Permit, Quota, TokenBucket};

const RATE: u64 = 50;
const BURST: u64 = 20;
const CALLERS: usize = 150;
const PATIENCE: Duration = Duration::from_secs(1);

type Limits = tollgate::And<(TokenBucket, Concurrency)>;

#[derive(Clone)]
struct Proxy {
    guard: Guard<Limits>,
    client: reqwest::Client,
    upstream: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counts =
        Arc::new(Mutex::new(Counts { level: BURST as f64, at: Instant::now(), served: 0, refused: 0 }));
    let upstream = serve(Router::new().route("/", get(answer)).with_state(Arc::clone(&counts))).await?;

    // Four fifths of what the upstream serves: what is sent evenly does not arrive evenly.
    let rate = TokenBucket::new(Quota::per_second(RATE * 4 / 5).burst(BURST / 2))?;
    let guard = Guard::builder(rate.and(Concurrency::new(10))).name("upstream").build()?;
    let proxy = Proxy { guard, client: reqwest::Client::new(), upstream };
    let front = serve(Router::new().route("/", get(pass_on)).with_state(proxy)).await?;

    println!("{CALLERS} callers at once; the upstream serves {RATE}/s");
    let client = reqwest::Client::new();
    let started_at = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (client, front) = (client.clone(), front.clone());
        callers.spawn(async move {
            let response = client.get(front).send().await?;
            let told = response.headers().contains_key("retry-after");
            Ok::<_, reqwest::Error>((response.status(), told))
        });
    }
    let (mut served, mut told) = (0, 0);
    while let Some(done) = callers.join_next().await {
        match done?? {
            (StatusCode::OK, _) => served += 1,
            (StatusCode::SERVICE_UNAVAILABLE, true) => told += 1,
            (status, _) => return Err(format!("a caller was answered {status}").into()),
        }
    }
    let counts = counts.lock().unwrap();
    println!("{served} served, {told} told when to come back, in {:.2?}", started_at.elapsed());
    println!("the upstream served {} and refused {}", counts.served, counts.refused);
    if counts.refused > 0 {
        return Err("the upstream was asked for more than it serves".into());
    }
    if served != counts.served || served + told != CALLERS || told == 0 {
        return Err("each caller is served once or told".into());
    }
    Ok(())
}

/// The proxy: waits for its turn, for as long as its caller would, and passes the call on.
async fn pass_on(State(proxy): State<Proxy>) -> Response {
    let mut permit = match proxy.guard.acquire(Ask::ONE.within(PATIENCE)).await {
        Ok(permit) => permit,
        Err(Error::Denied(denied)) => {
            let wait = denied.retry_after().unwrap_or(PATIENCE).as_secs_f64().ceil().max(1.0);
            let fields = [("retry-after", format!("{wait}"))];
            return (StatusCode::SERVICE_UNAVAILABLE, fields, denied.to_string()).into_response();
        }
        Err(Error::Fault(fault)) => return (StatusCode::BAD_GATEWAY, fault.to_string()).into_response(),
    };
    match proxy.client.get(&proxy.upstream).send().await {
        Ok(response) => {
            permit.observe(&response);
            let status = response.status();
            (status, response.text().await.unwrap_or_default()).into_response()
        }
        Err(error) => {
            // It never got there.
            permit.refund();
            (StatusCode::BAD_GATEWAY, error.to_string()).into_response()
        }
    }
}

/// The upstream's own limit.
struct Counts {
    level: f64,
    at: Instant,
    served: usize,
    refused: usize,
}

async fn answer(State(counts): State<Arc<Mutex<Counts>>>) -> Response {
    let served = {
        let mut counts = counts.lock().unwrap();
        let passed = counts.at.elapsed().as_secs_f64();
        counts.at = Instant::now();
        counts.level = (counts.level + passed * RATE as f64).min(BURST as f64);
        let served = counts.level >= 1.0;
        if served {
            counts.level -= 1.0;
            counts.served += 1;
        } else {
            counts.refused += 1;
        }
        served
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    if served { "hello".into_response() } else { StatusCode::TOO_MANY_REQUESTS.into_response() }
}

async fn serve(app: Router) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}
