//! Layers around a service that does nothing: this crate's and tower's; for HTTP, those of other crates.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{poll_fn, ready};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response, StatusCode};
use rate_net::tower::{PeerIp, RateLimitLayer};
use tollgate::http::ClientIp;
use tollgate::{Concurrency, LimitLayer, LimiterExt, TokenBucket, Unlimited};
use tower::{Layer, Service, service_fn};
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;

use crate::bench::Bench;
use crate::load::{DAY, Load};
use crate::ours;
use crate::peers::rate_net_keyed;
use crate::sample::{now, one_thread};

const RATE_LIMIT: &str = "tower RateLimit";
const BARE: &str = "the service without a layer";
const KEYS: usize = 100_000;

pub fn measure(bench: &mut Bench) {
    // tower's rate limit makes a timer when it is built.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    plain(bench);
    for load in [Load::Grant, Load::Refuse] {
        http(bench, load);
    }
}

/// One request: ready, called, answered.
fn serve<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    now(poll_fn(|cx| service.poll_ready(cx)))?;
    now(service.call(request))
}

/// A sample of a service that answers all requests.
fn served<S: Service<u64, Response = u64>>(mut service: S) -> impl FnMut(Duration) -> f64
where
    S::Error: Debug,
{
    one_thread(move || assert_eq!(serve(&mut service, black_box(7)).unwrap(), 7))
}

fn plain(bench: &mut Bench) {
    let bare = || service_fn(|word: u64| ready(Ok::<u64, Infallible>(word)));
    let rate = || served(tower::limit::RateLimitLayer::new(1_000_000_000, Duration::from_secs(1)).layer(bare()));
    let bucket = || ours::bucket(Load::Grant);
    bench
        .against("tower layer, shed", || served(LimitLayer::new(bucket()).shed().layer(bare())))
        .peer(RATE_LIMIT, rate);
    bench
        .against("tower layer, waiting", || served(LimitLayer::new(bucket()).layer(bare())))
        .peer(RATE_LIMIT, rate);
    bench
        .against("tower layer, no limit", || served(LimitLayer::new(Unlimited).layer(bare())))
        .peer(BARE, || served(bare()));
    bench
        .against("tower layer, Concurrency", || {
            served(LimitLayer::new(Concurrency::new(1_000)).layer(bare()))
        })
        .peer("tower ConcurrencyLimit", || {
            served(tower::limit::ConcurrencyLimitLayer::new(1_000).layer(bare()))
        })
        .peer("tower-acc, Vegas", || {
            served(tower_acc::ConcurrencyLimitLayer::new(tower_acc::Vegas::default()).layer(bare()))
        });
}

/// A sample of a service that answers as the load says. The first request spends what is there.
fn answered<S, B>(load: Load, mut service: S) -> impl FnMut(Duration) -> f64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let client = SocketAddr::from(([203, 0, 113, 7], 4_711));
    let mut admits = move || {
        let mut request = Request::new(());
        // The extension of each crate's choice.
        request.extensions_mut().insert(ConnectInfo(client));
        request.extensions_mut().insert(client);
        let Ok(response) = serve(&mut service, black_box(request));
        response.status() == StatusCode::OK
    };
    if load == Load::Refuse {
        while admits() {}
    }
    one_thread(move || load.expect(admits()))
}

fn http(bench: &mut Bench, load: Load) {
    let bare = || service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let layer = || {
        let limit = TokenBucket::builder(load.quota()).name("bench").build().unwrap();
        LimitLayer::http(limit.keyed().by(ClientIp::peer()))
    };
    let governor = || {
        let mut config = GovernorConfigBuilder::default();
        match load {
            Load::Refuse => config.period(DAY).burst_size(1),
            _ => config.period(Duration::from_nanos(1)).burst_size(1_000_000_000),
        };
        config
    };
    let rate_net = || RateLimitLayer::new(rate_net_keyed(load, KEYS), PeerIp::default());
    let with_fields = || rate_net().with_policy("bench").with_headers_on_success(true);
    bench
        .against(&format!("HTTP layer by address, {}", load.name()), || {
            answered(load, layer().layer(bare()))
        })
        .peer("tower_governor, headers", || {
            answered(load, GovernorLayer::new(governor().use_headers().finish().unwrap()).layer(bare()))
        })
        .peer("rate-net, headers and policy", || answered(load, with_fields().layer(bare())));
    bench
        .against(&format!("HTTP layer by address, no fields, {}", load.name()), || {
            answered(load, layer().without_fields().layer(bare()))
        })
        .peer("tower_governor", || {
            answered(load, GovernorLayer::new(governor().finish().unwrap()).layer(bare()))
        })
        .peer("rate-net, no headers", || answered(load, rate_net().layer(bare())))
        .peer(BARE, || answered(Load::Grant, bare()));
}
