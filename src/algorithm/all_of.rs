//! Several limits of one subject, decided as one.

use super::{Algorithm, Balance, FromQuota, Grant, When};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Several limits on the same thing (10 a second and 1000 an hour): all of them admit, or none is spent.
///
/// **Guarantee.** Each limit's own. The wait is the joint one: the time at which all of them would admit.
///
/// **Change of quota.** Each limit's own. Which limit continues as which: one of the same window at the same position
/// first, then one of the same window at another position, then the limits that are left, in their order. A limit beyond
/// those there were starts anew, and refunds of earlier grants are worth nothing in it. A limit without a successor
/// ends.
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
    started: Timestamp,
    /// The number of changes of the joint limit before the start.
    first_change: u32,
}

impl<S> Part<S> {
    /// The grant as this limit counts it; `None` for a grant from before its start, which it never charged.
    fn own(&self, grant: Grant) -> Option<Grant> {
        let own = grant.counted_from(self.first_change);
        // The count of changes wraps: one of the upper half is a change before the first.
        let is_earlier = grant.at < self.started || (grant.at == self.started && own.epoch > u32::MAX / 2);
        (!is_earlier).then_some(own)
    }
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
        let part = |one: &A| Part { state: one.start(now, unix_ns), started: now, first_change: 0 };
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
            if let Some(grant) = part.own(grant) {
                one.give_back(&mut part.state, now, grant, units);
            }
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

    fn change(&mut self, next: Self, state: &mut Self::State, now: Timestamp) {
        state.changes = state.changes.wrapping_add(1);
        let mut before: Vec<Option<(A, Part<A::State>)>> =
            self.all.drain(..).zip(state.all.drain(..)).map(Some).collect();
        let mut heirs: Vec<_> = next.all.iter().map(|_| None).collect();
        let is_same = |next: &A, one: &Option<(A, Part<A::State>)>| {
            one.as_ref().is_some_and(|(one, _)| one.policy().window == next.policy().window)
        };
        // By position first: of several limits of one window each keeps its own.
        for ((next, heir), one) in next.all.iter().zip(&mut heirs).zip(&mut before) {
            if is_same(next, one) {
                *heir = one.take();
            }
        }
        for (next, heir) in next.all.iter().zip(&mut heirs).filter(|(_, heir)| heir.is_none()) {
            *heir = before.iter_mut().find(|one| is_same(next, one)).and_then(Option::take);
        }
        let mut left = before.into_iter().flatten();
        for (next, heir) in next.all.into_iter().zip(heirs) {
            let (one, part) = match heir.or_else(|| left.next()) {
                Some((mut one, mut part)) => {
                    one.change(next, &mut part.state, now);
                    (one, part)
                }
                None => {
                    let fresh = next.start(now, now.as_ns());
                    (next, Part { state: fresh, started: now, first_change: state.changes })
                }
            };
            self.all.push(one);
            state.all.push(part);
        }
    }
}
