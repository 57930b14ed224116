//! The guard around real clients that call real servers: hyper-util's client, tonic's channels, reqwest, alone and under
//! its middleware. The guard's clock is moved by hand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tollgate::client::{Guard, GuardLayer, GuardService, Guards, Origin};
use tollgate::{Ask, Concurrency, Denied, LimitError, ManualClock, Quota, Reason, SlidingWindow};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, Service, ServiceExt};

/// What an upstream is to answer: head, body, trailers.
#[derive(Clone, Default)]
struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn new(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, line)| (*name, (*line).to_owned())).collect();
        Self { status: StatusCode::from_u16(status).unwrap(), headers, ..Self::default() }
    }

    fn throttle(seconds: u64) -> Self {
        Self::new(429, &[("retry-after", &seconds.to_string())])
    }
}

type Frames = futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

impl From<Answer> for Response<StreamBody<Frames>> {
    fn from(answer: Answer) -> Self {
        let data = Some(answer.body).filter(|body| !body.is_empty());
        let data = data.map(|body| Frame::data(Bytes::from_static(body.as_bytes())));
        let frames = data.into_iter().chain(answer.trailers.map(Frame::trailers)).map(Ok);
        let body = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
        let mut response = Response::builder().status(answer.status);
        for (name, line) in answer.headers {
            response = response.header(name, line);
        }
        response.body(body).unwrap()
    }
}

/// A server that answers as it was told, and says hello once it has been told nothing more.
#[derive(Clone)]
struct Upstream {
    address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self { address, answers: Arc::default(), calls: Arc::default() };
        let own = upstream.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let own = own.clone();
                tokio::spawn(async move {
                    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let answer = own.answer(request.uri().path());
                        async move { Ok::<_, Infallible>(Response::from(answer)) }
                    });
                    // A client that goes away is no matter of these tests.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        upstream
    }

    fn answer(&self, path: &str) -> Answer {
        self.calls.lock().unwrap().push(path.to_owned());
        let told = self.answers.lock().unwrap().pop_front();
        told.unwrap_or(Answer { body: "hello", ..Answer::default() })
    }

    fn tell(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// A call beside the guard: what other calls have on the way arrives before its answer is back.
    async fn round_trip(&self) {
        let calls = self.calls();
        reqwest::get(self.url("/beside")).await.unwrap();
        assert_eq!(self.calls(), calls + 1, "something else was sent");
        self.calls.lock().unwrap().pop();
    }
}

type Hyper = Client<HttpConnector, String>;

fn hyper_client() -> Hyper {
    Client::builder(TokioExecutor::new()).build_http()
}

fn get(url: &str) -> Request<String> {
    Request::get(url).body(String::new()).unwrap()
}

fn many(clock: &ManualClock) -> SlidingWindow<ManualClock> {
    SlidingWindow::builder(Quota::per_second(1000)).clock(clock.clone()).build().unwrap()
}

fn guard(clock: &ManualClock) -> Guard<SlidingWindow<ManualClock>, ManualClock> {
    Guard::builder(many(clock)).clock(clock.clone()).build().unwrap()
}

fn by_origin(clock: &ManualClock) -> Guards<Origin, SlidingWindow<ManualClock>, ManualClock> {
    let clock = clock.clone();
    Guards::new(move |_: &Origin| guard(&clock))
}

const SEVEN: Duration = Duration::from_secs(7);

/// That `call` is held for seven seconds at least, and then goes.
async fn goes_after_seven_seconds<F: Future>(
    mut call: Pin<&mut F>,
    upstream: &Upstream,
    clock: &ManualClock,
) -> F::Output {
    assert!(call.as_mut().now_or_never().is_none(), "it is held");
    clock.advance(SEVEN - Duration::from_nanos(1));
    assert!(call.as_mut().now_or_never().is_none(), "it is held to the end");
    upstream.round_trip().await;
    assert!(call.as_mut().now_or_never().is_none());
    // What jitter adds is less than that again.
    clock.advance(SEVEN + Duration::from_nanos(1));
    call.await
}

#[tokio::test]
async fn a_throttle_holds_all_who_share_the_guard() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let layer = GuardLayer::new(guard(&clock));
    let (one, other) = (layer.layer(hyper_client()), layer.clone().layer(hyper_client()));
    upstream.tell(Answer::throttle(7));
    let throttled = one.clone().oneshot(get(&upstream.url("/"))).await.unwrap();
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    let call = pin!(other.oneshot(get(&upstream.url("/after"))));
    let answer = goes_after_seven_seconds(call, &upstream, &clock).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(*upstream.calls.lock().unwrap(), ["/", "/after"]);
}

#[tokio::test]
async fn a_wait_above_the_ceiling_is_an_error_that_tells_it() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let client = GuardLayer::new(guard(&clock)).layer(hyper_client());
    upstream.tell(Answer::throttle(3600));
    client.clone().oneshot(get(&upstream.url("/"))).await.unwrap();
    let refused = client.oneshot(get(&upstream.url("/"))).await.unwrap_err();
    let LimitError::Denied(denied) = refused else { panic!("{refused:?}") };
    assert_eq!(denied.reason(), Reason::AskedTooLong);
    assert!(denied.retry_after().unwrap() >= Duration::from_secs(3600), "{denied:?}");
    assert_eq!(upstream.calls(), 1);
}

/// A limit of one call in progress.
fn one_at_a_time(clock: &ManualClock) -> GuardService<Hyper, Guard<Concurrency<ManualClock>, ManualClock>> {
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    GuardLayer::new(Guard::builder(slots).clock(clock.clone()).build().unwrap()).layer(hyper_client())
}

#[tokio::test]
async fn the_permit_is_held_until_the_body_has_ended_or_is_dropped() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let client = one_at_a_time(&clock);
    let call = || Box::pin(client.clone().oneshot(get(&upstream.url("/"))));
    let first = call().await.unwrap();
    let mut second = call();
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "hello");
    let second = second.await.unwrap();
    let mut third = call();
    assert!(third.as_mut().now_or_never().is_none());
    drop(second);
    third.await.unwrap();
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn a_call_dropped_in_line_or_on_the_way_leaves_nothing_behind() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let client = one_at_a_time(&clock);
    let call = || Box::pin(client.clone().oneshot(get(&upstream.url("/"))));
    for _ in 0..100 {
        // On the way: it has its permit, and no answer.
        let mut on_the_way = call();
        assert!(on_the_way.as_mut().now_or_never().is_none());
        let mut in_line = call();
        assert!(in_line.as_mut().now_or_never().is_none());
        drop(in_line);
        drop(on_the_way);
        // Never polled.
        drop(call());
    }
    let mut ready = client.clone();
    ready.ready().await.unwrap();
    drop(ready);
    let answer = call().await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn a_client_that_fails_gives_its_slot_back() {
    let clock = ManualClock::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = one_at_a_time(&clock);
    for _ in 0..3 {
        let failed = client.clone().oneshot(get(&format!("http://{nobody}/"))).await.unwrap_err();
        assert!(matches!(failed, LimitError::Service(_)), "{failed:?}");
    }
}

#[tokio::test]
async fn a_request_may_say_what_it_asks() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let limit = SlidingWindow::builder(Quota::per_second(10)).clock(clock.clone()).build().unwrap();
    let guard = Guard::builder(limit).clock(clock.clone()).build().unwrap();
    let mut client = GuardLayer::new(guard).ask(Ask::ONE.within(Duration::ZERO)).layer(hyper_client());
    let mut large = get(&upstream.url("/"));
    large.extensions_mut().insert(Ask::cost(9));
    client.ready().await.unwrap().call(large).await.unwrap();
    client.ready().await.unwrap().call(get(&upstream.url("/"))).await.unwrap();
    let refused = client.ready().await.unwrap().call(get(&upstream.url("/"))).await.unwrap_err();
    assert!(matches!(refused, LimitError::Denied(denied) if denied.reason() == Reason::Exhausted));
}

#[tokio::test]
async fn one_servers_word_does_not_slow_another_down() {
    let clock = ManualClock::new();
    let (slow, fast) = (Upstream::serve().await, Upstream::serve().await);
    let client = GuardLayer::new(by_origin(&clock)).layer(hyper_client());
    slow.tell(Answer::throttle(7));
    client.clone().oneshot(get(&slow.url("/"))).await.unwrap();
    client.clone().oneshot(get(&fast.url("/"))).await.unwrap();
    let call = pin!(client.oneshot(get(&slow.url("/"))));
    goes_after_seven_seconds(call, &slow, &clock).await.unwrap();
}

// gRPC.

type Health = HealthClient<GuardService<Channel, Guard<SlidingWindow<ManualClock>, ManualClock>>>;

async fn health_client(upstream: &Upstream, clock: &ManualClock) -> Health {
    let channel = Endpoint::from_shared(upstream.url("")).unwrap().connect().await.unwrap();
    HealthClient::new(GuardLayer::new(guard(clock)).layer(channel))
}

fn asked() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

/// The answer to a health check: `SERVING`.
fn serving() -> Answer {
    let trailers = [("grpc-status", "0")];
    Answer { body: "\0\0\0\0\x02\x08\x01", trailers: Some(fields(&trailers)), ..grpc() }
}

fn grpc() -> Answer {
    Answer::new(200, &[("content-type", "application/grpc")])
}

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, line)| (name.parse().unwrap(), line.parse().unwrap())).collect()
}

/// `google.rpc.Status` with a `RetryInfo` of so many seconds.
fn retry_info(seconds: u8) -> String {
    let kind = b"type.googleapis.com/google.rpc.RetryInfo";
    let info = [0x0a, 0x02, 0x08, seconds];
    let mut any = vec![0x0a, kind.len() as u8];
    any.extend_from_slice(kind);
    any.extend_from_slice(&[0x12, info.len() as u8]);
    any.extend_from_slice(&info);
    let mut status = vec![0x08, 0x08, 0x1a, any.len() as u8];
    status.extend_from_slice(&any);
    STANDARD_NO_PAD.encode(status)
}

async fn grpc_throttle_holds(answer: Answer) {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let mut client = health_client(&upstream, &clock).await;
    upstream.tell(serving());
    assert_eq!(client.check(asked()).await.unwrap().get_ref().status, 1);
    upstream.tell(answer);
    assert_eq!(client.check(asked()).await.unwrap_err().code(), Code::ResourceExhausted);
    let call = pin!(client.check(asked()));
    // Another call than this would take the answer.
    let mut call = call;
    assert!(call.as_mut().now_or_never().is_none());
    upstream.round_trip().await;
    upstream.tell(serving());
    assert!(call.as_mut().now_or_never().is_none());
    clock.advance(SEVEN - Duration::from_nanos(1));
    assert!(call.as_mut().now_or_never().is_none());
    clock.advance(SEVEN + Duration::from_nanos(1));
    assert_eq!(call.await.unwrap().get_ref().status, 1);
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn retry_info_in_trailers_holds_the_channel() {
    let trailers = fields(&[("grpc-status", "8"), ("grpc-status-details-bin", &retry_info(7))]);
    grpc_throttle_holds(Answer { trailers: Some(trailers), ..grpc() }).await;
}

#[tokio::test]
async fn a_pushback_behind_a_message_holds_the_channel() {
    let trailers = fields(&[("grpc-status", "8"), ("grpc-retry-pushback-ms", "7000")]);
    grpc_throttle_holds(Answer { trailers: Some(trailers), ..serving() }).await;
}

#[tokio::test]
async fn a_reply_of_trailers_only_holds_the_channel() {
    let mut answer = grpc();
    answer.headers.push(("grpc-status", "8".to_owned()));
    answer.headers.push(("grpc-status-details-bin", retry_info(7)));
    grpc_throttle_holds(answer).await;
}

// reqwest.

#[tokio::test]
async fn reqwest_is_held_and_its_responses_are_whole() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let (guard, client) = (guard(&clock), reqwest::Client::new());
    upstream.tell(Answer::throttle(7));
    let throttled = guard.send(client.get(upstream.url("/"))).await.unwrap();
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    let call = pin!(guard.send(client.get(upstream.url("/after?it"))));
    let answer = goes_after_seven_seconds(call, &upstream, &clock).await.unwrap();
    assert_eq!(answer.url().as_str(), upstream.url("/after?it"));
    assert_eq!(answer.remote_addr(), Some(upstream.address));
    assert_eq!(answer.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn what_reqwest_fails_at_is_its_own_error() {
    let (guard, client) = (guard(&ManualClock::new()), reqwest::Client::new());
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failed = guard.send(client.get(format!("http://{nobody}/"))).await.unwrap_err();
    assert!(matches!(failed, LimitError::Service(error) if error.is_connect()));
    let unbuildable = guard.send(client.get("no url")).await.unwrap_err();
    assert!(matches!(unbuildable, LimitError::Service(error) if error.is_builder()));
}

#[tokio::test]
async fn reqwest_holds_its_permit_until_the_body_has_ended() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let (guard, client) = (Guard::builder(slots).clock(clock).build().unwrap(), reqwest::Client::new());
    let first = guard.send(client.get(upstream.url("/"))).await.unwrap();
    let mut second = pin!(guard.send(client.get(upstream.url("/"))));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(first.bytes().await.unwrap(), "hello");
    second.await.unwrap();
}

/// The server that was asked only sent the client elsewhere.
#[tokio::test]
async fn behind_a_redirect_the_word_counts_for_who_said_it() {
    let clock = ManualClock::new();
    let (asked, other) = (Upstream::serve().await, Upstream::serve().await);
    let (guards, client) = (by_origin(&clock), reqwest::Client::new());
    asked.tell(Answer::new(302, &[("location", &other.url("/"))]));
    other.tell(Answer::throttle(7));
    let throttled = guards.send(client.get(asked.url("/"))).await.unwrap();
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttled.url().as_str(), other.url("/"));
    guards.send(client.get(asked.url("/"))).await.unwrap();
    let call = pin!(guards.send(client.get(other.url("/"))));
    goes_after_seven_seconds(call, &other, &clock).await.unwrap();
}

#[tokio::test]
async fn a_guard_is_middleware_of_reqwest() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).with(guard(&clock)).build();
    upstream.tell(Answer::throttle(7));
    assert_eq!(client.get(upstream.url("/")).send().await.unwrap().status(), 429);
    let call = pin!(client.get(upstream.url("/")).send());
    let answer = goes_after_seven_seconds(call, &upstream, &clock).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn a_refusal_in_the_middle_is_told_from_an_error() {
    let (clock, upstream) = (ManualClock::new(), Upstream::serve().await);
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).with(guard(&clock)).build();
    upstream.tell(Answer::throttle(3600));
    client.get(upstream.url("/")).send().await.unwrap();
    let refused = client.get(upstream.url("/")).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.downcast_ref::<Denied>().unwrap().reason(), Reason::AskedTooLong);
}

#[tokio::test]
async fn guards_of_origins_are_middleware_too() {
    let clock = ManualClock::new();
    let (slow, fast) = (Upstream::serve().await, Upstream::serve().await);
    let client =
        reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).with(by_origin(&clock)).build();
    slow.tell(Answer::throttle(7));
    client.get(slow.url("/")).send().await.unwrap();
    client.get(fast.url("/")).send().await.unwrap();
    let call = pin!(client.get(slow.url("/")).send());
    goes_after_seven_seconds(call, &slow, &clock).await.unwrap();
}
