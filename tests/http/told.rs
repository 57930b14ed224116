//! What the HTTP layer tells where layers, hooks, overflows and full lines meet: each was wrong once.

use crate::edge::*;
use axum::Router;
use axum::http::Response;
use axum::routing::get;
use hyper::body::Bytes;
use tollgate::http::{Existing, Header};
use tollgate::{LimitLayer, LimiterExt, Line, ManualClock, Order, Quota, TokenBucket};

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
    let per_user = bucket("user", Quota::per_hour(100), &clock).keyed().max_keys(1).overflow(overflow);
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
        .line(Line::new().limit(2).order(Order::NewestFirst))
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
