//! The HTTP layer against clients that mean harm: on sockets where it matters, by millions where it does not.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::edge::*;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Request, Response, StatusCode};
use axum::routing::{get, post};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tollgate::http::{ClientIp, Header, Source};
use tollgate::{
    Concurrency, Keyed, KeyedBuilder, LimitLayer, LimiterExt, ManualClock, Name, Quota, Reason, TokenBucket,
    algorithm,
};
use tower::{Layer, Service, ServiceExt, service_fn};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const X_USER: HeaderName = HeaderName::from_static("x-user");

async fn socket(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends these bytes as the head of a `GET /` on a connection of its own, and reads the status.
async fn raw(from: &str, to: SocketAddr, lines: impl AsRef<[u8]>) -> u16 {
    let mut stream = socket(from, to).await;
    let mut sent = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_vec();
    sent.extend(lines.as_ref());
    sent.extend(b"\r\n");
    // A server that refuses early may close before all is sent, or read.
    let _ = stream.write_all(&sent).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    std::str::from_utf8(status.expect("an answer")).unwrap().parse().unwrap()
}

async fn admitted(from: &str, to: SocketAddr, all: impl IntoIterator<Item = String>) -> usize {
    let mut admitted = 0;
    for lines in all {
        match raw(from, to, &lines).await {
            200 => admitted += 1,
            429 => {}
            status => panic!("{status} for {lines:?}"),
        }
    }
    admitted
}

fn per_client(units: u64, client: ClientIp) -> impl Limits {
    bucket("api", Quota::per_hour(units), &ManualClock::new()).keyed().by(client)
}

const SPOOFS: [&str; 12] = [
    "X-Forwarded-For: 6.6.6.{n}\r\n",
    "X-Forwarded-For: 6.6.6.{n}\r\nX-Forwarded-For: 7.7.7.{n}\r\n",
    "x-forwarded-for: 6.6.6.{n}, 127.0.0.1\r\n",
    "X_Forwarded_For: 6.6.6.{n}\r\n",
    "Forwarded: for=6.6.6.{n}\r\n",
    "Forwarded: for=\"[2001:db8::{n}]:80\";proto=https\r\n",
    "X-Real-IP: 6.6.6.{n}\r\n",
    "True-Client-IP: 6.6.6.{n}\r\n",
    "CF-Connecting-IP: 6.6.6.{n}\r\n",
    "X-Client-IP: 6.6.6.{n}\r\nX-Cluster-Client-IP: 6.6.6.{n}\r\n",
    "Connection: close, X-Forwarded-For\r\nX-Forwarded-For: 6.6.6.{n}\r\n",
    "X-Forwarded-For: \u{a0}{n}\r\n",
];

fn spoofs(rounds: std::ops::Range<u32>) -> Vec<String> {
    rounds.flat_map(|n| SPOOFS.iter().map(move |lines| lines.replace("{n}", &n.to_string()))).collect()
}

#[tokio::test]
async fn no_header_makes_a_new_client_where_none_is_believed() {
    let address = serve_hello(Server::Axum, LimitLayer::http(per_client(5, ClientIp::peer()))).await;
    assert_eq!(admitted("127.0.0.1", address, spoofs(0..5)).await, 5);
    assert_eq!(admitted("127.0.0.2", address, spoofs(0..2)).await, 5, "another address is another client");
}

#[tokio::test]
async fn who_is_no_proxy_is_not_believed() {
    let proxies = ["127.0.0.1", "10.0.0.0/8"];
    for source in [
        Source::x_forwarded_for(),
        Source::forwarded(),
        Source::header(HeaderName::from_static("cf-connecting-ip")),
    ] {
        let client = ClientIp::behind(source.clone(), proxies).unwrap();
        let address = serve_hello(Server::Hyper, LimitLayer::http(per_client(3, client))).await;
        assert_eq!(admitted("127.0.0.9", address, spoofs(0..3)).await, 3, "{source:?}");
    }
}

#[tokio::test]
async fn only_what_the_proxy_has_written_last_counts() {
    let client = ClientIp::behind(Source::x_forwarded_for(), ["127.0.0.1", "10.0.0.0/8"]).unwrap();
    let address = serve_hello(Server::Axum, LimitLayer::http(per_client(3, client))).await;
    let seen_as = |client: &'static str| {
        (0..4).flat_map(move |n| {
            [
                format!("X-Forwarded-For: {client}\r\n"),
                format!("X-Forwarded-For: 6.6.6.{n}, {client}\r\n"),
                format!("X-Forwarded-For: 6.6.6.{n}\r\nX-Forwarded-For: {client}\r\n"),
                format!("X-Forwarded-For: 6.6.6.{n}\r\nx-forwarded-for: {client}, 10.1.2.3\r\n"),
                format!("X-Forwarded-For: unknown, ,,6.6.6.{n},{client}\r\nX_Forwarded_For: 6.6.6.{n}\r\n"),
                format!("X-Forwarded-For: {client}\r\nForwarded: for=6.6.6.{n}\r\nX-Real-IP: 6.6.6.{n}\r\n"),
                format!("X-Forwarded-For: {}6.6.6.{n}, {client}\r\n", "1.2.3.4, ".repeat(5_000)),
            ]
        })
    };
    assert_eq!(admitted("127.0.0.1", address, seen_as("203.0.113.7")).await, 3);
    assert_eq!(admitted("127.0.0.1", address, seen_as("203.0.113.8")).await, 3);
    // What cannot be read ends the reading: all of it counts for the last that is certain, the proxy.
    let unclear = (0..9).flat_map(|n| {
        ["unknown", "6.6.6.6.6", "[", "\"", "6.6.6.6%eth0", "::1::", "06.6.6.6"]
            .map(|last| format!("X-Forwarded-For: 6.6.6.{n}, {last}\r\n"))
    });
    assert_eq!(admitted("127.0.0.1", address, unclear).await, 3);
    // So does what is not there.
    assert_eq!(raw("127.0.0.1", address, "").await, 429);
    assert_eq!(raw("127.0.0.1", address, "X_Forwarded_For: 6.6.6.6\r\n").await, 429);
}

#[tokio::test]
async fn a_single_address_that_is_repeated_counts_for_the_proxy() {
    let header = Source::header(HeaderName::from_static("cf-connecting-ip"));
    let client = ClientIp::behind(header, ["127.0.0.1"]).unwrap();
    let address = serve_hello(Server::Axum, LimitLayer::http(per_client(2, client))).await;
    let doubled = (0..5).flat_map(|n| {
        [
            format!("CF-Connecting-IP: 6.6.6.{n}\r\nCF-Connecting-IP: 203.0.113.7\r\n"),
            format!("CF-Connecting-IP: 6.6.6.{n}, 203.0.113.7\r\n"),
        ]
    });
    assert_eq!(admitted("127.0.0.1", address, doubled).await, 2);
    let single = (0..5).map(|_| "CF-Connecting-IP: 203.0.113.7\r\n".to_owned());
    assert_eq!(admitted("127.0.0.1", address, single).await, 2, "itself it has not been charged");
}

#[tokio::test]
async fn keys_of_any_length_and_any_bytes_are_keys_and_missing_ones_are_none() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new()).keyed();
    let layer = LimitLayer::http(limit.clone().by(Header::named(X_USER)));
    let address = serve_hello(Server::Axum, layer).await;
    let (long, longer) = ("k".repeat(100_000), "k".repeat(100_001));
    let keys: [&[u8]; 8] =
        [b"ann", b"Ann", b"\xff\xfe", b"an\xc3\xb1", b"a:b", b"a b", long.as_bytes(), longer.as_bytes()];
    for status in [200, 429] {
        for key in keys {
            let line = [b"X-User: ", key, b" \t\r\n"].concat();
            assert_eq!(raw("127.0.0.1", address, line).await, status, "{:?}", &key[..key.len().min(9)]);
        }
    }
    for none in ["", "X-User:\r\n", "X-User: \t \r\n", "X-User: ann\r\nX-User: bob\r\n", "X_User: ann\r\n"] {
        assert_eq!(raw("127.0.0.1", address, none).await, 400, "{none:?}");
    }
    // hyper's own limits: the request does not reach the layer.
    let many: String = (0..300).map(|n| format!("X-User: {n}\r\n")).collect();
    assert_eq!(raw("127.0.0.1", address, many).await, 431);
    assert_eq!(raw("127.0.0.1", address, "X-User: a\0b\r\n").await, 400);
    assert_eq!(limit.len(), keys.len());
}

#[tokio::test]
async fn a_name_cannot_leave_its_place_in_fields_and_bodies() {
    for bad in ["a\r\nset-cookie: x", "a\nb", "a\0", "é", "a\u{7f}", "\t", ""] {
        assert!(Name::new(bad).is_err(), "{bad:?}");
        assert!(TokenBucket::builder(Quota::per_hour(1)).name(bad).build().is_err(), "{bad:?}");
    }
    for odd in ["a\"b", "\\", "\\\"", "\", \"x\";r=9", "a;r=9", "</script>", "{\"status\":200}", " "] {
        let limit = bucket(odd, Quota::per_hour(1), &ManualClock::new());
        let mut client =
            Client::connect(serve_hello(Server::Hyper, LimitLayer::http(limit)).await, Wire::Http1).await;
        for status in [OK, TOO_MANY] {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.left()), (status, vec![(odd.to_owned(), 0)]));
            if status == TOO_MANY {
                assert_eq!(answer.json()["violated-policies"], serde_json::json!([odd]));
                assert_eq!(answer.json()["status"], 429);
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_is_the_same_whoever_is_refused() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new()).keyed();
    let layer = LimitLayer::http(limit.clone().by(Header::named(X_USER)));
    let mut client = Client::connect(serve_hello(Server::Axum, layer).await, Wire::Http2).await;
    let mut refusals = BTreeSet::new();
    let users = ["ann", "bob", "x'; drop table users; --", "<b>", "\"quoted\"", "%0d%0aset-cookie:x=1"];
    for user in users {
        assert_eq!(client.ask(from_user(user)).await.status, OK);
        let mut asked = from_user(user);
        *asked.uri_mut() = format!("/?{}", user.len()).parse().unwrap();
        let refused = client.ask(asked).await;
        assert_eq!(refused.status, TOO_MANY);
        let mut headers = refused.headers.clone();
        headers.remove("date");
        refusals.insert(format!("{headers:?} {:?}", refused.body));
    }
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
}

/// A handler that never answers, and what it counts.
fn hanging() -> (axum::routing::MethodRouter, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let handler = get(move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    (handler, calls)
}

const RESETS: usize = 10_000;
/// hyper closes a connection on which more than 20 streams are reset before it has looked at them, so a hostile client
/// uses many connections. So does this one.
const RESETS_PER_CONNECTION: usize = 20;

/// Counts what comes to the layer, on a hyper server.
async fn serve_counting(app: Router) -> (SocketAddr, Arc<AtomicUsize>) {
    let arrived = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&arrived);
    let counted = app.map_request(move |request: Request<Incoming>| {
        counter.fetch_add(1, Ordering::SeqCst);
        request.map(Body::new)
    });
    (serve_hyper(counted).await, arrived)
}

/// HEADERS and RST_STREAM of all streams of a connection in one write, 10,000 times: no client library is as fast.
async fn reset_rapidly(address: SocketAddr, arrived: &AtomicUsize) {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    for n in 0..u32::try_from(RESETS_PER_CONNECTION).unwrap() {
        // GET, http, /, and the authority "x"; the end of the headers and of the stream.
        sent.extend(frame(1, 5, 2 * n + 1, &[0x82, 0x86, 0x84, 0x01, 1, b'x']));
        sent.extend(frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    for connection in 1..=RESETS / RESETS_PER_CONNECTION {
        let mut stream = socket("127.0.0.1", address).await;
        stream.write_all(&sent).await.unwrap();
        // A server whose client is gone does not look at what it has sent.
        let all = connection * RESETS_PER_CONNECTION;
        eventually("all have arrived", || arrived.load(Ordering::SeqCst) == all).await;
    }
}

#[tokio::test]
async fn ten_thousand_requests_that_are_reset_at_once_are_charged_and_leave_nothing() {
    let rate = bucket("rate", Quota::per_hour(20_000), &ManualClock::new());
    let slots = Concurrency::new(20_000);
    let (handler, calls) = hanging();
    let layer = LimitLayer::http(rate.clone().and(slots.clone()));
    let (address, arrived) = serve_counting(Router::new().route("/", handler).layer(layer)).await;
    reset_rapidly(address, &arrived).await;
    eventually("all permits are back", || slots.snapshot().remaining == 20_000).await;
    eventually("every one of them is charged", || rate.snapshot().remaining == 10_000).await;
    assert_eq!((rate.snapshot().waiting, slots.snapshot().waiting), (0, 0));
    assert_eq!(calls.load(Ordering::SeqCst), RESETS, "the service was called, and dropped");
}

#[tokio::test]
async fn a_thousand_streams_of_one_connection_that_are_reset_while_they_run_are_charged() {
    let rate = bucket("rate", Quota::per_hour(2_000), &ManualClock::new());
    let slots = Concurrency::new(1);
    let (handler, calls) = hanging();
    let layer = LimitLayer::http(rate.clone().and(slots.clone()));
    let (address, _) = serve_counting(Router::new().route("/", handler).layer(layer)).await;
    let (mut sender, connection) = h2::client::handshake(socket("127.0.0.1", address).await).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    for n in 1..=1_000 {
        sender = sender.ready().await.unwrap();
        let asked = Request::get(format!("http://{address}/")).body(()).unwrap();
        let (answer, mut stream) = sender.send_request(asked, true).unwrap();
        eventually("its handler runs", || calls.load(Ordering::SeqCst) == n).await;
        assert_eq!(slots.snapshot().remaining, 0);
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        // The only slot there is: the next one needs it.
        eventually("its permit is back", || slots.snapshot().remaining == 1).await;
    }
    assert_eq!((rate.snapshot().remaining, rate.snapshot().waiting, slots.snapshot().waiting), (1_000, 0, 0));
}

#[tokio::test]
async fn ten_thousand_requests_that_are_reset_in_line_leave_no_waiter_and_no_charge() {
    let rate = bucket("rate", Quota::per_hour(100), &ManualClock::new());
    let slots = Concurrency::new(1_000);
    let (handler, calls) = hanging();
    let layer = LimitLayer::http(rate.clone().and(slots.clone())).wait(Duration::MAX).max_waiting(RESETS);
    let (address, arrived) = serve_counting(Router::new().route("/", handler).layer(layer)).await;
    reset_rapidly(address, &arrived).await;
    eventually("all have come and gone", || {
        let (rate, slots) = (rate.snapshot(), slots.snapshot());
        (rate.remaining, rate.waiting, slots.remaining, slots.waiting) == (0, 0, 1_000, 0)
    })
    .await;
    assert_eq!(calls.load(Ordering::SeqCst), 100, "as many as could be paid for");
    assert_eq!(rate.snapshot().debt, 0);
}

#[tokio::test]
async fn who_sends_or_reads_slowly_holds_one_permit_until_it_goes() {
    let slots = Concurrency::new(2);
    let endless = get(|| async {
        let chunk = Bytes::from(vec![7; 1 << 16]);
        Body::from_stream(futures::stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone())))
    });
    let app = Router::new()
        .route("/up", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/down", endless)
        .layer(LimitLayer::http(slots.clone()));
    let address = serve(app).await;
    // Who has not sent a whole head holds nothing.
    let mut heads = Vec::new();
    for _ in 0..50 {
        let mut stream = socket("127.0.0.1", address).await;
        stream.write_all(b"POST /up HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        heads.push(stream);
    }
    let mut client = Client::connect(address, Wire::Http2).await;
    assert_eq!(client.ask(Request::post("/up").body(Body::from("four")).unwrap()).await.body, "4");
    eventually("nothing is held", || slots.snapshot().remaining == 2).await;

    let mut sender = socket("127.0.0.1", address).await;
    sender.write_all(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nf").await.unwrap();
    eventually("the slow sender is in", || slots.snapshot().remaining == 1).await;
    let mut reader = socket("127.0.0.1", address).await;
    reader.write_all(b"GET /down HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut one = [0];
    reader.read_exact(&mut one).await.unwrap();
    assert_eq!(slots.snapshot().remaining, 0);
    assert_eq!(client.get("/up").await.status, TOO_MANY);
    sender.write_all(b"ou").await.unwrap();
    assert_eq!(client.get("/down").await.status, TOO_MANY);
    sender.write_all(b"r").await.unwrap();
    eventually("all of it was sent", || slots.snapshot().remaining == 1).await;
    drop(reader);
    eventually("the slow reader is gone", || slots.snapshot().remaining == 2).await;

    let mut sender = socket("127.0.0.1", address).await;
    sender.write_all(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nf").await.unwrap();
    eventually("another is in", || slots.snapshot().remaining == 1).await;
    drop(sender);
    eventually("and has gone", || slots.snapshot().remaining == 2).await;
    drop(heads);
}

/// A service without a router around it, and how often it was called.
#[derive(Clone, Default)]
struct Hello {
    calls: Arc<AtomicUsize>,
}

impl Service<Request<()>> for Hello {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Full::new(Bytes::from("hello")))))
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[test]
fn of_a_hundred_thousand_in_line_as_many_wait_as_may_and_leave_without_a_trace() {
    let limit = bucket("api", Quota::per_hour(1), &ManualClock::new());
    let hello = Hello::default();
    let layer = LimitLayer::http(limit.clone()).wait(Duration::MAX).max_waiting(1_000);
    // Layered again and cloned, it is one line.
    let mut services = [layer.clone().layer(hello.clone()), layer.layer(hello.clone())];
    limit.check(1).unwrap();
    for _round in 0..2 {
        let (mut waiting, mut refused) = (Vec::new(), 0);
        for n in 0..100_000 {
            let mut service = services[n % 2].clone();
            let mut asked = Box::pin(service.call(Request::new(())));
            match poll_once(asked.as_mut()) {
                Some(answer) => {
                    assert_eq!(answer.unwrap().status(), TOO_MANY);
                    refused += 1;
                }
                None => waiting.push(asked),
            }
            assert!(limit.snapshot().waiting <= 1_000);
        }
        assert_eq!((waiting.len(), refused, limit.snapshot().waiting), (1_000, 99_000, 1_000));
        assert!(waiting.iter_mut().all(|asked| poll_once(asked.as_mut()).is_none()), "they wait on");
        // One that goes makes room for one.
        drop(waiting.swap_remove(500));
        assert_eq!(limit.snapshot().waiting, 999);
        let mut asked = Box::pin(services[0].call(Request::new(())));
        assert!(poll_once(asked.as_mut()).is_none());
        assert!(poll_once(Box::pin(services[1].call(Request::new(()))).as_mut()).is_some());
        drop((waiting, asked));
        assert_eq!((limit.snapshot().waiting, limit.snapshot().waiting_units), (0, 0));
    }
    assert_eq!(hello.calls.load(Ordering::SeqCst), 0);
    assert_eq!((limit.snapshot().remaining, limit.snapshot().debt), (0, 0));
}

#[test]
fn a_service_that_is_ready_and_never_called_has_cost_nothing() {
    let rate = bucket("rate", Quota::per_hour(3), &ManualClock::new());
    let slots = Concurrency::new(1);
    let layer = LimitLayer::http(rate.clone().and(slots.clone())).wait(Duration::MAX).max_waiting(1);
    let mut service = layer.layer(Hello::default());
    for _ in 0..10_000 {
        let mut clone = service.clone();
        let ready = Service::<Request<()>>::poll_ready(&mut clone, &mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready());
        // Nor has a call that is never polled.
        drop(clone.call(Request::new(())));
    }
    assert_eq!((rate.snapshot().remaining, slots.snapshot().remaining), (3, 1));
    let mut asked = Box::pin(service.call(Request::new(())));
    assert_eq!(poll_once(asked.as_mut()).unwrap().unwrap().status(), OK);
    assert_eq!((rate.snapshot().remaining, slots.snapshot().remaining), (2, 1));
}

#[test]
fn who_is_refused_in_line_frees_the_place() {
    let limit = Concurrency::new(1);
    let layer = LimitLayer::http(limit.clone()).wait(Duration::MAX).max_waiting(2);
    let mut service = layer.layer(Hello::default());
    let held = limit.try_acquire(1).unwrap();
    for _ in 0..3 {
        let mut asked = [(); 2].map(|()| Box::pin(service.call(Request::new(()))));
        assert!(asked.iter_mut().all(|asked| poll_once(asked.as_mut()).is_none()), "there are two places");
        // What they ask for is more than there is now: nobody waits for it any more.
        limit.resize(0);
        for asked in &mut asked {
            assert_eq!(poll_once(asked.as_mut()).unwrap().unwrap().status(), TOO_MANY);
        }
        // They have been answered, and are still there.
        limit.resize(1);
        let mut next = [(); 2].map(|()| Box::pin(service.call(Request::new(()))));
        assert!(next.iter_mut().all(|next| poll_once(next.as_mut()).is_none()), "two are free again");
    }
    drop(held);
}

fn leaves_both_as_they_were<L: Limits>(both: L, rate: &TokenBucket<ManualClock>, slots: &Concurrency) {
    let mut service = LimitLayer::http(both).wait(Duration::MAX).layer(Hello::default());
    let held = slots.try_acquire(1).unwrap();
    for _ in 0..100 {
        let mut asked = Box::pin(service.call(Request::new(())));
        assert!(poll_once(asked.as_mut()).is_none(), "it waits for a slot");
        assert_eq!((slots.snapshot().waiting, rate.snapshot().remaining), (1, 3), "it has taken nothing");
        drop(asked);
        assert_eq!((slots.snapshot().waiting, rate.snapshot().remaining), (0, 3));
    }
    drop(held);
    assert_eq!(slots.snapshot().remaining, 1);
}

#[test]
fn who_goes_while_it_waits_for_one_of_two_limits_leaves_the_other_as_it_was() {
    let rate = bucket("rate", Quota::per_hour(3), &ManualClock::new());
    let slots = Concurrency::new(1);
    leaves_both_as_they_were(rate.clone().and(slots.clone()), &rate, &slots);
    leaves_both_as_they_were(slots.clone().and(rate.clone()), &rate, &slots);
}

#[tokio::test]
async fn who_disconnects_in_line_frees_the_place_and_is_not_charged() {
    for (server, wire) in PAIRS {
        let clock = ManualClock::new();
        let limit = bucket("api", Quota::per_hour(1), &clock);
        let layer = LimitLayer::http(limit.clone()).wait(hours(9)).max_waiting(1);
        let address = serve_hello(server, layer).await;
        assert_eq!(Client::connect(address, wire).await.get("/").await.status, OK);
        for _ in 0..3 {
            let mut client = Client::connect(address, wire).await;
            {
                let asked = client.send(request("/"));
                tokio::pin!(asked);
                tokio::select! {
                    _ = &mut asked => panic!("it waits"),
                    () = eventually("it waits", || limit.snapshot().waiting == 1) => {}
                }
                assert_eq!(Client::connect(address, wire).await.get("/").await.status, TOO_MANY);
            }
            client.disconnect();
            eventually("it has left", || limit.snapshot().waiting == 0).await;
        }
        clock.advance(hours(1));
        let answer = Client::connect(address, wire).await.get("/").await;
        assert_eq!(answer.status, OK, "nobody who left was charged");
    }
}

type PerKey = Keyed<u64, algorithm::TokenBucket, ManualClock>;

fn keyed<K>(
    name: &str,
    quota: Quota,
    clock: &ManualClock,
) -> KeyedBuilder<K, algorithm::TokenBucket, ManualClock> {
    TokenBucket::builder(quota).name(name).clock(clock.clone()).keyed()
}

fn flooded(cap: usize, clock: &ManualClock) -> PerKey {
    keyed("key", Quota::per_hour(5), clock).max_keys(cap).build().unwrap()
}

const VICTIM: u64 = u64::MAX;
const HONEST: u64 = u64::MAX - 1;
const HELD: u64 = u64::MAX - 2;

/// New keys by the million, while time passes and flooders' states become as fresh ones. The victim's never does.
fn flood(per_key: &PerKey, clock: &ManualClock, keys: u64, mut meanwhile: impl FnMut(u64)) {
    for key in 0..keys {
        let _ = per_key.check(&key, 1);
        if key % 20_000 == 19_999 {
            clock.advance(Duration::from_secs(720));
            meanwhile(key);
        }
        if key % 100 == 0 {
            assert!(per_key.len() <= 10_000, "{} keys", per_key.len());
        }
    }
}

#[test]
fn a_million_new_keys_neither_reset_nor_refuse_those_that_have_a_state() {
    let clock = ManualClock::new();
    let per_key = flooded(10_000, &clock);
    per_key.charge(&VICTIM, 1_000_000).unwrap();
    let held = per_key.get(&HELD).unwrap().unwrap();
    held.check(2).unwrap();
    per_key.check(&HONEST, 3).unwrap();
    let mut asked = 0;
    flood(&per_key, &clock, 1_000_000, |_| {
        assert_eq!(per_key.check(&VICTIM, 1).unwrap_err().reason(), Reason::Exhausted, "it starts anew");
        // As fast as its quota allows, and never quite fresh.
        per_key.check(&HONEST, 1).expect("an honest key is admitted");
        asked += 1;
    });
    let stats = per_key.stats();
    println!("1,000,000 new keys: {stats:?}; the honest one asked {asked} times");
    assert!(stats.keys <= 10_000 && stats.evicted > 100_000, "{stats:?}");
    assert!(stats.refused > 0, "the flood was faster than the states of its keys became fresh");
    assert!(per_key.check(&VICTIM, 1).is_err());
    // The handle and the key are one limit still.
    held.check(5).unwrap();
    assert!(per_key.check(&HELD, 1).is_err() && held.check(1).is_err());
}

#[test]
fn where_time_stands_still_a_flood_fills_the_room_and_changes_nobody() {
    let clock = ManualClock::new();
    let per_key = flooded(10_000, &clock);
    per_key.check(&VICTIM, 5).unwrap();
    per_key.check(&HONEST, 1).unwrap();
    let admitted = (0..1_000_000).filter(|key| per_key.check(key, 1).is_ok()).count();
    // A few in a million share the state of another, and are admitted as that one is.
    let shared = admitted - (10_000 - 2);
    assert!(shared <= 20, "{admitted} where there is room for 10,000");
    assert_eq!(per_key.stats().keys, 10_000);
    let refused = per_key.stats().refused;
    assert_eq!(per_key.stats().evicted, 0);
    assert!((990_002 - 20..=990_002).contains(&refused), "{refused}");
    assert_eq!(per_key.check(&VICTIM, 1).unwrap_err().retry_after(), Some(Duration::from_secs(720)));
    assert_eq!(per_key.snapshot(&HONEST).unwrap().remaining, 4);
    per_key.check(&HONEST, 4).unwrap();
}

#[test]
fn handles_of_keys_that_were_dropped_work_on() {
    let clock = ManualClock::new();
    let per_key = flooded(1_000, &clock);
    let mut asked = Box::pin(per_key.acquire(&HELD, 1));
    drop(per_key.acquire(&HONEST, 1));
    // Both are as fresh as new ones; one is held on to, the other is not.
    for key in 0..2_000 {
        let _ = per_key.check(&key, 1);
        clock.advance(hours(1));
    }
    assert!(per_key.snapshot(&HONEST).is_none(), "it was dropped");
    assert!(per_key.stats().evicted > 0);
    let permit = poll_once(asked.as_mut()).unwrap().unwrap();
    assert_eq!(per_key.snapshot(&HELD).unwrap().remaining, 4, "what the handle takes, the key has spent");
    drop((permit, asked));
}

#[test]
fn newcomers_without_room_share_one_budget() {
    let clock = ManualClock::new();
    let overflow = bucket("overflow", Quota::per_hour(10), &clock);
    let per_key = keyed("key", Quota::per_hour(5), &clock).max_keys(10_000).overflow(overflow.clone());
    let per_key: PerKey = per_key.build().unwrap();
    let admitted = (0..1_000_000).filter(|key| per_key.check(key, 1).is_ok()).count();
    let shared = admitted - (10_000 + 10);
    assert!(shared <= 20, "{admitted} where there is room for 10,000");
    assert_eq!((per_key.stats().keys, overflow.snapshot().remaining), (10_000, 0));
    let denied = per_key.check(&VICTIM, 1).unwrap_err();
    assert_eq!((denied.reason(), denied.limit().unwrap().as_str()), (Reason::Exhausted, "overflow"));
    assert!(per_key.check(&7, 4).is_ok(), "who has room has its own");
}

#[tokio::test]
async fn a_flood_of_users_is_answered_503_and_the_known_are_served() {
    let limit = keyed("user", Quota::per_hour(3), &ManualClock::new()).max_keys(10).build().unwrap();
    let hello =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) });
    let layer = LimitLayer::http(limit.clone().by(Header::named(X_USER)));
    let service = layer.layer(hello);
    let status = async |user: &str| service.clone().oneshot(from_user(user)).await.unwrap().status();
    assert_eq!(status("ann").await, OK);
    let mut admitted = 0;
    for n in 0..10_000 {
        match status(&format!("flooder {n}")).await {
            OK => admitted += 1,
            refused => assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    assert_eq!((admitted, limit.len()), (9, 10));
    assert_eq!((status("ann").await, status("ann").await, status("ann").await), (OK, OK, TOO_MANY));
}

fn resident_kib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// Run it with `--release -- --ignored --nocapture`; the numbers are for people.
#[test]
#[ignore = "takes a minute, and prints numbers"]
fn ten_million_new_keys_take_no_more_memory_than_the_cap() {
    let clock = ManualClock::new();
    let per_key = flooded(10_000, &clock);
    // Ten thousand decisions a second about a known key, on a thread of their own, until the flood is over.
    let honest = |over: &dyn Fn(usize) -> bool| {
        let mut took = Vec::new();
        while !over(took.len()) {
            let start = Instant::now();
            let _ = per_key.check(&HONEST, 1);
            took.push(start.elapsed());
            std::thread::sleep(Duration::from_micros(100));
        }
        took.sort();
        [500, 990, 999].map(|part| took[took.len() * part / 1_000])
    };
    per_key.charge(&VICTIM, 100_000_000).unwrap();
    let (before_kib, before) = (resident_kib(), honest(&|asked| asked >= 10_000));
    let over = AtomicBool::new(false);
    let during = std::thread::scope(|threads| {
        let during = threads.spawn(|| honest(&|asked| asked > 0 && over.load(Ordering::Relaxed)));
        flood(&per_key, &clock, 10_000_000, |_| assert!(per_key.check(&VICTIM, 1).is_err()));
        over.store(true, Ordering::Relaxed);
        during.join().unwrap()
    });
    let after_kib = resident_kib();
    println!(
        "10,000,000 new keys: {:?}; resident {before_kib} KiB before, {after_kib} KiB after; p50, p99 and p99.9 of a \
         decision about a known key {before:?} before, {during:?} during",
        per_key.stats()
    );
    assert!(after_kib - before_kib < 100_000, "the cap of 10,000 keys bounds the memory");
}
