//! Several limits of one subject, decided as one.

use super::{Algorithm, Balance, FromQuota, Grant, When, start_late};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Several limits on the same thing (10 a second and 1000 an hour): all of them admit, or none is spent.
///
/// **Guarantee.** Each limit's own. The wait is the joint one: the time at which all of them would admit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllOf<A> {
    all: Vec<A>,
}

impl<A: Algorithm> AllOf<A> {
    /// The limits `all`.
    ///
    /// # Errors
    /// [`QuotaError::NoQuota`] for none.
    pub fn of(all: impl IntoIterator<Item = A>) -> Result<Self, QuotaError> {
        let all: Vec<A> = all.into_iter().collect();
        if all.is_empty() { Err(QuotaError::NoQuota) } else { Ok(Self { all }) }
    }
}

impl<A: FromQuota> AllOf<A> {
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

/// The states of the limits.
#[derive(Debug, Clone)]
#[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
pub struct State<S> {
    all: Vec<Part<S>>,
    changes: u32,
}

#[derive(Debug, Clone)]
struct Part<S> {
    state: S,
    /// How many changes there were before those that it counts.
    first_change: u32,
}

impl<A: Algorithm> AllOf<A> {
    fn parts<'a>(
        &'a self,
        state: &'a mut State<A::State>,
    ) -> impl Iterator<Item = (&'a A, &'a mut Part<A::State>)> {
        self.all.iter().zip(&mut state.all)
    }
}

impl<A: Algorithm> Algorithm for AllOf<A> {
    type State = State<A::State>;

    fn start(&self, now: Timestamp, unix_ns: u64) -> Self::State {
        let part = |one: &A| Part { state: one.start(now, unix_ns), first_change: 0 };
        State { all: self.all.iter().map(part).collect(), changes: 0 }
    }

    fn capacity(&self) -> u64 {
        self.all.iter().map(A::capacity).min().unwrap_or(0)
    }

    /// If nobody else comes, each limit keeps admitting from its own time on: the latest of them is the joint one.
    fn ready_at(&self, state: &mut Self::State, now: Timestamp, cost: u64) -> When {
        let each = self.parts(state).map(|(one, part)| one.ready_at(&mut part.state, now, cost));
        each.fold(When::At(now), When::max)
    }

    fn force(&self, state: &mut Self::State, now: Timestamp, cost: u64) {
        self.parts(state).for_each(|(one, part)| one.force(&mut part.state, now, cost));
    }

    fn give_back(&self, state: &mut Self::State, now: Timestamp, grant: Grant, units: u64) {
        for (one, part) in self.parts(state) {
            one.give_back(&mut part.state, now, grant.counted_from(part.first_change), units);
        }
    }

    fn balance(&self, state: &mut Self::State, now: Timestamp) -> Balance {
        let each = self.parts(state).map(|(one, part)| one.balance(&mut part.state, now));
        each.fold(Balance::new(u64::MAX, 0, When::At(now)), |all, one| {
            Balance::new(all.remaining.min(one.remaining), all.debt.max(one.debt), all.full.max(one.full))
        })
    }

    fn each(&self, state: &mut Self::State, now: Timestamp, visit: &mut dyn FnMut(Policy, Balance)) {
        self.parts(state).for_each(|(one, part)| one.each(&mut part.state, now, visit));
    }

    /// A limit whose window is also one of the next ones goes on as that one; of the others each goes on as the next
    /// one that is left, in their order. Limits beyond those there were start anew.
    fn change(&mut self, next: Self, state: &mut Self::State, now: Timestamp) {
        let mut before: Vec<Option<(A, Part<A::State>)>> =
            self.all.drain(..).zip(state.all.drain(..)).map(Some).collect();
        let taken: Vec<_> = next
            .all
            .iter()
            .map(|next| {
                let window = next.policy().window;
                let same = |one: &A| one.policy().window == window;
                before
                    .iter_mut()
                    .find(|one| one.as_ref().is_some_and(|(one, _)| same(one)))
                    .and_then(Option::take)
            })
            .collect();
        let mut left = before.into_iter().flatten();
        for (next, taken) in next.all.into_iter().zip(taken) {
            let (one, part) = match taken.or_else(|| left.next()) {
                Some((mut one, mut part)) => {
                    one.change(next, &mut part.state, now);
                    (one, part)
                }
                None => {
                    let part =
                        Part { state: start_late(&next, now, now.as_ns()), first_change: state.changes };
                    (next, part)
                }
            };
            self.all.push(one);
            state.all.push(part);
        }
        state.changes = state.changes.wrapping_add(1);
    }
}
