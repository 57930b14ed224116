use super::free::{FreeSlots, Take};
use crate::algorithm::{Balance, Grant, When};
use crate::decision::Reason;
use crate::limiter::door::{Glance, Sealed};
use crate::limiter::line::{Gate, Later};
use crate::units::Timestamp;

/// Keeps every sum of slots within a signed word.
const SLOTS_MAX: u64 = 1 << 62;

/// Slots that are free: fewer than none after a resize to fewer than are in use.
pub(in crate::limiter) struct SlotGate {
    slots: i64,
    /// While the door is open, what of them is not there.
    free: i64,
    door: FreeSlots,
    /// Permits of no slots.
    empty_permits: u64,
    /// Nobody has a handle any more.
    is_left: bool,
}

impl SlotGate {
    pub(super) fn new(slots: u64, door: FreeSlots) -> Self {
        let slots = slots.min(SLOTS_MAX) as i64;
        Self { slots, free: slots, door, empty_permits: 0, is_left: false }
    }

    /// Nobody has a handle any more. Whether no permit is out, either.
    pub(super) const fn leave(&mut self) -> bool {
        self.is_left = true;
        self.is_over()
    }

    /// A permit comes back. Whether it was the last of a limit that nobody has a handle of.
    pub(super) const fn put(&mut self, units: u64) -> bool {
        self.free += units as i64;
        if units == 0 {
            self.empty_permits -= 1;
        }
        self.is_over()
    }

    const fn is_over(&self) -> bool {
        self.is_left && self.free == self.slots && self.empty_permits == 0
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

impl Gate for SlotGate {
    type Load = u64;
    type Grant = Grant;
    type Door = FreeSlots;
    type Plan = ();
    const TIMED: bool = false;

    fn build_door(&self, _: Sealed) -> FreeSlots {
        self.door.clone()
    }

    #[inline]
    fn look(door: &FreeSlots, _now: Timestamp, units: u64) -> Glance {
        // Where they are taken is forgotten: they may go back anywhere.
        if matches!(door.take(units), Take::Taken(_)) { Glance::Go } else { Glance::Shut }
    }

    fn shut(&mut self, door: &FreeSlots) {
        self.free += door.hold() as i64;
    }

    fn open(&mut self, door: &FreeSlots) -> bool {
        // What is owed would have to be taken from whichever stripe a slot comes back to.
        let Ok(free) = u64::try_from(self.free) else { return false };
        self.free = door.open(free, self.slots as u64) as i64;
        true
    }

    fn capacity(&self) -> u64 {
        self.slots as u64
    }

    fn refuses(&mut self, _now: Timestamp, units: u64) -> Option<Reason> {
        (units > self.slots as u64).then_some(Reason::ExceedsCapacity)
    }

    fn take(&mut self, _now: Timestamp, units: u64) -> Result<(), Later> {
        if !self.fits(units) {
            return Err(Later::Release);
        }
        self.free -= units as i64;
        Ok(())
    }

    fn behind(
        &mut self,
        now: Timestamp,
        ahead: u64,
        _each: &mut dyn Iterator<Item = u64>,
        units: u64,
    ) -> Later {
        if ahead == 0 && self.fits(units) { Later::At(now) } else { Later::Release }
    }

    fn grant_at_door(now: Timestamp, units: u64) -> Grant {
        Grant::new(now, units)
    }

    fn grant(&mut self, now: Timestamp, units: u64) -> Grant {
        self.empty_permits += u64::from(units == 0);
        Grant::new(now, units)
    }

    fn joined(&mut self, _now: Timestamp, _units: u64) {}

    fn left(&mut self) {}

    fn give_back(&mut self, _now: Timestamp, _grant: Grant, units: u64) {
        self.free += units as i64;
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        let remaining = u64::try_from(self.free).unwrap_or(0);
        let over = u64::try_from(-self.free).unwrap_or(0);
        Balance::new(remaining, over, if self.free == self.slots { When::At(now) } else { When::Never })
    }

    fn plan(&self) -> Option<()> {
        None
    }

    fn plan_next(
        &self,
        _plan: &mut (),
        _now: Timestamp,
        _units: u64,
        _deadline: Timestamp,
    ) -> Option<Timestamp> {
        None
    }
}
