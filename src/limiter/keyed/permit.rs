//! The permit of a key.

use std::fmt;
use std::sync::Arc;

use super::keys::{Granted, Handle};
use super::store::KeyLimiter;
use super::table::{Id, SlotGrant};
use crate::algorithm::Grant;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{Permit, RateLimiter, Stored};
use crate::types::LimitStatus;
use crate::units::Cost;

/// Proof that one may act once about a key. Dropped, its charge stands. While it is out, its key is not dropped.
#[must_use = "a permit stands for the work done under it; a charge alone is `check`"]
pub struct KeyedPermit<A: Stored, C: Clock = DefaultClock>(Granted<RateLimiter<A, C>>);

/// A grant of a slot, with the pin that keeps the slot.
pub(super) struct SlotPermit<L: KeyLimiter> {
    handle: Arc<Handle<L>>,
    id: Id,
    slot: SlotGrant,
    units: u64,
}

impl<L: KeyLimiter> SlotPermit<L> {
    pub(super) const fn new(handle: Arc<Handle<L>>, id: Id, slot: SlotGrant, units: u64) -> Self {
        Self { handle, id, slot, units }
    }

    const fn grant(&self) -> Grant {
        self.slot.of_units(self.units)
    }
}

impl<L: KeyLimiter> Drop for SlotPermit<L> {
    fn drop(&mut self) {
        self.handle.keys.unpin(self.slot);
    }
}

impl<A: Stored, C: Clock> KeyedPermit<A, C> {
    pub(super) const fn new(granted: Granted<RateLimiter<A, C>>) -> Self {
        Self(granted)
    }

    pub(super) fn of_slot(
        handle: &Arc<Handle<RateLimiter<A, C>>>,
        id: Id,
        slot: SlotGrant,
        units: u64,
    ) -> Self {
        Self(Granted::Slot(SlotPermit::new(Arc::clone(handle), id, slot, units)))
    }

    pub(super) const fn free() -> Self {
        Self(Granted::Free)
    }

    pub(super) const fn of_limiter(permit: crate::limiter::RatePermit<A, C>) -> Self {
        Self(Granted::Limiter(permit))
    }
}

impl<A: Stored, C: Clock> Permit for KeyedPermit<A, C> {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        match &self.0 {
            Granted::Limiter(permit) => permit.cost(),
            Granted::Slot(permit) => Cost::new(permit.units),
            Granted::Free => Cost::ZERO,
        }
    }

    fn settle(self, actual: Cost) {
        match self.0 {
            Granted::Free => {}
            Granted::Limiter(permit) => permit.settle(actual),
            Granted::Slot(permit) => {
                permit.handle.keys.settle(permit.id, permit.slot, permit.grant(), actual.units());
            }
        }
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        match &self.0 {
            Granted::Free => {}
            Granted::Limiter(permit) => permit.status(visit),
            Granted::Slot(permit) => drop(permit.handle.keys.status_of_known(permit.id, visit)),
        }
    }
}
impl<A: Stored, C: Clock> fmt::Debug for KeyedPermit<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPermit").field("cost", &self.cost()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(tollgate_loom)))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::limiter::Limiter;
    use crate::units::Quota;
    use std::time::Duration;

    fn told(report: impl FnOnce(&mut dyn FnMut(&LimitStatus))) -> Vec<LimitStatus> {
        let mut told = Vec::new();
        report(&mut |status| told.push(LimitStatus { keys: None, ..status.clone() }));
        told
    }

    /// Planted: a backlog read by the quota before.
    #[test]
    fn a_permit_tells_without_the_lock_what_the_lock_shows() {
        for quota in [Quota::per_second(3).burst(7), Quota::per_second(1_000).burst(500), Quota::per_day(9)] {
            let clock = ManualClock::new();
            let limit =
                crate::TokenBucket::builder(quota).clock(clock.clone()).build().unwrap().keyed::<u32>();
            let mut granted = 0;
            for step in 0..300_u64 {
                clock.advance(Duration::from_nanos(step * step * 7_919));
                let Ok(permit) = limit.try_acquire(&7, 1 + step % 3) else { continue };
                granted += 1;
                match step % 5 {
                    0 => drop(limit.check(&7, 1)),
                    1 => clock.advance(Duration::from_millis(step)),
                    2 => limit.set_quota(if step % 2 == 0 { quota } else { Quota::per_minute(70) }).unwrap(),
                    _ => {}
                }
                let shown = told(|visit| Limiter::status(&limit, &7, visit));
                assert_eq!(told(|visit| permit.status(visit)), shown, "{quota}, step {step}");
            }
            assert!(granted > 2, "{quota}");
        }
    }
}
