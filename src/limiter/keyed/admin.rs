//! What the owner of a keyed limit does with it while it runs.

use std::borrow::Borrow;
use std::hash::Hash;

use super::{Keyed, PendingChange, Stored, Tier};
use crate::algorithm::FromQuota;
use crate::clock::Clock;
use crate::limiter::RateLimiter;
use crate::types::{Denied, KeyStats, Snapshot};
use crate::units::{Cost, Quota, QuotaError};

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
{
    /// The limiter of `key`: a handle that works on when the key has been dropped. `None` for an exempt key; the overflow
    /// for a key that found no room.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`](crate::Reason::TooManyKeys): the key is new and no other can be dropped.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<RateLimiter<A, C>>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let tier = self.tier_of(key);
        Ok(self.shared.keys.route(self.shared.id(key), tier, None)?.limiter())
    }

    /// The state of `key`, or `None` if it has none: it then stands as a new key.
    #[must_use]
    pub fn snapshot<Q>(&self, key: &Q) -> Option<Snapshot>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.snapshot(self.shared.id(key))
    }

    /// Lets `key` start anew: see [`RateLimiter::reset`].
    pub fn reset<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        if let Some(limiter) = self.shared.keys.limiter_of_known(self.shared.id(key)) {
            limiter.reset();
        }
    }

    /// Takes `cost` of `key` whether it is left or not: see [`RateLimiter::charge`].
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`](crate::Reason::TooManyKeys): the key is new and finds no room.
    pub fn charge<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<(), Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (id, tier, units) = (self.shared.id(key), self.tier_of(key), cost.into().units());
        self.shared.keys.charge(id, tier, units)
    }

    /// The number of keys that have a state, and of keys that have been dropped and denied.
    #[must_use]
    pub fn stats(&self) -> KeyStats {
        self.shared.keys.room.stats()
    }

    /// The number of keys that have a state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stats().keys
    }

    /// Tells if no key has a state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets asks of `key` pass without a charge from now on. Those that wait already wait on.
    pub fn exempt<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.exempt(self.shared.id(key));
    }

    /// Undoes [`set_quota_of`](Keyed::set_quota_of) and [`exempt`](Keyed::exempt): from now on `key` goes on under the
    /// quota of its tier with what it has spent.
    pub fn forget_quota_of<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        if let Some(pending) = self.forget_pending(key) {
            pending.make();
        }
    }

    pub(crate) fn forget_pending<Q>(&self, key: &Q) -> Option<PendingChange<RateLimiter<A, C>>>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.forget_own(self.shared.id(key), self.tier_of(key))
    }
}

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq,
    A: FromQuota + Stored,
    C: Clock,
{
    /// Changes the quota of all keys of the default tier, present and future, from now on. Takes time in proportion to
    /// the keys present.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.set_tier(Tier::DEFAULT, quota)
    }

    /// Changes the quota of a tier, for keys present and future, from now on. Takes time in proportion to the keys
    /// present. Nothing happens for a tier that is not of this limit.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_tier(&self, tier: Tier, quota: Quota) -> Result<(), QuotaError> {
        let next = self.shared.keys.quota().with_quota(quota)?;
        self.change_tier(tier, &next);
        Ok(())
    }

    /// Gives `key` a quota of its own from now on, with what it has spent.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota_of<Q>(&self, key: &Q, quota: Quota) -> Result<(), QuotaError>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        let next = self.shared.keys.quota().with_quota(quota)?;
        self.change_of(key, next);
        Ok(())
    }
}

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
{
    /// Goes on as `next` for all keys of the tier, present and future, from now on: see [`RateLimiter::change`]. Takes
    /// time in proportion to the keys present. Nothing happens for a tier that is not of this limit.
    pub fn change_tier(&self, tier: Tier, next: &A) {
        self.change_tier_pending(tier, next).make();
    }

    pub(crate) fn change_tier_pending(&self, tier: Tier, next: &A) -> PendingChange<RateLimiter<A, C>> {
        self.shared.keys.change_tier(tier, next)
    }

    /// Gives `key` an algorithm of its own from now on, with what it has spent.
    pub fn change_of<Q>(&self, key: &Q, next: A)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.change_of_pending(key, next).make();
    }

    pub(crate) fn change_of_pending<Q>(&self, key: &Q, next: A) -> PendingChange<RateLimiter<A, C>>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.shared.keys.change_of(self.shared.id(key), next)
    }
}
