//! A limiter of requests from a limiter of keys.

mod key;

pub use key::{EitherKey, Found, FoundBy, KeyOf, OrKey, OrSkip, Unless, found_by};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::{Census, Limiter, Now, Permit, TryLimiter};
use crate::decision::{Ask, Denied, Error, Standing};
use crate::units::Cost;

/// A limiter of requests: the key of each goes to the limiter of keys within. Made by
/// [`by`](super::LimiterExt::by).
///
/// A request whose key is [`Found::Skip`] passes without a charge; one that is [`Found::Reject`] is refused for the
/// reason given there.
///
/// ```
/// use tollgate::{LimiterExt, Quota, SlidingWindow, TryLimiter};
/// struct Request { user: u32 }
/// let per_user = SlidingWindow::new(Quota::per_minute(1))?.keyed().by(|request: &Request| request.user);
/// assert!(per_user.try_acquire(&Request { user: 1 }, 1.into()).is_ok());
/// assert!(per_user.try_acquire(&Request { user: 1 }, 1.into()).is_err());
/// assert!(per_user.try_acquire(&Request { user: 2 }, 1.into()).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Clone)]
pub struct By<L, F> {
    limiter: L,
    key: F,
}

impl<L, F> By<L, F> {
    pub(super) const fn new(limiter: L, key: F) -> Self {
        Self { limiter, key }
    }

    /// The limiter of keys within.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

impl<L: fmt::Debug, F> fmt::Debug for By<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl<R: ?Sized, F: KeyOf<R>, L: Limiter<F::Key>> Limiter<R> for By<L, F> {
    type Permit = Option<L::Permit>;
    type Fault = L::Fault;
    type Acquire = AcquireBy<L::Acquire>;

    fn acquire(&self, request: &R, ask: Ask) -> Self::Acquire {
        AcquireBy(match self.key.key_of(request) {
            Found::Key(key) => Way::Asks(self.limiter.acquire(&key, ask)),
            Found::Skip => Way::Skips,
            Found::Reject(reason) => Way::Rejects(Some(Denied::new(reason))),
        })
    }

    #[inline]
    fn answers_now(&self) -> bool {
        self.limiter.answers_now()
    }

    #[inline]
    fn acquire_now(&self, request: &R, cost: Cost, use_permit: bool) -> Now<Self::Permit> {
        match self.key.key_of(request) {
            Found::Key(key) => {
                let answer = self.limiter.acquire_now(&key, cost, use_permit)?;
                Some(answer.map(|permit| permit.map(Some)))
            }
            Found::Skip => Some(Ok(Some(None))),
            Found::Reject(reason) => Some(Err(Denied::new(reason))),
        }
    }

    fn holds(&self) -> bool {
        self.limiter.holds()
    }

    fn report(&self, request: &R, visit: &mut dyn FnMut(&Standing)) {
        if let Found::Key(key) = self.key.key_of(request) {
            self.limiter.report(&key, visit);
        }
    }

    fn census(&self) -> Option<Census> {
        self.limiter.census()
    }
}

impl<R: ?Sized, F: KeyOf<R>, L: TryLimiter<F::Key>> TryLimiter<R> for By<L, F> {
    fn try_acquire(&self, request: &R, cost: Cost) -> Result<Self::Permit, Denied> {
        match self.key.key_of(request) {
            Found::Key(key) => self.limiter.try_acquire(&key, cost).map(Some),
            Found::Skip => Ok(None),
            Found::Reject(reason) => Err(Denied::new(reason)),
        }
    }
}

/// No permit was needed: there is nothing to settle.
impl<P: Permit> Permit for Option<P> {
    fn cost(&self) -> Cost {
        self.as_ref().map_or(Cost::ZERO, P::cost)
    }

    fn settle(self, actual: Cost) {
        if let Some(permit) = self {
            permit.settle(actual);
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.as_ref().and_then(P::shadowed)
    }

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        if let Some(permit) = self {
            permit.report(visit);
        }
    }
}

/// The wait for a permit about the key of a request. Cancel-safe as the limiter of keys is.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireBy<A>(#[pin] Way<A>);

#[pin_project(project = WayProjected)]
enum Way<A> {
    Asks(#[pin] A),
    Skips,
    Rejects(Option<Denied>),
}

impl<A: Future<Output = Result<P, Error<F>>>, P, F> Future for AcquireBy<A> {
    type Output = Result<Option<P>, Error<F>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            WayProjected::Asks(acquire) => acquire.poll(cx).map_ok(Some),
            WayProjected::Skips => Poll::Ready(Ok(None)),
            WayProjected::Rejects(denied) => {
                let denied = denied.take().expect("an acquire was polled after it had given its answer");
                Poll::Ready(Err(Error::Denied(denied)))
            }
        }
    }
}

impl<A> fmt::Debug for AcquireBy<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireBy").finish_non_exhaustive()
    }
}
