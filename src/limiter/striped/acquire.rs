use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::permit::StripedPermit;
use super::shared::InQueue;
use super::stripe::{Stripe, Taken};
use crate::clock::{Clock, DefaultClock};
use crate::types::{Ask, Denied, Error};
use crate::units::Timestamp;

/// The wait for a [`StripedPermit`]. Cancel-safe: see [`Striped::acquire`](crate::Striped::acquire).
#[must_use = "futures do nothing unless polled"]
pub struct AcquireStriped<C: Clock = DefaultClock> {
    /// Of the thread it was asked on. Polled first on another one it takes from what is shared.
    stripe: Option<Arc<Stripe<C>>>,
    ask: Ask,
    deadline: Option<Timestamp>,
    waiting: Option<InQueue<C>>,
}

impl<C: Clock> AcquireStriped<C> {
    #[inline]
    pub(super) fn new(stripe: Arc<Stripe<C>>, ask: Ask) -> Self {
        let deadline = stripe.shared.central.limit.deadline(ask.max_wait());
        Self { stripe: Some(stripe), ask, deadline, waiting: None }
    }

    #[cold]
    fn poll_queue(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, Denied>> {
        let Some(stripe) = &self.stripe else {
            panic!("an acquire was polled after it had given its answer");
        };
        if let Some(waiting) = &mut self.waiting {
            return Pin::new(waiting).poll(cx).map_ok(|(_, grant)| Taken::granted(grant));
        }
        match stripe.take_here(self.ask.units().units()) {
            Err(denied) if stripe.shared.would_wait(self.ask, self.deadline, &denied) => {
                let (mut waiting, joining) = stripe.join(self.ask, self.deadline);
                let polled = Pin::new(&mut waiting).poll(cx);
                drop(joining);
                self.waiting = Some(waiting);
                polled.map_ok(|(_, grant)| Taken::granted(grant))
            }
            answer => Poll::Ready(answer),
        }
    }
}

impl<C: Clock> Future for AcquireStriped<C> {
    type Output = Result<StripedPermit<C>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let units = self.ask.units().units();
        let taken = match &self.stripe {
            Some(stripe) if self.waiting.is_none() && stripe.spend_here(units) => Ok(stripe.spent(units)),
            _ => ready!(self.poll_queue(cx)),
        };
        self.waiting = None;
        let stripe = self.stripe.take();
        Poll::Ready(match (taken, stripe) {
            (Ok(taken), Some(stripe)) => Ok(StripedPermit::new(stripe, taken)),
            (Err(denied), _) => Err(Error::Denied(denied)),
            (Ok(_), None) => unreachable!("what is taken is taken at a stripe"),
        })
    }
}

impl<C: Clock> fmt::Debug for AcquireStriped<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireStriped").field("ask", &self.ask).finish_non_exhaustive()
    }
}
