//! A limit for each key.
//!
//! * [`Keyed`] is the handle; [`builder`] sets it up, and [`admin`] is what an owner does while it runs.
//! * [`store`] is the interface between it and the states of keys. The [`table`] keeps a word a key, without a lock; the
//!   [`map`] keeps a limiter a key. [`keys`] is both of them: it makes and moves states, [`evict`] drops them, and
//!   [`change`] changes their quotas.
//! * [`limiter`] makes a rate limiter one that the map keeps. [`tiers`] gives each key its quota; [`room`] counts keys.
//! * [`acquire`], [`permit`] and [`part`] are the future, the permit and the member of a composition.
//!
//! A decision: the key is hashed, and the table is searched. A known slot grants or denies. Otherwise [`keys`] takes the
//! lock of the key's shard and makes a slot, or finds or makes the key's limiter, which then decides outside of the lock.

mod acquire;
mod admin;
mod builder;
mod change;
mod evict;
mod keys;
mod limiter;
mod map;
mod part;
mod permit;
mod room;
mod store;
mod table;
#[cfg(all(test, not(tollgate_loom)))]
mod tests;
mod tiers;

pub use acquire::AcquireKeyed;
pub use builder::KeyedBuilder;
#[cfg_attr(not(feature = "rules"), allow(unused_imports, reason = "for rules"))]
pub(crate) use change::PendingChange;
pub use part::KeyedPart;
pub use permit::KeyedPermit;
#[cfg(feature = "client")]
pub(crate) use room::{HashStore, Room};
pub use tiers::Tier;

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use super::rate::Template;
use super::{Compose, Limiter, RateLimiter, Stored};
use crate::clock::{Clock, DefaultClock};
use crate::sync::RandomState;
use crate::types::{Ask, Denied, LimitStatus};
use crate::units::Cost;
use acquire::{KeyedAsk, Made};
use keys::{Handle, Keys};
use table::Id;
use tiers::Plans;

/// A limit for each key, each with a state and a queue of its own. A cheap handle: clones share the keys.
///
/// [`RateBuilder::keyed`](crate::RateBuilder::keyed) builds one with options, and [`RateLimiter::keyed`] one with the
/// defaults. Keys may differ in quota: by tier ([`tier_by`](KeyedBuilder::tier_by)), or one by one
/// ([`set_quota_of`](Keyed::set_quota_of), [`exempt`](Keyed::exempt)). A change keeps what has been spent.
///
/// **At the limit** of a key its asks wait or are denied as in a [`RateLimiter`]; other keys do not notice. The number of
/// keys is bounded ([`max_keys`](KeyedBuilder::max_keys)). A key is dropped only when its state equals a fresh one and no
/// permit of it is out.
///
/// **Identity.** Keys are told apart by a hash of 64 bits (SipHash-1-3) under a random secret of each limit, so nobody can
/// choose keys that collide. The keys themselves are not kept.
///
/// # Memory
///
/// A key has one of two forms:
///
/// * A **slot** takes 16 bytes and no lock. All slots are allocated when the first key comes.
/// * A **limiter** takes up to 700 bytes, and a lock for each decision.
///
/// Slots are for token buckets whose quota fits them:
///
/// | quota of a token bucket | form |
/// |---|---|
/// | 1 to 16 a second, and these times 10, 100, 1000 ...; a burst of up to a minute's worth | slot |
/// | the same a minute; up to 200 an hour, and 1000 or 5000; up to 500 a day, and 1000 | slot |
/// | [`Quota::once`](crate::Quota::once) | slot |
/// | 17, 99 or 101 a second; 10,000 a day at once | limiter |
/// | any that [lends above its capacity](crate::RateBuilder::lend_above_capacity) | limiter |
///
/// The rule: let *n* units in *p* nanoseconds be the quota in lowest terms. If *n* is at most 16 and *p* times the burst is
/// at most 3,848,290,697,216 (a burst that refills within an hour), keys have slots, and each decision is the one of a
/// [`RateLimiter`] to the nanosecond. Otherwise keys have slots if 42 bits count the burst in ticks of which a unit has at
/// least 2³² (2³¹ if that is a whole number), as they do where a unit takes 0.27 seconds or more and the burst is at most
/// 440 units that refill within a century: a unit then comes back late by one part in 2·10⁹ at most, and never early. Keys
/// of all other quotas have limiters from the start.
///
/// A key with a slot gets a limiter when it first waits, owes, is reset, has a quota of its own or of a tier, or when a
/// handle of it is taken ([`get`](Keyed::get)); so do all keys when the quota becomes one without slots. It keeps the
/// limiter until its state equals a fresh one; when it comes again it has a slot.
///
/// Slots make two things approximate, both towards denying. Of a million keys about four share a slot with another key:
/// each is charged for both. And a refund of what a slot granted before the last change of the quota is worth nothing.
///
/// Keys of a quota whose `initial` is below its burst never equal fresh ones, and are never dropped.
///
/// ```
/// use tollgate::{Quota, SlidingWindow};
/// let per_user = SlidingWindow::new(Quota::per_minute(1))?.keyed();
/// assert!(per_user.check("ann", 1).is_ok());
/// assert!(per_user.check("ann", 1).is_err());
/// assert!(per_user.check("bob", 1).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub struct Keyed<K, A: Stored, C: Clock = DefaultClock> {
    shared: Arc<Shared<A, C>>,
    tier_by: Option<Arc<TierBy<K>>>,
}

/// One handle for each shard.
type Handles<A, C> = Box<[Arc<Handle<RateLimiter<A, C>>>]>;

struct Shared<A: Stored, C: Clock> {
    keys: Arc<Keys<RateLimiter<A, C>>>,
    handles: Handles<A, C>,
    hasher: RandomState,
}

type TierBy<K> = dyn Fn(&K) -> Tier + Send + Sync;

impl<A: Stored, C: Clock> Shared<A, C> {
    #[inline]
    fn id<Q: Hash + ?Sized>(&self, key: &Q) -> Id {
        Id { hash: self.hasher.hash_one(key) }
    }

    #[inline]
    fn handle(&self, id: Id) -> &Arc<Handle<RateLimiter<A, C>>> {
        &self.handles[self.keys.index(id)]
    }
}

impl<K, A: Stored, C: Clock> Keyed<K, A, C> {
    pub(super) fn new(template: Template<A, C>) -> Self {
        let plans = Plans::new(template.algorithm.clone(), &[]);
        Self::of(template, &plans, builder::KEYS_MAX, None, None)
    }

    fn of(
        template: Template<A, C>,
        plans: &Plans<A>,
        max_keys: usize,
        tier_by: Option<Arc<TierBy<K>>>,
        overflow: Option<RateLimiter<A, C>>,
    ) -> Self {
        let keys = Arc::new(Keys::new(template, plans, max_keys, overflow));
        let (handles, hasher) = (Handle::of_shards(&keys), RandomState::default());
        Self { shared: Arc::new(Shared { keys, handles, hasher }), tier_by }
    }
}

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
{
    #[inline]
    fn tier_of<Q>(&self, key: &Q) -> Tier
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        self.tier_by.as_ref().map_or(Tier::DEFAULT, |tier_by| tier_by(&key.to_owned()))
    }

    fn ask<Q>(&self, key: &Q, ask: Ask) -> KeyedAsk<A, C>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let id = self.shared.id(key);
        KeyedAsk::new(self.shared.handle(id), id, self.tier_of(key), ask)
    }

    /// Waits in the queue of `key` for a permit. An exempt key has none to wait for.
    ///
    /// # Cancel safety
    /// As [`RateLimiter::acquire`].
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`], and [`Reason::TooManyKeys`](crate::Reason::TooManyKeys).
    pub fn acquire<Q>(&self, key: &Q, ask: impl Into<Ask>) -> AcquireKeyed<A, C>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        AcquireKeyed::new(self.ask(key, ask.into()))
    }

    /// Waits in the queue of `key` as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Keyed::acquire).
    pub fn acquire_blocking<Q>(&self, key: &Q, ask: impl Into<Ask>) -> Result<KeyedPermit<A, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        match self.ask(key, ask.into()).make()? {
            Made::Permit(permit) => Ok(permit),
            Made::Waits(limiter, ask) => limiter.acquire_blocking(ask).map(KeyedPermit::of_limiter),
        }
    }

    /// Takes a permit about `key` if it can be granted now. The permit of an exempt key has no cost.
    ///
    /// # Errors
    /// As [`RateLimiter::try_acquire`], and [`Reason::TooManyKeys`](crate::Reason::TooManyKeys).
    pub fn try_acquire<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<KeyedPermit<A, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (id, tier, units) = (self.shared.id(key), self.tier_of(key), cost.into().units());
        self.shared.handle(id).take(id, tier, units).map(KeyedPermit::new)
    }

    /// Decides about `key`, and holds nothing.
    ///
    /// # Errors
    /// As [`RateLimiter::check`], and [`Reason::TooManyKeys`](crate::Reason::TooManyKeys).
    #[inline]
    pub fn check<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<(), Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (id, tier, units) = (self.shared.id(key), self.tier_of(key), cost.into().units());
        self.shared.keys.check(id, tier, units)
    }
}

impl<K, A: Stored, C: Clock> Clone for Keyed<K, A, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), tier_by: self.tier_by.clone() }
    }
}

impl<K, A: Stored, C: Clock> fmt::Debug for Keyed<K, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("stats", &self.shared.keys.room.stats()).finish_non_exhaustive()
    }
}

impl<K, A, C> Limiter<K> for Keyed<K, A, C>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
{
    type Permit = KeyedPermit<A, C>;
    type Fault = Infallible;
    type Acquire = AcquireKeyed<A, C>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, key, ask)
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, key, cost)
    }

    #[inline]
    fn check(&self, key: &K, cost: Cost) -> Result<(), Denied> {
        Self::check(self, key, cost)
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        let (keys, tier) = (&self.shared.keys, self.tier_of(key));
        let stats = Some(keys.room.stats());
        keys.status(self.shared.id(key), tier, &mut |status| {
            visit(&LimitStatus { keys: stats, ..status.clone() });
        });
    }
}

impl<K, A, C> Compose<K> for Keyed<K, A, C>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
{
    type Part = KeyedPart<A, C>;

    fn part(&self, key: &K, cost: Cost) -> KeyedPart<A, C> {
        let id = self.shared.id(key);
        KeyedPart::new(self.shared.handle(id), id, self.tier_of(key), cost.units())
    }
}
