use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// Where the states of keys live: the seam between a keyed limiter and its map.
pub trait Store<K, V>: Send + 'static {
    /// The value of `key`, made if there is none. `None` when it is new, no value that is looked at is idle and no more
    /// fit.
    ///
    /// May drop values that are `idle`, a bounded number a call.
    fn get_or_make(&mut self, key: K, make: impl FnOnce() -> V, idle: impl Fn(&V) -> bool) -> Option<&mut V>;

    /// The value of `key`, if there is one.
    fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>;

    /// Calls `visit` with each value.
    fn for_each(&self, visit: impl FnMut(&V));

    /// Whether a newcomer finds room only where another is dropped.
    fn is_full(&self) -> bool;

    /// How many keys there are, and how many have been dropped and refused.
    fn census(&self) -> Census;
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Census {
    /// Keys with a state.
    pub keys: usize,
    /// Keys dropped so far because their state could not be told from a new one's.
    pub evicted: u64,
    /// Times a newcomer found no room.
    pub refused: u64,
}

impl Census {
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            evicted: self.evicted + other.evicted,
            refused: self.refused + other.refused,
        }
    }
}

/// How many keys a newcomer looks at to find idle ones, once half of the room is taken: two for each that comes keep up
/// with any flood of keys that become idle; at the cap it may look a little further.
const LOOKS: usize = 2;
const LOOKS_AT_CAP: usize = 64;

/// A hash map with a hard cap. The standard library's keyed hash keeps hostile keys from colliding.
pub struct HashStore<K, V> {
    map: HashMap<K, V>,
    /// The keys in no order, walked round and round in search of idle ones.
    ring: Vec<K>,
    hand: usize,
    cap: usize,
    evicted: u64,
    refused: u64,
}

impl<K, V> HashStore<K, V> {
    pub(crate) fn new(cap: usize) -> Self {
        Self { map: HashMap::new(), ring: Vec::new(), hand: 0, cap, evicted: 0, refused: 0 }
    }

    pub(super) const fn cap(&self) -> usize {
        self.cap
    }
}

impl<K: Hash + Eq, V> HashStore<K, V> {
    fn sweep(&mut self, idle: impl Fn(&V) -> bool) {
        let looks = match self.map.len() {
            keys if keys >= self.cap => LOOKS_AT_CAP,
            keys if keys >= self.cap / 2 => LOOKS,
            _ => return,
        };
        for _ in 0..looks.min(self.ring.len()) {
            self.hand %= self.ring.len().max(1);
            let Some(key) = self.ring.get(self.hand) else { return };
            if self.map.get(key).is_some_and(&idle) {
                self.map.remove(key);
                self.ring.swap_remove(self.hand);
                self.evicted += 1;
            } else {
                self.hand += 1;
            }
        }
    }
}

impl<K, V> Store<K, V> for HashStore<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Send + 'static,
{
    fn get_or_make(&mut self, key: K, make: impl FnOnce() -> V, idle: impl Fn(&V) -> bool) -> Option<&mut V> {
        if !self.map.contains_key(&key) {
            self.sweep(idle);
            if self.map.len() >= self.cap {
                self.refused += 1;
                return None;
            }
            self.ring.push(key.clone());
        }
        Some(self.map.entry(key).or_insert_with(make))
    }

    fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.map.get_mut(key)
    }

    fn for_each(&self, visit: impl FnMut(&V)) {
        self.map.values().for_each(visit);
    }

    fn is_full(&self) -> bool {
        self.map.len() >= self.cap
    }

    fn census(&self) -> Census {
        Census { keys: self.map.len(), evicted: self.evicted, refused: self.refused }
    }
}

impl<K, V> fmt::Debug for HashStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashStore")
            .field("keys", &self.map.len())
            .field("cap", &self.cap)
            .finish_non_exhaustive()
    }
}
