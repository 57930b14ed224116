use crate::algorithm::{Algorithm, Balance, Grant, When, start_late};
use crate::decision::Reason;
use crate::limiter::door::{Door, Glance, Sealed, Stored};
use crate::limiter::line::{Charge, Gate, Later};
use crate::units::Timestamp;

use super::standings::Standings;

/// An algorithm and its state, as a line needs them.
pub(in crate::limiter) struct RateGate<A: Stored> {
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
    /// The state there will be when all who wait have gone, if it is known: it saves walking the line again for each
    /// newcomer that must be told when it would go.
    walked: Option<Walk<A>>,
}

/// A walk along the line: the state after those walked past, and the time the last of them went.
pub(in crate::limiter) struct Walk<A: Algorithm> {
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

impl<A: Stored> RateGate<A> {
    pub(super) fn new(algorithm: A, state: A::State, now: Timestamp, lends: bool) -> Self {
        let starts_full = starts_full(&algorithm, now);
        Self { algorithm, state, lends, starts_full, epoch: 0, reset: None, change: 0, walked: None }
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

    pub(super) fn state_alone(
        &self,
        now: Timestamp,
        is_plain: impl FnOnce(&A, &A::State, Timestamp, Option<Timestamp>) -> bool,
    ) -> Option<(A, A::State, Timestamp)> {
        let reset = self.reset.map(|(at, _)| at);
        let plain = is_plain(&self.algorithm, &self.state, now, reset);
        plain.then(|| (self.algorithm.clone(), self.state.clone(), now))
    }

    pub(in crate::limiter) fn change(&mut self, next: A, now: Timestamp) {
        self.walked = None;
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
        self.walked = None;
        self.epoch = self.epoch.wrapping_add(1);
        self.reset = Some((now, self.epoch));
        self.state = start_late(&self.algorithm, now, unix_ns);
    }

    /// What each of its limits promises, and what is left of it.
    pub(super) fn standings(&mut self, now: Timestamp) -> Standings {
        Standings::of(&self.algorithm, &mut self.state, now)
    }

    /// What must be there for `units` to go: above the capacity, all of it.
    fn needed(&self, units: u64) -> u64 {
        if self.lends { units.min(self.algorithm.capacity()) } else { units }
    }

    /// When `units` go after all that were walked past, and that they went.
    fn walk_on(&self, walk: &mut Walk<A>, now: Timestamp, units: u64) -> When {
        let when = self.algorithm.ready_at(&mut walk.state, walk.at.max(now), self.needed(units));
        if let When::At(at) = when {
            walk.at = at;
            self.algorithm.force(&mut walk.state, at, units);
        }
        when
    }
}

/// Whether a new state has all of the capacity.
fn starts_full<A: Algorithm>(algorithm: &A, now: Timestamp) -> bool {
    let mut state = algorithm.start(now, now.as_ns());
    algorithm.balance(&mut state, now).full == When::At(now)
}

impl<A: Stored> Gate for RateGate<A> {
    type Load = u64;
    type Grant = Grant;
    type Door = A::Door;
    type Plan = Walk<A>;
    const TIMED: bool = true;

    fn build_door(&self, sealed: Sealed) -> A::Door {
        A::Door::build(sealed)
    }

    #[inline]
    fn look(door: &A::Door, now: Timestamp, units: u64) -> Glance {
        door.look(now, units)
    }

    #[inline]
    fn free_at(door: &A::Door, units: u64) -> Option<Timestamp> {
        door.free_at(units)
    }

    fn shut(&mut self, door: &A::Door) {
        self.walked = None;
        door.shut(&self.algorithm, &mut self.state);
    }

    fn open(&mut self, door: &A::Door) -> bool {
        door.open(&self.algorithm, &mut self.state)
    }

    fn capacity(&self) -> u64 {
        self.algorithm.capacity()
    }

    fn refuses(&mut self, _now: Timestamp, units: u64) -> Option<Reason> {
        (units > self.algorithm.capacity() && !self.lends).then_some(Reason::ExceedsCapacity)
    }

    fn take(&mut self, now: Timestamp, units: u64) -> Result<(), Later> {
        let needed = self.needed(units);
        match self.algorithm.ready_at(&mut self.state, now, needed) {
            When::At(at) if at <= now => {
                self.walked = None;
                self.algorithm.force(&mut self.state, now, units);
                Ok(())
            }
            later => Err(later.into()),
        }
    }

    fn behind(
        &mut self,
        now: Timestamp,
        ahead: u64,
        each: &mut dyn Iterator<Item = u64>,
        units: u64,
    ) -> Later {
        let needed = self.needed(units);
        if ahead == 0 {
            return self.algorithm.ready_at(&mut self.state, now, needed).into();
        }
        if !self.lends {
            if let Some(when) = self.algorithm.ready_behind(&self.state, now, ahead, units) {
                return when.into();
            }
        }
        let mut walk = self.walked.take().unwrap_or_else(|| {
            let mut walk = Walk { state: self.state.clone(), at: now };
            each.for_each(|units| {
                self.walk_on(&mut walk, now, units);
            });
            walk
        });
        let when = self.algorithm.ready_at(&mut walk.state, walk.at.max(now), needed);
        self.walked = Some(walk);
        when.into()
    }

    fn grant_at_door(now: Timestamp, units: u64) -> Grant {
        Grant::new(now, units)
    }

    fn grant(&mut self, now: Timestamp, units: u64) -> Grant {
        Grant { epoch: self.epoch, ..Grant::new(now, units) }
    }

    fn joined(&mut self, now: Timestamp, units: u64) {
        if let Some(mut walk) = self.walked.take() {
            self.walk_on(&mut walk, now, units);
            self.walked = Some(walk);
        }
    }

    fn left(&mut self) {
        self.walked = None;
    }

    fn give_back(&mut self, now: Timestamp, grant: Grant, units: u64) {
        let grant = match self.reset {
            Some((at, epoch)) if grant.at < at || (grant.at == at && grant.epoch < epoch) => return,
            Some((_, epoch)) => grant.counted_from(epoch.wrapping_sub(1)),
            None => grant,
        };
        self.walked = None;
        self.algorithm.give_back(&mut self.state, now, grant, units);
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        self.algorithm.balance(&mut self.state, now)
    }

    fn plan(&self) -> Option<Walk<A>> {
        Some(Walk { state: self.state.clone(), at: Timestamp::ZERO })
    }

    fn plan_next(
        &self,
        plan: &mut Walk<A>,
        now: Timestamp,
        units: u64,
        deadline: Timestamp,
    ) -> Option<Timestamp> {
        match self.algorithm.ready_at(&mut plan.state, plan.at.max(now), self.needed(units)) {
            When::At(at) if at <= deadline => {
                plan.at = at;
                self.algorithm.force(&mut plan.state, at, units);
                Some(at)
            }
            _ => None,
        }
    }
}

impl<A: Stored> Charge for RateGate<A> {
    fn charge(&mut self, now: Timestamp, units: u64) {
        self.walked = None;
        self.algorithm.force(&mut self.state, now, units);
    }
}
