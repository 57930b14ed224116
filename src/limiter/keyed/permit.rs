//! The permit of a key.

use std::fmt;
use std::sync::Arc;

use super::alter::Peek;
use super::flat::Id;
use super::shard::Shard;
use crate::algorithm::{Algorithm, Grant, TokenBucket};
use crate::clock::{Clock, DefaultClock};
use crate::limiter::rate::Statuses;
use crate::limiter::{Limiter, Permit, RatePermit, Stored};
use crate::types::LimitStatus;
use crate::units::{Cost, Name, Timestamp};

/// Proof that one may act once about a key. Dropped, its charge stands. While it is out, its key is not dropped.
#[must_use = "a permit stands for the work done under it; a charge alone is `check`"]
pub struct KeyedPermit<A: Stored, C: Clock = DefaultClock>(Inner<A, C>);

enum Inner<A: Stored, C: Clock> {
    Limiter(RatePermit<A, C>),
    Slot(Slot<A, C>),
    /// Of an exempt key, or for nothing: there is nothing to settle.
    None,
}

/// A grant from a slot, and the pin that keeps the slot.
struct Slot<A: Stored, C: Clock> {
    shard: Arc<Shard<A, C>>,
    id: Id,
    line: usize,
    grant: Grant,
    version: u32,
}

impl<A: Stored, C: Clock> KeyedPermit<A, C> {
    pub(super) const fn of_limiter(permit: RatePermit<A, C>) -> Self {
        Self(Inner::Limiter(permit))
    }

    pub(super) const fn none() -> Self {
        Self(Inner::None)
    }

    pub(super) const fn of_slot(
        shard: Arc<Shard<A, C>>,
        id: Id,
        line: usize,
        grant: Grant,
        version: u32,
    ) -> Self {
        Self(Inner::Slot(Slot { shard, id, line, grant, version }))
    }
}

impl<A: Stored, C: Clock> Drop for Slot<A, C> {
    fn drop(&mut self) {
        self.shard.unpin(self.line);
    }
}

impl<A: Stored, C: Clock> Permit for KeyedPermit<A, C> {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        match &self.0 {
            Inner::Limiter(permit) => permit.cost(),
            Inner::Slot(slot) => Cost::new(slot.grant.units),
            Inner::None => Cost::ZERO,
        }
    }

    fn settle(self, actual: Cost) {
        match self.0 {
            Inner::None => {}
            Inner::Limiter(permit) => permit.settle(actual),
            Inner::Slot(slot) if actual.units() == slot.grant.units => {}
            Inner::Slot(slot) => slot.shard.settle(slot.id, slot.grant, slot.version, actual.units()),
        }
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        match &self.0 {
            Inner::None => {}
            Inner::Limiter(permit) => permit.status(visit),
            Inner::Slot(slot) => {
                if let Some(peek) = slot.shard.peek_unlocked(slot.id) {
                    peek.tell(slot.shard.common.name.as_ref(), visit);
                }
            }
        }
    }
}

impl<A: Stored, C: Clock> Peek<A, C> {
    pub(super) fn tell(&self, name: Option<&Name>, visit: &mut dyn FnMut(&LimitStatus)) {
        match self {
            Self::Limiter(limiter) => Limiter::<()>::status(limiter, &(), visit),
            Self::Slot(bucket, backlog, now) => standings(bucket, *backlog, *now).tell(name, visit),
        }
    }
}

fn standings(bucket: &TokenBucket, backlog: u64, now: Timestamp) -> Statuses {
    let mut state: <TokenBucket as Algorithm>::State = bucket.resume(now, backlog);
    Statuses::of(bucket, &mut state, now)
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
    use crate::units::Quota;
    use std::time::Duration;

    fn told(report: impl FnOnce(&mut dyn FnMut(&LimitStatus))) -> Vec<LimitStatus> {
        let mut told = Vec::new();
        report(&mut |standing| told.push(standing.clone()));
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
