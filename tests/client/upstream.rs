//! A simulated upstream: an axum service with a strict limiter and headers of its own, served by hyper over connections in
//! memory, so that paused tokio time drives both ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::time::{Instant, sleep};
use tollgate::Clock;

/// One way.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
/// More breaches than this within a minute, and the caller is banned.
const BREACHES: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);
const BAN: Duration = Duration::from_secs(600);

/// What the upstream allows. Its own arithmetic: it shares nothing with the crate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Law {
    Fixed { limit: u64, window: Duration },
    Bucket { per_second: f64, burst: f64 },
}

/// How it tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Draft10,
    Epoch,
    GitHub,
    OpenAi,
    Discord,
    Shopify,
    /// `Retry-After` and nothing else.
    Bare,
    /// Nothing at all.
    Silent,
}

struct Verdict {
    admitted: bool,
    limit: u64,
    remaining: u64,
    /// Until all is there again.
    reset: Duration,
    /// Until one more would be admitted.
    wait: Duration,
}

impl Law {
    /// Served in a second at most, in the long run.
    pub(crate) fn per_second(self) -> f64 {
        match self {
            Self::Fixed { limit, window } => limit as f64 / window.as_secs_f64(),
            Self::Bucket { per_second, .. } => per_second,
        }
    }
}

pub(crate) struct Server {
    law: Law,
    style: Style,
    started_at: Instant,
    /// Of the fixed window: its number and what was admitted in it.
    window: (u128, u64),
    /// Of the bucket: what is in it, and when that was.
    level: (f64, Duration),
    breaches: VecDeque<Duration>,
    banned_until: Duration,
    pub(crate) served: Vec<Duration>,
    pub(crate) throttled: u64,
    pub(crate) bans: u64,
}

pub(crate) type Upstream = Arc<Mutex<Server>>;

pub(crate) fn upstream(law: Law, style: Style) -> Upstream {
    let level = if let Law::Bucket { burst, .. } = law { burst } else { 0.0 };
    Arc::new(Mutex::new(Server {
        law,
        style,
        started_at: Instant::now(),
        window: (0, 0),
        level: (level, Duration::ZERO),
        breaches: VecDeque::new(),
        banned_until: Duration::ZERO,
        served: Vec::new(),
        throttled: 0,
        bans: 0,
    }))
}

impl Server {
    pub(crate) fn now(&self) -> Duration {
        self.started_at.elapsed()
    }

    fn decide(&mut self) -> Verdict {
        let now = self.now();
        match self.law {
            Law::Fixed { limit, window } => {
                let number = now.as_nanos() / window.as_nanos();
                if self.window.0 != number {
                    self.window = (number, 0);
                }
                let admitted = self.window.1 < limit;
                self.window.1 += u64::from(admitted);
                let end = Duration::from_nanos(((number + 1) * window.as_nanos()) as u64);
                let remaining = limit - self.window.1;
                Verdict { admitted, limit, remaining, reset: end - now, wait: end - now }
            }
            Law::Bucket { per_second, burst } => {
                let (level, at) = self.level;
                // A millionth of a unit: this arithmetic is not exact.
                let mut level = (level + (now - at).as_secs_f64() * per_second).min(burst) + 1e-6;
                let admitted = level >= 1.0;
                if admitted {
                    level -= 1.0;
                }
                self.level = (level, now);
                let secs = |units: f64| Duration::from_secs_f64(units.max(0.0) / per_second);
                let (reset, wait) = (secs(burst - level), secs(1.0 - level));
                Verdict { admitted, limit: burst as u64, remaining: level as u64, reset, wait }
            }
        }
    }

    fn answer(&mut self) -> Response {
        let now = self.now();
        if now < self.banned_until {
            return StatusCode::FORBIDDEN.into_response();
        }
        let verdict = self.decide();
        if verdict.admitted {
            self.served.push(now);
        } else {
            self.throttled += 1;
            self.breaches.push_back(now);
            while self.breaches.front().is_some_and(|at| now - *at > MINUTE) {
                self.breaches.pop_front();
            }
            if self.breaches.len() > BREACHES {
                self.bans += 1;
                self.banned_until = now + BAN;
                self.breaches.clear();
            }
        }
        let status = match (verdict.admitted, self.style) {
            (true, _) => StatusCode::OK,
            (false, Style::GitHub) => StatusCode::FORBIDDEN,
            (false, _) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut response = status.into_response();
        for (name, value) in self.style.fields(&verdict) {
            response.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        response
    }
}

/// Whole seconds, rounded up.
fn seconds(span: Duration) -> u64 {
    span.as_nanos().div_ceil(1_000_000_000) as u64
}

impl Style {
    fn fields(self, verdict: &Verdict) -> Vec<(&'static str, String)> {
        let Verdict { admitted, limit, remaining, reset, wait } = *verdict;
        // The calendar's time on the clock that the guard reads too.
        let unix = tollgate::SystemClock::default().unix_now();
        let mut fields = match self {
            Self::Draft10 => vec![
                ("ratelimit-policy", format!("\"default\";q={limit};w={}", seconds(reset).max(1))),
                ("ratelimit", format!("\"default\";r={remaining};t={}", seconds(reset))),
            ],
            Self::Epoch | Self::GitHub => vec![
                ("x-ratelimit-limit", limit.to_string()),
                ("x-ratelimit-remaining", remaining.to_string()),
                ("x-ratelimit-reset", seconds(unix + reset).to_string()),
            ],
            Self::OpenAi => vec![
                ("x-ratelimit-limit-requests", limit.to_string()),
                ("x-ratelimit-remaining-requests", remaining.to_string()),
                ("x-ratelimit-reset-requests", format!("{}ms", reset.as_millis() + 1)),
                ("x-ratelimit-limit-tokens", "1000000".to_owned()),
                ("x-ratelimit-remaining-tokens", "990000".to_owned()),
                ("x-ratelimit-reset-tokens", "600ms".to_owned()),
            ],
            Self::Discord => vec![
                ("x-ratelimit-limit", limit.to_string()),
                ("x-ratelimit-remaining", remaining.to_string()),
                ("x-ratelimit-reset-after", format!("{:.3}", reset.as_secs_f64() + 0.0005)),
                ("x-ratelimit-bucket", "abcd1234".to_owned()),
            ],
            Self::Shopify => {
                vec![("x-shopify-shop-api-call-limit", format!("{}/{limit}", limit - remaining))]
            }
            Self::Bare | Self::Silent => Vec::new(),
        };
        if !admitted {
            match self {
                Self::Draft10 | Self::Discord | Self::Bare | Self::Epoch => {
                    fields.push(("retry-after", seconds(wait).to_string()));
                }
                Self::OpenAi => fields.push(("retry-after-ms", (wait.as_millis() + 1).to_string())),
                Self::Shopify => fields.push(("retry-after", "2.0".to_owned())),
                Self::GitHub | Self::Silent => {}
            }
        }
        fields
    }
}

pub(crate) fn router(upstream: &Upstream) -> Router {
    async fn handle(State(upstream): State<Upstream>) -> Response {
        sleep(LATENCY).await;
        let answer = upstream.lock().unwrap().answer();
        sleep(LATENCY).await;
        answer
    }
    Router::new().fallback(handle).with_state(Arc::clone(upstream))
}

/// A connection to an upstream, in memory.
pub(crate) struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    pub(crate) async fn connect(upstream: &Upstream) -> Self {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let service = TowerToHyperService::new(router(upstream));
        tokio::spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            // Its date would be the real one.
            let served = server.auto_date_header(false).serve_connection(TokioIo::new(far), service);
            // It breaks when the run is over.
            let _ = served.await;
        });
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(near)).await.expect("a connection in memory");
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn get(&mut self) -> http::Response<Incoming> {
        self.0.ready().await.expect("a connection in memory");
        let request = http::Request::get("/").header("host", "upstream").body(Empty::new()).unwrap();
        self.0.send_request(request).await.expect("a connection in memory")
    }
}
