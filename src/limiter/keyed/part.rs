//! An ask about a key as a member of a composition.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::KeyedPermit;
use super::keys::Handle;
use super::table::Id;
use super::tiers::Tier;
use crate::clock::{Clock, DefaultClock};
use crate::core::Members;
use crate::limiter::{Compose, Part, RateLimiter, RatePart, Stored};
use crate::types::{Denied, Error};
use crate::units::{Cost, Timestamp};

/// An ask about a key, as a member of a composition.
pub struct KeyedPart<A: Stored, C: Clock = DefaultClock> {
    handle: Arc<Handle<RateLimiter<A, C>>>,
    id: Id,
    tier: Tier,
    units: u64,
    /// The ask of the key's limiter, once it waits there.
    waits: Option<RatePart<A, C>>,
}

impl<A: Stored, C: Clock> KeyedPart<A, C> {
    pub(super) fn new(handle: &Arc<Handle<RateLimiter<A, C>>>, id: Id, tier: Tier, units: u64) -> Self {
        Self { handle: Arc::clone(handle), id, tier, units, waits: None }
    }
}

impl<A: Stored, C: Clock> Part for KeyedPart<A, C> {
    type Permit = KeyedPermit<A, C>;
    type Fault = Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.handle.keys.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        match &self.waits {
            Some(waits) => waits.peek(),
            None => self.handle.keys.peek(self.id, self.tier, self.units),
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error>> {
        if let Some(waits) = &mut self.waits {
            return waits.poll_take(cx).map_ok(KeyedPermit::of_limiter);
        }
        let taken = self.handle.take(self.id, self.tier, self.units);
        Poll::Ready(taken.map(KeyedPermit::new).map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        if self.waits.is_none() {
            let limiter = self.handle.keys.route(self.id, self.tier, None)?.limiter();
            self.waits = limiter.map(|limiter| Compose::<()>::part(&limiter, &(), Cost::new(self.units)));
        }
        self.waits.as_mut().map_or(Ok(()), |waits| waits.enlist(members))
    }
}

impl<A: Stored, C: Clock> fmt::Debug for KeyedPart<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPart").field("units", &self.units).finish_non_exhaustive()
    }
}
