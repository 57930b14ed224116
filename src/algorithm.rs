//! The pure question: given a state, a time and a cost, may it go, and if not, when?
//!
//! No clock, no locks, no async: time is an argument, which makes every guarantee testable by arithmetic.
//! A limiter ([`RateLimiter`](crate::RateLimiter)) holds an algorithm, its state and a clock.

mod all_of;
mod any;
mod fixed_window;
mod sliding_counter;
mod sliding_window;
mod token_bucket;

pub use all_of::AllOf;
pub use any::Any;
pub use fixed_window::{Anchor, FixedWindow};
pub use sliding_counter::SlidingCounter;
pub use sliding_window::SlidingWindow;
pub use token_bucket::TokenBucket;
pub(crate) use token_bucket::{Pace, Place, Step};

use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp, Window};

/// When an ask can be met if nobody else comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an ask can be met at some time or never")]
pub enum When {
    /// At this time and, if nobody else comes, at any later one.
    At(Timestamp),
    /// However long one waits.
    Never,
}

impl When {
    /// The later of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
            _ => Self::Never,
        }
    }
}

/// What was granted, and when: what a refund is reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// When it was granted.
    pub at: Timestamp,
    /// The number of units.
    pub units: u64,
    /// The number of earlier changes of the algorithm, to tell it from a grant of the same instant.
    pub epoch: u32,
}

impl Grant {
    /// `units` granted at `at`.
    #[must_use]
    pub const fn new(at: Timestamp, units: u64) -> Self {
        Self { at, units, epoch: 0 }
    }

    /// The same, its changes counted from `first` on: by a state that was started then.
    #[must_use]
    pub(crate) const fn counted_from(mut self, first: u32) -> Self {
        self.epoch = self.epoch.wrapping_sub(first);
        self
    }

    /// `true` if it was made before the change of this time and number.
    fn is_before(&self, changed_at: Timestamp, epoch: u32) -> bool {
        self.at < changed_at || (self.at == changed_at && self.epoch != epoch)
    }
}

/// What is left at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// Whole units that can be spent, rounded down.
    pub remaining: u64,
    /// Units owed, rounded up.
    pub debt: u64,
    /// When all of the capacity is there again if nobody else comes.
    pub full: When,
}

impl Balance {
    /// `remaining` units to spend, `debt` units owed, all of the capacity there at `full`.
    #[must_use]
    pub const fn new(remaining: u64, debt: u64, full: When) -> Self {
        Self { remaining, debt, full }
    }
}

/// A way of counting. Implement it, and [`RateLimiter::over`](crate::RateLimiter::over) makes a limiter of it.
///
/// The laws an implementation keeps, for times that never decrease:
///
/// * an ask is admitted at `now` exactly when `ready_at` answers `now`, and then `force` takes it;
/// * what `ready_at` answers is the smallest such time, and it stays true later if nobody takes in between; asking
///   changes nothing that can be told from outside;
/// * a cost of at most `capacity` is ready at some time, unless the algorithm never refills;
/// * `give_back` never makes more available than if the grant had been for less in the first place.
pub trait Algorithm: Clone + Send + Sync + 'static {
    /// What is remembered.
    type State: Clone + Send + 'static;

    /// The state of a limiter that starts `now`, which is `unix_ns` after the Unix epoch.
    fn start(&self, now: Timestamp, unix_ns: u64) -> Self::State;

    /// Most units at one instant.
    fn capacity(&self) -> u64;

    /// The earliest time, not before `now`, at which `cost` may go.
    fn ready_at(&self, state: &mut Self::State, now: Timestamp, cost: u64) -> When;

    /// Takes `cost` whether there is room or not: what is missing becomes a debt.
    fn force(&self, state: &mut Self::State, now: Timestamp, cost: u64);

    /// Gives back `units` of `grant`, as much as idle time has not restored already.
    fn give_back(&self, state: &mut Self::State, now: Timestamp, grant: Grant, units: u64);

    /// What is left.
    fn balance(&self, state: &mut Self::State, now: Timestamp) -> Balance;

    /// What it promises, as clients are told.
    fn policy(&self) -> Policy {
        Policy::new(self.capacity(), None)
    }

    /// Visits what each of its limits promises and what is left of it: one, unless it is made of several.
    fn each(&self, state: &mut Self::State, now: Timestamp, visit: &mut dyn FnMut(Policy, Balance)) {
        visit(self.policy(), self.balance(state, now));
    }

    /// Continues as `next` from `now`. A window keeps what was spent: what remains is the new limit less the units spent,
    /// and units spent beyond it are a debt. A token bucket keeps its balance, clipped to the new burst, or its debt.
    fn change(&mut self, next: Self, state: &mut Self::State, now: Timestamp);

    /// The earliest time at which `cost` may go behind `ahead` units that wait, each ask of them within the
    /// capacity. `None` when that depends on how the units are split into asks.
    fn ready_behind(&self, _state: &Self::State, _now: Timestamp, _ahead: u64, _cost: u64) -> Option<When> {
        None
    }
}

/// A state that starts where others have been granted before: their refunds are worth nothing in it. Its changes are
/// counted from one, which this start is.
pub(crate) fn start_late<A: Algorithm>(algorithm: &A, now: Timestamp, unix_ns: u64) -> A::State {
    let mut state = algorithm.start(now, unix_ns);
    algorithm.clone().change(algorithm.clone(), &mut state, now);
    state
}

/// An algorithm that can be made from a quota.
pub trait FromQuota: Algorithm {
    /// The algorithm for `quota`.
    ///
    /// # Errors
    /// What is wrong with the quota.
    fn from_quota(quota: Quota) -> Result<Self, QuotaError>;

    /// The same algorithm, with the options it has, for another quota.
    ///
    /// # Errors
    /// What is wrong with the quota.
    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError>;
}

/// Window and limit of a quota that has no burst of its own.
fn window_of(quota: Quota) -> Result<(u64, u64, u64), QuotaError> {
    quota.check()?;
    if quota.sets_burst() && quota.capacity() != quota.count() {
        return Err(QuotaError::BurstOnWindow { limit: quota.count(), burst: quota.capacity() });
    }
    let period = quota.period().ok_or(QuotaError::WindowWithoutPeriod)?;
    Ok((quota.count(), Window::new(period)?.as_ns(), quota.count() - quota.initial_units()))
}
