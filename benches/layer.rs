//! Layers around a service that does nothing: tower's own and this crate's; tower_governor's and this crate's for HTTP.

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response, StatusCode};
use support::forms::{Load, each_bucket};
use support::{Suite, floors, now};
use tollgate::http::ClientIp;
use tollgate::{
    Ask, Concurrency, Cost, Denied, Error, LimitLayer, LimitStatus, Limiter, LimiterExt, Permit, SystemClock,
    TokenBucket,
};
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer};
use tower::{Layer, Service, service_fn};
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::GlobalKeyExtractor;

/// A limit that is none: what is left is the layer.
#[derive(Clone, Copy)]
struct Free;

impl Permit for Free {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        Cost::ZERO
    }

    fn settle(self, _actual: Cost) {}
}

impl<K: ?Sized> Limiter<K> for Free {
    type Permit = Self;
    type Fault = Infallible;
    type Acquire = Ready<Result<Self, Error>>;

    fn acquire(&self, _key: &K, _ask: Ask) -> Self::Acquire {
        ready(Ok(Self))
    }

    fn try_acquire(&self, _key: &K, _cost: Cost) -> Result<Self, Denied> {
        Ok(Self)
    }

    fn status(&self, _key: &K, _visit: &mut dyn FnMut(&LimitStatus)) {}
}

/// One request: ready, called, answered.
fn serve<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    now(std::future::poll_fn(|cx| service.poll_ready(cx)))?;
    now(service.call(request))
}

fn tower(suite: &mut Suite) {
    let bare = || service_fn(|word: u64| ready(Ok::<u64, Infallible>(word)));
    let mut group = suite.group("layer/tower");
    fn op<S: Service<u64>>(mut service: S) -> impl FnMut()
    where
        S::Error: std::fmt::Debug,
    {
        move || drop(serve(&mut service, black_box(7)).unwrap())
    }
    each_bucket!(Load::Grant, |name, limiter| {
        group.row(name, &["tower RateLimit", "bare"], op(LimitLayer::new(limiter.clone()).layer(bare())));
        group.row(
            &format!("{name}, shed"),
            &["tower RateLimit"],
            op(LimitLayer::new(limiter).shed().layer(bare())),
        );
    });
    group.row("tollgate, no limit", &["bare"], op(LimitLayer::new(Free).layer(bare())));
    let slots = Concurrency::builder(1_000).clock(SystemClock::default()).build().unwrap();
    group.row("tollgate, slots", &["tower ConcurrencyLimit"], op(LimitLayer::new(slots).layer(bare())));
    let rate = RateLimitLayer::new(1_000_000_000, Duration::from_secs(1));
    group.row("tower RateLimit", &[], op(rate.layer(bare())));
    group.row("tower ConcurrencyLimit", &[], op(ConcurrencyLimitLayer::new(1_000).layer(bare())));
    group.row("bare", &[], op(bare()));
    group.finish();
}

fn client() -> ConnectInfo<SocketAddr> {
    ConnectInfo(SocketAddr::from(([203, 0, 113, 7], 4_711)))
}

fn http(suite: &mut Suite, load: Load) {
    let bare = || service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    // What is spent is spent by the first request.
    fn op<S, B>(load: Load, mut service: S) -> impl FnMut()
    where
        S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    {
        let mut ask = move || {
            let mut request = Request::new(());
            request.extensions_mut().insert(client());
            let Ok(response) = serve(&mut service, black_box(request));
            response.status() == StatusCode::OK
        };
        if load == Load::Refuse {
            while ask() {}
        }
        move || load.expect(ask())
    }
    let limit = || TokenBucket::builder(load.quota()).clock(SystemClock::default()).build().unwrap();
    let mut group =
        suite.group(&format!("layer/http {}", if load == Load::Grant { "granted" } else { "refused" }));
    let layer = LimitLayer::http(limit());
    group.row("tollgate, fields", &["tower_governor, headers"], op(load, layer.clone().layer(bare())));
    group.row("tollgate", &["tower_governor", "bare"], op(load, layer.without_fields().layer(bare())));
    let layer = LimitLayer::http(limit().keyed().by(ClientIp::peer()));
    group.row(
        "tollgate, by address",
        &["tower_governor, by address"],
        op(load, layer.without_fields().layer(bare())),
    );

    let mut config = GovernorConfigBuilder::default();
    match load {
        Load::Refuse => config.period(floors::DAY).burst_size(1),
        _ => config.period(Duration::from_nanos(1)).burst_size(1_000_000_000),
    };
    let layer = GovernorLayer::new(config.finish().unwrap());
    group.row("tower_governor, by address", &[], op(load, layer.layer(bare())));
    let mut config = config.key_extractor(GlobalKeyExtractor);
    let layer = GovernorLayer::new(config.finish().unwrap());
    group.row("tower_governor", &[], op(load, layer.layer(bare())));
    let layer = GovernorLayer::new(config.use_headers().finish().unwrap());
    group.row("tower_governor, headers", &[], op(load, layer.layer(bare())));
    group.row("bare", &[], op(Load::Grant, bare()));
    group.finish();
}

fn main() {
    // tower's rate limit makes a timer when it is built.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let mut suite = Suite::new(Duration::from_millis(3));
    tower(&mut suite);
    http(&mut suite, Load::Grant);
    http(&mut suite, Load::Refuse);
}
