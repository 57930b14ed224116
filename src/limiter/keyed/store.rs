//! The keys that need a limiter of their own, and how many keys there may be.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// How full a keyed limit is.
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

/// The cap, and what there is under it.
pub(super) struct Room {
    cap: usize,
    keys: AtomicUsize,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl Room {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, keys: AtomicUsize::new(0), evicted: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    pub(super) const fn cap(&self) -> usize {
        self.cap
    }

    fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether a newcomer finds room only where another is dropped.
    pub(super) fn is_full(&self) -> bool {
        self.keys() >= self.cap
    }

    /// Whether so many are there that it is time to look for idle ones.
    pub(super) fn is_half_full(&self) -> bool {
        self.keys() >= self.cap / 2
    }

    /// Room for one more, if there is any.
    pub(super) fn take(&self) -> bool {
        let more = |keys| (keys < self.cap).then_some(keys + 1);
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, keys: usize) {
        self.keys.fetch_sub(keys, Ordering::Relaxed);
    }

    /// Keys were dropped: their room is free, or another's.
    pub(super) fn count_evicted(&self, keys: usize) {
        self.evicted.fetch_add(keys as u64, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn census(&self) -> Census {
        Census {
            keys: self.keys(),
            evicted: self.evicted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// What is kept by the hash of a key, or by what its slot is found by.
pub(super) struct HashStore<V> {
    map: HashMap<u64, Entry<V>, BuildHasherDefault<Hashed>>,
    /// The hashes in no order, walked round and round in search of idle ones.
    ring: Vec<u64>,
    hand: usize,
}

struct Entry<V> {
    value: V,
    /// Where in the ring it stands.
    at: usize,
}

impl<V> HashStore<V> {
    pub(super) fn new() -> Self {
        Self { map: HashMap::default(), ring: Vec::new(), hand: 0 }
    }

    pub(super) fn get(&mut self, hash: u64) -> Option<&mut V> {
        self.map.get_mut(&hash).map(|entry| &mut entry.value)
    }

    pub(super) fn insert(&mut self, hash: u64, value: V) -> &mut V {
        let ring = &mut self.ring;
        let entry = self.map.entry(hash).or_insert_with(|| {
            ring.push(hash);
            Entry { value, at: ring.len() - 1 }
        });
        &mut entry.value
    }

    pub(super) fn remove(&mut self, hash: u64) -> Option<V> {
        let Entry { value, at } = self.map.remove(&hash)?;
        self.ring.swap_remove(at);
        if let Some(moved) = self.ring.get(at).and_then(|moved| self.map.get_mut(moved)) {
            moved.at = at;
        }
        Some(value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.map.values().map(|entry| &entry.value)
    }

    /// Looks at the next few, drops those that are idle, and says so.
    pub(super) fn sweep(&mut self, looks: usize, idle: impl Fn(&V) -> bool, mut dropped: impl FnMut(V)) {
        for _ in 0..looks.min(self.ring.len()) {
            self.hand %= self.ring.len().max(1);
            let Some(hash) = self.ring.get(self.hand).copied() else { return };
            if self.map.get(&hash).is_some_and(|entry| idle(&entry.value)) {
                if let Some(value) = self.remove(hash) {
                    dropped(value);
                }
            } else {
                self.hand += 1;
            }
        }
    }
}

/// A hash is a hash already. Multiplied, because those of one map have some bits in common.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a hash is one word")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
