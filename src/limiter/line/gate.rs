use crate::algorithm::Balance;
use crate::decision::Reason;
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

/// What is asked of a gate: a number of units, or of several kinds of units together.
pub(crate) trait Load: Copy + Send + Unpin + 'static {
    /// How much of the line's length it takes; nothing is asked where this is zero.
    fn units(self) -> u64;
}

impl Load for u64 {
    #[inline]
    fn units(self) -> u64 {
        self
    }
}

/// What stands behind a line: a rate or a number of slots. All but `look` and `free_at` is called under the
/// line's lock.
pub(crate) trait Gate: Send + 'static {
    /// What is asked of it.
    type Load: Load;
    /// What it remembers of a grant.
    type Grant: Copy + Send + 'static;
    /// The way in without the lock.
    type Door: Send + Sync + std::fmt::Debug + 'static;
    /// Whether time alone lets waiters in.
    const TIMED: bool;

    fn build_door(&self, sealed: Sealed) -> Self::Door;
    fn look(door: &Self::Door, now: Timestamp, load: Self::Load) -> Glance;
    /// When `load` could go if nobody else came, if that can be told without knowing what time it is. Takes nothing.
    #[inline]
    fn free_at(_door: &Self::Door, _load: Self::Load) -> Option<Timestamp> {
        None
    }
    /// The grant of what was taken `now` at the door.
    fn grant_at_door(now: Timestamp, load: Self::Load) -> Self::Grant;
    fn shut(&mut self, door: &Self::Door);
    /// Whether the door could be opened; if not, what is behind it stays in the gate.
    fn open(&mut self, door: &Self::Door) -> bool;

    fn capacity(&self) -> u64;
    /// Why `load` cannot even wait, if so. What is refused by one capacity may be refused by a smaller one only.
    fn refuses(&mut self, now: Timestamp, load: Self::Load) -> Option<Reason>;
    fn take(&mut self, now: Timestamp, load: Self::Load) -> Result<(), Later>;
    /// When `load` could go behind those who wait: `ahead` are their units, and `each` lists them in order.
    ///
    /// The gate may keep what it finds until it is told that somebody `joined` or `left` the line.
    fn behind(
        &mut self,
        now: Timestamp,
        ahead: u64,
        each: &mut dyn Iterator<Item = Self::Load>,
        load: Self::Load,
    ) -> Later;
    /// The grant of what was taken `now`.
    fn grant(&mut self, now: Timestamp, load: Self::Load) -> Self::Grant;
    fn joined(&mut self, now: Timestamp, load: Self::Load);
    fn left(&mut self);
    fn give_back(&mut self, now: Timestamp, grant: Self::Grant, load: Self::Load);
    fn balance(&mut self, now: Timestamp) -> Balance;

    /// A walk along the line, to tell for each ask when it will go. `None` where time does not tell.
    type Plan;
    fn plan(&self) -> Option<Self::Plan>;
    /// When `load` goes next in the plan; it counts as gone if that is not after `deadline`.
    fn plan_next(
        &self,
        plan: &mut Self::Plan,
        now: Timestamp,
        load: Self::Load,
        deadline: Timestamp,
    ) -> Option<Timestamp>;
}

/// A gate whose units may be taken without asking.
pub(crate) trait Charge: Gate {
    fn charge(&mut self, now: Timestamp, units: u64);
}
