use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::bucket::SharedBucket;
use super::permit::StripedPermit;
use super::stripe::{Stripe, Taken};
use crate::clock::{Clock, DefaultClock};
use crate::core::Acquire;
use crate::limiter::rate::RateState;
use crate::types::Error;
use crate::units::Timestamp;

/// The wait for a [`StripedPermit`]. Cancel-safe: see [`Striped::acquire`](crate::Striped::acquire).
#[must_use = "futures do nothing unless polled"]
pub struct AcquireStriped<C: Clock = DefaultClock> {
    /// Of the thread that asked, until the answer. Polled first on another one, it takes from the shared bucket.
    pub(super) stripe: Option<Arc<Stripe<C>>>,
    pub(super) units: u64,
    pub(super) deadline: Option<Timestamp>,
    /// Once the first poll was denied.
    pub(super) waiting: Option<Acquire<RateState<SharedBucket>, C>>,
}

impl<C: Clock> Future for AcquireStriped<C> {
    type Output = Result<StripedPermit<C>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stripe, units, deadline, waiting } = &mut *self;
        let here = stripe.as_ref().expect("an acquire was polled after it had given its answer");
        let first = waiting.is_none().then(|| here.take_here(*units));
        let taken = match first {
            Some(Err(denied)) if !here.would_wait(*deadline, &denied) => Err(denied),
            Some(Ok(taken)) => Ok(taken),
            _ => {
                let waiting = waiting.get_or_insert_with(|| here.enqueue(*units, *deadline));
                ready!(Pin::new(waiting).poll(cx)).map(|(_, grant)| Taken::granted(grant))
            }
        };
        *waiting = None;
        let stripe = stripe.take().expect("it is taken with the answer");
        Poll::Ready(taken.map(|taken| StripedPermit { stripe, taken }).map_err(Error::Denied))
    }
}

impl<C: Clock> fmt::Debug for AcquireStriped<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireStriped").field("units", &self.units).finish_non_exhaustive()
    }
}
