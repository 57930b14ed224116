//! The HTTP layer on real servers with real clients. Time is a clock that is moved by hand, on sockets too.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use crate::edge::*;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use futures::FutureExt;
use hyper::body::Bytes;
use tollgate::algorithm::{self, FromQuota};
use tollgate::http::{Charge, ClientIp, Existing, FieldFormat, Header, Secret, Settle, Shadowed};
use tollgate::{
    Concurrency, Cost, LimitLayer, LimiterExt, ManualClock, Queue, Quota, RateLimiter, Share, SlidingWindow,
    Stored, TokenBucket,
};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const X_USER: HeaderName = HeaderName::from_static("x-user");

fn named(name: &str, left: i64) -> (String, i64) {
    (name.to_owned(), left)
}

#[tokio::test]
async fn both_servers_tell_over_both_wires_who_is_admitted_and_who_is_refused() {
    for (server, wire) in PAIRS {
        let clock = ManualClock::new();
        let limit = bucket("api", Quota::per_hour(2), &clock).keyed().by(ClientIp::peer());
        let mut client = Client::connect(serve_hello(server, LimitLayer::http(limit)).await, wire).await;
        for (left, reset) in [(1, 1_800), (0, 3_600)] {
            let admitted = client.get("/").await;
            assert_eq!((admitted.status, &admitted.body[..]), (OK, &b"hello"[..]), "{server:?} {wire:?}");
            assert_eq!(admitted.field("ratelimit-policy"), Some("\"api\";q=2;w=3600"));
            assert_eq!(admitted.field("ratelimit"), Some(&*format!("\"api\";r={left};t={reset}")));
            assert_eq!(admitted.retry_after(), None);
        }
        let refused = client.get("/").await;
        assert_eq!(refused.status, TOO_MANY);
        assert_eq!(refused.retry_after(), Some(1_800));
        assert_eq!(refused.field("ratelimit-policy"), Some("\"api\";q=2;w=3600"));
        assert_eq!(refused.field("ratelimit"), Some("\"api\";r=0;t=1800"));
        assert_eq!(refused.field("content-type"), Some("application/problem+json"));
        assert_eq!(refused.field("cache-control"), Some("no-store"));
        let problem = serde_json::json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Too many requests",
            "status": 429,
            "violated-policies": ["api"],
        });
        assert_eq!(refused.json(), problem);
        clock.advance(Duration::from_secs(1_799));
        assert_eq!(client.get("/").await.retry_after(), Some(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(client.get("/").await.status, OK);
    }
}

async fn comes_back_as_told<A: FromQuota + Stored>(quota: &str) {
    let clock = ManualClock::new();
    let limit = RateLimiter::<A>::builder(quota.parse().unwrap()).clock(clock.clone()).build().unwrap();
    let app = hello(LimitLayer::http(limit));
    for step in 0..40_u64 {
        // Requests come at odd times: in the middle of windows, and of nanoseconds that are no whole milliseconds.
        clock.advance(Duration::from_nanos(step * step % 7 * 31_415_927));
        // The clock stands still: sooner or later one is refused.
        let refused = loop {
            let answer = call(&app, request("/")).await;
            if answer.status != OK {
                break answer;
            }
        };
        let wait = refused.retry_after().expect("a wait helps");
        assert!(wait >= 1, "{quota}: a client that comes back at once is only refused again");
        if wait > 1 {
            clock.advance(Duration::from_secs(wait - 1));
            assert_eq!(call(&app, request("/")).await.status, TOO_MANY, "{quota}: {wait} s is too long");
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(call(&app, request("/")).await.status, OK, "{quota}: was told {wait} s");
    }
}

#[tokio::test]
async fn whoever_waits_as_long_as_retry_after_says_is_admitted() {
    for quota in ["1/s", "3/s", "7 per 10s", "100/min", "5 per 250ms", "1/h", "13 per 17s"] {
        comes_back_as_told::<algorithm::TokenBucket>(quota).await;
        comes_back_as_told::<algorithm::SlidingWindow>(quota).await;
        comes_back_as_told::<algorithm::SlidingCounter>(quota).await;
        comes_back_as_told::<algorithm::FixedWindow>(quota).await;
    }
    comes_back_as_told::<algorithm::TokenBucket>("7 per 11s burst 3").await;
}

#[tokio::test]
async fn where_no_wait_helps_none_is_told() {
    let limit = bucket("api", Quota::per_hour(5), &ManualClock::new());
    let layer = LimitLayer::http(limit.clone()).cost(|parts| match parts.uri.path() {
        "/large" => Cost::new(6),
        _ => Cost::new(2),
    });
    let mut client = Client::connect(serve_hello(Server::Hyper, layer).await, Wire::Http1).await;
    assert_eq!(client.get("/").await.left(), [named("api", 3)]);
    let large = client.get("/large").await;
    assert_eq!((large.status, large.retry_after()), (TOO_MANY, None));
    assert_eq!(large.left(), [named("api", 3)]);
    assert_eq!(large.json()["title"], "The request is larger than its limit");
    limit.close();
    let closed = client.get("/").await;
    assert_eq!((closed.status, closed.retry_after()), (StatusCode::SERVICE_UNAVAILABLE, None));
    assert!(closed.json()["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"));
}

fn unix_seconds() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

#[tokio::test]
async fn each_format_is_on_the_wire_as_its_draft_says_and_nothing_else_is() {
    let fields_in = async |format: Option<FieldFormat>| {
        let layer = LimitLayer::http(bucket("api", Quota::per_minute(100), &ManualClock::new()));
        let layer = match format {
            Some(format) => layer.fields(format),
            None => layer.without_fields(),
        };
        let mut client = Client::connect(serve_hello(Server::Axum, layer).await, Wire::Http1).await;
        let answer = client.get("/").await;
        let names = answer.headers.keys().map(HeaderName::as_str).filter(|name| name.contains("ratelimit"));
        let mut fields: Vec<_> = names.map(|name| format!("{name}: {}", answer.lines(name)[0])).collect();
        fields.sort();
        fields
    };
    let expected: [(Option<FieldFormat>, &[&str]); 6] = [
        (None, &[]),
        (
            Some(FieldFormat::Draft10),
            &["ratelimit-policy: \"api\";q=100;w=60", "ratelimit: \"api\";r=99;t=1"],
        ),
        (
            Some(FieldFormat::DraftNext),
            &["ratelimit-policy: \"api\";q=100;w=60", "ratelimit: \"api\";a=99;w=1"],
        ),
        (
            Some(FieldFormat::Draft07),
            &["ratelimit-policy: 100;w=60", "ratelimit: limit=100, remaining=99, reset=1"],
        ),
        (
            Some(FieldFormat::Draft06),
            &[
                "ratelimit-limit: 100",
                "ratelimit-policy: 100;w=60",
                "ratelimit-remaining: 99",
                "ratelimit-reset: 1",
            ],
        ),
        (
            Some(FieldFormat::XDraft03),
            &["x-ratelimit-limit: 100, 100;w=60", "x-ratelimit-remaining: 99", "x-ratelimit-reset: 1"],
        ),
    ];
    for (format, expected) in expected {
        assert_eq!(fields_in(format).await, expected, "{format:?}");
    }
    let before = unix_seconds();
    let fields = fields_in(Some(FieldFormat::XEpoch)).await;
    let after = unix_seconds();
    assert_eq!(fields[..2], ["x-ratelimit-limit: 100", "x-ratelimit-remaining: 99"]);
    let reset: f64 = fields[2].strip_prefix("x-ratelimit-reset: ").unwrap().parse().unwrap();
    // 0.6 s to come, rounded up to a whole second.
    assert!((before + 0.6..after + 1.6).contains(&reset), "{reset} told between {before} and {after}");
}

#[tokio::test]
async fn several_limits_are_told_in_one_field_each_by_a_name_of_its_own() {
    let clock = ManualClock::new();
    let per_client = bucket("per-client", Quota::per_hour(5), &clock).keyed().by(ClientIp::peer());
    let everybody = SlidingWindow::all([Quota::per_hour(10), Quota::per_day(100)]).clock(clock.clone());
    let busy = Concurrency::builder(4).name("busy").build().unwrap();
    let all = per_client.and(everybody.build().unwrap()).and(busy);
    let mut client =
        Client::connect(serve_hello(Server::Axum, LimitLayer::http(all)).await, Wire::Http2).await;
    let admitted = client.get("/").await;
    assert_eq!(
        admitted.left(),
        [named("per-client", 4), named("default", 9), named("default-2", 99), named("busy", 3)]
    );
    let policy = "\"per-client\";q=5;w=3600, \"default\";q=10;w=3600, \"default-2\";q=100;w=86400, \
                  \"busy\";q=4;qu=\"concurrent-requests\"";
    assert_eq!(admitted.field("ratelimit-policy"), Some(policy));
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, OK);
    }
    let refused = client.get("/").await;
    assert_eq!((refused.status, refused.retry_after()), (TOO_MANY, Some(720)));
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["per-client"]));
    // The refusal spent nothing of the others, and holds nothing.
    assert_eq!(
        refused.left(),
        [named("per-client", 0), named("default", 5), named("default-2", 95), named("busy", 4)]
    );
}

#[tokio::test]
async fn two_layers_tell_together_whichever_refuses() {
    for wire in WIRES {
        let clock = ManualClock::new();
        let inner = bucket("inner", Quota::per_hour(2), &clock);
        let outer = bucket("outer", Quota::per_hour(3), &clock);
        let app = hello(LimitLayer::http(inner)).layer(LimitLayer::http(outer));
        let mut client = Client::connect(serve(app).await, wire).await;
        assert_eq!(client.get("/").await.left(), [named("inner", 1), named("outer", 2)]);
        assert_eq!(client.get("/").await.left(), [named("inner", 0), named("outer", 1)]);
        let by_inner = client.get("/").await;
        assert_eq!(by_inner.lines("ratelimit").len(), 1, "in one list");
        assert_eq!(by_inner.json()["violated-policies"], serde_json::json!(["inner"]));
        assert_eq!(by_inner.left(), [named("inner", 0), named("outer", 0)]);
        let by_outer = client.get("/").await;
        assert_eq!(by_outer.json()["violated-policies"], serde_json::json!(["outer"]));
        assert_eq!(by_outer.left(), [named("outer", 0)]);
    }
}

#[tokio::test]
async fn two_layers_without_a_name_are_told_apart() {
    let clock = ManualClock::new();
    let unnamed = |units| {
        let limit = SlidingWindow::builder(Quota::per_hour(units)).clock(clock.clone()).build().unwrap();
        LimitLayer::http(limit)
    };
    let app = hello(unnamed(5)).layer(unnamed(8)).layer(unnamed(9));
    let answer = call(&app, request("/")).await;
    assert_eq!(answer.left(), [named("default", 4), named("default-2", 7), named("default-3", 8)]);
}

#[tokio::test]
async fn fields_of_the_handler_are_appended_to_kept_or_replaced() {
    let own = [("ratelimit", "\"own\";r=1"), ("ratelimit-policy", "\"own\";q=1"), ("x-ratelimit-limit", "7")];
    let ask = async |format, existing: Option<Existing>| {
        let handler = get(async move || (axum::response::AppendHeaders(own), "hello"));
        let layer = LimitLayer::http(bucket("api", Quota::per_hour(2), &ManualClock::new())).fields(format);
        let layer = match existing {
            Some(existing) => layer.existing(existing),
            None => layer,
        };
        let app = Router::new().route("/", handler).layer(layer);
        Client::connect(serve(app).await, Wire::Http1).await.get("/").await
    };
    let (list, triple) = (FieldFormat::Draft10, FieldFormat::XDraft03);
    for append in [None, Some(Existing::Append)] {
        let answer = ask(list, append).await;
        assert_eq!(answer.lines("ratelimit"), ["\"own\";r=1", "\"api\";r=1;t=1800"]);
        assert_eq!(answer.lines("ratelimit-policy"), ["\"own\";q=1", "\"api\";q=2;w=3600"]);
        let answer = ask(triple, append).await;
        assert_eq!(answer.lines("x-ratelimit-limit"), ["7"], "there is no list to add to");
        assert_eq!(answer.field("x-ratelimit-remaining"), None, "ours would tell of nothing");
    }
    let answer = ask(list, Some(Existing::Keep)).await;
    assert_eq!(answer.lines("ratelimit"), ["\"own\";r=1"]);
    assert_eq!(answer.lines("ratelimit-policy"), ["\"own\";q=1"]);
    let answer = ask(triple, Some(Existing::Keep)).await;
    assert_eq!((answer.lines("x-ratelimit-limit"), answer.field("x-ratelimit-reset")), (vec!["7"], None));
    let answer = ask(list, Some(Existing::Override)).await;
    assert_eq!(answer.lines("ratelimit"), ["\"api\";r=1;t=1800"]);
    assert_eq!(answer.lines("ratelimit-policy"), ["\"api\";q=2;w=3600"]);
    let answer = ask(triple, Some(Existing::Override)).await;
    assert_eq!(answer.lines("x-ratelimit-limit"), ["2, 2;w=3600"]);
    assert_eq!(answer.field("x-ratelimit-remaining"), Some("1"));
}

#[tokio::test]
async fn a_hook_answers_and_is_told_why() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
    let layer = LimitLayer::http(limit).answer(|refusal| {
        let mut response = Response::new(Bytes::from("come back later"));
        *response.status_mut() = refusal.status();
        let told = format!(
            "{} {} {:?} {}",
            refusal.request.uri,
            refusal.limit().unwrap(),
            refusal.retry_after().unwrap(),
            refusal.standings[0].remaining,
        );
        response.headers_mut().insert("x-told", told.parse().unwrap());
        if refusal.request.uri.path() == "/patient" {
            response.headers_mut().insert("retry-after", 7_200.into());
        }
        response
    });
    let mut client = Client::connect(serve_hello(Server::Hyper, layer).await, Wire::Http2).await;
    assert_eq!(client.get("/").await.body, "hello");
    let refused = client.get("/?page=2").await;
    assert_eq!((refused.status, &refused.body[..]), (TOO_MANY, &b"come back later"[..]));
    assert!(refused.field("x-told").unwrap().ends_with("/?page=2 api 3600s 0"));
    assert_eq!(
        (refused.retry_after(), refused.field("ratelimit")),
        (Some(3_600), Some("\"api\";r=0;t=3600"))
    );
    assert_eq!(client.get("/patient").await.retry_after(), Some(7_200), "the hook's own stays");
}

#[tokio::test]
async fn another_status_takes_the_place_of_429_and_of_nothing_else() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
    let teapot = StatusCode::IM_A_TEAPOT;
    let app = hello(LimitLayer::http(limit.clone()).status(teapot));
    assert_eq!(call(&app, request("/")).await.status, OK);
    let refused = call(&app, request("/")).await;
    assert_eq!((refused.status, &refused.json()["status"]), (teapot, &serde_json::json!(418)));
    assert_eq!(refused.retry_after(), Some(3_600));
    limit.close();
    assert_eq!(call(&app, request("/")).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn only_failed_logins_are_charged() {
    let limit = bucket("logins", Quota::per_hour(3), &ManualClock::new());
    let login =
        post(
            |password: String| async move { if password == "right" { OK } else { StatusCode::UNAUTHORIZED } },
        );
    let layer = LimitLayer::http(limit.clone()).settle_with(|response| match response.status.is_success() {
        true => Settle::Cost(Cost::ZERO),
        false => Settle::Keep,
    });
    let mut client =
        Client::connect(serve(Router::new().route("/", login).layer(layer)).await, Wire::Http1).await;
    let mut log_in = async |password: &'static str| {
        let request = Request::post("/").body(Body::from(password)).unwrap();
        client.ask(request).await.status
    };
    for _ in 0..10 {
        assert_eq!(log_in("right").await, OK);
    }
    assert_eq!(limit.snapshot().remaining, 3);
    for _ in 0..3 {
        assert_eq!(log_in("wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(log_in("right").await, TOO_MANY, "who guesses right too late is not told");
}

/// A handler whose body is what the test sends.
fn streaming() -> (axum::routing::MethodRouter, tokio::sync::mpsc::UnboundedReceiver<BodySender>) {
    let (started, bodies) = tokio::sync::mpsc::unbounded_channel();
    let handler = move || async move {
        let (sender, body) = futures::channel::mpsc::unbounded();
        let _ = started.send(sender);
        Body::from_stream(body).into_response()
    };
    (get(handler), bodies)
}

type BodySender = futures::channel::mpsc::UnboundedSender<std::io::Result<Bytes>>;

#[tokio::test]
async fn bytes_of_the_body_are_charged_when_it_has_ended_or_is_given_up() {
    for wire in WIRES {
        let limit = bucket("kilobytes", Quota::per_hour(100), &ManualClock::new());
        let per_unit = NonZeroU64::new(1_000).unwrap();
        let layer = LimitLayer::http(limit.clone()).settle_with(move |_| Settle::Bytes { per_unit });
        let (handler, mut bodies) = streaming();
        let app = Router::new().route("/", handler).layer(layer);
        let address = serve(app).await;
        let mut client = Client::connect(address, wire).await;
        let whole = tokio::spawn(async move { client.get("/").await.body.len() });
        let body = bodies.recv().await.unwrap();
        for _ in 0..3 {
            body.unbounded_send(Ok(Bytes::from(vec![7; 4_001]))).unwrap();
        }
        assert_eq!(limit.snapshot().remaining, 99, "so far it is the estimate");
        drop(body);
        assert_eq!(whole.await.unwrap(), 12_003);
        eventually("13 for 12,003 bytes", || limit.snapshot().remaining == 87).await;

        let mut client = Client::connect(address, wire).await;
        let response = client.send(request("/")).await;
        let body = bodies.recv().await.unwrap();
        body.unbounded_send(Ok(Bytes::from(vec![7; 2_000]))).unwrap();
        let mut response = response.unwrap();
        http_body_util::BodyExt::frame(&mut response).await.unwrap().unwrap();
        client.disconnect();
        drop(response);
        eventually("2 for what was sent", || limit.snapshot().remaining == 85).await;
        assert!(body.is_closed());
    }
}

#[tokio::test]
async fn a_handler_says_what_its_request_has_cost() {
    let limit = bucket("tokens", Quota::per_hour(100), &ManualClock::new());
    let handler = any(|request: Request<Body>| async move {
        let charge = request.extensions().get::<Charge>().unwrap();
        if let Ok(tokens) = request.uri().path()[1..].parse::<u64>() {
            charge.settle(99_u64);
            charge.settle(tokens);
        }
        "done"
    });
    let layer = LimitLayer::http(limit.clone())
        .cost(|_| Cost::new(10))
        .settle_with(|_| Settle::Cost(Cost::new(20)))
        .settle_by_handler();
    let app = Router::new().fallback(handler).layer(layer);
    let mut client = Client::connect(serve(app).await, Wire::Http2).await;
    for (path, left) in [("/3", 97), ("/0", 97), ("/says-nothing", 77), ("/60", 17), ("/27", -10)] {
        assert_eq!(client.get(path).await.body, "done");
        let settled = || limit.snapshot().remaining as i64 - limit.snapshot().debt as i64 == left;
        eventually("what the handler said last is charged, else what the layer says", settled).await;
    }
    assert_eq!(client.get("/1").await.retry_after(), Some(720), "the debt and ten more, at 36 s each");
}

#[tokio::test]
async fn who_may_wait_waits_and_who_would_wait_too_long_is_refused_at_once() {
    for (server, wire) in PAIRS {
        let clock = ManualClock::new();
        let limit = bucket("api", Quota::per_hour(1), &clock);
        let layer = LimitLayer::http(limit.clone()).wait(hours(2)).max_waiting(2);
        let address = serve_hello(server, layer).await;
        assert_eq!(Client::connect(address, wire).await.get("/").await.status, OK);
        let mut waiting = Vec::new();
        for line in 1..=2 {
            let mut client = Client::connect(address, wire).await;
            waiting.push(tokio::spawn(async move { client.get("/").await }));
            eventually("it waits in line", || limit.snapshot().waiting == line).await;
        }
        let mut client = Client::connect(address, wire).await;
        let refused = client.get("/").await;
        assert_eq!((refused.status, limit.snapshot().waiting), (TOO_MANY, 2));
        assert_eq!(refused.retry_after(), Some(10_800), "three hours is more than the two it may wait");
        for answer in waiting {
            clock.advance(hours(1));
            assert_eq!(answer.await.unwrap().status, OK);
        }
        let late = tokio::spawn(async move { client.get("/").await.status });
        eventually("its place is free again", || limit.snapshot().waiting == 1).await;
        clock.advance(hours(1));
        assert_eq!(late.await.unwrap(), OK);
    }
}

#[tokio::test]
async fn no_more_wait_than_may_all_keys_together() {
    let clock = ManualClock::new();
    let per_user = bucket("user", Quota::per_hour(1), &clock).keyed();
    let layer = LimitLayer::http(per_user.clone().by(Header::named(X_USER))).wait(hours(9)).max_waiting(2);
    let app = hello(layer);
    for user in ["ann", "bob", "eve"] {
        assert_eq!(call(&app, from_user(user)).await.status, OK);
    }
    let ask = |user| {
        let app = app.clone();
        tokio::spawn(async move { call(&app, from_user(user)).await.status })
    };
    let waiting = [ask("ann"), ask("bob")];
    tokio::task::yield_now().await;
    let at_once = |user| call(&app, from_user(user)).now_or_never().map(|answer| answer.status);
    assert_eq!(at_once("eve"), Some(TOO_MANY));
    assert_eq!(call(&app, from_user("new")).await.status, OK, "who need not wait takes no place");
    clock.advance(hours(1));
    for waited in waiting {
        assert_eq!(waited.await.unwrap(), OK);
    }
    let waiting = [ask("ann"), ask("bob")];
    tokio::task::yield_now().await;
    assert_eq!(at_once("ann"), Some(TOO_MANY), "there are two places again, not more");
    clock.advance(hours(1));
    for waited in waiting {
        assert_eq!(waited.await.unwrap(), OK);
    }
}

#[tokio::test]
async fn one_key_takes_no_more_places_than_its_line_has() {
    let clock = ManualClock::new();
    let per_user = TokenBucket::builder(Quota::per_hour(1)).clock(clock.clone()).queue(Queue::new().limit(2));
    let per_user = per_user.build().unwrap().keyed();
    let by_user = per_user.clone().by(Header::named(X_USER));
    let app = hello(LimitLayer::http(by_user).wait(hours(9)).max_waiting(3));
    for user in ["ann", "bob"] {
        assert_eq!(call(&app, from_user(user)).await.status, OK);
    }
    let mut asks: Vec<_> =
        ["ann", "ann", "ann", "bob"].map(|user| Box::pin(call(&app, from_user(user)))).into();
    let answered = asks.iter_mut().map(|ask| ask.now_or_never().map(|answer| answer.status));
    assert_eq!(answered.collect::<Vec<_>>(), [None, None, Some(TOO_MANY), None]);
}

#[tokio::test]
async fn a_limit_on_trial_refuses_nobody_and_tells_the_handler() {
    for told in [false, true] {
        let limit = bucket("trial", Quota::per_hour(1), &ManualClock::new());
        let handler = get(|request: Request<Body>| async move {
            match request.extensions().get::<Shadowed>() {
                Some(shadowed) => {
                    let denied = &shadowed.0;
                    format!("{} {:?}", denied.limit().unwrap(), denied.retry_after())
                }
                None => "in earnest".to_owned(),
            }
        });
        let layer = LimitLayer::http(limit.shadow()).wait(hours(9));
        let layer = if told { layer.tell_shadow() } else { layer };
        let app = Router::new().route("/", handler).layer(layer);
        let mut client = Client::connect(serve(app).await, Wire::Http1).await;
        for (body, field) in
            [("in earnest", "\"trial\";r=0;t=3600"), ("trial Some(3600s)", "\"trial\";r=0;t=3600")]
        {
            let answer = client.get("/").await;
            assert_eq!((answer.status, &answer.body[..]), (OK, body.as_bytes()));
            assert_eq!(answer.field("ratelimit"), told.then_some(field));
            assert_eq!(answer.field("ratelimit-policy").is_some(), told);
            assert_eq!(answer.retry_after(), None);
        }
    }
}

#[tokio::test]
async fn a_limit_in_earnest_for_a_share_of_the_keys_is_so_for_the_same_ones_each_time() {
    let refused_at = async |percent| {
        let by_user = Header::named(X_USER).secret(Secret::new([7; 16]));
        let limit = bucket("trial", Quota::per_hour(1), &ManualClock::new()).keyed();
        let layer = LimitLayer::http(limit.shadow().enforcing(Share::percent(percent)).by(by_user));
        let mut client = Client::connect(serve_hello(Server::Hyper, layer).await, Wire::Http2).await;
        let mut refused = Vec::new();
        for user in 0..100 {
            let user = format!("user {user}");
            assert_eq!(client.ask(from_user(&user)).await.status, OK);
            let second = client.ask(from_user(&user)).await;
            let third = client.ask(from_user(&user)).await;
            assert_eq!(second.status, third.status, "a client sees one behaviour");
            assert_eq!(second.field("ratelimit").is_some(), second.status == TOO_MANY);
            refused.push(second.status == TOO_MANY);
        }
        refused
    };
    let (few, again, more) = (refused_at(20).await, refused_at(20).await, refused_at(60).await);
    assert_eq!(few, again);
    let count = |all: &[bool]| all.iter().filter(|refused| **refused).count();
    assert!((10..35).contains(&count(&few)) && (45..75).contains(&count(&more)));
    assert!(few.iter().zip(&more).all(|(few, more)| *more || !few), "a larger share keeps the smaller one");
}
