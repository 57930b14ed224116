//! The future of an ask about a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::KeyedPermit;
use super::keys::{Handle, Route};
use super::table::Id;
use super::tiers::Tier;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{AcquireRate, RateLimiter, Stored};
use crate::types::{Ask, Denied, Error, Reason};
use crate::units::Timestamp;

/// The wait for a permit about a key. Cancel-safe: see [`Keyed::acquire`](super::Keyed::acquire). A key without a state is
/// given one at the first poll.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireKeyed<A: Stored, C: Clock = DefaultClock>(Stage<A, C>);

enum Stage<A: Stored, C: Clock> {
    New(KeyedAsk<A, C>),
    Waits(AcquireRate<A, C>),
    Done,
}

/// An ask about a key that has not been made.
pub(super) struct KeyedAsk<A: Stored, C: Clock> {
    handle: Arc<Handle<RateLimiter<A, C>>>,
    id: Id,
    tier: Tier,
    ask: Ask,
    called_at: Timestamp,
}

/// What becomes of an ask once it is made.
pub(super) enum Made<A: Stored, C: Clock> {
    Permit(KeyedPermit<A, C>),
    /// It waits in the queue of the key's limiter.
    Waits(RateLimiter<A, C>, Ask),
}

impl<A: Stored, C: Clock> KeyedAsk<A, C> {
    pub(super) fn new(handle: &Arc<Handle<RateLimiter<A, C>>>, id: Id, tier: Tier, ask: Ask) -> Self {
        // The longest wait counts from the call. Others than a finite one need no clock.
        let called_at = match ask.max_wait() {
            None | Some(Duration::ZERO) => Timestamp::ZERO,
            Some(_) => handle.keys.clock().now(),
        };
        Self { handle: Arc::clone(handle), id, tier, ask, called_at }
    }

    /// The ask with what is left of its longest wait.
    fn left(&self) -> Ask {
        match self.ask.max_wait() {
            None | Some(Duration::ZERO) => self.ask,
            Some(longest) => {
                let waited = self.handle.keys.clock().now().since(self.called_at);
                self.ask.within(longest.saturating_sub(waited))
            }
        }
    }

    /// Takes what is asked for, or finds the queue to wait in.
    pub(super) fn make(&self) -> Result<Made<A, C>, Denied> {
        let Self { handle, id, tier, ask, .. } = self;
        let units = ask.units().units();
        let denied = match handle.route(*id, *tier, units) {
            Ok(Route::Own(limiter) | Route::Overflow(limiter)) => {
                return Ok(Made::Waits(limiter, self.left()));
            }
            Ok(Route::Slot(slot)) => return Ok(Made::Permit(KeyedPermit::of_slot(handle, *id, slot, units))),
            Ok(Route::Free) => return Ok(Made::Permit(KeyedPermit::free())),
            Err(denied) => denied,
        };
        // A slot has no queue: whoever waits does so at a limiter.
        let left = self.left();
        let helps = |wait| left.max_wait().is_none_or(|longest| wait <= longest);
        if denied.reason() != Reason::Exhausted || !denied.retry_after().is_some_and(helps) {
            return Err(denied);
        }
        match handle.keys.route(*id, *tier, None)?.limiter() {
            Some(limiter) => Ok(Made::Waits(limiter, left)),
            None => Ok(Made::Permit(KeyedPermit::free())),
        }
    }
}

/// Nothing of it is pinned before it is moved out at the first poll.
impl<A: Stored, C: Clock> Unpin for AcquireKeyed<A, C> {}

impl<A: Stored, C: Clock> AcquireKeyed<A, C> {
    pub(super) const fn new(ask: KeyedAsk<A, C>) -> Self {
        Self(Stage::New(ask))
    }
}

impl<A: Stored, C: Clock> Future for AcquireKeyed<A, C> {
    type Output = Result<KeyedPermit<A, C>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::New(ask) = &self.0 {
            match ask.make() {
                Ok(Made::Waits(limiter, ask)) => self.0 = Stage::Waits(limiter.acquire(ask)),
                made => {
                    self.0 = Stage::Done;
                    return Poll::Ready(match made {
                        Ok(Made::Permit(permit)) => Ok(permit),
                        Ok(Made::Waits(..)) => unreachable!("matched above"),
                        Err(denied) => Err(Error::Denied(denied)),
                    });
                }
            }
        }
        match &mut self.0 {
            Stage::Waits(acquire) => Pin::new(acquire).poll(cx).map_ok(KeyedPermit::of_limiter),
            Stage::New(_) | Stage::Done => panic!("an acquire was polled after it had given its answer"),
        }
    }
}

impl<A: Stored, C: Clock> fmt::Debug for AcquireKeyed<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireKeyed").finish_non_exhaustive()
    }
}
