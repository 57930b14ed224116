use super::statuses::Statuses;
use crate::algorithm::{Algorithm, Balance, Grant, When, start_late};
use crate::core::fast_path::{FastPath, Sealed, Stored};
use crate::core::{Charge, Later, LimitState, Outcome};
use crate::types::Reason;
use crate::units::Timestamp;

/// An algorithm and its state.
pub(in crate::limiter) struct RateState<A: Stored> {
    algorithm: A,
    state: A::State,
    lends: bool,
    starts_full: bool,
    /// How often the algorithm has changed.
    epoch: u32,
    /// When the state was last made new, and the epoch since: what was granted before is no part of it.
    reset: Option<(Timestamp, u32)>,
    /// The number of the last change, where changes have numbers.
    change: u64,
}

/// A copy of the state, and the time of the last grant in it.
pub(in crate::limiter) struct Plan<A: Algorithm> {
    state: A::State,
    at: Timestamp,
}

impl From<When> for Later {
    fn from(when: When) -> Self {
        match when {
            When::At(at) => Self::At(at),
            When::Never => Self::Never,
        }
    }
}

impl<A: Stored> RateState<A> {
    pub(super) fn new(algorithm: A, state: A::State, now: Timestamp, lends: bool) -> Self {
        let starts_full = starts_full(&algorithm, now);
        Self { algorithm, state, lends, starts_full, epoch: 0, reset: None, change: 0 }
    }

    pub(super) const fn algorithm(&self) -> &A {
        &self.algorithm
    }

    pub(super) const fn is_lending(&self) -> bool {
        self.lends
    }

    pub(super) const fn starts_full(&self) -> bool {
        self.starts_full
    }

    pub(in crate::limiter) fn change(&mut self, next: A, now: Timestamp) {
        self.epoch = self.epoch.wrapping_add(1);
        self.starts_full = starts_full(&next, now);
        self.algorithm.change(next, &mut self.state, now);
    }

    /// As [`change`](Self::change), unless a change with a higher number has come before it: changes that are made
    /// outside of the lock under which they were decided may overtake each other.
    pub(super) fn change_numbered(&mut self, number: u64, next: A, now: Timestamp) {
        if number >= self.change {
            self.change = number;
            self.change(next, now);
        }
    }

    /// Starts anew.
    pub(super) fn reset(&mut self, now: Timestamp, unix_ns: u64) {
        self.epoch = self.epoch.wrapping_add(1);
        self.reset = Some((now, self.epoch));
        self.state = start_late(&self.algorithm, now, unix_ns);
    }

    /// What each of its limits promises, and what is left of it.
    pub(super) fn statuses(&mut self, now: Timestamp) -> Statuses {
        Statuses::of(&self.algorithm, &mut self.state, now)
    }

    /// The units that must be left to grant `units`: above the capacity, all of it.
    fn needed(&self, units: u64) -> u64 {
        if self.lends { units.min(self.algorithm.capacity()) } else { units }
    }
}

/// A new state has all of the capacity.
fn starts_full<A: Algorithm>(algorithm: &A, now: Timestamp) -> bool {
    let mut state = algorithm.start(now, now.as_ns());
    algorithm.balance(&mut state, now).full == When::At(now)
}

impl<A: Stored> LimitState for RateState<A> {
    type Load = u64;
    type Grant = Grant;
    type FastPath = A::FastPath;
    type Plan = Plan<A>;
    const TIMED: bool = true;

    fn fast_path(&self) -> A::FastPath {
        A::FastPath::build(Sealed(()))
    }

    #[inline]
    fn try_fast(path: &A::FastPath, now: Timestamp, units: u64, take: bool) -> Outcome {
        path.try_take(now, units, take)
    }

    #[inline]
    fn fast_grant(now: Timestamp, units: u64) -> Grant {
        Grant::new(now, units)
    }

    fn expect_use(path: &A::FastPath) {
        path.expect_use();
    }

    fn close(&mut self, path: &A::FastPath) {
        path.close(&self.algorithm, &mut self.state);
    }

    fn open(&mut self, path: &A::FastPath) -> bool {
        path.open(&self.algorithm, &mut self.state)
    }

    fn capacity(&self) -> u64 {
        self.algorithm.capacity()
    }

    fn refuses(&mut self, _now: Timestamp, units: u64) -> Option<Reason> {
        (units > self.algorithm.capacity() && !self.lends).then_some(Reason::ExceedsCapacity)
    }

    fn ready(&mut self, now: Timestamp, units: u64) -> Later {
        let needed = self.needed(units);
        self.algorithm.ready_at(&mut self.state, now, needed).into()
    }

    fn take(&mut self, now: Timestamp, units: u64) -> Result<Grant, Later> {
        if units > 0 {
            match self.ready(now, units) {
                Later::At(at) if at <= now => self.algorithm.force(&mut self.state, now, units),
                later => return Err(later),
            }
        }
        Ok(Grant { epoch: self.epoch, ..Grant::new(now, units) })
    }

    fn give_back(&mut self, now: Timestamp, grant: Grant, units: u64) {
        let grant = match self.reset {
            Some((at, epoch)) if grant.at < at || (grant.at == at && grant.epoch < epoch) => return,
            Some((_, epoch)) => grant.counted_from(epoch.wrapping_sub(1)),
            None => grant,
        };
        self.algorithm.give_back(&mut self.state, now, grant, units);
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        self.algorithm.balance(&mut self.state, now)
    }

    fn plan(&self, now: Timestamp) -> Option<Plan<A>> {
        Some(Plan { state: self.state.clone(), at: now })
    }

    fn plan_ready(&self, plan: &mut Plan<A>, now: Timestamp, units: u64) -> Later {
        self.algorithm.ready_at(&mut plan.state, plan.at.max(now), self.needed(units)).into()
    }

    fn plan_take(&self, plan: &mut Plan<A>, at: Timestamp, units: u64) {
        plan.at = at;
        self.algorithm.force(&mut plan.state, at, units);
    }

    fn ready_behind(&self, now: Timestamp, ahead: u64, units: u64) -> Option<Later> {
        let when = self.algorithm.ready_behind(&self.state, now, ahead, units).filter(|_| !self.lends)?;
        Some(when.into())
    }
}

impl<A: Stored> Charge for RateState<A> {
    fn charge(&mut self, now: Timestamp, units: u64) {
        self.algorithm.force(&mut self.state, now, units);
    }
}
