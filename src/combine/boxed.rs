//! The limiter behind one type: the only `dyn`, and the only box.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::core::Members;
use crate::limiter::{Compose, Limiter, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// Any limiter of `K` behind one type. Made by [`boxed`](crate::LimiterExt::boxed); costs up to two allocations an ask.
pub struct BoxLimiter<K: ?Sized = (), F = Infallible> {
    limiter: Arc<dyn AnyLimiter<K, F> + Send + Sync>,
}

impl<K: ?Sized, F: 'static> BoxLimiter<K, F> {
    pub(super) fn new<L>(limiter: L) -> Self
    where
        L: Compose<K, Fault = F> + Send + Sync + 'static,
        L::Permit: Send + 'static,
        L::Acquire: Send + 'static,
        L::Part: Send + 'static,
    {
        Self { limiter: Arc::new(limiter) }
    }
}

impl<K: ?Sized, F> Clone for BoxLimiter<K, F> {
    fn clone(&self) -> Self {
        Self { limiter: Arc::clone(&self.limiter) }
    }
}

impl<K: ?Sized, F> fmt::Debug for BoxLimiter<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxLimiter").finish_non_exhaustive()
    }
}

impl<K: ?Sized, F> Limiter<K> for BoxLimiter<K, F> {
    type Permit = BoxPermit;
    type Fault = F;
    type Acquire = BoxAcquire<F>;

    fn acquire(&self, key: &K, ask: Ask) -> BoxAcquire<F> {
        self.limiter.acquire_any(key, ask)
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<BoxPermit, Denied> {
        self.limiter.try_acquire_any(key, cost)
    }

    fn check(&self, key: &K, cost: Cost) -> Result<(), Denied> {
        self.limiter.check_any(key, cost)
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.limiter.status_any(key, visit);
    }
}

impl<K: ?Sized, F: 'static> Compose<K> for BoxLimiter<K, F> {
    type Part = BoxPart<F>;

    fn part(&self, key: &K, cost: Cost) -> BoxPart<F> {
        BoxPart(self.limiter.part_any(key, cost))
    }
}

trait AnyLimiter<K: ?Sized, F> {
    fn acquire_any(&self, key: &K, ask: Ask) -> BoxAcquire<F>;
    fn try_acquire_any(&self, key: &K, cost: Cost) -> Result<BoxPermit, Denied>;
    fn check_any(&self, key: &K, cost: Cost) -> Result<(), Denied>;
    fn status_any(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus));
    fn part_any(&self, key: &K, cost: Cost) -> Box<dyn Part<Permit = BoxPermit, Fault = F> + Send>;
}

impl<K: ?Sized, L> AnyLimiter<K, L::Fault> for L
where
    L: Compose<K>,
    L::Permit: Send + 'static,
    L::Acquire: Send + 'static,
    L::Part: Send + 'static,
{
    fn acquire_any(&self, key: &K, ask: Ask) -> BoxAcquire<L::Fault> {
        let acquire = self.acquire(key, ask);
        BoxAcquire { acquire: Box::pin(async move { acquire.await.map(BoxPermit::new) }) }
    }

    fn try_acquire_any(&self, key: &K, cost: Cost) -> Result<BoxPermit, Denied> {
        self.try_acquire(key, cost).map(BoxPermit::new)
    }

    fn check_any(&self, key: &K, cost: Cost) -> Result<(), Denied> {
        self.check(key, cost)
    }

    fn status_any(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.status(key, visit);
    }

    fn part_any(&self, key: &K, cost: Cost) -> Box<dyn Part<Permit = BoxPermit, Fault = L::Fault> + Send> {
        Box::new(AnyPart(self.part(key, cost)))
    }
}

/// An ask to a [`BoxLimiter`].
pub struct BoxPart<F>(Box<dyn Part<Permit = BoxPermit, Fault = F> + Send>);

/// A part whose permit is boxed.
struct AnyPart<P>(P);

macro_rules! forward_part {
    () => {
        fn stage(&self) -> PartStage {
            self.0.stage()
        }

        fn now(&self) -> Option<Timestamp> {
            self.0.now()
        }

        fn peek(&self) -> Result<(), Denied> {
            self.0.peek()
        }

        fn peek_rest(&self) -> Result<(), Denied> {
            self.0.peek_rest()
        }

        fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
            self.0.enlist(members)
        }
    };
}

impl<P: Part<Permit: Send + 'static>> Part for AnyPart<P> {
    type Permit = BoxPermit;
    type Fault = P::Fault;

    forward_part!();

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxPermit, Error<P::Fault>>> {
        self.0.poll_take(cx).map_ok(BoxPermit::new)
    }
}

impl<F> Part for BoxPart<F> {
    type Permit = BoxPermit;
    type Fault = F;

    forward_part!();

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxPermit, Error<F>>> {
        self.0.poll_take(cx)
    }
}

impl<F> fmt::Debug for BoxPart<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxPart").finish_non_exhaustive()
    }
}

/// The wait of a [`BoxLimiter`].
#[must_use = "futures do nothing unless polled"]
pub struct BoxAcquire<F = Infallible> {
    acquire: Pin<Box<dyn Future<Output = Result<BoxPermit, Error<F>>> + Send>>,
}

impl<F> Future for BoxAcquire<F> {
    type Output = Result<BoxPermit, Error<F>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.acquire.as_mut().poll(cx)
    }
}

impl<F> fmt::Debug for BoxAcquire<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxAcquire").finish_non_exhaustive()
    }
}

/// A permit of whatever kind.
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct BoxPermit(Box<dyn AnyPermit + Send>);

impl BoxPermit {
    fn new<P: Permit + Send + 'static>(permit: P) -> Self {
        Self(Box::new(permit))
    }
}

trait AnyPermit {
    fn cost(&self) -> Cost;
    fn settle(self: Box<Self>, actual: Cost);
    fn shadowed(&self) -> Option<&Denied>;
    fn status(&self, visit: &mut dyn FnMut(&LimitStatus));
}

impl<P: Permit> AnyPermit for P {
    fn cost(&self) -> Cost {
        Permit::cost(self)
    }

    fn settle(self: Box<Self>, actual: Cost) {
        Permit::settle(*self, actual);
    }

    fn shadowed(&self) -> Option<&Denied> {
        Permit::shadowed(self)
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        Permit::status(self, visit);
    }
}

impl Permit for BoxPermit {
    fn cost(&self) -> Cost {
        self.0.cost()
    }

    fn settle(self, actual: Cost) {
        self.0.settle(actual);
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.0.shadowed()
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        self.0.status(visit);
    }
}

impl fmt::Debug for BoxPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoxPermit").field(&self.0.cost()).finish()
    }
}
