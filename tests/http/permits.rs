//! Whom the HTTP layer counts, on every kind of route, and how long it holds their permits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::edge::*;
use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, Request, StatusCode};
use axum::routing::{any, get, post};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tollgate::http::{ClientIp, Extension, Header, Host, Method, Route};
use tollgate::{
    Concurrency, KeyOf, Keyed, LimitLayer, LimiterExt, ManualClock, Quota, Tier, TokenBucket, algorithm,
};
use tower::{Layer, Service, ServiceExt};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const X_USER: HeaderName = HeaderName::from_static("x-user");

fn one_an_hour() -> TokenBucket<ManualClock> {
    bucket("api", Quota::per_hour(1), &ManualClock::new())
}

async fn panics() -> StatusCode {
    panic!("as planned")
}

/// Answers with how often it has been called.
fn counting() -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let handler = any(move || async move { counter.fetch_add(1, Ordering::SeqCst).to_string() });
    (Router::new().route("/", handler), calls)
}

#[tokio::test]
async fn a_server_that_does_not_tell_its_peers_serves_nobody() {
    let (app, calls) = counting();
    let app = app.layer(LimitLayer::http(one_an_hour().keyed().by(ClientIp::peer())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = Client::connect(address, Wire::Http1).await;
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        let request = Request::get("/").header(header, "203.0.113.7").body(Body::empty()).unwrap();
        let answer = client.ask(request).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((answer.retry_after(), answer.field("ratelimit")), (None, None));
        assert_eq!(answer.json()["type"], "about:blank");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn addresses_count_each_for_itself() {
    for server in [Server::Axum, Server::Hyper] {
        let limit = one_an_hour().keyed();
        let layer = LimitLayer::http(limit.clone().by(ClientIp::peer()));
        let address = serve_hello(server, layer).await;
        for from in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
            for wire in WIRES {
                let mut client = Client::connect_from(from, address, wire).await;
                let expected = if wire == Wire::Http1 { OK } else { TOO_MANY };
                assert_eq!(client.get("/").await.status, expected, "{from} over {wire:?}");
            }
        }
        assert_eq!(limit.len(), 3);
    }
}

#[tokio::test]
async fn a_request_without_its_key_is_refused_unless_something_else_is_said() {
    let (app, calls) = counting();
    let refusing = app.clone().layer(LimitLayer::http(one_an_hour().keyed().by(Header::named(X_USER))));
    let mut client = Client::connect(serve(refusing).await, Wire::Http1).await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.retry_after()), (StatusCode::BAD_REQUEST, None));
        assert_eq!(answer.json()["title"], "The request lacks what its limit is kept per");
    }
    let twice =
        Request::get("/").header("x-user", "ann").header("x-user", "bob").body(Body::empty()).unwrap();
    assert_eq!(client.ask(twice).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.ask(from_user("")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.ask(from_user(" \t ")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(client.ask(from_user("ann")).await.status, OK);

    let by_either = Header::named(X_USER).or(ClientIp::peer());
    let falling_back = app.clone().layer(LimitLayer::http(one_an_hour().keyed().by(by_either)));
    let mut client = Client::connect(serve(falling_back).await, Wire::Http2).await;
    assert_eq!(client.get("/").await.status, OK);
    assert_eq!(client.get("/").await.status, TOO_MANY);
    assert_eq!(client.ask(from_user("ann")).await.status, OK);
    assert_eq!(client.ask(from_user("ann")).await.status, TOO_MANY);
    assert_eq!(client.ask(from_user("127.0.0.1")).await.status, OK, "a user of the name of an address");

    let skipping =
        app.clone().layer(LimitLayer::http(one_an_hour().keyed().by(Header::named(X_USER).or_skip())));
    let mut client = Client::connect(serve(skipping).await, Wire::Http1).await;
    for _ in 0..3 {
        let skipped = client.get("/").await;
        assert_eq!((skipped.status, skipped.field("ratelimit")), (OK, None));
    }
    assert_eq!(client.ask(from_user("ann")).await.status, OK);
    assert_eq!(client.ask(from_user("ann")).await.status, TOO_MANY);

    let is_probe = |parts: &Parts| parts.uri.query() == Some("probe");
    let probed = app.layer(LimitLayer::http(one_an_hour().keyed().by(ClientIp::peer().unless(is_probe))));
    let mut client = Client::connect(serve(probed).await, Wire::Http1).await;
    for (path, status) in [("/?probe", OK), ("/", OK), ("/?probe", OK), ("/", TOO_MANY), ("/?probe", OK)] {
        assert_eq!(client.get(path).await.status, status);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Account(u8);

#[tokio::test]
async fn what_another_layer_found_out_can_be_the_key() {
    let (app, _) = counting();
    let limit = LimitLayer::http(one_an_hour().keyed().by(Extension::<Account>::new()));
    let log_in =
        axum::middleware::from_fn(async |mut request: Request<Body>, next: axum::middleware::Next| {
            if let Some(id) = request.headers().get("x-user").and_then(|id| id.to_str().ok()?.parse().ok()) {
                request.extensions_mut().insert(Account(id));
            }
            next.run(request).await
        });
    let mut client = Client::connect(serve(app.layer(limit).layer(log_in)).await, Wire::Http1).await;
    assert_eq!(client.ask(from_user("1")).await.status, OK);
    assert_eq!(client.ask(from_user("1")).await.status, TOO_MANY);
    assert_eq!(client.ask(from_user("2")).await.status, OK);
    assert_eq!(client.ask(from_user("nobody")).await.status, StatusCode::BAD_REQUEST);
}

type PerUser = Keyed<String, algorithm::TokenBucket, ManualClock>;

fn by_name(parts: &Parts) -> String {
    parts.headers[X_USER].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_owner_of_a_limit_changes_it_while_it_serves() {
    let clock = ManualClock::new();
    let paid = Tier::new(1);
    let per_user = TokenBucket::builder(Quota::per_hour(2)).name("user").clock(clock.clone()).keyed();
    let per_user =
        per_user.tier(paid, Quota::per_hour(10)).tier_by(move |user: &String| match user.as_str() {
            "paid" => paid,
            "monitor" => Tier::EXEMPT,
            _ => Tier::DEFAULT,
        });
    let per_user: PerUser = per_user.build().unwrap();
    let address = serve_hello(Server::Axum, LimitLayer::http(per_user.clone().by(by_name))).await;
    let mut client = Client::connect(address, Wire::Http2).await;
    let mut left = async |user| {
        let answer = client.ask(from_user(user)).await;
        (answer.status.as_u16(), answer.left().first().map(|(_, left)| *left))
    };

    assert_eq!(left("ann").await, (200, Some(1)));
    assert_eq!(left("paid").await, (200, Some(9)));
    assert_eq!(left("monitor").await, (200, None));
    assert_eq!(per_user.snapshot("ann").unwrap().remaining, 1);
    assert!(per_user.snapshot("monitor").is_none() && per_user.len() == 2);

    per_user.charge("ann", 3).unwrap();
    assert_eq!(per_user.snapshot("ann").unwrap().debt, 2);
    assert_eq!(left("ann").await, (429, Some(0)));
    clock.advance(hours(1));
    assert_eq!(left("ann").await, (429, Some(0)), "an hour pays the debt");
    per_user.reset("ann");
    assert_eq!(left("ann").await, (200, Some(1)));

    per_user.set_quota_of("ann", Quota::per_hour(5)).unwrap();
    assert_eq!(left("ann").await, (200, Some(0)), "what was left stays, what was spent too");
    per_user.reset("ann");
    assert_eq!(left("ann").await, (200, Some(4)));
    assert_eq!(left("bob").await, (200, Some(1)), "of nobody else");
    per_user.exempt("ann");
    for _ in 0..9 {
        assert_eq!(left("ann").await, (200, None));
    }
    per_user.forget_quota_of("ann");
    assert_eq!(left("ann").await, (200, Some(1)));

    per_user.set_tier(paid, Quota::per_hour(3)).unwrap();
    assert_eq!(left("paid").await, (200, Some(2)));
    per_user.set_quota(Quota::per_hour(20)).unwrap();
    assert_eq!(left("new").await, (200, Some(19)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_limit_on_two_routes_and_30_connections_is_one_limit_over_1500_requests() {
    let limit = bucket("api", Quota::per_hour(40), &ManualClock::new());
    let layer = LimitLayer::http(limit.keyed().by(ClientIp::peer()));
    let hello = || async { "hello" };
    // Layered twice, over two routes each: services of their own, and of one limit.
    let app = Router::new()
        .route("/a", get(hello))
        .layer(layer.clone())
        .merge(Router::new().route("/b", get(hello)).layer(layer));
    let address = serve(app).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..30 {
        tasks.spawn(async move {
            let mut client = Client::connect(address, WIRES[task % 2]).await;
            let mut admitted = 0;
            for n in 0..50 {
                let answer = client.get(if (n + task / 2) % 2 == 0 { "/a" } else { "/b" }).await;
                assert!(answer.status == OK || answer.status == TOO_MANY);
                admitted += usize::from(answer.status == OK);
            }
            admitted
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 40);
}

#[tokio::test]
async fn route_method_and_host_are_the_same_over_both_wires() {
    let limit = bucket("api", Quota::per_hour(2), &ManualClock::new()).keyed();
    let hello = || async { "hello" };
    let app = Router::new()
        .route("/users/{id}", get(hello).post(hello))
        .nest("/nested", Router::new().route("/users/{id}", get(hello)))
        .layer(LimitLayer::http(limit.by((Route, Method, Host))));
    let address = serve(app.clone()).await;
    let mut over_1 = Client::connect(address, Wire::Http1).await;
    let mut over_2 = Client::connect(address, Wire::Http2).await;
    let ask =
        |method: &str, uri: &str| Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    for (method, one, other) in [
        ("GET", "/users/1", "/users/2?page=3"),
        ("POST", "/users/1", "/users/a%2Fb"),
        ("GET", "/nested/users/1", "/nested/users/2"),
        // What matches no route is all one.
        ("GET", "/nowhere", "/no/where/9"),
    ] {
        let mut refused = Vec::new();
        for uri in [one, other] {
            refused.push(over_1.ask(ask(method, uri)).await.status == TOO_MANY);
            refused.push(over_2.ask(ask(method, uri)).await.status == TOO_MANY);
        }
        assert_eq!(refused, [false, false, true, true], "{method} {one} {other}");
    }
    let mut hosts = Vec::new();
    for host in ["a.example", "A.Example:81", "a.example:82", "b.example"] {
        let answer = call(&app, ask("GET", &format!("http://{host}/users/1"))).await;
        hosts.push(answer.status == TOO_MANY);
    }
    assert_eq!(hosts, [false, false, true, false]);
}

#[tokio::test]
async fn every_kind_of_route_is_counted() {
    let limit = bucket("api", Quota::per_hour(100), &ManualClock::new());
    let events = get(|| async {
        let events = (0..3).map(|n| Ok::<_, std::io::Error>(format!("data: {n}\n\n")));
        ([("content-type", "text/event-stream")], Body::from_stream(futures::stream::iter(events)))
    });
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/posts", post(|| async { StatusCode::NO_CONTENT }))
        .route("/fails", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/events", events)
        .nest("/nested", Router::new().route("/deep/{id}", get(|| async { "deep" })))
        .nest_service("/files", tower::service_fn(async |_: Request<Body>| Ok(StatusCode::FOUND)))
        .layer(LimitLayer::http(limit.clone()));
    let address = serve(app).await;
    let asks = [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("OPTIONS", "/", 405),
        ("TRACE", "/", 405),
        ("BREW", "/", 405),
        ("POST", "/posts", 204),
        ("GET", "/fails", 500),
        ("GET", "/events", 200),
        ("GET", "/nested/deep/7", 200),
        ("GET", "/nested/nowhere", 404),
        ("GET", "/files/x", 302),
        ("GET", "/nowhere", 404),
        ("GET", "/%2e%2e//nowhere?x=/", 404),
        ("OPTIONS", "/nowhere", 404),
    ];
    let mut left = 100;
    for wire in WIRES {
        let mut client = Client::connect(address, wire).await;
        for (method, path, status) in asks {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = client.ask(request).await;
            left -= 1;
            assert_eq!((answer.status.as_u16(), method, path), (status, method, path));
            assert_eq!(answer.left(), [("api".to_owned(), left)], "{method} {path}");
            if path == "/events" {
                assert_eq!(answer.body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
            }
        }
    }
    assert_eq!(limit.snapshot().remaining as i64, left);
    limit.check(limit.snapshot().remaining).unwrap();
    for wire in WIRES {
        let mut client = Client::connect(address, wire).await;
        for (method, path, _) in asks {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = client.ask(request).await;
            assert_eq!(answer.status, TOO_MANY, "{method} {path}");
            assert_eq!(answer.body.is_empty(), method == "HEAD");
        }
    }
}

#[tokio::test]
async fn the_charge_of_a_handler_that_panics_or_is_given_up_stands() {
    for wire in WIRES {
        let limit = bucket("api", Quota::per_hour(9), &ManualClock::new());
        let (started, mut calls) = mpsc::unbounded_channel();
        let hangs = get(move || async move {
            started.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let app = Router::new()
            .route("/panics", get(panics))
            .route("/hangs", hangs)
            .layer(LimitLayer::http(limit.clone()).settle_with(|_| tollgate::http::Settle::Keep));
        let address = serve(app).await;
        assert!(Client::connect(address, wire).await.send(request("/panics")).await.is_err());
        assert_eq!(limit.snapshot().remaining, 8);
        let mut client = Client::connect(address, wire).await;
        let asked = tokio::spawn(async move { client.send(request("/hangs")).await.is_err() });
        calls.recv().await.unwrap();
        assert_eq!(limit.snapshot().remaining, 7);
        asked.abort();
        let _ = asked.await;
        tokio::task::yield_now().await;
        assert_eq!(limit.snapshot().remaining, 7);
    }
}

type BodySender = futures::channel::mpsc::UnboundedSender<std::io::Result<Bytes>>;

/// What a handler that runs tells the test: that it runs, or how to fill its body.
enum Run {
    Hangs(#[allow(dead_code, reason = "it is dropped when the handler is")] mpsc::Sender<()>),
    Streams(BodySender),
}

/// `/` streams what the test sends, `/hangs` never answers, `/panics` panics when it is told to; one at a time.
async fn one_at_a_time(slots: &Concurrency) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Run>) {
    let (runs, told) = mpsc::unbounded_channel();
    let hanging = runs.clone();
    let panicking = runs.clone();
    let streams = get(move || async move {
        let (sender, body) = futures::channel::mpsc::unbounded();
        let _ = runs.send(Run::Streams(sender));
        Body::from_stream(body)
    });
    let hangs = get(move || async move {
        let (alive, _here) = mpsc::channel(1);
        let _ = hanging.send(Run::Hangs(alive));
        std::future::pending::<()>().await;
    });
    let panics = get(move || async move {
        let (alive, mut go) = mpsc::channel(1);
        let _ = panicking.send(Run::Hangs(alive));
        go.recv().await;
        panics().await
    });
    let app = Router::new().route("/", streams).route("/hangs", hangs).route("/panics", panics);
    (serve(app.layer(LimitLayer::http(slots.clone()))).await, told)
}

/// Nobody else is served meanwhile, and is not told to come back at a time.
async fn is_taken(slots: &Concurrency, address: std::net::SocketAddr) {
    assert_eq!(slots.snapshot().remaining, 0);
    let refused = Client::connect(address, Wire::Http1).await.get("/").await;
    assert_eq!((refused.status, refused.retry_after()), (TOO_MANY, None));
}

async fn is_free(slots: &Concurrency, how: &str) {
    eventually(how, || slots.snapshot().remaining == 1).await;
}

#[derive(Debug, Clone, Copy)]
enum End {
    OfBody,
    OfConnection,
    OfStream,
    ByError,
}

#[tokio::test]
async fn a_permit_is_held_until_the_body_has_ended_however_it_ends() {
    for (wire, end) in [
        (Wire::Http1, End::OfBody),
        (Wire::Http2, End::OfBody),
        (Wire::Http1, End::OfConnection),
        (Wire::Http2, End::OfConnection),
        (Wire::Http2, End::OfStream),
        (Wire::Http1, End::ByError),
        (Wire::Http2, End::ByError),
    ] {
        let slots = Concurrency::builder(1).name("busy").build().unwrap();
        let (address, mut runs) = one_at_a_time(&slots).await;
        let mut client = Client::connect(address, wire).await;
        let response = client.send(request("/"));
        let (response, run) = tokio::join!(response, async {
            let run = runs.recv().await.unwrap();
            if let Run::Streams(body) = &run {
                body.unbounded_send(Ok(Bytes::from("first"))).unwrap();
            }
            run
        });
        let Run::Streams(body) = run else { panic!("it streams") };
        let mut response = response.unwrap();
        assert_eq!(response.status(), OK);
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        is_taken(&slots, address).await;
        match end {
            End::OfBody => {
                drop(body);
                assert!(response.collect().await.unwrap().to_bytes().is_empty());
            }
            End::OfConnection => client.disconnect(),
            End::OfStream => {
                drop(response);
                is_free(&slots, "the stream was reset").await;
                // The connection is not.
                let (again, run) = tokio::join!(client.send(request("/")), runs.recv());
                drop(run);
                again.unwrap().collect().await.unwrap();
            }
            End::ByError => {
                body.unbounded_send(Err(std::io::Error::other("as planned"))).unwrap();
                assert!(response.frame().await.unwrap().is_err());
            }
        }
        is_free(&slots, &format!("{wire:?} {end:?}")).await;
    }
}

#[tokio::test]
async fn a_permit_is_free_when_the_client_goes_while_the_handler_runs() {
    for wire in WIRES {
        let slots = Concurrency::new(1);
        let (address, mut runs) = one_at_a_time(&slots).await;
        let mut client = Client::connect(address, wire).await;
        {
            let asked = client.send(request("/hangs"));
            tokio::pin!(asked);
            let run = tokio::select! {
                _ = &mut asked => panic!("it hangs"),
                run = runs.recv() => run.unwrap(),
            };
            assert!(matches!(run, Run::Hangs(_)));
            is_taken(&slots, address).await;
            // Here the request is dropped: over HTTP/2 that resets its stream and leaves the connection.
        }
        if wire == Wire::Http1 {
            client.disconnect();
            is_free(&slots, "the connection was closed").await;
        } else {
            is_free(&slots, "the stream was reset").await;
            let (again, run) = tokio::join!(client.send(request("/")), runs.recv());
            drop(run);
            assert_eq!(again.unwrap().status(), OK);
        }
    }
}

#[tokio::test]
async fn a_permit_is_free_when_the_handler_panics() {
    for wire in WIRES {
        let slots = Concurrency::new(1);
        let (address, mut runs) = one_at_a_time(&slots).await;
        let mut client = Client::connect(address, wire).await;
        let asked = tokio::spawn(async move { client.send(request("/panics")).await.is_err() });
        let run = runs.recv().await.unwrap();
        is_taken(&slots, address).await;
        drop(run);
        assert!(asked.await.unwrap());
        is_free(&slots, "it panicked").await;
    }
}

/// Planted: what is held given up with the future, after an error too.
#[test]
fn a_permit_is_free_with_the_error_of_the_service() {
    let slots = Concurrency::new(1);
    let fails = tower::service_fn(async |_: Request<Body>| Err::<axum::response::Response, _>("as planned"));
    let mut limited = LimitLayer::http(slots.clone()).layer(fails);
    let mut answered = Box::pin(limited.call(request("/")));
    assert_eq!(slots.snapshot().remaining, 0);
    let polled = answered.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Err("as planned"))));
    assert_eq!(slots.snapshot().remaining, 1, "the future is there still");
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_its_permit_and_an_empty_one_holds_none() {
    let slots = Concurrency::new(2);
    let app = Router::new()
        .route("/full", get(|| async { "full" }))
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .layer(LimitLayer::http(slots.clone()));
    let empty = app.clone().oneshot(request("/empty")).await.unwrap();
    assert_eq!(slots.snapshot().remaining, 2, "there is nothing to send");
    let full = app.clone().oneshot(request("/full")).await.unwrap();
    assert_eq!(slots.snapshot().remaining, 1);
    let mut body = full.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "full");
    assert_eq!(slots.snapshot().remaining, 2, "its last frame is out");
    drop((body, empty));
}

#[tokio::test]
async fn a_slot_of_a_response_that_has_ended_goes_to_who_waits() {
    for wire in WIRES {
        let slots = Concurrency::new(1);
        let (runs, mut told) = mpsc::unbounded_channel::<BodySender>();
        let streams = get(move || async move {
            let (sender, body) = futures::channel::mpsc::unbounded();
            let _ = runs.send(sender);
            Body::from_stream(body)
        });
        let app = Router::new().route("/", streams);
        let address = serve(app.layer(LimitLayer::http(slots.clone()).wait(Duration::MAX))).await;
        let mut asked = Vec::new();
        let mut bodies = Vec::new();
        for line in 0..4_usize {
            let mut client = Client::connect(address, wire).await;
            asked.push(tokio::spawn(async move { client.get("/").await.body }));
            if line == 0 {
                bodies.push(told.recv().await.unwrap());
            }
            eventually("it waits", || slots.snapshot().waiting == line).await;
        }
        let mut served = BTreeMap::new();
        for (n, answer) in asked.into_iter().enumerate() {
            let body = bodies.pop().unwrap();
            assert!(told.try_recv().is_err(), "one at a time");
            body.unbounded_send(Ok(Bytes::from(n.to_string()))).unwrap();
            drop(body);
            served.insert(n, answer.await.unwrap());
            if n < 3 {
                bodies.push(told.recv().await.unwrap());
            }
        }
        assert!(served.iter().all(|(n, body)| *body == n.to_string()), "in order: {served:?}");
        is_free(&slots, "all are served").await;
    }
}
