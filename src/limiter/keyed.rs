//! One limit for each key.

mod store;

pub use store::{HashStore, Store};

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::rate::Template;
use super::{AcquireRate, Limiter, RateLimiter, RatePermit, Stored, TryLimiter};
use crate::algorithm::FromQuota;
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error, Reason};
use crate::sync::Mutex;
use crate::units::{Cost, Quota, QuotaError};

/// A limit for each key, each with a state and a line of its own. A cheap handle: clones share the keys.
///
/// Made from a limiter that says what each key's is like: `SlidingWindow::new(quota)?.keyed()`.
///
/// **At the limit** of a key its asks wait or are refused as in a [`RateLimiter`]; other keys do not notice. The number
/// of keys is bounded ([`max_keys`](Keyed::max_keys)): each new key makes room by dropping a few whose state cannot be
/// told from a fresh one; when there is none, newcomers are refused ([`Reason::TooManyKeys`]) and no key loses its
/// state.
///
/// ```
/// use tollgate::{Quota, SlidingWindow};
/// let per_user = SlidingWindow::new(Quota::per_minute(1))?.keyed();
/// assert!(per_user.check("ann", 1).is_ok());
/// assert!(per_user.check("ann", 1).is_err());
/// assert!(per_user.check("bob", 1).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub struct Keyed<K, A: Stored, C: Clock = DefaultClock, S = HashStore<K, RateLimiter<A, C>>> {
    shared: Arc<Shared<A, C, S>>,
    key: std::marker::PhantomData<fn(&K)>,
}

struct Shared<A: Stored, C: Clock, S> {
    keys: Mutex<Keys<A, C, S>>,
}

struct Keys<A, C, S> {
    template: Template<A, C>,
    store: S,
}

impl<K, A, C> Keyed<K, A, C>
where
    K: Hash + Eq + Clone + Send + 'static,
    A: Stored,
    C: Clock,
{
    pub(super) fn new(template: Template<A, C>) -> Self {
        Self::with_store(template, HashStore::new(100_000))
    }

    /// The same kind of limit with at most `keys` keys, all of them new. 100,000 unless set; at least one.
    #[must_use]
    pub fn max_keys(self, keys: usize) -> Self {
        let template = self.shared.keys.lock().template.clone();
        Self::with_store(template, HashStore::new(keys.max(1)))
    }
}

impl<K, A, C, S> Keyed<K, A, C, S>
where
    A: Stored,
    C: Clock,
    S: Store<K, RateLimiter<A, C>>,
{
    fn with_store(template: Template<A, C>, store: S) -> Self {
        let shared = Arc::new(Shared { keys: Mutex::new(Keys { template, store }) });
        Self { shared, key: std::marker::PhantomData }
    }

    /// The limit of `key`: a handle that works on when the store has dropped the key.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]: the key is new and no other can be dropped.
    pub fn of<Q>(&self, key: &Q) -> Result<RateLimiter<A, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        let keys = &mut *self.shared.keys.lock();
        let (store, template) = (&mut keys.store, &keys.template);
        let made = store.get_or_make(key, || RateLimiter::from_template(template), RateLimiter::is_fresh);
        made.ok_or_else(|| Denied::new(Reason::TooManyKeys).by(template.name.clone()))
    }

    /// Waits in the line of `key` for a permit. The key is looked up at the call.
    ///
    /// # Cancel safety
    /// As [`RateLimiter::acquire`].
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`], and [`Reason::TooManyKeys`].
    pub fn acquire<Q>(&self, key: &Q, ask: impl Into<Ask>) -> AcquireKeyed<A, C>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        AcquireKeyed(match self.of(key) {
            Ok(limiter) => Found::Waits(limiter.acquire(ask)),
            Err(denied) => Found::Denied(Some(denied)),
        })
    }

    /// Takes a permit about `key` if it may be had now.
    ///
    /// # Errors
    /// As [`RateLimiter::try_acquire`], and [`Reason::TooManyKeys`].
    pub fn try_acquire<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<RatePermit<A, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        self.of(key)?.try_acquire(cost)
    }

    /// Decides about `key`, and holds nothing.
    ///
    /// # Errors
    /// As [`RateLimiter::check`], and [`Reason::TooManyKeys`].
    pub fn check<Q>(&self, key: &Q, cost: impl Into<Cost>) -> Result<(), Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        self.of(key)?.check(cost)
    }

    /// Keys with a state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.keys.lock().store.len()
    }

    /// Whether no key has a state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, A, C, S> Keyed<K, A, C, S>
where
    A: FromQuota + Stored,
    C: Clock,
    S: Store<K, RateLimiter<A, C>>,
{
    /// Changes the quota of all keys, present and future, from now on. Takes time in proportion to the keys present.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        let mut all = Vec::new();
        let next = {
            let mut keys = self.shared.keys.lock();
            keys.template.algorithm = keys.template.algorithm.with_quota(quota)?;
            keys.store.for_each(|limiter| all.push(limiter.clone()));
            keys.template.algorithm.clone()
        };
        // Outside the lock: a change wakes those who wait.
        all.iter().for_each(|limiter| limiter.change(next.clone()));
        Ok(())
    }
}

impl<K, A: Stored, C: Clock, S> Clone for Keyed<K, A, C, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), key: std::marker::PhantomData }
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
    S: Store<K, RateLimiter<A, C>>,
{
    type Permit = RatePermit<A, C>;
    type Fault = Infallible;
    type Acquire = AcquireKeyed<A, C>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, key, ask)
    }
}

impl<K, A, C, S> TryLimiter<K> for Keyed<K, A, C, S>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
    S: Store<K, RateLimiter<A, C>>,
{
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, key, cost)
    }
}

/// The wait for a permit about a key. Cancel-safe: see [`RateLimiter::acquire`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireKeyed<A: Stored, C: Clock = DefaultClock>(Found<A, C>);

#[derive(Debug)]
enum Found<A: Stored, C: Clock> {
    Waits(AcquireRate<A, C>),
    Denied(Option<Denied>),
}

impl<A: Stored, C: Clock> Future for AcquireKeyed<A, C> {
    type Output = Result<RatePermit<A, C>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Found::Waits(acquire) => Pin::new(acquire).poll(cx),
            Found::Denied(denied) => {
                let denied = denied.take();
                Poll::Ready(Err(Error::Denied(
                    denied.expect("an acquire was polled after it had given its answer"),
                )))
            }
        }
    }
}
