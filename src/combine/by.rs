//! A limiter of requests from a limiter of keys.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;

use super::key::{Found, KeyOf};
use crate::core::Members;
use crate::limiter::{Compose, Limiter, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// A limiter of requests: the key of each goes to the limiter of keys within. Made by
/// [`by`](crate::LimiterExt::by).
///
/// A request whose key is [`Found::Skip`] passes without a charge; one that is [`Found::Reject`] is refused for the
/// reason given there.
///
/// ```
/// use tollgate::{Limiter, LimiterExt, Quota, SlidingWindow};
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
    type Permit = ByPermit<L::Permit>;
    type Fault = L::Fault;
    type Acquire = AcquireBy<L::Acquire>;

    fn acquire(&self, request: &R, ask: Ask) -> Self::Acquire {
        AcquireBy(self.key.key_of(request).map(|key| self.limiter.acquire(&key, ask)).into())
    }

    #[inline]
    fn try_acquire(&self, request: &R, cost: Cost) -> Result<Self::Permit, Denied> {
        match self.key.key_of(request) {
            Found::Key(key) => self.limiter.try_acquire(&key, cost).map(ByPermit::new),
            Found::Skip => Ok(ByPermit::NONE),
            Found::Reject(reason) => Err(Denied::new(reason)),
        }
    }

    #[inline]
    fn check(&self, request: &R, cost: Cost) -> Result<(), Denied> {
        match self.key.key_of(request) {
            Found::Key(key) => self.limiter.check(&key, cost),
            Found::Skip => Ok(()),
            Found::Reject(reason) => Err(Denied::new(reason)),
        }
    }

    fn status(&self, request: &R, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Found::Key(key) = self.key.key_of(request) {
            self.limiter.status(&key, visit);
        }
    }
}

impl<R: ?Sized, F: KeyOf<R>, L: Compose<F::Key>> Compose<R> for By<L, F> {
    type Part = ByPart<L::Part>;

    fn part(&self, request: &R, cost: Cost) -> Self::Part {
        ByPart(self.key.key_of(request).map(|key| self.limiter.part(&key, cost)))
    }
}

/// A permit about the key of a request, or none for a request that the limit does not apply to.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct ByPermit<P>(Option<P>);

impl<P> ByPermit<P> {
    const NONE: Self = Self(None);

    const fn new(permit: P) -> Self {
        Self(Some(permit))
    }

    /// The permit, unless the limit does not apply.
    #[must_use]
    pub fn into_inner(self) -> Option<P> {
        self.0
    }
}

impl<P: Permit> Permit for ByPermit<P> {
    const IS_HELD: bool = P::IS_HELD;

    fn cost(&self) -> Cost {
        self.0.as_ref().map_or(Cost::ZERO, P::cost)
    }

    fn settle(self, actual: Cost) {
        if let Some(permit) = self.0 {
            permit.settle(actual);
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.0.as_ref().and_then(P::shadowed)
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Some(permit) = &self.0 {
            permit.status(visit);
        }
    }
}

/// An ask about the key of a request.
pub struct ByPart<P>(Found<P>);

impl<P: Part> Part for ByPart<P> {
    type Permit = ByPermit<P::Permit>;
    type Fault = P::Fault;

    fn stage(&self) -> PartStage {
        match &self.0 {
            Found::Key(part) => part.stage(),
            Found::Skip | Found::Reject(_) => PartStage::Local,
        }
    }

    fn now(&self) -> Option<Timestamp> {
        match &self.0 {
            Found::Key(part) => part.now(),
            Found::Skip | Found::Reject(_) => None,
        }
    }

    fn peek(&self) -> Result<(), Denied> {
        match &self.0 {
            Found::Key(part) => part.peek(),
            Found::Skip => Ok(()),
            Found::Reject(reason) => Err(Denied::new(*reason)),
        }
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        match &self.0 {
            Found::Key(part) => part.peek_rest(),
            Found::Skip | Found::Reject(_) => Ok(()),
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<P::Fault>>> {
        match &mut self.0 {
            Found::Key(part) => part.poll_take(cx).map_ok(ByPermit::new),
            Found::Skip => Poll::Ready(Ok(ByPermit::NONE)),
            Found::Reject(reason) => Poll::Ready(Err(Denied::new(*reason).into())),
        }
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        match &mut self.0 {
            Found::Key(part) => part.enlist(members),
            Found::Skip => Ok(()),
            Found::Reject(reason) => Err(Denied::new(*reason)),
        }
    }
}

impl<P> fmt::Debug for ByPart<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByPart").finish_non_exhaustive()
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

impl<A> From<Found<A>> for Way<A> {
    fn from(found: Found<A>) -> Self {
        match found {
            Found::Key(acquire) => Self::Asks(acquire),
            Found::Skip => Self::Skips,
            Found::Reject(reason) => Self::Rejects(Some(Denied::new(reason))),
        }
    }
}

impl<A: Future<Output = Result<P, Error<F>>>, P, F> Future for AcquireBy<A> {
    type Output = Result<ByPermit<P>, Error<F>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            WayProjected::Asks(acquire) => acquire.poll(cx).map_ok(ByPermit::new),
            WayProjected::Skips => Poll::Ready(Ok(ByPermit::NONE)),
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
