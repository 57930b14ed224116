//! One limit for each key.

mod acquire;
mod admin;
mod store;
mod tiers;

pub use acquire::AcquireKeyed;
pub(crate) use admin::Later;
pub use store::{Census, HashStore, Store};
pub use tiers::Tier;

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::rate::{Standings, Template};
use super::{Limiter, RateLimiter, RatePermit, Stored, TryLimiter};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Reason, Standing};
use crate::sync::Mutex;
use crate::units::Cost;
use tiers::{Plan, Tiers};

/// A limit for each key, each with a state and a line of its own. A cheap handle: clones share the keys.
///
/// Made from a limiter that says what each key's is like: `SlidingWindow::new(quota)?.keyed()`. Keys may differ in
/// quota: by [`tier`](Keyed::tier), or one by one ([`set_quota_of`](Keyed::set_quota_of),
/// [`exempt`](Keyed::exempt)), and a change keeps what has been spent.
///
/// **At the limit** of a key its asks wait or are refused as in a [`RateLimiter`]; other keys do not notice. The number
/// of keys is bounded ([`max_keys`](Keyed::max_keys)): from half of that on each new key makes room by dropping a few whose
/// state cannot be told from a fresh one. When it finds none near, newcomers are refused ([`Reason::TooManyKeys`]), or share
/// one limit ([`overflow`](Keyed::overflow)); no key loses its state.
///
/// ```
/// use tollgate::{Quota, SlidingWindow};
/// let per_user = SlidingWindow::new(Quota::per_minute(1))?.keyed();
/// assert!(per_user.check("ann", 1).is_ok());
/// assert!(per_user.check("ann", 1).is_err());
/// assert!(per_user.check("bob", 1).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub struct Keyed<K, A: Stored, C: Clock = DefaultClock, S = HashStore<K, KeyState<A, C>>> {
    shared: Arc<Shared<K, A, C, S>>,
}

struct Shared<K, A: Stored, C: Clock, S> {
    keys: Mutex<Keys<K, A, C, S>>,
    options: Options<K, A, C>,
}

struct Keys<K, A, C, S> {
    template: Template<A, C>,
    tiers: Tiers<K, A>,
    store: S,
}

type TierBy<K> = dyn Fn(&K) -> Tier + Send + Sync;

struct Options<K, A: Stored, C: Clock> {
    tier_by: Option<Arc<TierBy<K>>>,
    overflow: Option<RateLimiter<A, C>>,
    clock: C,
}

impl<K, A: Stored, C: Clock> Options<K, A, C> {
    fn tier_of(&self, ask: impl FnOnce(&TierBy<K>) -> Tier) -> Tier {
        self.tier_by.as_ref().map_or(Tier::DEFAULT, |tier_by| ask(&**tier_by))
    }
}

/// What is kept for one key.
#[derive(Debug, Clone)]
pub struct KeyState<A: Stored, C: Clock> {
    limiter: RateLimiter<A, C>,
    plan: Plan,
}

/// What a key is to do.
enum Way<A: Stored, C: Clock> {
    Exempt,
    Limited(RateLimiter<A, C>),
    /// It found no room, and shares the overflow with all such.
    Shared(RateLimiter<A, C>),
}

/// What a key is to do, and what is to be done for it first.
type Looked<A, C> = (Way<A, C>, Option<Later<A, C>>);

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq + Clone + Send + 'static,
    A: Stored,
    C: Clock,
{
    pub(super) fn new(template: Template<A, C>) -> Self {
        let options = Options { tier_by: None, overflow: None, clock: template.clock.clone() };
        Self::build(Keys { template, tiers: Tiers::new(), store: HashStore::new(100_000) }, options)
    }

    fn build(keys: Keys<K, A, C, HashStore<K, KeyState<A, C>>>, options: Options<K, A, C>) -> Self {
        Self { shared: Arc::new(Shared { keys: Mutex::new(keys), options }) }
    }

    /// The same kind of limit with other options, all of its keys new.
    fn rebuild(self, cap: Option<usize>, change: impl FnOnce(&mut Options<K, A, C>)) -> Self {
        let Options { tier_by, overflow, clock } = &self.shared.options;
        let mut options =
            Options { tier_by: tier_by.clone(), overflow: overflow.clone(), clock: clock.clone() };
        change(&mut options);
        let keys = {
            let keys = self.shared.keys.lock();
            let store = HashStore::new(cap.unwrap_or(keys.store.cap()));
            Keys { template: keys.template.clone(), tiers: keys.tiers.clone(), store }
        };
        Self::build(keys, options)
    }

    /// The same kind of limit with at most `keys` keys, all of them new. 100,000 unless set; at least one.
    ///
    /// A key of a token bucket takes at most 700 bytes beside what it points to; those of windows also what they
    /// remember. Keys of a quota whose `initial` is below its burst never become as new: they are never dropped.
    #[must_use]
    pub fn max_keys(self, keys: usize) -> Self {
        self.rebuild(Some(keys.max(1)), |_| ())
    }

    /// The same kind of limit, all of its keys new, in which each key has the quota that `tier` says: one of
    /// [`tier`](Keyed::tier)'s, [`Tier::DEFAULT`] or [`Tier::EXEMPT`]. It is asked each time, so that a key that changes
    /// its tier goes on under the other quota with what it has spent.
    #[must_use]
    pub fn tier_by(self, tier: impl Fn(&K) -> Tier + Send + Sync + 'static) -> Self {
        self.rebuild(None, |options| options.tier_by = Some(Arc::new(tier)))
    }

    /// The same kind of limit, all of its keys new, in which keys that find no room share the limit `overflow` in place
    /// of being refused.
    #[must_use]
    pub fn overflow(self, overflow: RateLimiter<A, C>) -> Self {
        self.rebuild(None, |options| options.overflow = Some(overflow))
    }
}

impl<A: Stored, C: Clock> KeyState<A, C> {
    fn is_idle(&self) -> bool {
        self.limiter.is_fresh()
    }
}

impl<K, A, C, S> Keyed<K, A, C, S>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    fn way<Q>(&self, key: &Q) -> Result<Way<A, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        self.known(key).map_or_else(|| self.newcomer(key.to_owned()), Ok)
    }

    /// What a key is to do that has a state or needs none.
    fn known<Q>(&self, key: &Q) -> Option<Way<A, C>>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let (way, later) = self.look(key)?;
        if let Some(later) = later {
            later.make();
        }
        Some(way)
    }

    /// The same, and the change that brings its state under the plan it has now.
    fn look<Q>(&self, key: &Q) -> Option<Looked<A, C>>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        // The tier's function and what a change wakes are not ours: both outside the lock.
        let tier = self.shared.options.tier_of(|tier_by| tier_by(&key.to_owned()));
        let mut keys = self.shared.keys.lock();
        let Keys { template, tiers, store } = &mut *keys;
        let Some((plan, algorithm)) = tiers.plan(key, tier, &template.algorithm) else {
            return Some((Way::Exempt, None));
        };
        let state = store.get(key)?;
        let limiter = state.limiter.clone();
        if state.plan == plan {
            return Some((Way::Limited(limiter), None));
        }
        state.plan = plan;
        let next = algorithm.clone();
        let later = Later { limiters: vec![limiter.clone()], change: tiers.next_change(), next };
        Some((Way::Limited(limiter), Some(later)))
    }

    /// Makes a state for a key, if there is room.
    fn newcomer(&self, key: K) -> Result<Way<A, C>, Denied> {
        let tier = self.shared.options.tier_of(|tier_by| tier_by(&key));
        let mut keys = self.shared.keys.lock();
        let Keys { template, tiers, store } = &mut *keys;
        let Some((plan, algorithm)) = tiers.plan(&key, tier, &template.algorithm) else {
            return Ok(Way::Exempt);
        };
        let make =
            || KeyState { limiter: RateLimiter::from_template(&template.with(algorithm.clone())), plan };
        if let Some(state) = store.get_or_make(key, make, KeyState::is_idle) {
            return Ok(Way::Limited(state.limiter.clone()));
        }
        let refused = || Denied::new(Reason::TooManyKeys).by(template.name.clone());
        self.shared.options.overflow.clone().map(Way::Shared).ok_or_else(refused)
    }

    /// Waits in the line of `key` for a permit. An exempt key has none to wait for.
    ///
    /// # Cancel safety
    /// As [`RateLimiter::acquire`].
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`], and [`Reason::TooManyKeys`].
    pub fn acquire<Q>(&self, key: &Q, ask: impl Into<Ask>) -> AcquireKeyed<K, A, C, S>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        AcquireKeyed::new(self, key, ask.into())
    }

    /// Takes a permit about `key` if it may be had now; `None` for an exempt key, which needs none.
    ///
    /// # Errors
    /// As [`RateLimiter::try_acquire`], and [`Reason::TooManyKeys`].
    pub fn try_acquire<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<Option<RatePermit<A, C>>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        match self.way(key)? {
            Way::Limited(limiter) | Way::Shared(limiter) => limiter.try_acquire(cost).map(Some),
            Way::Exempt => Ok(None),
        }
    }

    /// Decides about `key`, and holds nothing.
    ///
    /// # Errors
    /// As [`RateLimiter::check`], and [`Reason::TooManyKeys`].
    pub fn check<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<(), Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        match self.way(key)? {
            Way::Limited(limiter) | Way::Shared(limiter) => limiter.check(cost),
            Way::Exempt => Ok(()),
        }
    }

    /// Where the limits of `key` stand; a key without a state stands as a new one. Nothing for an exempt key.
    fn tell<Q>(&self, key: &Q, visit: &mut dyn FnMut(&Standing))
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let tier = self.shared.options.tier_of(|tier_by| tier_by(&key.to_owned()));
        let mut keys = self.shared.keys.lock();
        let Keys { template, tiers, store } = &mut *keys;
        let Some((_, algorithm)) = tiers.plan(key, tier, &template.algorithm) else { return };
        if let Some(limiter) = store.get(key).map(|state| state.limiter.clone()) {
            drop(keys);
            return Limiter::<()>::report(&limiter, &(), visit);
        }
        if store.is_full() {
            drop(keys);
            // It found no room: it stands where all such stand, or nowhere.
            let Some(overflow) = &self.shared.options.overflow else { return };
            return Limiter::<()>::report(overflow, &(), visit);
        }
        let now = template.clock.now();
        let unix_ns = template.clock.unix_ns().saturating_add(now.as_ns());
        let standings = Standings::of(algorithm, &mut algorithm.start(now, unix_ns), now);
        let name = template.name.clone();
        drop(keys);
        standings.tell(name.as_ref(), visit);
    }
}

impl<K, A: Stored, C: Clock, S> Clone for Keyed<K, A, C, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, A: Stored, C: Clock, S> fmt::Debug for Keyed<K, A, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").finish_non_exhaustive()
    }
}

impl<K, A, C, S> Limiter<K> for Keyed<K, A, C, S>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    type Permit = Option<RatePermit<A, C>>;
    type Fault = Infallible;
    type Acquire = AcquireKeyed<K, A, C, S>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, key, ask)
    }

    fn report(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        self.tell(key, visit);
    }

    fn census(&self) -> Option<Census> {
        Some(Self::census(self))
    }
}

impl<K, A, C, S> TryLimiter<K> for Keyed<K, A, C, S>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, key, cost)
    }
}
