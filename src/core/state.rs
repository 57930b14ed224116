//! The interface between the mechanism and one kind of limit.

use crate::algorithm::Balance;
use crate::types::Reason;
use crate::units::Timestamp;

/// The outcome of one decision.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, unnameable_types, reason = "hidden")]
pub enum Outcome {
    /// The units are taken.
    Taken,
    /// Too little is left before this time, if nobody else comes.
    WaitUntil(Timestamp),
    /// Only the lock can decide: somebody waits, or the state does not fit the fast path.
    Contended,
}

/// The time at which an ask that cannot be granted now could be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// At this time, if nobody else comes.
    At(Timestamp),
    /// After others release what they hold.
    Release,
    /// Never.
    Never,
}

impl Later {
    pub(crate) fn is_by(self, now: Timestamp) -> bool {
        matches!(self, Self::At(at) if at <= now)
    }
}

/// A demand on a limit: a number of units, or of several kinds of units together.
pub(crate) trait Load: Copy + Send + Sync + Unpin + 'static {
    /// The units that count against the bound of the queue. Zero units are always granted.
    fn units(self) -> u64;
    /// Both demands together.
    fn plus(self, other: Self) -> Self;
}

impl Load for u64 {
    #[inline]
    fn units(self) -> u64 {
        self
    }

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

/// What a queue stands in front of: a rate, a number of slots, a guard. All methods but those of the fast path run
/// under the limit's lock.
pub(crate) trait LimitState: Send + 'static {
    /// What is asked of it.
    type Load: Load;
    /// What it remembers of a grant.
    type Grant: Copy + Send + 'static;
    /// The lock-free form of the state while nobody waits.
    type FastPath: Send + Sync + std::fmt::Debug + 'static;
    /// Time alone lets waiters in.
    const TIMED: bool;

    /// The fast path, closed.
    fn fast_path(&self) -> Self::FastPath;
    /// Takes `load` on the fast path; with `take` false it only tells what would happen.
    fn try_fast(path: &Self::FastPath, now: Timestamp, load: Self::Load, take: bool) -> Outcome;
    /// The grant of what the fast path took `now`.
    fn fast_grant(now: Timestamp, load: Self::Load) -> Self::Grant;
    /// Prepares the fast path for a limiter of its own, in place of one of many keys.
    fn expect_use(_path: &Self::FastPath) {}
    /// Moves the state from the fast path in here.
    fn close(&mut self, path: &Self::FastPath);
    /// Moves the state out to the fast path. `false`: it stays in here.
    fn open(&mut self, path: &Self::FastPath) -> bool;

    fn capacity(&self) -> u64;
    /// A number that changes whenever asks that could wait before may have to be refused now. Waiters are checked
    /// again when it does.
    fn strictness(&self) -> u64 {
        u64::MAX - self.capacity()
    }
    /// The reason why `load` cannot even wait, if there is one.
    fn refuses(&mut self, now: Timestamp, load: Self::Load) -> Option<Reason>;
    /// The earliest time at which `load` could be taken if nobody else came; `Later::At(now)` means now. Takes nothing.
    fn ready(&mut self, now: Timestamp, load: Self::Load) -> Later;
    /// Takes `load` if it is ready now.
    fn take(&mut self, now: Timestamp, load: Self::Load) -> Result<Self::Grant, Later>;
    fn give_back(&mut self, now: Timestamp, grant: Self::Grant, load: Self::Load);
    fn balance(&mut self, now: Timestamp) -> Balance;

    /// A copy of the state in which waiters can be granted one after the other, to find out when each would be.
    type Plan: Send;
    /// `None`: time does not tell.
    fn plan(&self, now: Timestamp) -> Option<Self::Plan>;
    /// The time, not before `now` nor before the last grant of the plan, at which the plan could grant `load`.
    fn plan_ready(&self, plan: &mut Self::Plan, now: Timestamp, load: Self::Load) -> Later;
    /// Grants `load` in the plan.
    fn plan_take(&self, plan: &mut Self::Plan, at: Timestamp, load: Self::Load);
    /// The time at which `load` could be granted behind `ahead` units, where that needs no walk along the queue.
    fn ready_behind(&self, _now: Timestamp, _ahead: u64, _load: Self::Load) -> Option<Later> {
        None
    }
}

/// A state whose units can be taken without asking.
pub(crate) trait Charge: LimitState {
    fn charge(&mut self, now: Timestamp, units: u64);
}
