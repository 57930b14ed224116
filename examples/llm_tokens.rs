//! Calls to a language model under a budget of requests and tokens a minute, reserved before and settled after.
//!
//! `cargo run --features reqwest,axum --example llm_tokens`
//!
//! The model is a server on this machine that counts as large providers do: so many requests and so many tokens, whichever
//! runs out first, and 429 beyond. Its minute is a second long, so that the run is short.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tollgate::Quota;
use tollgate::client::{Guard, Usage};

const REQUESTS: u64 = 60;
const TOKENS: u64 = 12_000;
const MINUTE: Duration = Duration::from_secs(1);
const PROMPTS: usize = 120;
const TASKS: usize = 12;
/// What each call may write at most, and what it does write.
const MAX_OUTPUT: u64 = 1_000;
const WRITTEN: std::ops::Range<u64> = 60..100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Arc::new(Mutex::new(Model::new()));
    let app = Router::new().route("/v1/chat", post(chat)).with_state(Arc::clone(&model));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    // A little less than the model allows: what is sent evenly does not arrive evenly.
    let guard = Guard::learning_builder()
        .name("model")
        .without_slow_start()
        .requests(Quota::per(REQUESTS * 9 / 10, MINUTE).burst(REQUESTS / 2))
        .tokens(Quota::per(TOKENS * 9 / 10, MINUTE).burst(TOKENS / 2))
        .build()?;
    let client = reqwest::Client::new();
    let prompts = Arc::new(Mutex::new((0..PROMPTS).map(|n| 40 + n as u64 % 30)));
    println!(
        "{PROMPTS} prompts, {TASKS} tasks; the model takes {REQUESTS} requests and {TOKENS} tokens a period"
    );

    let reserved_first = guard.estimate(Usage::tokens(50, MAX_OUTPUT));
    let started_at = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (guard, client, url, prompts) =
            (guard.clone(), client.clone(), url.clone(), Arc::clone(&prompts));
        tasks.spawn(async move {
            let mut used = 0;
            loop {
                let next = prompts.lock().unwrap().next();
                let Some(input) = next else {
                    return Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(used);
                };
                // Waits until the request and its tokens may go, all of them together.
                let mut permit = guard.reserve(Usage::tokens(input, MAX_OUTPUT)).await?;
                let body = json!({ "input": input, "max_output": MAX_OUTPUT }).to_string();
                let response = client.post(&url).body(body).send().await?;
                permit.observe(&response);
                if response.status() != 200 {
                    return Err(format!("the model answered {}", response.status()).into());
                }
                let answer: Value = serde_json::from_str(&response.text().await?)?;
                let tokens = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
                let usage = Usage::tokens(tokens("input_tokens"), tokens("output_tokens"));
                used += usage.total_tokens();
                permit.settle_usage(usage);
            }
        });
    }
    let mut used = 0;
    while let Some(done) = tasks.join_next().await {
        used += done?.map_err(|error| error.to_string())?;
    }
    let elapsed = started_at.elapsed();

    let reserved_last = guard.estimate(Usage::tokens(50, MAX_OUTPUT));
    let throttled = model.lock().unwrap().throttled;
    println!("{used} tokens in {elapsed:.2?}, {throttled} calls throttled");
    println!(
        "reserved for a call that may write {MAX_OUTPUT}: {} at first, {} once calls were seen to write less",
        reserved_first.output_tokens, reserved_last.output_tokens
    );
    // The promises of this page.
    if throttled > 0 {
        return Err("a call was throttled that had been waited for".into());
    }
    let most = TOKENS / 2 + (TOKENS as f64 * 0.9 * elapsed.as_secs_f64()) as u64;
    // Reservations in flight may settle above their estimate.
    if used > most + TASKS as u64 * MAX_OUTPUT {
        return Err(format!("{used} tokens were used where {most} were allowed").into());
    }
    if !(WRITTEN.start..WRITTEN.end).contains(&reserved_last.output_tokens) {
        return Err("the estimate has not learnt what calls write".into());
    }
    Ok(())
}

/// The model's own limits: two buckets, full at the start.
struct Model {
    requests: f64,
    tokens: f64,
    at: Instant,
    calls: u64,
    throttled: u64,
}

impl Model {
    fn new() -> Self {
        Self { requests: REQUESTS as f64, tokens: TOKENS as f64, at: Instant::now(), calls: 0, throttled: 0 }
    }

    fn answer(&mut self, input: u64) -> Response {
        let passed = self.at.elapsed().as_secs_f64() / MINUTE.as_secs_f64();
        self.at = Instant::now();
        self.requests = (self.requests + passed * REQUESTS as f64).min(REQUESTS as f64);
        self.tokens = (self.tokens + passed * TOKENS as f64).min(TOKENS as f64);
        self.calls += 1;
        let output = WRITTEN.start + self.calls * 7 % (WRITTEN.end - WRITTEN.start);
        let total = (input + output) as f64;
        if self.requests < 1.0 || self.tokens < total {
            self.throttled += 1;
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "100")]).into_response();
        }
        self.requests -= 1.0;
        self.tokens -= total;
        let fields = [
            ("x-ratelimit-limit-requests", REQUESTS.to_string()),
            ("x-ratelimit-remaining-requests", (self.requests as u64).to_string()),
            ("x-ratelimit-reset-requests", "1s".to_owned()),
            ("x-ratelimit-limit-tokens", TOKENS.to_string()),
            ("x-ratelimit-remaining-tokens", (self.tokens as u64).to_string()),
            ("x-ratelimit-reset-tokens", "1s".to_owned()),
        ];
        (fields, Json(json!({ "usage": { "input_tokens": input, "output_tokens": output } }))).into_response()
    }
}

async fn chat(State(model): State<Arc<Mutex<Model>>>, body: String) -> Response {
    let asked: Value = serde_json::from_str(&body).unwrap_or_default();
    // A model takes its time.
    tokio::time::sleep(Duration::from_millis(20)).await;
    model.lock().unwrap().answer(asked["input"].as_u64().unwrap_or(0))
}
