//! How callers keep to an upstream's limit: under a guard, and as people do it today.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};
use tollgate::client::Guard;
use tollgate::{Compose, Quota};
use tower::limit::RateLimit;
use tower::{Service, ServiceExt, service_fn};

use crate::upstream::{Client, Law, Style, Upstream, upstream};

/// Decides when a call goes, and makes it.
pub(crate) trait Strategy: Send + Sync + 'static {
    fn call(&self, client: &mut Client) -> impl Future<Output = ()> + Send;
}

impl<L> Strategy for Guard<L>
where
    L: Compose<Fault = std::convert::Infallible, Part: Send> + Clone + Send + Sync + 'static,
    L::Permit: Send,
{
    async fn call(&self, client: &mut Client) {
        if let Err(error) = Self::call(self, 1, || client.get()).await {
            panic!("no caller is sent away here, but: {error}");
        }
    }
}

/// A semaphore, and a sleep by whoever is throttled.
pub(crate) struct SemaphoreAndSleep(pub(crate) Semaphore);

impl Strategy for SemaphoreAndSleep {
    async fn call(&self, client: &mut Client) {
        let _slot = self.0.acquire().await.unwrap();
        let response = client.get().await;
        if !response.status().is_success() {
            let told =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            sleep(Duration::from_secs(told.unwrap_or(1))).await;
        }
    }
}

/// governor's `until_ready`, on tokio's clock so that it can be paused.
pub(crate) struct UntilReady(governor::RateLimiter<NotKeyed, InMemoryState, Paused, NoOpMiddleware<Moment>>);

#[derive(Clone)]
pub(crate) struct Paused(Instant);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> governor::nanos::Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, span: governor::nanos::Nanos) -> Self {
        Self(self.0.saturating_sub(span.into()))
    }
}

impl std::ops::Add<governor::nanos::Nanos> for Moment {
    type Output = Self;

    fn add(self, span: governor::nanos::Nanos) -> Self {
        Self(self.0 + Duration::from(span))
    }
}

impl GovernorClock for Paused {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(self.0.elapsed())
    }
}

impl UntilReady {
    pub(crate) fn new(quota: Quota) -> Self {
        let space = quota.period().unwrap() / u32::try_from(quota.count()).unwrap();
        let burst = NonZeroU32::new(u32::try_from(quota.capacity()).unwrap()).unwrap();
        let quota = governor::Quota::with_period(space).unwrap().allow_burst(burst);
        Self(governor::RateLimiter::direct_with_clock(quota, Paused(Instant::now())))
    }
}

impl Strategy for UntilReady {
    async fn call(&self, client: &mut Client) {
        // As `until_ready` does, but sleeping by tokio.
        while let Err(not_until) = self.0.check() {
            sleep(not_until.wait_time_from(self.0.clock().now())).await;
        }
        client.get().await;
    }
}

type Ready = std::future::Ready<Result<(), std::convert::Infallible>>;

/// tower's `RateLimit`, shared as its buffer would share it.
pub(crate) struct TowerRateLimit(Mutex<RateLimit<Nothing>>);

type Nothing = tower::util::ServiceFn<fn(()) -> Ready>;

impl TowerRateLimit {
    pub(crate) fn new(quota: Quota) -> Self {
        let go: fn(()) -> Ready = |()| std::future::ready(Ok(()));
        let rate = tower::limit::rate::Rate::new(quota.count(), quota.period().unwrap());
        Self(Mutex::new(RateLimit::new(service_fn(go), rate)))
    }
}

impl Strategy for TowerRateLimit {
    async fn call(&self, client: &mut Client) {
        let _ = self.0.lock().await.ready().await.unwrap().call(()).await;
        client.get().await;
    }
}

/// What became of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) throttled: u64,
    pub(crate) bans: u64,
    /// Served in the last minute, of what the upstream would have served.
    pub(crate) used: f64,
    /// Served in all.
    pub(crate) served: usize,
}

pub(crate) const TASKS: usize = 50;
/// How long a strategy may take to find out, before the minute in which it is measured.
const FINDS_OUT: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);

/// Fifty tasks that call as fast as they are let, for two minutes and then the one that counts.
pub(crate) async fn run(
    law: Law,
    style: Style,
    make: impl FnOnce(&Upstream) -> Arc<dyn AnyStrategy>,
) -> Outcome {
    let upstream = upstream(law, style);
    let strategy = make(&upstream);
    let end = FINDS_OUT + MINUTE;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (strategy, upstream) = (Arc::clone(&strategy), Arc::clone(&upstream));
        tasks.spawn(async move {
            let mut client = Client::connect(&upstream).await;
            loop {
                strategy.call(&mut client).await;
            }
        });
    }
    sleep(end).await;
    tasks.shutdown().await;
    let server = upstream.lock().unwrap();
    let counted = server.served.iter().filter(|at| (FINDS_OUT..end).contains(at)).count();
    Outcome {
        throttled: server.throttled,
        bans: server.bans,
        used: counted as f64 / (law.per_second() * MINUTE.as_secs_f64()),
        served: server.served.len(),
    }
}

/// Any of them, for tables.
pub(crate) trait AnyStrategy: Send + Sync {
    fn call<'a>(&'a self, client: &'a mut Client) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

impl<S: Strategy> AnyStrategy for S {
    fn call<'a>(&'a self, client: &'a mut Client) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(Strategy::call(self, client))
    }
}
