//! A guard for each host, route or bucket of an API.

use std::any::TypeId;
use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::guard::{Group, Guard};
use super::origin::Origin;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{HashStore, Room, Unlimited};
use crate::sync::Mutex;
use crate::types::{Denied, KeyStats, Reason};
use crate::units::Timestamp;

/// A guard for each key: for each host, each route, each bucket of an API. A cheap handle: clones share the guards.
///
/// What a server tells of one key is obeyed for that key alone, unless the server says that it means everything
/// ([`Scope::Everyone`](super::Scope::Everyone)): then all of them hold, those to come too. By [`Origin`] no server speaks
/// for another, whatever it says; key by that, and not by the name of a host, where one may be hostile. A limit that all
/// keys share is given to each of them: `Guard::new(own.and(shared.clone()))`.
///
/// Key by what the answer is about: by the origin of the *final* URL, so that one host cannot slow down another; where the
/// server names its buckets ([`Signals::bucket`](super::Signals::bucket)), by that name once it is known.
///
/// **At the limit** of keys ([`max_keys`](Guards::max_keys)) a new key makes room by dropping one that has been idle and
/// of which nothing is known that a new one would not know soon. If there is none it is refused
/// ([`Reason::TooManyKeys`]).
///
/// ```
/// use tollgate::client::{Guard, Guards};
/// use tollgate::{Concurrency, LimiterExt, Quota, TokenBucket};
/// let everything = Concurrency::new(100);
/// let per_host = Guards::new(move |host: &String| {
///     let rate = TokenBucket::new(Quota::per_second(5)).expect("a good quota");
///     Guard::new(rate.and(everything.clone()))
/// });
/// let guard = per_host.of("example.org")?; // then `guard.acquire(1).await`
/// # Ok::<(), tollgate::Denied>(())
/// ```
pub struct Guards<K, L = Unlimited, C: Clock = DefaultClock> {
    shared: Arc<Shared<K, L, C>>,
}

/// The number of guards a newcomer looks at to find idle ones, once half of the room is taken, and how many at the cap.
const LOOKS: usize = 2;
const LOOKS_AT_CAP: usize = 64;

type Make<K, L, C> = dyn Fn(&K) -> Guard<L, C> + Send + Sync;

struct Shared<K, L, C: Clock> {
    store: Mutex<HashStore<K, Guard<L, C>>>,
    room: Room,
    make: Arc<Make<K, L, C>>,
    hold: Mutex<Hold>,
}

/// Until when all are held.
#[derive(Default)]
struct Hold {
    until: Timestamp,
    /// What was asked before there was a guard to tell the time by.
    first: Duration,
}

impl<K, L, C> Guards<K, L, C>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    L: crate::limiter::Compose + Clone + Send + Sync + 'static,
    C: Clock,
{
    /// Guards as `make` makes them, at most 10,000. It must not ask these guards for another.
    #[must_use]
    pub fn new(make: impl Fn(&K) -> Guard<L, C> + Send + Sync + 'static) -> Self {
        Self::build(10_000, Arc::new(make))
    }

    /// The same with at most `keys` keys, all of them new; at least one.
    #[must_use]
    pub fn max_keys(self, keys: usize) -> Self {
        Self::build(keys.max(1), Arc::clone(&self.shared.make))
    }

    fn build(max_keys: usize, make: Arc<Make<K, L, C>>) -> Self {
        let (store, room) = (Mutex::new(HashStore::new()), Room::new(max_keys));
        Self { shared: Arc::new(Shared { store, room, make, hold: Mutex::new(Hold::default()) }) }
    }

    /// The guard of `key`.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]: the key is new and no other can be dropped.
    pub fn of<Q>(&self, key: &Q) -> Result<Guard<L, C>, Denied>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        if let Some(guard) = self.shared.store.lock().get(key) {
            return Ok(guard.clone());
        }
        // What makes guards is not ours: outside the lock. Whoever comes first with a key makes its guard.
        let key = key.to_owned();
        let new = (self.shared.make)(&key);
        // Origins are different servers: what one calls everything is its own.
        if TypeId::of::<K>() != TypeId::of::<Origin>() {
            let group: Weak<dyn Group> = Arc::downgrade(&self.shared) as Weak<dyn Group>;
            new.join(group);
        }
        self.shared.hold_newcomer(&new);
        let mut store = self.shared.store.lock();
        if let Some(guard) = store.get::<K>(&key) {
            return Ok(guard.clone());
        }
        let room = &self.shared.room;
        let looks = if room.is_full() { LOOKS_AT_CAP } else { LOOKS };
        if room.is_half_full() {
            store.sweep(looks, Guard::is_idle, |_| {
                room.give_back(1);
                room.count_evicted(1);
            });
        }
        if !room.take() {
            room.count_refused();
            return Err(Denied::new(Reason::TooManyKeys));
        }
        let new = store.insert(key, new).clone();
        drop(store);
        // A hold that began meanwhile may not have found it in the store.
        self.shared.hold_newcomer(&new);
        Ok(new)
    }

    /// Holds the guards of all keys, and of those to come, until `wait` from now at least. Before there is any key, the
    /// wait begins with the first.
    pub fn hold(&self, wait: Duration) {
        self.shared.hold_all(wait);
    }

    /// How many keys there are, and how many have been dropped and refused.
    #[must_use]
    pub fn stats(&self) -> KeyStats {
        self.shared.room.stats()
    }
}

impl<K, L, C: Clock> Shared<K, L, C> {
    fn hold_newcomer(&self, new: &Guard<L, C>) {
        let now = new.now();
        let mut hold = self.hold.lock();
        hold.until = hold.until.max(now.after(std::mem::take(&mut hold.first)));
        let held_for = hold.until.since(now);
        drop(hold);
        if held_for > Duration::ZERO {
            new.hold_at_least(held_for);
        }
    }
}

impl<K, L, C> Group for Shared<K, L, C>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    L: crate::limiter::Compose + Clone + Send + Sync + 'static,
    C: Clock,
{
    fn hold_all(&self, wait: Duration) {
        // Told to those who come first: whoever is not in the store yet looks here once it is.
        let any = self.store.lock().values().next().cloned();
        let now = any.as_ref().map(Guard::now);
        let mut hold = self.hold.lock();
        match now {
            Some(now) => hold.until = hold.until.max(now.after(wait)),
            None => hold.first = hold.first.max(wait),
        }
        drop(hold);
        let guards: Vec<_> = self.store.lock().values().cloned().collect();
        guards.iter().for_each(|guard| guard.hold_at_least(wait));
    }
}

impl<K, L, C: Clock> Clone for Guards<K, L, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, L, C: Clock> fmt::Debug for Guards<K, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guards").finish_non_exhaustive()
    }
}
