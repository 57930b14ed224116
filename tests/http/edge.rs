//! Servers on sockets and clients of them, for the tests of the HTTP layer.

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri};
use axum::routing::get;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tollgate::http::{FieldItem, HttpLayer, PeerAddr, parse_items};
use tollgate::{Limiter, ManualClock, Quota, TokenBucket};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Limiters that can stand in front of a server.
pub(crate) trait Limits:
    Limiter<Parts, Permit: Send + 'static, Acquire: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<L> Limits for L where
    L: Limiter<Parts, Permit: Send + 'static, Acquire: Send + 'static> + Clone + Send + Sync + 'static
{
}

pub(crate) fn bucket(name: &str, quota: Quota, clock: &ManualClock) -> TokenBucket<ManualClock> {
    TokenBucket::builder(quota).name(name).clock(clock.clone()).build().unwrap()
}

pub(crate) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}

/// A router that answers `GET /` behind the layer.
pub(crate) fn hello<L: Limits>(layer: HttpLayer<L>) -> Router {
    Router::new().route("/", get(|| async { "hello" })).layer(layer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Axum,
    Hyper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    Http2,
}

pub(crate) const WIRES: [Wire; 2] = [Wire::Http1, Wire::Http2];

pub(crate) const PAIRS: [(Server, Wire); 4] = [
    (Server::Axum, Wire::Http1),
    (Server::Axum, Wire::Http2),
    (Server::Hyper, Wire::Http1),
    (Server::Hyper, Wire::Http2),
];

/// A server that says hello behind the layer.
pub(crate) async fn serve_hello<L: Limits>(server: Server, layer: HttpLayer<L>) -> SocketAddr {
    match server {
        Server::Axum => serve(hello(layer)).await,
        Server::Hyper => {
            let hello = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
            });
            serve_hyper(layer.layer(hello)).await
        }
    }
}

/// axum with its connect info.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// hyper alone, with the peer put in by hand.
pub(crate) async fn serve_hyper<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = service.clone().map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(PeerAddr::from(peer));
                request
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let served = TowerToHyperService::new(service);
                let _ = builder.serve_connection(TokioIo::new(stream), served).await;
            });
        }
    });
    address
}

/// One connection.
pub(crate) struct Client {
    sender: Sender,
    address: SocketAddr,
    socket: std::net::TcpStream,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr, wire: Wire) -> Self {
        Self::connect_from("127.0.0.1", to, wire).await
    }

    /// From another address of this machine.
    pub(crate) async fn connect_from(from: &str, to: SocketAddr, wire: Wire) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let socket = socket.connect(to).await.unwrap().into_std().unwrap();
        let stream = TokioIo::new(TcpStream::from_std(socket.try_clone().unwrap()).unwrap());
        let sender = match wire {
            Wire::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                Sender::One(sender)
            }
            Wire::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                Sender::Two(sender)
            }
        };
        Self { sender, address: to, socket }
    }

    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                let host = self.address.to_string().parse().unwrap();
                request.headers_mut().insert("host", host);
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                let uri = format!("http://{}{}", self.address, request.uri());
                *request.uri_mut() = Uri::try_from(uri).unwrap();
                sender.send_request(request).await
            }
        }
    }

    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Answer {
        let answer = async { Answer::of(self.send(request).await.unwrap()).await };
        // As with `eventually`: what is never answered fails, in place of hanging.
        tokio::time::timeout(Duration::from_secs(60), answer).await.expect("never answered")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(request(path)).await
    }

    /// Closes the socket, whatever is on its way.
    pub(crate) fn disconnect(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }
}

pub(crate) fn request(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

pub(crate) fn from_user(user: &str) -> Request<Body> {
    Request::builder().uri("/").header("x-user", user).body(Body::empty()).unwrap()
}

/// Asks the router without a socket, as if from `127.0.0.1`.
pub(crate) async fn call(app: &Router, mut request: Request<Body>) -> Answer {
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
    request.extensions_mut().insert(ConnectInfo(peer));
    Answer::of(app.clone().oneshot(request).await.unwrap()).await
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of<B: hyper::body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// The lines of a field.
    pub(crate) fn lines(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The only line of a field, or nothing.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.lines(name);
        assert!(lines.len() <= 1, "{name} has several lines: {lines:?}");
        lines.first().copied()
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.field("retry-after").map(|seconds| seconds.parse().unwrap())
    }

    /// What `RateLimit` and `RateLimit-Policy` say, both of which name the same limits.
    pub(crate) fn limits(&self) -> Vec<FieldItem> {
        let items = |name| parse_items(self.headers.get_all(name)).unwrap();
        let (limits, policies) = (items("ratelimit"), items("ratelimit-policy"));
        let names = |items: &[FieldItem]| items.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&limits), names(&policies));
        limits
    }

    /// Names in `RateLimit`, and what is left of each.
    pub(crate) fn left(&self) -> Vec<(String, i64)> {
        self.limits().into_iter().map(|item| (item.name, item.integers["r"])).collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Waits until it is so. Says nothing of how long that takes; what never becomes so fails.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for turn in 0..30_000 {
        if is_so() {
            return;
        }
        match turn {
            0..100 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    panic!("never: {what}");
}
