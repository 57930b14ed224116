//! What the HTTP layer tells where layers, hooks, overflows and full lines meet: each was wrong once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::edge::*;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use axum::routing::get;
use hyper::body::Bytes;
use tollgate::clock::ManualTimer;
use tollgate::http::{Existing, FieldFormat, Header};
use tollgate::{
    Clock, Concurrency, LimitLayer, LimiterExt, ManualClock, Order, Queue, Quota, Timestamp, TokenBucket,
};

#[tokio::test]
async fn fields_of_the_handler_survive_two_layers() {
    for existing in [Existing::Append, Existing::Keep] {
        let own = [("ratelimit", "\"own\";r=1"), ("ratelimit-policy", "\"own\";q=1")];
        let layer =
            |name| LimitLayer::http(bucket(name, Quota::per_hour(2), &ManualClock::new())).existing(existing);
        let handler = get(async move || (axum::response::AppendHeaders(own), "hello"));
        let app = Router::new().route("/", handler).layer(layer("inner")).layer(layer("outer"));
        let answer = call(&app, request("/")).await;
        let text = answer.lines("ratelimit").join(", ");
        assert!(text.contains("own"), "{existing:?}: {text}");
    }
}

#[tokio::test]
async fn who_shares_the_overflow_is_told_of_the_overflow() {
    let clock = ManualClock::new();
    let overflow = bucket("overflow", Quota::per_hour(1), &clock);
    let per_user = TokenBucket::builder(Quota::per_hour(100)).name("user").clock(clock.clone());
    let per_user = per_user.keyed().max_keys(1).overflow(overflow).build().unwrap();
    let app = hello(LimitLayer::http(per_user.by(Header::named("x-user".parse().unwrap()))));
    for user in ["ann", "bob", "eve"] {
        call(&app, from_user(user)).await;
    }
    let refused = call(&app, from_user("eve")).await;
    assert_eq!(refused.left(), [("overflow".to_owned(), 0)]);
}

#[tokio::test]
async fn one_waiter_too_many_is_told_when_to_come_back() {
    let clock = ManualClock::new();
    let limit = bucket("api", Quota::per_hour(1), &clock);
    let app = hello(LimitLayer::http(limit.clone()).wait(hours(9)).max_waiting(0));
    assert!(call(&app, request("/")).await.status.is_success());
    let refused = call(&app, request("/")).await;
    assert_eq!(refused.retry_after(), Some(3_600));
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["api"]));
}

#[tokio::test]
async fn a_request_that_may_not_wait_evicts_nobody() {
    let clock = ManualClock::new();
    let limit = TokenBucket::builder(Quota::per_hour(1))
        .clock(clock.clone())
        .queue(Queue::new().limit(2).order(Order::NewestFirst))
        .build()
        .unwrap();
    let app = hello(LimitLayer::http(limit.clone()).wait(hours(9)).max_waiting(2));
    assert!(call(&app, request("/")).await.status.is_success());
    let ask = || {
        let app = app.clone();
        tokio::spawn(async move { call(&app, request("/")).await.status })
    };
    let waiting = [ask(), ask()];
    tokio::task::yield_now().await;
    assert_eq!(limit.snapshot().waiting, 2);
    for late in [ask(), ask()] {
        assert!(late.await.unwrap().is_client_error());
    }
    assert_eq!(limit.snapshot().waiting, 2, "four asked, two may wait");
    drop(waiting);
}

#[tokio::test]
async fn fields_that_the_hook_has_set_stay_alone() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
    let app = hello(LimitLayer::http(limit).answer(|_| {
        let mut response = Response::new(Bytes::new());
        response.headers_mut().insert("ratelimit", "\"own\";r=0".parse().unwrap());
        response.headers_mut().insert("ratelimit-policy", "\"own\";q=1".parse().unwrap());
        response
    }));
    assert!(call(&app, request("/")).await.status.is_success());
    let refused = call(&app, request("/")).await;
    assert_eq!(refused.lines("ratelimit"), ["\"own\";r=0"]);
}

#[tokio::test]
async fn the_violated_policy_is_one_of_those_in_the_field() {
    let clock = ManualClock::new();
    let unnamed = TokenBucket::builder(Quota::per_hour(1)).clock(clock.clone()).build().unwrap();
    let app = hello(LimitLayer::http(unnamed));
    assert!(call(&app, request("/")).await.status.is_success());
    let refused = call(&app, request("/")).await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["default"]));

    let one = bucket("api", Quota::per_hour(5), &clock);
    let other = bucket("api", Quota::per_hour(1), &clock);
    let app = hello(LimitLayer::http(one.and(other)));
    assert!(call(&app, request("/")).await.status.is_success());
    let refused = call(&app, request("/")).await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["api-2"]));
}

#[tokio::test]
async fn of_two_windows_that_are_both_spent_the_one_that_binds_is_told_to_come_back_late() {
    let clock = ManualClock::new();
    let both =
        TokenBucket::all([Quota::per_second(2), Quota::per_hour(2)]).clock(clock.clone()).build().unwrap();
    let app = hello(LimitLayer::http(both));
    for _ in 0..2 {
        assert!(call(&app, request("/")).await.status.is_success());
    }
    let refused = call(&app, request("/")).await;
    let resets: Vec<_> = refused.limits().iter().map(|item| item.integers["t"]).collect();
    assert!(resets[0] <= 1, "a second brings both of 2/s back: {resets:?}");
}

#[tokio::test]
async fn layers_with_two_formats_tell_in_both_and_repeat_nothing() {
    let clock = ManualClock::new();
    let inner = LimitLayer::http(bucket("inner", Quota::per_hour(5), &clock));
    let outer = LimitLayer::http(bucket("outer", Quota::per_hour(9), &clock)).fields(FieldFormat::XEpoch);
    let own = [("ratelimit", "\"own\";r=1"), ("ratelimit-policy", "\"own\";q=1")];
    let handler = get(async move || (axum::response::AppendHeaders(own), "hello"));
    let app = Router::new().route("/", handler).layer(inner).layer(outer);
    let answer = call(&app, request("/")).await;
    assert_eq!(answer.lines("ratelimit"), ["\"own\";r=1", "\"inner\";r=4;t=720"]);
    assert_eq!(answer.lines("x-ratelimit-limit"), ["5"], "the one that binds");
    assert_eq!(answer.lines("x-ratelimit-remaining"), ["4"]);
}

#[tokio::test]
async fn who_lacks_a_key_has_violated_no_policy() {
    let per_user = bucket("user", Quota::per_hour(1), &ManualClock::new()).keyed();
    let limit = per_user.by(Header::named("x-user".parse().unwrap())).and(Concurrency::new(1));
    let app = hello(LimitLayer::http(limit));
    let refused = call(&app, request("/")).await;
    assert_eq!((refused.status.as_u16(), refused.json().get("violated-policies")), (400, None));
}

#[tokio::test]
async fn a_limit_on_trial_is_not_the_one_that_refused() {
    let clock = ManualClock::new();
    let tried = bucket("api", Quota::per_hour(1), &clock).shadow();
    let app = hello(LimitLayer::http(bucket("api", Quota::per_hour(2), &clock).and(tried)).tell_shadow());
    for _ in 0..2 {
        assert!(call(&app, request("/")).await.status.is_success());
    }
    assert_eq!(call(&app, request("/")).await.json()["violated-policies"], serde_json::json!(["api"]));
}

fn grpc(content_type: &str) -> Request<Body> {
    Request::post("/a.Service/Call").header("content-type", content_type).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_code_of_a_grpc_refusal_is_its_reasons_whatever_the_status() {
    for status in [400, 429, 500, 503] {
        let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
        let layer = LimitLayer::http(limit.clone()).status(status.try_into().unwrap());
        let app = Router::new().fallback(|| async { "hello" }).layer(layer);
        let ask = || grpc("application/grpc");
        assert_eq!(call(&app, ask()).await.field("grpc-status"), None, "the handler's answer");
        assert_eq!(call(&app, ask()).await.field("grpc-status"), Some("8"), "{status}: exhausted");
        limit.close();
        assert_eq!(call(&app, ask()).await.field("grpc-status"), Some("14"), "{status}: closed");
    }
}

#[tokio::test]
async fn a_grpc_refusal_repeats_nothing_of_the_clients_words() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
    let app = Router::new().fallback(|| async { "hello" }).layer(LimitLayer::http(limit));
    assert!(call(&app, grpc("application/grpc")).await.status.is_success());
    for (asked, answered) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc; told=everybody", "application/grpc"),
        ("application/grpc+told", "application/grpc"),
        ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
        ("application/grpc-web+proto;told", "application/grpc-web+proto"),
    ] {
        let refused = call(&app, grpc(asked)).await;
        assert_eq!((refused.status.as_u16(), refused.field("content-type")), (200, Some(answered)));
    }
    let mut no_call = grpc("application/grpc");
    *no_call.method_mut() = Method::GET;
    assert_eq!(call(&app, no_call).await.status.as_u16(), 429, "what is no call is not answered 200");
}

/// More than are remembered. Planted: frames found by the name alone, and by the promise alone.
#[tokio::test]
async fn limits_that_share_a_name_or_a_promise_are_told_each_its_own() {
    let clock = ManualClock::new();
    let limits: Vec<(String, i64)> = (0..40).map(|n| (format!("limit-{}", n / 2), 5 + n % 2)).collect();
    let app = |(name, units): &(String, i64)| {
        hello(LimitLayer::http(bucket(name, Quota::per_hour(units.unsigned_abs()), &clock)))
    };
    let apps: Vec<Router> = limits.iter().map(app).collect();
    for taken in 1..=3 {
        for ((name, units), app) in limits.iter().zip(&apps) {
            let answer = call(app, request("/")).await;
            let policy = format!("\"{name}\";q={units};w=3600");
            assert_eq!(answer.field("ratelimit-policy"), Some(policy.as_str()));
            assert_eq!(answer.left(), [(name.clone(), units - taken)]);
        }
    }
}

/// More than are remembered. Planted: documents found by the name alone, and by the status alone.
#[tokio::test]
async fn refusals_by_one_name_or_with_one_status_say_each_its_own() {
    let clock = ManualClock::new();
    let limits: Vec<(String, u16)> = (0..40).map(|n| (format!("limit-{}", n / 2), 429 + n % 2)).collect();
    for (name, status) in limits.iter().chain(&limits) {
        let layer = LimitLayer::http(bucket(name, Quota::per_hour(1), &clock));
        let app = hello(layer.status((*status).try_into().unwrap()));
        assert!(call(&app, request("/")).await.status.is_success());
        let refused = call(&app, request("/")).await;
        assert_eq!(refused.status.as_u16(), *status);
        assert_eq!(refused.json()["status"], *status);
        assert_eq!(refused.json()["violated-policies"], serde_json::json!([name]));
    }
}

/// A clock that counts how often it is read.
#[derive(Debug, Clone, Default)]
struct Counted {
    clock: ManualClock,
    readings: Arc<AtomicUsize>,
}

impl Clock for Counted {
    type Timer = ManualTimer;

    fn now(&self) -> Timestamp {
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }

    fn timer(&self) -> Option<ManualTimer> {
        self.clock.timer()
    }
}

/// Planted: a permit that tells through the lock.
#[tokio::test]
async fn a_request_that_is_admitted_and_told_of_reads_the_clock_once() {
    let clock = Counted::default();
    let limit = TokenBucket::builder(Quota::per_hour(10)).clock(clock.clone()).build().unwrap();
    let app = hello(LimitLayer::http(limit));
    for left in (0..10).rev() {
        let before = clock.readings.load(Ordering::Relaxed);
        assert_eq!(call(&app, request("/")).await.left(), [("default".to_owned(), left)]);
        assert_eq!(clock.readings.load(Ordering::Relaxed), before + 1);
    }
}
