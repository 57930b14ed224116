//! The future of an ask about a key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::flat::Id;
use super::shard::{Granted, Taken, Want};
use super::tiers::Tier;
use super::{Keyed, KeyedPermit, ShardOf, Way};
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{AcquireRate, Stored};
use crate::types::{Ask, Denied, Error, Reason};
use crate::units::Timestamp;

/// The wait for a permit about a key. Cancel-safe: see [`Keyed::acquire`]. A key without a state is given one at
/// the first poll.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireKeyed<A: Stored, C: Clock = DefaultClock>(Stage<A, C>);

enum Stage<A: Stored, C: Clock> {
    New(New<A, C>),
    Waits(AcquireRate<A, C>),
    Done,
}

/// An ask that has not been polled.
struct New<A: Stored, C: Clock> {
    part: ShardOf<A, C>,
    id: Id,
    tier: Tier,
    ask: Ask,
    called_at: Timestamp,
}

/// What the first poll finds.
enum First<A: Stored, C: Clock> {
    Permit(KeyedPermit<A, C>),
    Waits(AcquireRate<A, C>),
}

impl<A: Stored, C: Clock> AcquireKeyed<A, C> {
    pub(super) fn new<K>(keyed: &Keyed<K, A, C>, id: Id, tier: Tier, ask: Ask) -> Self {
        // Of no account to one who waits for as long as it takes, or not at all.
        let called_at = match ask.max_wait() {
            None | Some(Duration::ZERO) => Timestamp::ZERO,
            Some(_) => keyed.shared.common.clock.now(),
        };
        Self(Stage::New(New { part: Arc::clone(keyed.shared.part(id)), id, tier, ask, called_at }))
    }
}

impl<A: Stored, C: Clock> New<A, C> {
    /// Looks at the slot of the key, and takes what it asks for if it is there.
    #[inline]
    fn take(&self) -> Result<Option<Granted>, Denied> {
        self.part.common.take(self.id, self.tier, self.ask.units().units(), true)
    }

    fn first(self, taken: Result<Option<Granted>, Denied>) -> Result<First<A, C>, Denied> {
        let Self { part, id, tier, ask, called_at } = self;
        // The longest wait is counted from the call.
        let left = ask.max_wait().map(|longest| match longest {
            Duration::ZERO => Duration::ZERO,
            longest => longest.saturating_sub(part.common.clock.now().since(called_at)),
        });
        let units = ask.units().units();
        let answer = match taken {
            Ok(Some(granted)) => Ok(Taken::Slot(Some(granted))),
            Ok(None) => part.enter(id, tier, Want::Units { units, pin: true }),
            Err(denied) => Err(denied),
        };
        let way = match answer {
            Ok(Taken::Slot(slot)) => {
                return Ok(First::Permit(
                    slot.map_or_else(KeyedPermit::none, |slot| part.permit(id, units, slot)),
                ));
            }
            Ok(Taken::Way(way)) => way,
            Err(denied) => {
                // A wait is for the line of its limiter, which a key in a slot has none of.
                let waits = denied.reason() == Reason::Exhausted
                    && denied.retry_after().is_some_and(|wait| left.is_none_or(|left| wait <= left));
                if !waits {
                    return Err(denied);
                }
                match part.enter(id, tier, Want::Limiter)? {
                    Taken::Way(way) => way,
                    Taken::Slot(..) => return Err(denied),
                }
            }
        };
        Ok(match way {
            Way::Limited(limiter) | Way::Shared(limiter) => {
                First::Waits(limiter.acquire(left.map_or(ask, |left| ask.within(left))))
            }
            Way::Exempt => First::Permit(KeyedPermit::none()),
        })
    }
}

/// What is moved out when it is first polled is never pinned.
impl<A: Stored, C: Clock> Unpin for AcquireKeyed<A, C> {}

impl<A: Stored, C: Clock> Future for AcquireKeyed<A, C> {
    type Output = Result<KeyedPermit<A, C>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Stage::Waits(acquire) = &mut self.0 {
                return Pin::new(acquire).poll(cx).map_ok(KeyedPermit::of_limiter);
            }
            let taken = match &self.0 {
                Stage::New(new) => new.take(),
                _ => Ok(None),
            };
            match std::mem::replace(&mut self.0, Stage::Done) {
                Stage::New(new) => match new.first(taken) {
                    Ok(First::Permit(permit)) => return Poll::Ready(Ok(permit)),
                    Ok(First::Waits(acquire)) => self.0 = Stage::Waits(acquire),
                    Err(denied) => return Poll::Ready(Err(Error::Denied(denied))),
                },
                Stage::Waits(_) | Stage::Done => {
                    panic!("an acquire was polled after it had given its answer")
                }
            }
        }
    }
}

impl<A: Stored, C: Clock> fmt::Debug for AcquireKeyed<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireKeyed").finish_non_exhaustive()
    }
}
