//! The layer and its options.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Response, StatusCode, response};
use bytes::Bytes;
use tower_layer::Layer;

use super::answer::Refusal;
use super::fields::FieldFormat;
use super::service::HttpLimit;
use super::settle::Settle;
use crate::limiter::Limiter;
use crate::sync::AtomicUsize;
use crate::tower::LimitLayer;
use crate::units::Cost;

/// What becomes of rate limit fields that a handler has set itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Existing {
    /// Ours are added where the format is a list; elsewhere the handler's stay.
    #[default]
    Append,
    /// The handler's stay and ours are not told.
    Keep,
    /// Ours take their place.
    Override,
}

/// Puts a limiter of requests in front of HTTP and gRPC services. Services made by one layer, its clones and its reuse
/// share the limit.
///
/// **At the limit** a request is answered 429 at once (`RESOURCE_EXHAUSTED` if it is a gRPC call), with the time to
/// come back; [`wait`](HttpLayer::wait) lets it wait in line first. The charge is taken before the service is called; the
/// permit is held to the end of the response's body, and given back if the client goes away.
///
/// ```
/// use axum::{Router, routing::get};
/// use tollgate::http::ClientIp;
/// use tollgate::{LimitLayer, LimiterExt, Quota, SlidingWindow};
/// let per_client = SlidingWindow::new(Quota::per_minute(100))?.keyed();
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(LimitLayer::http(per_client.by(ClientIp::peer())));
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[must_use = "a layer does nothing until it is put on a service"]
pub struct HttpLayer<L> {
    pub(super) limiter: L,
    pub(super) options: Options,
}

#[derive(Clone)]
pub(super) struct Options {
    pub(super) wait: Duration,
    pub(super) waiting_max: usize,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) cost: Option<Arc<CostOf>>,
    pub(super) settle: Option<Arc<SettleBy>>,
    pub(super) handler_settles: bool,
    pub(super) answer: Option<Arc<Answer>>,
    pub(super) status: StatusCode,
    pub(super) format: Option<FieldFormat>,
    pub(super) existing: Existing,
    pub(super) tells_shadow: bool,
    pub(super) admits_on_fault: bool,
}

type CostOf = dyn Fn(&Parts) -> Cost + Send + Sync;
type SettleBy = dyn Fn(&response::Parts) -> Settle + Send + Sync;
type Answer = dyn Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync;

impl Options {
    /// `true` if anything is done with permits but to hold them.
    pub(super) const fn use_permit(&self) -> bool {
        self.sees_response() || self.handler_settles
    }

    /// `true` if anything is done with responses.
    pub(super) const fn sees_response(&self) -> bool {
        self.format.is_some() || self.settle.is_some()
    }
}

impl<L: Limiter<Parts>> LimitLayer<L> {
    /// A layer for HTTP and gRPC services, with their answers and headers.
    pub fn http(limiter: L) -> HttpLayer<L> {
        HttpLayer::new(limiter)
    }
}

impl<L: Limiter<Parts>> HttpLayer<L> {
    /// One unit a request, refused at once when it may not go now.
    pub fn new(limiter: L) -> Self {
        let options = Options {
            wait: Duration::ZERO,
            waiting_max: 1_000,
            waiting: Arc::new(AtomicUsize::new(0)),
            cost: None,
            settle: None,
            handler_settles: false,
            answer: None,
            status: StatusCode::TOO_MANY_REQUESTS,
            format: Some(FieldFormat::default()),
            existing: Existing::default(),
            tells_shadow: false,
            admits_on_fault: false,
        };
        Self { limiter, options }
    }
}

impl<L> HttpLayer<L> {
    fn set(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }

    /// Lets requests wait in line for at most `longest`. One whose turn would come later is refused at once.
    pub fn wait(self, longest: Duration) -> Self {
        self.set(|options| options.wait = longest)
    }

    /// At most so many requests wait at once, all keys together: 1,000 unless set. Others may not wait: they go at once
    /// or are refused. That no key takes all of these places is for its [`Queue`](crate::Queue) to say.
    pub fn max_waiting(self, requests: usize) -> Self {
        self.set(|options| options.waiting_max = requests)
    }

    /// What a request costs, from its head, in place of one unit.
    pub fn cost(self, cost: impl Fn(&Parts) -> Cost + Send + Sync + 'static) -> Self {
        self.set(|options| options.cost = Some(Arc::new(cost)))
    }

    /// Corrects the charge by the response: only failed logins count, or every kilobyte of the body does.
    ///
    /// ```
    /// use tollgate::http::{ClientIp, Settle};
    /// use tollgate::{Cost, LimitLayer, LimiterExt, Quota, SlidingWindow};
    /// let logins = SlidingWindow::new(Quota::per_minute(5))?.keyed().by(ClientIp::peer());
    /// let layer = LimitLayer::http(logins)
    ///     .settle_with(|response| match response.status.is_success() {
    ///         true => Settle::Cost(Cost::ZERO),
    ///         false => Settle::Keep,
    ///     });
    /// # Ok::<(), tollgate::QuotaError>(())
    /// ```
    pub fn settle_with(self, settle: impl Fn(&response::Parts) -> Settle + Send + Sync + 'static) -> Self {
        self.set(|options| options.settle = Some(Arc::new(settle)))
    }

    /// Puts a [`Charge`](super::Charge) into the extensions of each request, by which its handler can say what it really
    /// cost: the tokens in a usage field, say.
    pub fn settle_by_handler(self) -> Self {
        self.set(|options| options.handler_settles = true)
    }

    /// The status of a request that is over its limit, in place of 429.
    pub fn status(self, status: StatusCode) -> Self {
        self.set(|options| options.status = status)
    }

    /// Answers refused requests. `Retry-After` and the rate limit fields are added to what the hook returns, unless it
    /// has set them; [`Refusal::response`] is what would have been answered.
    pub fn answer(self, answer: impl Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        self.set(|options| options.answer = Some(Arc::new(answer)))
    }

    /// How clients are told where they stand, admitted or refused: `RateLimit` as of draft 10 unless set.
    pub fn fields(self, format: FieldFormat) -> Self {
        self.set(|options| options.format = Some(format))
    }

    /// Tells clients nothing but when to come back.
    pub fn without_fields(self) -> Self {
        self.set(|options| options.format = None)
    }

    /// What becomes of rate limit fields that a handler has set itself: see [`Existing`].
    pub fn existing(self, existing: Existing) -> Self {
        self.set(|options| options.existing = existing)
    }

    /// Tells clients of limits on trial too. They are not told unless asked: it would make them stop.
    pub fn tell_shadow(self) -> Self {
        self.set(|options| options.tells_shadow = true)
    }

    /// Lets requests pass when the limiter cannot decide, in place of answering 503. Where the limiter is in process it
    /// always can.
    pub fn admit_on_fault(self) -> Self {
        self.set(|options| options.admits_on_fault = true)
    }
}

impl<L: Clone> Clone for HttpLayer<L> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), options: self.options.clone() }
    }
}

impl<L: fmt::Debug> fmt::Debug for HttpLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLayer")
            .field("limiter", &self.limiter)
            .field("wait", &self.options.wait)
            .field("fields", &self.options.format)
            .finish_non_exhaustive()
    }
}

impl<S, L: Clone> Layer<S> for HttpLayer<L> {
    type Service = HttpLimit<S, L>;

    fn layer(&self, service: S) -> HttpLimit<S, L> {
        HttpLimit::new(service, self.limiter.clone(), self.options.clone())
    }
}
