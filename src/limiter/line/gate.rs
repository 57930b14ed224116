use crate::algorithm::{Balance, Grant};
use crate::decision::Policy;
use crate::limiter::door::{Glance, Sealed};
use crate::units::Timestamp;

/// When an ask that may not go now may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// At this time, if nobody else comes.
    At(Timestamp),
    /// When others finish.
    Release,
    /// However long one waits.
    Never,
}

/// What stands behind a line: a rate or a number of slots. What takes a door and no gate needs no lock;
/// all else is called under the line's lock.
pub(crate) trait Gate: Send + 'static {
    /// The way in without the lock.
    type Door: Send + Sync + std::fmt::Debug + 'static;
    /// Whether time alone lets waiters in.
    const TIMED: bool;

    fn build_door(&self, sealed: Sealed) -> Self::Door;
    fn look(door: &Self::Door, now: Timestamp, units: u64) -> Glance;
    /// When `units` could go, if that is known and after `horizon`. Takes nothing.
    #[inline]
    fn not_by(_door: &Self::Door, _horizon: Timestamp, _units: u64) -> Option<Timestamp> {
        None
    }
    /// What the one limit promises and what is left of it, if that is known. Takes nothing.
    fn standing(_door: &Self::Door, _now: Timestamp) -> Option<(Policy, Balance)> {
        None
    }
    /// Gives units back without the lock, if nobody waits for them.
    fn put_back(_door: &Self::Door, _units: u64) -> bool {
        false
    }
    fn shut(&mut self, door: &Self::Door);
    /// Whether the door could be opened; if not, what is behind it stays in the gate.
    fn open(&mut self, door: &Self::Door) -> bool;

    fn capacity(&self) -> u64;
    /// Whether a cost above the capacity may go when all of the capacity is there.
    fn lends(&self) -> bool;
    fn take(&mut self, now: Timestamp, units: u64) -> Result<(), Later>;
    /// When `units` could go behind those who wait: `ahead` are their units, and `each` lists them in order.
    ///
    /// The gate may keep what it finds until it is told that somebody `joined` or `left` the line.
    fn behind(
        &mut self,
        now: Timestamp,
        ahead: u64,
        each: &mut dyn Iterator<Item = u64>,
        units: u64,
    ) -> Later;
    /// The grant of what was taken `now`.
    fn grant(&self, now: Timestamp, units: u64) -> Grant {
        Grant::new(now, units)
    }
    fn joined(&mut self, now: Timestamp, units: u64);
    fn left(&mut self);
    fn charge(&mut self, now: Timestamp, units: u64);
    fn give_back(&mut self, now: Timestamp, grant: Grant, units: u64);
    fn balance(&mut self, now: Timestamp) -> Balance;

    /// A walk along the line, to tell for each ask when it will go. `None` where time does not tell.
    type Plan;
    fn plan(&self) -> Option<Self::Plan>;
    /// When `units` go next in the plan; they count as gone if that is not after `deadline`.
    fn plan_next(
        &self,
        plan: &mut Self::Plan,
        now: Timestamp,
        units: u64,
        deadline: Timestamp,
    ) -> Option<Timestamp>;
}
