//! One limit for each key.

mod acquire;
mod admin;
mod alter;
mod flat;
mod permit;
mod shard;
mod store;
mod tiers;

pub use acquire::AcquireKeyed;
pub(crate) use admin::Later;
pub use permit::KeyedPermit;
#[cfg(feature = "client")]
pub(crate) use store::HashStore;
pub use tiers::Tier;

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::rate::{Statuses, Template};
use super::{Compose, Limiter, Part, RateLimiter, RatePart, Stored};
use crate::algorithm::{Algorithm, Grant, When};
use crate::clock::{Clock, DefaultClock, unix_ns};
use crate::core::Members;
use crate::core::fast_path::Sealed;
use crate::sync::{AtomicU64, Mutex, Ordering, RandomState};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};
use alter::Peek;
use flat::{Flat, Id, Seat};
use shard::{Common, Kept, Shard, Taken, Want};
use store::ByHash;
pub(crate) use store::Room;
use tiers::Tiers;

/// A limit for each key, each with a state and a line of its own. A cheap handle: clones share the keys.
///
/// Made from a limiter that says what each key's is like: `SlidingWindow::new(quota)?.keyed()`. Keys may differ in
/// quota: by [`tier`](Keyed::tier), or one by one ([`set_quota_of`](Keyed::set_quota_of),
/// [`exempt`](Keyed::exempt)), and a change keeps what has been spent.
///
/// **At the limit** of a key its asks wait or are refused as in a [`RateLimiter`]; other keys do not notice. The number
/// of keys is bounded ([`max_keys`](Keyed::max_keys)): from half of that on each new key makes room by dropping a few whose
/// state cannot be told from a fresh one. When it finds none near, newcomers are refused
/// ([`Reason::TooManyKeys`](crate::Reason::TooManyKeys)), or share one limit ([`overflow`](Keyed::overflow)); no key loses
/// its state, and none is dropped while a permit of it is out.
///
/// **How keys are told apart.** By a hash of 64 bits (SipHash-1-3) under a secret that each limiter draws at random: nobody
/// can choose keys that meet. The keys themselves are not kept.
///
/// **Keys of token buckets** take 16 bytes and no lock: the state of a key is one word in a flat table. That makes two
/// things approximate, both towards refusing. Of a million keys about four share a state with another one, and what that
/// spends they have spent. And where the burst takes more than an hour to fill, or a unit is no whole number of sixteenths
/// of a nanosecond, a unit comes back late by up to a part in 2⁴⁰ of the time in which the burst fills, so that the rate is
/// lower by at most a millionth; where that would be more, keys live as those of windows do. A refund of what was granted
/// before the last change of the quota is worth nothing.
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

struct Shared<A: Stored, C: Clock> {
    common: Arc<Common<A, C>>,
    shards: Box<[ShardOf<A, C>]>,
    hasher: RandomState,
    /// Held while a change goes through the shards: all of them see the same changes in the same order.
    changing: Mutex<()>,
}

type TierBy<K> = dyn Fn(&K) -> Tier + Send + Sync;
type ShardOf<A, C> = Arc<Shard<A, C>>;

/// What a key is to do.
enum Way<A: Stored, C: Clock> {
    Exempt,
    Limited(RateLimiter<A, C>),
    /// It found no room, and shares the overflow with all such.
    Shared(RateLimiter<A, C>),
}

/// Keys there may be unless it is said. A model makes all of the table each time it runs.
const KEYS_MAX: usize = if cfg!(tollgate_loom) { 1 } else { 100_000 };
/// Keys to a shard, where there are enough for several; and most shards.
const KEYS_A_SHARD: usize = 64;
const SHARDS_MAX: usize = 64;

impl<A: Stored, C: Clock> Shared<A, C> {
    fn build(
        template: &Template<A, C>,
        tiers: &Tiers<A>,
        cap: usize,
        overflow: Option<RateLimiter<A, C>>,
        hasher: RandomState,
    ) -> Self {
        let count = (cap / KEYS_A_SHARD).clamp(1, SHARDS_MAX).next_power_of_two();
        let bucket = A::flat(Sealed(()), &template.algorithm).filter(|_| !template.lends);
        let kept = |_| {
            let (template, tiers) = (template.clone(), tiers.of_all());
            Mutex::new(Kept { template, tiers, store: ByHash::new() })
        };
        let common = Arc::new(Common {
            flat: bucket.and_then(|flat| Flat::new(&flat.bucket, cap)),
            room: Room::new(cap),
            overflow,
            clock: template.options.clock.clone(),
            name: template.options.name.clone(),
            changes: AtomicU64::new(0),
            shards: (0..count).map(kept).collect(),
        });
        let shards = (0..count).map(|index| Arc::new(Shard { common: Arc::clone(&common), index })).collect();
        let shared = Self { common, shards, hasher, changing: Mutex::new(()) };
        for (hash, own) in tiers.own() {
            shared.part(Id { hash }).kept().lock().tiers.add_own(hash, own);
        }
        shared
    }

    #[inline]
    fn id<Q: Hash + ?Sized>(&self, key: &Q) -> Id {
        Id { hash: self.hasher.hash_one(key) }
    }

    /// Keys that share a slot share a shard.
    fn part(&self, id: Id) -> &ShardOf<A, C> {
        &self.shards[id.fingerprint() as usize & (self.shards.len() - 1)]
    }

    /// The template, and all the tiers.
    fn plans(&self) -> (Template<A, C>, Tiers<A>) {
        let first = self.shards[0].kept().lock();
        let (template, mut tiers) = (first.template.clone(), first.tiers.of_all());
        drop(first);
        for shard in &self.shards {
            shard.kept().lock().tiers.own().for_each(|(hash, own)| tiers.add_own(hash, own));
        }
        (template, tiers)
    }
}

impl<A: Stored, C: Clock> Shard<A, C> {
    /// The permit for what a slot granted.
    fn permit(
        self: Arc<Self>,
        id: Id,
        units: u64,
        (seat, version, at): (Seat, u32, Timestamp),
    ) -> KeyedPermit<A, C> {
        let grant = Grant::new(at, units);
        KeyedPermit::of_slot(self, id, seat.line, grant, version)
    }

    fn try_acquire(self: &Arc<Self>, id: Id, tier: Tier, units: u64) -> Result<KeyedPermit<A, C>, Denied> {
        if let Some(granted) = self.common.take(id, tier, units, true)? {
            return Ok(Arc::clone(self).permit(id, units, granted));
        }
        match self.enter(id, tier, Want::Units { units, pin: true })? {
            Taken::Slot(Some(slot)) => Ok(Arc::clone(self).permit(id, units, slot)),
            Taken::Way(Way::Limited(limiter) | Way::Shared(limiter)) => {
                limiter.try_acquire(units).map(KeyedPermit::of_limiter)
            }
            Taken::Slot(None) | Taken::Way(Way::Exempt) => Ok(KeyedPermit::none()),
        }
    }

    /// Tells if `units` could be granted now. Takes nothing, and makes no key.
    fn peek_ready(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        let algorithm = {
            let kept = self.kept().lock();
            kept.tiers.plan(id.hash, tier, &kept.template.algorithm).map(|(_, algorithm)| algorithm.clone())
        };
        let Some(algorithm) = algorithm else { return Ok(()) };
        let name = self.common.name.clone();
        let denied =
            |wait_ns| if wait_ns == Some(0) { Ok(()) } else { Err(Denied::exhausted(wait_ns, name)) };
        match self.peek(id) {
            Some(Peek::Limiter(limiter)) => limiter.limit.peek(units),
            Some(Peek::Slot(bucket, backlog, now)) => {
                denied(wait_ns(&bucket, &mut bucket.resume(now, backlog), now, units))
            }
            None => {
                let now = self.common.clock.now();
                let unix_ns = unix_ns(&self.common.clock);
                denied(wait_ns(&algorithm, &mut algorithm.start(now, unix_ns), now, units))
            }
        }
    }
}

/// The wait for `units`; `None`: no wait helps.
fn wait_ns<A: Algorithm>(algorithm: &A, state: &mut A::State, now: Timestamp, units: u64) -> Option<u64> {
    match algorithm.ready_at(state, now, units) {
        When::At(at) => Some(at.as_ns() - now.as_ns()),
        When::Never => None,
    }
}

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq + Clone + Send + 'static,
    A: Stored,
    C: Clock,
{
    pub(super) fn new(template: &Template<A, C>) -> Self {
        let shared = Shared::build(template, &Tiers::new(), KEYS_MAX, None, RandomState::default());
        Self { shared: Arc::new(shared), tier_by: None }
    }

    /// The same kind of limit, all of its keys new.
    fn rebuild(self, cap: usize, overflow: Option<RateLimiter<A, C>>) -> Self {
        let (template, tiers) = self.shared.plans();
        let shared = Shared::build(&template, &tiers, cap, overflow, self.shared.hasher.clone());
        shared.common.changes.store(self.shared.common.changes.load(Ordering::Relaxed), Ordering::Relaxed);
        Self { shared: Arc::new(shared), tier_by: self.tier_by }
    }

    /// The same kind of limit with at most `keys` keys, all of them new. 100,000 unless set; at least one.
    ///
    /// A key of a token bucket takes 16 bytes, whatever it is like: all of them at once, when the first key comes. One
    /// that waits in line, owes, has a quota of its own or of a tier, or whose handle somebody holds
    /// ([`of`](Keyed::of)), takes up to 700 more until that is over; so does each key of another algorithm, and what
    /// its windows remember. Keys of a quota whose `initial` is below its burst never become as new: they are never
    /// dropped.
    #[must_use]
    pub fn max_keys(self, keys: usize) -> Self {
        let overflow = self.shared.common.overflow.clone();
        self.rebuild(keys.max(1), overflow)
    }

    /// The same kind of limit, all of its keys new, in which each key has the quota that `tier` says: one of
    /// [`tier`](Keyed::tier)'s, [`Tier::DEFAULT`] or [`Tier::EXEMPT`]. It is asked each time, so that a key that changes
    /// its tier goes on under the other quota with what it has spent.
    #[must_use]
    pub fn tier_by(self, tier: impl Fn(&K) -> Tier + Send + Sync + 'static) -> Self {
        let (cap, overflow) = (self.shared.common.room.cap(), self.shared.common.overflow.clone());
        Self { tier_by: Some(Arc::new(tier)), ..self.rebuild(cap, overflow) }
    }

    /// The same kind of limit, all of its keys new, in which keys that find no room share the limit `overflow` in place
    /// of being refused.
    #[must_use]
    pub fn overflow(self, overflow: RateLimiter<A, C>) -> Self {
        let cap = self.shared.common.room.cap();
        self.rebuild(cap, Some(overflow))
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

    /// Waits in the line of `key` for a permit. An exempt key has none to wait for.
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
        AcquireKeyed::new(self, self.shared.id(key), self.tier_of(key), ask.into())
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
        self.shared.part(id).try_acquire(id, tier, units)
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
        match self.shared.common.take(id, tier, units, false) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => self.check_slowly(id, tier, units),
            Err(denied) => Err(denied),
        }
    }

    #[cold]
    #[inline(never)]
    fn check_slowly(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        match self.shared.part(id).enter(id, tier, Want::Units { units, pin: false })? {
            Taken::Way(Way::Limited(limiter) | Way::Shared(limiter)) => limiter.check(units),
            Taken::Slot(..) | Taken::Way(Way::Exempt) => Ok(()),
        }
    }

    /// Where the limits of `key` stand; a key without a state stands as a new one. Nothing for an exempt key.
    fn tell<Q>(&self, key: &Q, visit: &mut dyn FnMut(&LimitStatus))
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (id, tier, common) = (self.shared.id(key), self.tier_of(key), &*self.shared.common);
        let part = self.shared.part(id);
        let algorithm = {
            let kept = part.kept().lock();
            kept.tiers.plan(id.hash, tier, &kept.template.algorithm).map(|(_, algorithm)| algorithm.clone())
        };
        let Some(algorithm) = algorithm else { return };
        if let Some(peek) = part.peek(id) {
            return peek.tell(common.name.as_ref(), visit);
        }
        if common.room.is_full() {
            // It found no room: it stands where all such stand, or nowhere.
            let Some(overflow) = &common.overflow else { return };
            return Limiter::<()>::status(overflow, &(), visit);
        }
        let now = common.clock.now();
        let mut state = algorithm.start(now, unix_ns(&common.clock));
        Statuses::of(&algorithm, &mut state, now).tell(common.name.as_ref(), visit);
    }
}

impl<K, A: Stored, C: Clock> Clone for Keyed<K, A, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), tier_by: self.tier_by.clone() }
    }
}

impl<K, A: Stored, C: Clock> fmt::Debug for Keyed<K, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("census", &self.shared.common.room.census()).finish_non_exhaustive()
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
        let keys = Some(self.census());
        self.tell(key, &mut |status| visit(&LimitStatus { keys, ..status.clone() }));
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
        let (id, tier) = (self.shared.id(key), self.tier_of(key));
        KeyedPart { part: Arc::clone(self.shared.part(id)), id, tier, units: cost.units(), waits: None }
    }
}

/// An ask about a key, as a member of a composition.
pub struct KeyedPart<A: Stored, C: Clock = DefaultClock> {
    part: ShardOf<A, C>,
    id: Id,
    tier: Tier,
    units: u64,
    /// The limiter of the key, once it has been waited for.
    waits: Option<RatePart<A, C>>,
}

impl<A: Stored, C: Clock> KeyedPart<A, C> {
    /// The limiter of the key; `None` for an exempt one.
    fn limiter(&self) -> Result<Option<RateLimiter<A, C>>, Denied> {
        Ok(match self.part.enter(self.id, self.tier, Want::Limiter)? {
            Taken::Way(Way::Limited(limiter) | Way::Shared(limiter)) => Some(limiter),
            Taken::Way(Way::Exempt) | Taken::Slot(_) => None,
        })
    }
}

impl<A: Stored, C: Clock> Part for KeyedPart<A, C> {
    type Permit = KeyedPermit<A, C>;
    type Fault = Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.part.common.clock.now())
    }

    fn peek(&self) -> Result<(), Denied> {
        if let Some(waits) = &self.waits {
            return waits.peek();
        }
        self.part.peek_ready(self.id, self.tier, self.units)
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error>> {
        if let Some(waits) = &mut self.waits {
            return waits.poll_take(cx).map_ok(KeyedPermit::of_limiter);
        }
        let taken = self.part.try_acquire(self.id, self.tier, self.units);
        Poll::Ready(taken.map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        if self.waits.is_none() {
            let limiter = self.limiter()?;
            self.waits = limiter.map(|limiter| Compose::<()>::part(&limiter, &(), Cost::new(self.units)));
        }
        self.waits.as_mut().map_or(Ok(()), |waits| waits.enlist(members))
    }
}

impl<A: Stored, C: Clock> fmt::Debug for KeyedPart<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPart").field("units", &self.units).finish_non_exhaustive()
    }
}
