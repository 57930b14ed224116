//! What is done to a key that has a state, wherever that is.

use super::Later;
use super::flat::{Id, Live, Rewrite};
use super::shard::{Kept, Shard};
use super::tiers::{Plan, Tier};
use crate::algorithm::{Algorithm, Grant, TokenBucket};
use crate::clock::Clock;
use crate::limiter::{RateLimiter, Stored};
use crate::units::Timestamp;

type BucketState = <TokenBucket as Algorithm>::State;

/// Where the state of a key is.
pub(super) enum Peek<A: Stored, C: Clock> {
    Limiter(RateLimiter<A, C>),
    /// In a slot: the bucket that counts it, and its backlog now.
    Slot(TokenBucket, u64, Timestamp),
}

impl<A: Stored, C: Clock> Shard<A, C> {
    /// The limiter of a key that has a state, taken out of its slot.
    pub(super) fn existing(&self, id: Id) -> Option<RateLimiter<A, C>> {
        let mut kept = self.kept().lock();
        self.has_state(&mut kept, id);
        kept.store.get(&self.common.name(id)).map(|state| state.limiter.clone())
    }

    /// Whether a key has a state; in the map, then.
    pub(super) fn has_state(&self, kept: &mut Kept<A, C>, id: Id) -> bool {
        let name = self.common.name(id);
        kept.store.get(&name).is_some()
            || self.take_away(kept, id).map(|state| kept.store.insert(name, state)).is_some()
    }

    /// The limiter of a key that has one, or how its slot stands.
    pub(super) fn peek(&self, id: Id) -> Option<Peek<A, C>> {
        let mut kept = self.kept().lock();
        if let Some(state) = kept.store.get(&self.common.name(id)) {
            return Some(Peek::Limiter(state.limiter.clone()));
        }
        let flat = self.common.flat.as_ref()?;
        let now = self.common.clock.now();
        let live = flat.live(id, now.as_ns())?;
        let (bucket, backlog) = flat.backlog(&live);
        Some(Peek::Slot(bucket, backlog, now))
    }

    /// The same, without the lock if the state is in a slot.
    pub(super) fn peek_unlocked(&self, id: Id) -> Option<Peek<A, C>> {
        let now = self.common.clock.now();
        let seen = self.common.flat.as_ref().and_then(|flat| flat.seen(id, now.as_ns()));
        match seen {
            Some((bucket, backlog)) => Some(Peek::Slot(bucket, backlog, now)),
            None => self.peek(id),
        }
    }

    /// Goes on as `next` for all keys of the tier, from now on. Returns the limiters that are still to be told.
    pub(super) fn change_tier(&self, tier: Tier, next: &A) -> Vec<(RateLimiter<A, C>, u64)> {
        let mut kept = self.kept().lock();
        match kept.tiers.algorithm_mut(tier) {
            Some(algorithm) => *algorithm = next.clone(),
            None if tier == Tier::DEFAULT => kept.template.algorithm = next.clone(),
            None => {}
        }
        let change = self.common.next_change();
        let states = kept.store.values().filter(|state| state.plan == Plan::Tier(tier));
        states.map(|state| (state.limiter.clone(), change)).collect()
    }

    /// Gives a key an algorithm of its own.
    pub(super) fn change_of(&self, id: Id, next: A) -> Later<A, C> {
        let mut kept = self.kept().lock();
        let change = self.common.next_change();
        let plan = Plan::Own(change);
        kept.tiers.set_own(id.hash, plan, Some(next.clone()));
        if self.has_state(&mut kept, id) {
            if let Some(state) = kept.store.get(&self.common.name(id)) {
                state.plan = plan;
                return Later::of_one(state.limiter.clone(), change, next);
            }
        }
        Later::of_none(next)
    }

    /// Lets a key go on under the quota of its tier.
    pub(super) fn forget_own(&self, id: Id, tier: Tier) -> Option<Later<A, C>> {
        let mut kept = self.kept().lock();
        kept.tiers.forget_own(id.hash);
        kept.store.get(&self.common.name(id))?;
        self.limited(&mut kept, id, tier).1
    }

    /// Takes units of a key whose state is in a slot, whether they are there or not.
    pub(super) fn charge_slot(&self, id: Id, units: u64) -> bool {
        self.alter(id, |bucket, state, now, _| bucket.force(state, now, units))
    }

    /// Replaces what a slot granted by what it cost.
    pub(super) fn settle(&self, id: Id, grant: Grant, version: u32, actual: u64) {
        let Some(back) = grant.units.checked_sub(actual) else {
            let more = actual - grant.units;
            if !self.charge_slot(id, more) {
                if let Some(limiter) = self.existing(id) {
                    limiter.charge(more);
                }
            }
            return;
        };
        let less = |bucket: &TokenBucket, state: &mut BucketState, now, at: u32| {
            // Of a grant from before a change of quota a slot does not know what is left.
            if at == version {
                bucket.give_back(state, now, grant, back);
            }
        };
        if !self.alter(id, less) {
            let state = self
                .kept()
                .lock()
                .store
                .get(&self.common.name(id))
                .map(|state| (state.limiter.clone(), state.version));
            if let Some((limiter, _)) = state.filter(|(_, made)| *made == version) {
                limiter.settle(grant, actual);
            }
        }
    }

    /// Alters the state in a slot. `false`: it has none, or would owe, which no slot says.
    fn alter(&self, id: Id, act: impl Fn(&TokenBucket, &mut BucketState, Timestamp, u32)) -> bool {
        let Some(flat) = &self.common.flat else { return false };
        let mut kept = self.kept().lock();
        if kept.store.get(&self.common.name(id)).is_some() {
            return false;
        }
        loop {
            let now = self.common.clock.now();
            let Some(live) = flat.live(id, now.as_ns()) else { return false };
            let Live { version, .. } = live;
            let (bucket, backlog) = flat.backlog(&live);
            let mut state = bucket.resume(now, backlog);
            act(&bucket, &mut state, now, version);
            match flat.rewrite(&live, bucket.backlog(&state, now), now.as_ns()) {
                Rewrite::Done => return true,
                Rewrite::Again => {}
                Rewrite::Debt => return false,
            }
        }
    }

    pub(super) fn unpin(&self, line: usize) {
        if let Some(flat) = &self.common.flat {
            flat.unpin(line);
        }
    }
}
