use tower_layer::Layer;

use super::error::{Answer, Raise};
use super::service::{Backpressure, Limit, Shed, Wait};
use crate::types::Ask;

/// Puts a limiter in front of services. Services made by one layer, its clones and its reuse share the limit.
///
/// ```
/// # #[cfg(feature = "tokio")] {
/// use std::convert::Infallible;
/// use tollgate::{LimitLayer, Quota, TokenBucket};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let limit = TokenBucket::new(Quota::per_second(1))?;
/// let mut echo = ServiceBuilder::new()
///     .layer(LimitLayer::new(limit).shed())
///     .service(service_fn(|word: &'static str| async move { Ok::<_, Infallible>(word) }));
/// assert_eq!(echo.ready().await?.call("hello").await?, "hello");
/// assert!(echo.ready().await?.call("again").await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?; }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put on a service"]
pub struct LimitLayer<L, M = Wait, R = Raise> {
    limiter: L,
    ask: Ask,
    mode: M,
    refuse: R,
}

impl<L> LimitLayer<L> {
    /// Waits in `call`, for one unit a request, for as long as it takes.
    pub const fn new(limiter: L) -> Self {
        Self { limiter, ask: Ask::ONE, mode: Wait::new(), refuse: Raise }
    }
}

impl<L, M, R> LimitLayer<L, M, R> {
    /// Asks this for each request in place of one unit however long it takes.
    pub const fn ask(mut self, ask: Ask) -> Self {
        self.ask = ask;
        self
    }

    /// Refuses at once what may not go now, in `call`.
    pub fn shed(self) -> LimitLayer<L, Shed, R> {
        self.mode(Shed::new())
    }

    /// Waits in `poll_ready`, so that callers see the service as not ready. The limit may not look at the request, which
    /// is not there yet. A denial (a closed limit, say) is given by `call`.
    ///
    /// A service that is ready holds its permit until it is called or dropped; dropped, the permit is refunded. So each
    /// clone that is ready and idle holds one: keep such clones few, and prefer a rate to a concurrency limit.
    ///
    /// Do not put a layer around it that calls on when the service is not ready, such as tower's `LoadShed`: the idle
    /// service behind it keeps its position in the queue, and then a permit, for as long as nobody calls it. To answer at
    /// once, use [`shed`](LimitLayer::shed) in place of both.
    pub fn backpressure(self) -> LimitLayer<L, Backpressure, R> {
        self.mode(Backpressure::new())
    }

    /// Answers a refused request with a response; the service's error type stays what it was.
    pub fn answer<H>(self, answer: H) -> LimitLayer<L, M, Answer<H>> {
        let Self { limiter, ask, mode, refuse: _ } = self;
        LimitLayer { limiter, ask, mode, refuse: Answer(answer) }
    }

    fn mode<N>(self, mode: N) -> LimitLayer<L, N, R> {
        let Self { limiter, ask, mode: _, refuse } = self;
        LimitLayer { limiter, ask, mode, refuse }
    }
}

impl<S, L: Clone, M: Clone, R: Clone> Layer<S> for LimitLayer<L, M, R>
where
    M: super::service::Mode<L>,
{
    type Service = Limit<S, L, M, R>;

    fn layer(&self, service: S) -> Self::Service {
        Limit::new(service, self.limiter.clone(), self.ask, self.refuse.clone())
    }
}
