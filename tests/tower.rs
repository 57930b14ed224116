//! The layer on services, and on a real axum server with real clients.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tollgate::{Concurrency, Error, LimitError, LimitLayer, LimiterExt, ManualClock, Quota, TokenBucket};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Answers with the request; panics when it is called without having been polled ready.
#[derive(Default)]
struct Careful {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

/// As a service with reserved capacity would: readiness is not copied.
impl Clone for Careful {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<u32> for Careful {
    type Response = u32;
    type Error = String;
    type Future = std::future::Ready<Result<u32, String>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        self.calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(if request == 13 { Err("unlucky".to_owned()) } else { Ok(request) })
    }
}

fn ten_a_second() -> TokenBucket {
    TokenBucket::builder(Quota::per_second(10).burst(1)).name("ten").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn waits_in_call_and_calls_the_service_that_was_ready() {
    let mut service = LimitLayer::new(ten_a_second()).layer(Careful::default());
    let start = tokio::time::Instant::now();
    let calls: Vec<_> =
        [service.ready().await.unwrap().call(1), service.ready().await.unwrap().call(2)].into();
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers, [Ok(1), Ok(2)]);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_response_dropped_in_line_is_never_called() {
    let service = Careful::default();
    let calls = Arc::clone(&service.calls);
    let bucket = ten_a_second();
    let mut service = LimitLayer::new(bucket.clone()).layer(service);
    service.ready().await.unwrap().call(1).await.unwrap();
    let waiting = service.ready().await.unwrap().call(2);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    assert_eq!((calls.load(Ordering::Relaxed), bucket.snapshot().waiting), (1, 0));
}

/// Planted: a decision in `call`.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_has_cost_nothing() {
    let service = Careful::default();
    let calls = Arc::clone(&service.calls);
    let bucket = ten_a_second();
    let mut service = LimitLayer::new(bucket.clone()).layer(service);
    drop(service.ready().await.unwrap().call(1));
    assert_eq!((calls.load(Ordering::Relaxed), bucket.snapshot().remaining), (0, 1));
}

/// Planted: the permit of the one kept when the other refuses.
#[tokio::test]
async fn two_limits_of_a_layer_are_spent_together_or_not_at_all() {
    let hourly = || TokenBucket::builder(Quota::per_hour(3)).clock(ManualClock::new()).build().unwrap();
    let (rate, other, slots) = (hourly(), hourly(), Concurrency::new(1));
    other.charge(2);
    let layer = LimitLayer::new(rate.clone().and(slots.clone()).and(other.clone()));
    let left = || [&rate, &other].map(|limit| limit.snapshot().remaining);
    let mut sheds = layer.shed().layer(Careful::default());
    let response = sheds.ready().await.unwrap().call(1);
    assert_eq!((left(), slots.snapshot().remaining), ([2, 0], 0), "the slot is held with the response");
    let refused = sheds.ready().await.unwrap().call(1).await;
    assert!(matches!(refused, Err(LimitError::Denied(_))));
    drop(response);
    let refused = sheds.ready().await.unwrap().call(1).await;
    let Err(LimitError::Denied(denied)) = refused else { panic!("the other is spent") };
    assert!(denied.retry_after().is_some());
    assert_eq!((left(), slots.snapshot().remaining), ([2, 0], 1));
}

#[tokio::test]
async fn sheds_and_keeps_the_errors_apart() {
    let mut service = LimitLayer::new(ten_a_second()).shed().layer(Careful::default());
    let failed = service.ready().await.unwrap().call(13).await;
    assert_eq!(failed, Err(LimitError::Service("unlucky".to_owned())));
    let Err(LimitError::Denied(denied)) = service.ready().await.unwrap().call(1).await else {
        panic!("the second within a tenth of a second is refused");
    };
    assert_eq!(denied.limit().unwrap().as_str(), "ten");
    assert!(denied.retry_after().unwrap() <= Duration::from_millis(100));
}

#[tokio::test]
async fn answers_with_a_response_and_the_error_type_stays() {
    let layer = LimitLayer::new(ten_a_second()).shed().answer(|_: Error| 0);
    let mut service = layer.layer(Careful::default());
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok::<u32, String>(7));
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn backpressure_waits_in_poll_ready_and_refunds_unused_readiness() {
    let bucket = ten_a_second();
    let layer = LimitLayer::new(bucket.clone()).backpressure();
    let mut service = layer.layer(Careful::default());
    service.ready().await.unwrap();
    assert_eq!(bucket.snapshot().remaining, 0, "a ready service holds a permit");
    let mut clone = service.clone();
    assert!(
        futures::poll!(std::pin::pin!(clone.ready())).is_pending(),
        "a clone has no permit of its own yet"
    );
    drop(clone);
    assert_eq!(service.call(1).await, Ok(1));
    let start = tokio::time::Instant::now();
    service.ready().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    drop(service);
    assert_eq!(bucket.snapshot().remaining, 1, "readiness that was not used is refunded");
}

#[tokio::test]
async fn clones_and_layers_again_share_the_limit() {
    let layer = LimitLayer::new(ten_a_second()).shed();
    let mut one = layer.clone().layer(Careful::default());
    let mut other = layer.layer(Careful::default()).clone();
    assert!(one.ready().await.unwrap().call(1).await.is_ok());
    assert!(other.ready().await.unwrap().call(1).await.is_err());
}

#[tokio::test]
async fn limits_by_key_of_the_request() {
    let per_sender = ten_a_second().keyed().by(|request: &u32| request % 2);
    let echo = service_fn(|request: u32| async move { Ok::<_, Infallible>(request) });
    let mut service = LimitLayer::new(per_sender).shed().layer(echo);
    assert!(service.ready().await.unwrap().call(1).await.is_ok());
    assert!(service.ready().await.unwrap().call(2).await.is_ok());
    assert!(service.ready().await.unwrap().call(3).await.is_err());
}

#[tokio::test]
async fn a_permit_is_held_for_as_long_as_the_response_is() {
    let slots = Concurrency::new(1);
    let never = service_fn(|(): ()| std::future::pending::<Result<(), Infallible>>());
    let mut service = LimitLayer::new(slots.clone()).shed().layer(never);
    let response = service.ready().await.unwrap().call(());
    assert_eq!(slots.snapshot().remaining, 0);
    drop(response);
    assert_eq!(slots.snapshot().remaining, 1);
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn too_many(_: Error) -> axum::response::Response {
    StatusCode::TOO_MANY_REQUESTS.into_response()
}

/// The regression peers fail: a framework that layers each route and clones each connection's service must not end up
/// with a limit for each of them. In real time, because it is a real server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_layer_on_two_routes_is_one_limit_over_1500_requests() {
    let limit = TokenBucket::new(Quota::per_second(5)).unwrap();
    let hello = || async { "hello" };
    let layer = LimitLayer::new(limit).shed().answer(too_many);
    let app = Router::new().route("/a", get(hello)).route("/b", get(hello)).layer(layer);
    let url = serve(app).await;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..30 {
        let url = url.clone();
        tasks.spawn(async move {
            // A client of its own: connections of its own.
            let client = reqwest::Client::new();
            let one = |n: usize| client.get(format!("{url}/{}", if n % 2 == 0 { "a" } else { "b" })).send();
            let all = futures::future::join_all((0..50).map(|n| one(n + task))).await;
            all.into_iter().filter(|answer| answer.as_ref().unwrap().status() == StatusCode::OK).count()
        });
    }
    let admitted: usize = tasks.join_all().await.into_iter().sum();
    let most = 5 + (5.0 * start.elapsed().as_secs_f64()) as usize;
    println!(
        "1,500 requests over 30 clients and two routes against 5 a second: {admitted} admitted, at most {most}"
    );
    assert!((5..=most).contains(&admitted), "{admitted} of 1500 were admitted where 5 to {most} may be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrency_limit_is_one_limit_over_30_connections() {
    let (inside, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (inside, peak) = (Arc::clone(&inside), Arc::clone(&peak));
        move || {
            let (inside, peak) = (Arc::clone(&inside), Arc::clone(&peak));
            async move {
                peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                "done"
            }
        }
    };
    let layer = LimitLayer::new(Concurrency::new(5)).answer(too_many);
    let url = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let url = url.clone();
        tasks.spawn(async move {
            let client = reqwest::Client::new();
            for _ in 0..10 {
                assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK);
            }
        });
    }
    tasks.join_all().await;
    let peak = peak.load(Ordering::SeqCst);
    println!("300 requests over 30 connections against 5 in flight: peak {peak}");
    assert!((1..=5).contains(&peak), "peak {peak}");
}

/// The permit of each mode is gone as soon as the response is there, whatever becomes of the future.
#[tokio::test(start_paused = true)]
async fn a_permit_is_free_when_the_response_is_ready() {
    let slots = Concurrency::new(1);
    async fn answers<S: Service<u32, Response = u32>>(mut service: S, slots: &Concurrency)
    where
        S::Error: std::fmt::Debug,
    {
        for request in [7, 13] {
            let mut response = std::pin::pin!(service.ready().await.unwrap().call(request));
            let answer = response.as_mut().await;
            assert_eq!(answer.is_ok(), request == 7);
            assert!(slots.try_acquire(1).is_ok(), "the future is still there, and holds nothing");
        }
    }
    answers(LimitLayer::new(slots.clone()).layer(Careful::default()), &slots).await;
    answers(LimitLayer::new(slots.clone()).shed().layer(Careful::default()), &slots).await;
    answers(LimitLayer::new(slots.clone()).backpressure().layer(Careful::default()), &slots).await;
}

/// What an inner service reserves when it is ready is not held while a request waits here.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_holds_no_reservation_of_the_service_within() {
    use tower::limit::GlobalConcurrencyLimitLayer;
    let per_key = TokenBucket::new(Quota::per_minute(1).burst(1)).unwrap().keyed::<u32>();
    let inner = GlobalConcurrencyLimitLayer::new(1).layer(Careful::default());
    let service = LimitLayer::new(per_key).layer(inner);
    let send = |request: u32| {
        let service = service.clone();
        async move { service.oneshot(request).await }
    };
    assert_eq!(send(1).await.unwrap(), 1);
    let start = tokio::time::Instant::now();
    let waits = tokio::spawn(send(1));
    tokio::task::yield_now().await;
    assert_eq!(send(2).await.unwrap(), 2);
    assert_eq!(start.elapsed(), Duration::ZERO, "another key's request is not held up");
    assert_eq!(waits.await.unwrap().unwrap(), 1);
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}

/// A service that is not there any more when the wait is over did no work.
#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_get_ready_after_the_wait_costs_nothing() {
    #[derive(Clone)]
    struct Once(bool);
    impl Service<u32> for Once {
        type Response = u32;
        type Error = &'static str;
        type Future = std::future::Ready<Result<u32, &'static str>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(if std::mem::take(&mut self.0) { Ok(()) } else { Err("gone") })
        }

        fn call(&mut self, request: u32) -> Self::Future {
            std::future::ready(Ok(request))
        }
    }
    let bucket = TokenBucket::new(Quota::per_second(1).burst(1)).unwrap();
    bucket.check(1).unwrap();
    let mut service = LimitLayer::new(bucket.clone()).layer(Once(true));
    let answer = service.ready().await.unwrap().call(7).await;
    assert_eq!(answer, Err(LimitError::Service("gone")));
    assert_eq!(bucket.snapshot().remaining, 1, "refunded");
}

/// A connection that was refused holds nothing while it is idle.
#[tokio::test(start_paused = true)]
async fn a_shed_connection_holds_no_slot_while_it_is_idle() {
    let slots = Concurrency::new(1);
    let mut service = LimitLayer::new(slots.clone()).shed().layer(Careful::default());
    let held = slots.try_acquire(1).unwrap();
    assert!(service.ready().await.unwrap().call(7).await.is_err());
    drop(held);
    assert_eq!(slots.snapshot().remaining, 1);
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(7));
}
