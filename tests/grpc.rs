//! The layer on real tonic servers, with real clients: over TCP, and over a Unix socket.

mod grpc_reply;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use axum::routing::get;
use grpc_reply::Reply;
use http::HeaderName;
use http::request::Parts;
use tokio::net::TcpListener;
use tollgate::http::{Client, ClientIp, Header, HttpLayer, Route};
use tollgate::{
    Concurrency, Cost, Found, KeyOf, LimitLayer, Limiter, LimiterExt, Name, Quota, Snapshot, TokenBucket,
};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

type Fallible = Result<(), Box<dyn Error + Send + Sync>>;

/// One unit, and another after ten minutes: nothing comes back while a test runs.
fn one() -> TokenBucket {
    TokenBucket::builder(Quota::every(WAIT)).name("one").build().unwrap()
}

const WAIT: Duration = Duration::from_secs(600);

fn asked() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

fn health() -> (HealthReporter, Routes) {
    let (reporter, service) = tonic_health::server::health_reporter();
    (reporter, Routes::new(service))
}

/// A server of the health service behind `layer`, and of what else is in `routes`.
async fn serve<L>(layer: HttpLayer<L>, routes: Routes) -> SocketAddr
where
    L: Limiter<Parts> + Clone + Send + Sync + 'static,
    L::Acquire: Send + 'static,
    L::Permit: Send + 'static,
    L::Fault: 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().accept_http1(true).layer(layer).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn client(server: SocketAddr) -> HealthClient<Channel> {
    client_from(server, [127, 0, 0, 1].into()).await
}

async fn client_from(server: SocketAddr, own: IpAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap().local_address(Some(own));
    HealthClient::new(endpoint.connect().await.unwrap())
}

/// That `status` refuses for a limit that has a unit again within ten minutes: after this wait.
fn assert_refused_for_a_while(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let wait = Reply::of_details(status.details()).retry_info.expect("details with RetryInfo");
    assert!(wait <= WAIT && wait > WAIT - Duration::from_secs(60), "{wait:?}");
    let pushback = status.metadata().get("grpc-retry-pushback-ms").expect("a pushback");
    assert_eq!(pushback.to_str().unwrap(), wait.as_nanos().div_ceil(1_000_000).to_string());
    wait
}

/// Whole seconds, as HTTP tells of waits.
fn seconds(wait: Duration) -> u128 {
    wait.as_nanos().div_ceil(1_000_000_000)
}

#[tokio::test]
async fn refusals_of_unary_and_streaming_calls_say_when_to_come_back() -> Fallible {
    let server = serve(LimitLayer::http(one()), health().1).await;
    let mut client = client(server).await;
    let answer = client.check(asked()).await?;
    assert_eq!(answer.get_ref().status, 1, "serving");
    assert_eq!(answer.metadata().get("ratelimit-policy").unwrap(), "\"one\";q=1;w=600");
    assert!(answer.metadata().get("grpc-retry-pushback-ms").is_none());

    let refused = client.check(asked()).await.unwrap_err();
    let wait = assert_refused_for_a_while(&refused);
    let told = format!("\"one\";r=0;t={}", seconds(wait));
    assert_eq!(refused.metadata().get("ratelimit").unwrap(), told.as_str());
    assert!(refused.metadata().get("retry-after").is_none(), "gRPC has its own word for it");
    // A stream is refused before it starts.
    assert_refused_for_a_while(&client.watch(asked()).await.unwrap_err());
    Ok(())
}

/// As the frames are: one HEADERS frame with status 200, which ends the stream.
#[tokio::test]
async fn a_refusal_is_trailers_only_with_status_200() -> Fallible {
    let server = serve(LimitLayer::http(one()), health().1).await;
    let tcp = tokio::net::TcpStream::connect(server).await?;
    let (mut h2, connection) = h2::client::handshake(tcp).await?;
    tokio::spawn(connection);
    let call = || {
        let uri = format!("http://{server}/grpc.health.v1.Health/Check");
        Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(())
    };
    for admitted in [true, false] {
        h2 = h2.ready().await?;
        let (response, mut body) = h2.send_request(call()?, false)?;
        // An empty message, not compressed.
        body.send_data(vec![0; 5].into(), true)?;
        let response = response.await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body().is_end_stream(), !admitted);
        let reply = Reply::read(response.headers());
        assert_eq!(reply.code, if admitted { None } else { Some(8) });
        assert_eq!((reply.may_retry(), reply.wait_ms().is_some()), (!admitted, !admitted));
        if !admitted {
            assert_eq!(response.headers()["content-type"], "application/grpc");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_call_above_the_capacity_is_not_to_be_made_again() -> Fallible {
    let layer = LimitLayer::http(one()).cost(|call| match call.uri.path() {
        "/grpc.health.v1.Health/Watch" => Cost::new(2),
        _ => Cost::ONE,
    });
    let mut client = client(serve(layer, health().1).await).await;
    let status = client.watch(asked()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    assert_eq!(Reply::of_details(status.details()).retry_info, None);
    client.check(asked()).await?;
    Ok(())
}

/// All of 127/8 is this machine on Linux; elsewhere there is one address to call from.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn peers_count_apart_and_no_header_makes_another_peer() -> Fallible {
    let per_client = one().keyed();
    let server = serve(LimitLayer::http(per_client.clone().by(ClientIp::peer())), health().1).await;
    let [first, second] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
    client_from(server, first).await.check(asked()).await?;
    client_from(server, second).await.check(asked()).await?;
    for peer in [first, second] {
        let mut again = client_from(server, peer).await;
        assert_refused_for_a_while(&again.check(asked()).await.unwrap_err());
        let mut forged = tonic::Request::new(asked());
        forged.metadata_mut().insert("x-forwarded-for", "192.0.2.9".parse()?);
        forged.metadata_mut().insert("forwarded", "for=192.0.2.9".parse()?);
        assert_refused_for_a_while(&again.check(forged).await.unwrap_err());
        let key: Client = peer.to_string().parse()?;
        assert_eq!(per_client.snapshot(&key).expect("a key").remaining, 0);
    }
    assert_eq!(per_client.len(), 2);
    Ok(())
}

/// Until the limit stands so: the server hears of a client that goes away when the frames come.
async fn until(slots: &Concurrency, stands: impl Fn(&Snapshot) -> bool) {
    let until = async {
        while !stands(&slots.snapshot()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(30), until).await;
    within.unwrap_or_else(|_| panic!("the limit stays at {:?}", slots.snapshot()));
}

#[tokio::test]
async fn a_permit_is_held_to_the_end_of_a_stream() -> Fallible {
    let slots = Concurrency::new(1);
    let (mut reporter, routes) = health();
    let mut client = client(serve(LimitLayer::http(slots.clone()), routes).await).await;
    for client_drops in [true, false] {
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let mut stream = client.watch(asked()).await?.into_inner();
        assert_eq!(stream.message().await?.expect("the first of the stream").status, 1);
        assert_eq!(slots.snapshot().remaining, 0, "a stream that runs is in progress");
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        assert_eq!(stream.message().await?.expect("the second of the stream").status, 2);

        let status = client.check(asked()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(Reply::of_details(status.details()).retry_info, None, "nobody knows how long a stream is");
        assert!(status.metadata().get("grpc-retry-pushback-ms").is_none(), "and it may be tried again");

        if client_drops {
            drop(stream);
        } else {
            reporter.clear_service_status("").await;
            assert!(stream.message().await?.is_none(), "the server ends the stream");
        }
        until(&slots, |slots| slots.remaining == 1).await;
    }
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    for _ in 0..20 {
        client.check(asked()).await?;
        until(&slots, |slots| slots.remaining == 1).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_call_waits_in_line_and_leaves_it_when_the_client_does() -> Fallible {
    let slots = Concurrency::new(1);
    let layer = LimitLayer::http(slots.clone()).wait(Duration::from_secs(60));
    let server = serve(layer, health().1).await;
    let mut client = client(server).await;
    let stream = client.watch(asked()).await?;
    let mut other = client.clone();
    let gives_up = tokio::spawn(async move { other.check(asked()).await });
    until(&slots, |slots| slots.waiting == 1).await;
    gives_up.abort();
    until(&slots, |slots| slots.waiting == 0).await;
    let waits = tokio::spawn(async move { client.check(asked()).await });
    until(&slots, |slots| slots.waiting == 1).await;
    drop(stream);
    assert_eq!(waits.await??.get_ref().status, 1);
    Ok(())
}

/// A request over HTTP/1 for `path`: the status, and `Retry-After`.
async fn get_http(server: SocketAddr, path: &str) -> (StatusCode, Option<String>) {
    let client = reqwest::Client::builder().build().unwrap();
    let response = client.request(Method::GET, format!("http://{server}{path}")).send().await.unwrap();
    let retry_after = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
    (response.status(), retry_after)
}

/// That HTTP was told the wait that gRPC was told a moment before.
fn assert_one_wait(grpc: Duration, retry_after: Option<String>) {
    let told: u128 = retry_after.expect("Retry-After").parse().expect("seconds");
    assert!(told <= seconds(grpc) && told + 60 > seconds(grpc), "{told} s, and {grpc:?}");
}

fn hello() -> axum::Router {
    axum::Router::new().route("/hello", get(|| async { "hello" }))
}

#[tokio::test]
async fn two_servers_in_two_protocols_spend_one_budget() -> Fallible {
    let budget = TokenBucket::builder(Quota::every(WAIT).burst(4)).build()?;
    let grpc = serve(LimitLayer::http(budget.clone()), health().1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let http = listener.local_addr()?;
    let app = hello().layer(LimitLayer::http(budget.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut client = client(grpc).await;
    for _ in 0..2 {
        client.check(asked()).await?;
        assert_eq!(get_http(http, "/hello").await, (StatusCode::OK, None));
    }
    let wait = assert_refused_for_a_while(&client.check(asked()).await.unwrap_err());
    let (status, retry_after) = get_http(http, "/hello").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_one_wait(wait, retry_after);
    Ok(())
}

#[tokio::test]
async fn one_server_answers_both_protocols_in_their_own_words() -> Fallible {
    let per_client = TokenBucket::builder(Quota::every(WAIT).burst(2)).build()?.keyed();
    let both = Routes::from(hello().merge(health().1.into_axum_router()));
    let server = serve(LimitLayer::http(per_client.clone().by(ClientIp::peer())), both).await;
    let mut client = client(server).await;
    client.check(asked()).await?;
    assert_eq!(get_http(server, "/hello").await, (StatusCode::OK, None));
    assert_eq!(per_client.len(), 1, "one address, one key, however it calls");
    let wait = assert_refused_for_a_while(&client.check(asked()).await.unwrap_err());
    // What no route matches is charged, and refused, as well.
    for path in ["/hello", "/nothing"] {
        let (status, retry_after) = get_http(server, path).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_one_wait(wait, retry_after);
    }
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn all_that_comes_through_a_unix_socket_is_one_peer() -> Fallible {
    let folder = std::env::temp_dir().join(format!("tollgate-grpc-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("socket");
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path)?;
    let accepted = futures::stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(connection, _)| connection), listener))
    });
    let per_client = one().keyed();
    let layer = LimitLayer::http(per_client.clone().by(ClientIp::peer()));
    let server = Server::builder().layer(layer).add_routes(health().1);
    tokio::spawn(async move { server.serve_with_incoming(Box::pin(accepted)).await });

    for passes in [true, false] {
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))?;
        let mut client = HealthClient::new(endpoint.connect().await?);
        match client.check(asked()).await {
            Ok(_) => assert!(passes),
            Err(status) => {
                assert!(!passes, "{status:?}");
                assert_refused_for_a_while(&status);
            }
        }
    }
    assert_eq!(per_client.snapshot(&Client::LOCAL).expect("a key").remaining, 0);
    assert_eq!(per_client.len(), 1);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// All that a refusal says, in every place.
fn said(status: &Status) -> String {
    let mut said = format!("{} {}", status.message(), String::from_utf8_lossy(status.details()));
    for pair in MetadataMap::into_headers(status.metadata().clone()) {
        said.push_str(&format!("{pair:?}"));
    }
    said
}

#[tokio::test]
async fn a_refusal_tells_nothing_of_the_key() -> Fallible {
    const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    let key = (Header::named(API_KEY), ClientIp::peer(), Route);
    let per_key = TokenBucket::builder(Quota::every(WAIT)).name(Name::new("per-key")?).build()?.keyed();
    let server = serve(LimitLayer::http(per_key.clone().by(key.clone())), health().1).await;
    let mut client = client(server).await;
    let mut messages = Vec::new();
    for secret in ["hunter2", "correct-horse"] {
        let call = || {
            let mut call = tonic::Request::new(asked());
            call.metadata_mut().insert("x-api-key", secret.parse().expect("a key"));
            call
        };
        client.check(call()).await?;
        let refused = client.check(call()).await.unwrap_err();
        assert_refused_for_a_while(&refused);
        let parts = Request::builder().header(API_KEY, secret).body(())?.into_parts().0;
        let Found::Key(fingerprint) = Header::named(API_KEY).key_of(&parts) else { panic!("there is a key") };
        let fingerprint = format!("{fingerprint:?}");
        let digits = fingerprint.trim_start_matches("Fingerprint(").trim_end_matches(')');
        assert_eq!(digits.len(), 32, "{fingerprint}");
        let all = said(&refused);
        for secret in [secret, "127.0.0.1", "Health", digits] {
            assert!(!all.contains(secret), "{secret} is told: {all}");
        }
        messages.push(refused.message().to_owned());
    }
    assert_eq!(messages[0], messages[1], "the message is the same for all");

    let without = client.check(asked()).await.unwrap_err();
    assert_eq!(without.code(), Code::InvalidArgument, "no key is no allowance");
    assert_eq!(without.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    assert!(!said(&without).contains("api-key"), "{without:?}");
    assert_eq!(per_key.len(), 2);
    Ok(())
}
