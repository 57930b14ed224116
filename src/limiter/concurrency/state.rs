use std::sync::Weak;

use super::slots::SlotWords;
use crate::algorithm::{Balance, When};
use crate::clock::Clock;
use crate::core::{Later, Limit, LimitState, Outcome};
use crate::types::Reason;
use crate::units::Timestamp;

/// Keeps every sum of slots within a signed word.
const SLOTS_MAX: u64 = 1 << 62;

/// Slots that are free: fewer than none after a resize to fewer than are in use.
pub(in crate::limiter) struct SlotState<C: Clock> {
    slots: i64,
    /// While the fast path is open, the free slots that did not fit it.
    free: i64,
    stripes: usize,
    limit: Weak<Limit<Self, C>>,
}

impl<C: Clock> SlotState<C> {
    pub(super) fn new(slots: u64, stripes: usize, limit: &Weak<Limit<Self, C>>) -> Self {
        let slots = slots.min(SLOTS_MAX) as i64;
        Self { slots, free: slots, stripes, limit: Weak::clone(limit) }
    }

    pub(super) fn resize(&mut self, slots: u64) {
        let slots = slots.min(SLOTS_MAX) as i64;
        self.free += slots - self.slots;
        self.slots = slots;
    }

    fn fits(&self, units: u64) -> bool {
        i64::try_from(units).is_ok_and(|units| units <= self.free)
    }
}

impl<C: Clock> LimitState for SlotState<C> {
    type Load = u64;
    type Grant = u64;
    type FastPath = SlotWords<C>;
    type Plan = ();
    const TIMED: bool = false;

    fn fast_path(&self) -> SlotWords<C> {
        SlotWords::held(self.stripes, &self.limit)
    }

    #[inline]
    fn try_fast(path: &SlotWords<C>, _now: Timestamp, units: u64, take: bool) -> Outcome {
        if take { path.take(units) } else { path.peek(units) }
    }

    #[inline]
    fn fast_grant(_now: Timestamp, units: u64) -> u64 {
        units
    }

    fn close(&mut self, path: &SlotWords<C>) {
        self.free += path.hold() as i64;
    }

    fn open(&mut self, path: &SlotWords<C>) -> bool {
        // What is owed would have to be taken from whichever word a slot comes back to.
        let Ok(free) = u64::try_from(self.free) else { return false };
        self.free = path.open(free, self.slots as u64) as i64;
        true
    }

    fn capacity(&self) -> u64 {
        self.slots as u64
    }

    fn refuses(&mut self, _now: Timestamp, units: u64) -> Option<Reason> {
        (units > self.slots as u64).then_some(Reason::ExceedsCapacity)
    }

    fn ready(&mut self, now: Timestamp, units: u64) -> Later {
        if self.fits(units) { Later::At(now) } else { Later::Release }
    }

    fn take(&mut self, _now: Timestamp, units: u64) -> Result<u64, Later> {
        if units > 0 && !self.fits(units) {
            return Err(Later::Release);
        }
        self.free -= units as i64;
        Ok(units)
    }

    fn give_back(&mut self, _now: Timestamp, _grant: u64, units: u64) {
        self.free += units as i64;
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        let remaining = u64::try_from(self.free).unwrap_or(0);
        let over = u64::try_from(-self.free).unwrap_or(0);
        Balance::new(remaining, over, if self.free == self.slots { When::At(now) } else { When::Never })
    }

    fn plan(&self, _now: Timestamp) -> Option<()> {
        None
    }

    fn plan_ready(&self, _plan: &mut (), _now: Timestamp, _units: u64) -> Later {
        Later::Release
    }

    fn plan_take(&self, _plan: &mut (), _at: Timestamp, _units: u64) {}

    fn ready_behind(&self, _now: Timestamp, _ahead: u64, _units: u64) -> Option<Later> {
        Some(Later::Release)
    }
}
