//! The limiter behind one type: the only `dyn`, and the only box.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Census, Limiter, Now, Permit};
use crate::decision::{Ask, Denied, Error, Standing};
use crate::units::Cost;

/// Any limiter of `K` behind one type. Made by [`boxed`](super::LimiterExt::boxed); costs up to two allocations an ask.
pub struct BoxLimiter<K: ?Sized = (), F = Infallible> {
    limiter: Arc<dyn AnyLimiter<K, F> + Send + Sync>,
}

impl<K: ?Sized, F: 'static> BoxLimiter<K, F> {
    pub(super) fn new<L>(limiter: L) -> Self
    where
        L: Limiter<K, Fault = F> + Send + Sync + 'static,
        L::Permit: Send + 'static,
        L::Acquire: Send + 'static,
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

    fn answers_now(&self) -> bool {
        self.limiter.answers_now_any()
    }

    fn acquire_now(&self, key: &K, cost: Cost, use_permit: bool) -> Now<BoxPermit> {
        self.limiter.acquire_now_any(key, cost, use_permit)
    }

    fn holds(&self) -> bool {
        self.limiter.holds_any()
    }

    fn report(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        self.limiter.report_any(key, visit);
    }

    fn census(&self) -> Option<Census> {
        self.limiter.census_any()
    }
}

trait AnyLimiter<K: ?Sized, F> {
    fn acquire_any(&self, key: &K, ask: Ask) -> BoxAcquire<F>;
    fn answers_now_any(&self) -> bool;
    fn acquire_now_any(&self, key: &K, cost: Cost, use_permit: bool) -> Now<BoxPermit>;
    fn holds_any(&self) -> bool;
    fn report_any(&self, key: &K, visit: &mut dyn FnMut(&Standing));
    fn census_any(&self) -> Option<Census>;
}

impl<K: ?Sized, L> AnyLimiter<K, L::Fault> for L
where
    L: Limiter<K>,
    L::Permit: Send + 'static,
    L::Acquire: Send + 'static,
{
    fn acquire_any(&self, key: &K, ask: Ask) -> BoxAcquire<L::Fault> {
        let acquire = self.acquire(key, ask);
        BoxAcquire {
            acquire: Box::pin(async move { acquire.await.map(|permit| BoxPermit(Box::new(permit))) }),
        }
    }

    fn answers_now_any(&self) -> bool {
        self.answers_now()
    }

    fn acquire_now_any(&self, key: &K, cost: Cost, use_permit: bool) -> Now<BoxPermit> {
        let answer = self.acquire_now(key, cost, use_permit)?;
        Some(answer.map(|permit| permit.map(|permit| BoxPermit(Box::new(permit)))))
    }

    fn holds_any(&self) -> bool {
        self.holds()
    }

    fn report_any(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        self.report(key, visit);
    }

    fn census_any(&self) -> Option<Census> {
        self.census()
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

trait AnyPermit {
    fn cost(&self) -> Cost;
    fn settle(self: Box<Self>, actual: Cost);
    fn shadowed(&self) -> Option<&Denied>;
    fn report(&self, visit: &mut dyn FnMut(&Standing));
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

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        Permit::report(self, visit);
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

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        self.0.report(visit);
    }
}

impl fmt::Debug for BoxPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoxPermit").field(&self.0.cost()).finish()
    }
}
