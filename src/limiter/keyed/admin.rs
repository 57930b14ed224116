//! What the owner of a keyed limit does with it while it runs.

use std::borrow::Borrow;
use std::hash::Hash;

use super::tiers::Plan;
use super::{Census, KeyState, Keyed, Keys, Store, Stored, Tier, Way};
use crate::algorithm::FromQuota;
use crate::clock::Clock;
use crate::decision::{Denied, Reason, Snapshot};
use crate::limiter::RateLimiter;
use crate::units::{Cost, Quota, QuotaError};

impl<K, A, C, S> Keyed<K, A, C, S>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    /// The limit of `key`: a handle that works on when the store has dropped the key. `None` for an exempt key; the
    /// overflow for a key that found no room.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]: the key is new and no other can be dropped.
    pub fn of<Q>(&self, key: &Q) -> Result<Option<RateLimiter<A, C>>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        Ok(match self.way(key)? {
            Way::Limited(limiter) | Way::Shared(limiter) => Some(limiter),
            Way::Exempt => None,
        })
    }

    /// How `key` stands, or `None` if it has no state: as a new one.
    #[must_use]
    pub fn snapshot<Q>(&self, key: &Q) -> Option<Snapshot>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.existing(key).map(|limiter| limiter.snapshot())
    }

    /// Lets `key` start anew: see [`RateLimiter::reset`].
    pub fn reset<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        if let Some(limiter) = self.existing(key) {
            limiter.reset();
        }
    }

    /// Takes `cost` of `key` whether it has it or not: see [`RateLimiter::charge`].
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]: the key is new and finds no room.
    pub fn penalise<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<(), Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        match self.way(key)? {
            Way::Limited(limiter) => limiter.charge(cost),
            // What it shares is not its own to be fined.
            Way::Shared(_) => return Err(Denied::new(Reason::TooManyKeys)),
            Way::Exempt => {}
        }
        Ok(())
    }

    /// How many keys have a state, and how many have been dropped and refused.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.keys.lock().store.census()
    }

    /// Keys with a state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.census().keys
    }

    /// Whether no key has a state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn existing<Q>(&self, key: &Q) -> Option<RateLimiter<A, C>>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.lock().store.get(key).map(|state| state.limiter.clone())
    }

    /// Lets asks of `key` pass without a charge from now on. Those that wait already wait on.
    pub fn exempt(&self, key: K) {
        self.shared.keys.lock().tiers.set_own(key, None);
    }

    /// Undoes [`set_quota_of`](Keyed::set_quota_of) and [`exempt`](Keyed::exempt): from now on `key` goes on under the
    /// quota of its tier with what it has spent.
    pub fn forget_quota_of<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        if let Some(later) = self.forget_later(key) {
            later.make();
        }
    }

    pub(crate) fn forget_later<Q>(&self, key: &Q) -> Option<Later<A, C>>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.lock().tiers.forget_own(key);
        self.look(key)?.1
    }
}

impl<K, A, C, S> Keyed<K, A, C, S>
where
    K: Hash + Eq,
    A: FromQuota + Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    /// Changes the quota of all keys of the default tier, present and future, from now on. Takes time in proportion to
    /// the keys present.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.set_tier(Tier::DEFAULT, quota)
    }

    /// A tier of keys with this quota, for [`tier_by`](Keyed::tier_by) to give.
    ///
    /// ```
    /// use tollgate::{Quota, Tier, TokenBucket};
    /// #[derive(Clone, PartialEq, Eq, Hash)]
    /// struct User { id: u32, pays: bool }
    /// let per_user = TokenBucket::new(Quota::per_minute(1))?.keyed();
    /// let paid = per_user.tier(Quota::per_minute(100))?;
    /// let per_user = per_user.tier_by(move |user: &User| if user.pays { paid } else { Tier::DEFAULT });
    /// assert!(per_user.check(&User { id: 1, pays: true }, 100).is_ok());
    /// assert!(per_user.check(&User { id: 2, pays: false }, 2).is_err());
    /// # Ok::<(), tollgate::QuotaError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong with the quota.
    pub fn tier(&self, quota: Quota) -> Result<Tier, QuotaError> {
        let mut keys = self.shared.keys.lock();
        let algorithm = keys.template.algorithm.with_quota(quota)?;
        Ok(keys.tiers.add(algorithm))
    }

    /// Changes the quota of a tier, for keys present and future, from now on. Takes time in proportion to the keys
    /// present. Nothing happens for a tier that is not of this limiter.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_tier(&self, tier: Tier, quota: Quota) -> Result<(), QuotaError> {
        let next = self.shared.keys.lock().template.algorithm.with_quota(quota)?;
        self.change_tier(tier, &next);
        Ok(())
    }

    /// Gives `key` a quota of its own from now on, with what it has spent.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota_of(&self, key: K, quota: Quota) -> Result<(), QuotaError> {
        let next = self.shared.keys.lock().template.algorithm.with_quota(quota)?;
        self.change_of(key, next);
        Ok(())
    }
}

impl<K, A, C, S> Keyed<K, A, C, S>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    /// Goes on as `next` for all keys of the tier, present and future, from now on: see [`RateLimiter::change`]. Takes
    /// time in proportion to the keys present. Nothing happens for a tier that is not of this limiter.
    pub fn change_tier(&self, tier: Tier, next: &A) {
        self.change_tier_later(tier, next).make();
    }

    pub(crate) fn change_tier_later(&self, tier: Tier, next: &A) -> Later<A, C> {
        let mut limiters = Vec::new();
        let mut keys = self.shared.keys.lock();
        match keys.tiers.algorithm_mut(tier) {
            Some(algorithm) => *algorithm = next.clone(),
            None if tier == Tier::DEFAULT => keys.template.algorithm = next.clone(),
            None => {}
        }
        keys.store.for_each(|state| {
            if state.plan == Plan::Tier(tier) {
                limiters.push(state.limiter.clone());
            }
        });
        Later { limiters, change: keys.tiers.next_change(), next: next.clone() }
    }

    /// Gives `key` an algorithm of its own from now on, with what it has spent.
    pub fn change_of(&self, key: K, next: A) {
        self.change_of_later(key, next).make();
    }

    pub(crate) fn change_of_later(&self, key: K, next: A) -> Later<A, C> {
        let mut keys = self.shared.keys.lock();
        let Keys { tiers, store, .. } = &mut *keys;
        let state = store.get(&key);
        let plan = tiers.set_own(key, Some(next.clone()));
        let limiters = state.map(|state| {
            state.plan = plan;
            state.limiter.clone()
        });
        Later { limiters: limiters.into_iter().collect(), change: tiers.next_change(), next }
    }
}

/// A change that has been decided under the lock and is still to be made, outside of it: it wakes those who wait.
#[must_use]
pub(crate) struct Later<A: Stored, C: Clock> {
    pub(super) limiters: Vec<RateLimiter<A, C>>,
    pub(super) change: u64,
    pub(super) next: A,
}

impl<A: Stored, C: Clock> Later<A, C> {
    pub(crate) fn make(self) {
        let Self { limiters, change, next } = self;
        limiters.iter().for_each(|limiter| limiter.change_numbered(change, next.clone()));
    }
}
