//! A guard around any HTTP client that is a tower service.

mod body;
mod future;

pub use body::GuardBody;
pub use future::GuardFuture;

use std::fmt;
use std::task::{Context, Poll};

use ::http::{Request, Response, Uri};
use ::http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_service::Service;

use super::{Guard, Guards, Origin};
use crate::clock::Clock;
use crate::limiter::{Compose, Limiter};
use crate::tower::LimitError;
use crate::types::{Ask, Denied};

/// Puts a guard around an HTTP client: hyper-util's, a channel of tonic's, or what else is a service of requests.
///
/// Every request waits for its permit, and every response is observed: its head and, of a gRPC reply, its trailers. The
/// permit is held until the body of the response has ended, fails or is dropped, so that what streams counts as in
/// progress. A request may say what it asks by an [`Ask`] among its extensions.
///
/// The layer sends each request once. To try again what may be tried again is the caller's business, outside of the
/// layer, so that every try waits its turn.
///
/// With one [`Guard`] all requests go to one upstream. With [`Guards`] of [`Origin`]s each server has its own: put the
/// layer below what follows redirects, and each hop is counted where it goes.
///
/// # At the limit
/// The call waits for as long as its ask lets it, and else fails with [`LimitError::Denied`]: so it does at once where the
/// server asks for a longer wait than the guard's ceiling.
///
/// # Cancel safety
/// A call that is dropped while it waits leaves the line and is not made. Dropped later it keeps what it was charged,
/// frees what it held, and nothing is learnt from it.
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put on a service"]
pub struct GuardLayer<G> {
    guard: G,
    ask: Ask,
}

impl<G> GuardLayer<G> {
    /// A layer of this [`Guard`], or of these [`Guards`], that asks for one unit a request, however long it takes.
    pub const fn new(guard: G) -> Self {
        Self { guard, ask: Ask::ONE }
    }

    /// Asks this for each request that has no [`Ask`] of its own.
    pub const fn ask(mut self, ask: Ask) -> Self {
        self.ask = ask;
        self
    }
}

impl<S, G: Clone> Layer<S> for GuardLayer<G> {
    type Service = GuardService<S, G>;

    fn layer(&self, service: S) -> Self::Service {
        GuardService { service, guard: self.guard.clone(), ask: self.ask }
    }
}

/// An HTTP client under a guard. Made by [`GuardLayer`].
#[derive(Clone)]
pub struct GuardService<S, G> {
    service: S,
    guard: G,
    ask: Ask,
}

impl<S, G> GuardService<S, G> {
    /// The client within.
    #[must_use]
    pub const fn service(&self) -> &S {
        &self.service
    }
}

impl<S: fmt::Debug, G> fmt::Debug for GuardService<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardService").field("service", &self.service).finish_non_exhaustive()
    }
}

/// What tells the guard of a call: a [`Guard`] for all, or [`Guards`] of [`Origin`]s. Sealed.
pub trait GuardOf: sealed::Sealed {
    /// What its guards hold.
    type Limits: Compose + Clone;
    /// What they read time from.
    type Clock: Clock;

    /// The guard of calls to `url`.
    ///
    /// # Errors
    /// There are as many guards as there may be, and this one would be new.
    fn guard_of(&self, url: &Uri) -> Result<Guard<Self::Limits, Self::Clock>, Denied>;

    /// `true` if the guard of one URL is that of the other.
    fn are_one(&self, url: &Uri, other: &Uri) -> bool;
}

mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl<L, C: super::Clock> Sealed for super::Guard<L, C> {}
    impl<L, C: super::Clock> Sealed for super::Guards<super::Origin, L, C> {}
}

impl<L: Compose + Clone, C: Clock> GuardOf for Guard<L, C> {
    type Limits = L;
    type Clock = C;

    fn guard_of(&self, _: &Uri) -> Result<Self, Denied> {
        Ok(self.clone())
    }

    fn are_one(&self, _: &Uri, _: &Uri) -> bool {
        true
    }
}

impl<L: Compose + Clone + Send + Sync + 'static, C: Clock> GuardOf for Guards<Origin, L, C> {
    type Limits = L;
    type Clock = C;

    fn guard_of(&self, url: &Uri) -> Result<Guard<L, C>, Denied> {
        self.of(&Origin::of(url))
    }

    fn are_one(&self, url: &Uri, other: &Uri) -> bool {
        Origin::of(url) == Origin::of(other)
    }
}

impl<S, G, B, R> Service<Request<B>> for GuardService<S, G>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    G: GuardOf,
    R: HttpBody,
{
    type Response = Response<GuardBody<R, <G::Limits as Limiter>::Permit, G::Clock>>;
    type Error = LimitError<S::Error, <G::Limits as Limiter>::Fault>;
    type Future = GuardFuture<S, B, G::Limits, G::Clock>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx).map_err(LimitError::Service)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that is ready goes with the request; what stays is a clone that was never polled.
        let clone = self.service.clone();
        let service = std::mem::replace(&mut self.service, clone);
        let ask = request.extensions().get::<Ask>().copied().unwrap_or(self.ask);
        match self.guard.guard_of(request.uri()) {
            Ok(guard) => GuardFuture::waiting(guard, ask, service, request),
            Err(denied) => GuardFuture::refused(denied),
        }
    }
}
