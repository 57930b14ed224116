//! What the owner of a keyed limit does with it while it runs.

use std::borrow::Borrow;
use std::hash::Hash;

use super::alter::Peek;
use super::flat::{Flat, Id};
use super::shard::{Taken, Want};
use super::tiers::Plan;
use super::{Keyed, ShardOf, Stored, Tier, Way};
use crate::algorithm::{Algorithm, Balance, FromQuota, TokenBucket, When};
use crate::clock::Clock;
use crate::core::fast_path::{Flattened, Sealed};
use crate::limiter::RateLimiter;
use crate::types::{Denied, KeyStats, Reason, Snapshot};
use crate::units::{Cost, Quota, QuotaError, Timestamp};

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
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
        Ok(match self.way(self.shared.id(key), self.tier_of(key))? {
            Way::Limited(limiter) | Way::Shared(limiter) => Some(limiter),
            Way::Exempt => None,
        })
    }

    /// The way of a key, its state in a limiter.
    fn way(&self, id: Id, tier: Tier) -> Result<Way<A, C>, Denied> {
        match self.shared.part(id).enter(id, tier, Want::Limiter)? {
            Taken::Way(way) => Ok(way),
            Taken::Slot(_) => unreachable!("a limiter was wanted"),
        }
    }

    /// How `key` stands, or `None` if it has no state: as a new one.
    #[must_use]
    pub fn snapshot<Q>(&self, key: &Q) -> Option<Snapshot>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        let id = self.shared.id(key);
        self.shared.part(id).peek(id).map(|peek| match peek {
            Peek::Limiter(limiter) => limiter.snapshot(),
            Peek::Slot(bucket, backlog, now) => snapshot_of(&bucket, backlog, now),
        })
    }

    /// Lets `key` start anew: see [`RateLimiter::reset`].
    pub fn reset<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        let id = self.shared.id(key);
        if let Some(limiter) = self.shared.part(id).existing(id) {
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
        let (id, tier, cost) = (self.shared.id(key), self.tier_of(key), cost.into());
        if tier == Tier::DEFAULT && self.shared.part(id).charge_slot(id, cost.units()) {
            return Ok(());
        }
        match self.way(id, tier)? {
            Way::Limited(limiter) => limiter.charge(cost),
            // What it shares is not its own to be fined.
            Way::Shared(_) => return Err(Denied::new(Reason::TooManyKeys)),
            Way::Exempt => {}
        }
        Ok(())
    }

    /// How many keys have a state, and how many have been dropped and refused.
    #[must_use]
    pub fn census(&self) -> KeyStats {
        self.shared.common.room.census()
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

    /// Lets asks of `key` pass without a charge from now on. Those that wait already wait on.
    pub fn exempt<Q>(&self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        let id = self.shared.id(key);
        let part = self.shared.part(id);
        part.kept().lock().tiers.set_own(id.hash, Plan::Tier(Tier::EXEMPT), None);
        // Out of its slot: there it would still be limited.
        drop(part.existing(id));
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
        let (id, tier) = (self.shared.id(key), self.tier_of(key));
        self.shared.part(id).forget_own(id, tier)
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
        let _changing = self.shared.changing.lock();
        let algorithm = self.algorithm().with_quota(quota)?;
        let add = |shard: &ShardOf<A, C>| shard.kept().lock().tiers.add(algorithm.clone());
        Ok(self.shared.shards.iter().map(add).last().unwrap_or(Tier::DEFAULT))
    }

    /// Changes the quota of a tier, for keys present and future, from now on. Takes time in proportion to the keys
    /// present. Nothing happens for a tier that is not of this limiter.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_tier(&self, tier: Tier, quota: Quota) -> Result<(), QuotaError> {
        let next = self.algorithm().with_quota(quota)?;
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
        let next = self.algorithm().with_quota(quota)?;
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
    /// time in proportion to the keys present. Nothing happens for a tier that is not of this limiter.
    pub fn change_tier(&self, tier: Tier, next: &A) {
        self.change_tier_later(tier, next).make();
    }

    pub(crate) fn change_tier_later(&self, tier: Tier, next: &A) -> Later<A, C> {
        let _changing = self.shared.changing.lock();
        let mut limiters = Vec::new();
        let mut shards = || {
            for shard in &self.shared.shards {
                limiters.extend(shard.change_tier(tier, next));
            }
        };
        match self.shared.common.flat.as_ref().filter(|_| tier == Tier::DEFAULT) {
            Some(flat) => change_slots(flat, next, self.shared.common.clock.now(), shards),
            None => shards(),
        }
        Later { limiters, next: next.clone() }
    }

    fn algorithm(&self) -> A {
        self.shared.shards[0].kept().lock().template.algorithm.clone()
    }

    /// Gives `key` an algorithm of its own from now on, with what it has spent.
    pub fn change_of<Q>(&self, key: &Q, next: A)
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.change_of_later(key, next).make();
    }

    pub(crate) fn change_of_later<Q>(&self, key: &Q, next: A) -> Later<A, C>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        let id = self.shared.id(key);
        self.shared.part(id).change_of(id, next)
    }
}

/// A change that has been decided under the lock and is still to be made, outside of it: it wakes those who wait.
#[must_use]
pub(crate) struct Later<A: Stored, C: Clock> {
    /// Each with the number of the change: later ones are higher.
    limiters: Vec<(RateLimiter<A, C>, u64)>,
    next: A,
}

impl<A: Stored, C: Clock> Later<A, C> {
    pub(super) fn of_one(limiter: RateLimiter<A, C>, change: u64, next: A) -> Self {
        Self { limiters: vec![(limiter, change)], next }
    }

    pub(super) const fn of_none(next: A) -> Self {
        Self { limiters: Vec::new(), next }
    }

    pub(crate) fn make(self) {
        let Self { limiters, next } = self;
        limiters.iter().for_each(|(limiter, change)| limiter.change_numbered(*change, next.clone()));
    }
}

/// Slots go on under the next algorithm as its limiters do; `shards` brings those under it.
fn change_slots<A: Stored>(flat: &Flat, next: &A, now: Timestamp, shards: impl FnOnce()) {
    if let Some(Flattened { bucket, .. }) = A::flat(Sealed(()), next) {
        flat.change(&bucket, now.as_ns(), shards);
    }
}

fn snapshot_of(bucket: &TokenBucket, backlog: u64, now: Timestamp) -> Snapshot {
    let mut state = bucket.resume(now, backlog);
    let Balance { remaining, debt, full, .. } = bucket.balance(&mut state, now);
    let reset_after = match full {
        When::At(at) => Some(at.since(now)),
        When::Never => None,
    };
    Snapshot { capacity: bucket.capacity(), remaining, debt, reset_after, waiting: 0, waiting_units: 0 }
}
