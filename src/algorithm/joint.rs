//! Several limits of one subject, decided as one.

use super::{Algorithm, Balance, FromQuota, Grant, When};
use crate::decision::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Several limits on the same thing (10 a second and 1000 an hour): all of them admit, or none is spent.
///
/// **Guarantee.** Each limit's own. The wait is the joint one: the time at which all of them would admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint<A> {
    all: Vec<A>,
}

impl<A: Algorithm> Joint<A> {
    /// The limits `all`.
    ///
    /// # Errors
    /// [`QuotaError::NoQuota`] for none.
    pub fn of(all: impl IntoIterator<Item = A>) -> Result<Self, QuotaError> {
        let all: Vec<A> = all.into_iter().collect();
        if all.is_empty() { Err(QuotaError::NoQuota) } else { Ok(Self { all }) }
    }
}

impl<A: FromQuota> Joint<A> {
    /// One limit for each of `quotas`.
    ///
    /// # Errors
    /// [`QuotaError::NoQuota`] for none; otherwise what is wrong with one of them.
    pub fn new(quotas: impl IntoIterator<Item = Quota>) -> Result<Self, QuotaError> {
        Self::of(quotas.into_iter().map(A::from_quota).collect::<Result<Vec<_>, _>>()?)
    }

    /// The same limits for other quotas, in the same order.
    ///
    /// # Errors
    /// [`QuotaError::QuotaCount`] for another number of quotas; otherwise what is wrong with one of them.
    pub fn with_quotas(&self, quotas: impl IntoIterator<Item = Quota>) -> Result<Self, QuotaError> {
        let quotas: Vec<Quota> = quotas.into_iter().collect();
        if quotas.len() != self.all.len() {
            return Err(QuotaError::QuotaCount { built: self.all.len(), given: quotas.len() });
        }
        let all = self
            .all
            .iter()
            .zip(quotas)
            .map(|(one, quota)| one.with_quota(quota))
            .collect::<Result<_, _>>()?;
        Ok(Self { all })
    }
}

impl<A: Algorithm> Algorithm for Joint<A> {
    type State = Vec<A::State>;

    fn start(&self, now: Timestamp, unix_ns: u64) -> Self::State {
        self.all.iter().map(|one| one.start(now, unix_ns)).collect()
    }

    fn capacity(&self) -> u64 {
        self.all.iter().map(A::capacity).min().unwrap_or(0)
    }

    /// If nobody else comes, each limit keeps admitting from its own time on: the latest of them is the joint one.
    fn ready_at(&self, state: &mut Self::State, now: Timestamp, cost: u64) -> When {
        let each = self.all.iter().zip(state).map(|(one, state)| one.ready_at(state, now, cost));
        each.fold(When::At(now), When::max)
    }

    fn force(&self, state: &mut Self::State, now: Timestamp, cost: u64) {
        self.all.iter().zip(state).for_each(|(one, state)| one.force(state, now, cost));
    }

    fn give_back(&self, state: &mut Self::State, now: Timestamp, grant: Grant, units: u64) {
        self.all.iter().zip(state).for_each(|(one, state)| one.give_back(state, now, grant, units));
    }

    fn balance(&self, state: &mut Self::State, now: Timestamp) -> Balance {
        let each = self.all.iter().zip(state).map(|(one, state)| one.balance(state, now));
        each.fold(Balance::new(u64::MAX, 0, When::At(now)), |all, one| {
            Balance::new(all.remaining.min(one.remaining), all.debt.max(one.debt), all.full.max(one.full))
        })
    }

    fn each(&self, state: &mut Self::State, now: Timestamp, visit: &mut dyn FnMut(Policy, Balance)) {
        self.all.iter().zip(state).for_each(|(one, state)| one.each(state, now, visit));
    }

    /// A limit whose window is also one of the next ones goes on as that one; of the others each goes on as the next
    /// one that is left, in their order. Limits beyond those there were start anew.
    fn change(&mut self, next: Self, state: &mut Self::State, now: Timestamp) {
        let mut before: Vec<Option<(A, A::State)>> =
            self.all.drain(..).zip(state.drain(..)).map(Some).collect();
        let mut taken: Vec<Option<(A, A::State)>> = Vec::new();
        for next in &next.all {
            let window = next.policy().window;
            let same =
                |one: &Option<(A, A::State)>| one.as_ref().is_some_and(|one| one.0.policy().window == window);
            taken.push(before.iter_mut().find(|one| same(one)).and_then(Option::take));
        }
        let mut left = before.into_iter().flatten();
        for (next, taken) in next.all.into_iter().zip(taken) {
            match taken.or_else(|| left.next()) {
                Some((mut one, mut its_state)) => {
                    one.change(next, &mut its_state, now);
                    self.all.push(one);
                    state.push(its_state);
                }
                None => {
                    state.push(next.start(now, now.as_ns()));
                    self.all.push(next);
                }
            }
        }
    }
}
