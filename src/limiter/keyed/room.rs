//! The number of keys that there may be, and a map that can be walked round bit by bit in search of idle ones.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::types::KeyStats;

/// The cap on keys, and the number of them.
pub(crate) struct Room {
    cap: usize,
    keys: AtomicUsize,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl Room {
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, keys: AtomicUsize::new(0), evicted: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// A new key finds room only where another is dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.keys() >= self.cap
    }

    /// There are so many keys that new ones look for idle ones to drop.
    pub(crate) fn is_half_full(&self) -> bool {
        self.keys() >= self.cap / 2
    }

    /// Takes room for one more key, if there is any.
    pub(crate) fn take(&self) -> bool {
        let more = |keys| (keys < self.cap).then_some(keys + 1);
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn give_back(&self, keys: usize) {
        self.keys.fetch_sub(keys, Ordering::Relaxed);
    }

    /// Counts keys that were dropped: their room is free, or another's.
    pub(crate) fn count_evicted(&self, keys: usize) {
        self.evicted.fetch_add(keys as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> KeyStats {
        KeyStats::new(self.keys(), self.evicted.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// A map that can be walked round bit by bit.
pub(crate) struct HashStore<K, V, S = RandomState> {
    map: HashMap<K, Entry<V>, S>,
    /// The keys in no order, walked round and round in search of idle ones.
    ring: Vec<K>,
    hand: usize,
}

/// A map by the hash of a key, or by what keys that share a slot have in common.
pub(super) type ByHash<V> = HashStore<u64, V, BuildHasherDefault<Hashed>>;

struct Entry<V> {
    value: V,
    /// Its index in the ring.
    at: usize,
}

impl<K: Hash + Eq + Clone, V, S: BuildHasher + Default> HashStore<K, V, S> {
    pub(crate) fn new() -> Self {
        Self { map: HashMap::default(), ring: Vec::new(), hand: 0 }
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        Q: Hash + Eq + ?Sized,
        K: Borrow<Q>,
    {
        self.map.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> &mut V {
        let ring = &mut self.ring;
        let entry = self.map.entry(key).or_insert_with_key(|key| {
            ring.push(key.clone());
            Entry { value, at: ring.len() - 1 }
        });
        &mut entry.value
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let Entry { value, at } = self.map.remove(key)?;
        self.ring.swap_remove(at);
        if let Some(moved) = self.ring.get(at).and_then(|moved| self.map.get_mut(moved)) {
            moved.at = at;
        }
        Some(value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.map.values().map(|entry| &entry.value)
    }

    /// Removes those of the next few entries that are idle, and hands them to `dropped`.
    pub(crate) fn sweep(&mut self, looks: usize, idle: impl Fn(&V) -> bool, mut dropped: impl FnMut(V)) {
        for _ in 0..looks.min(self.ring.len()) {
            self.hand %= self.ring.len().max(1);
            let Some(key) = self.ring.get(self.hand) else { return };
            if self.map.get(key).is_some_and(|entry| idle(&entry.value)) {
                let key = key.clone();
                if let Some(value) = self.remove(&key) {
                    dropped(value);
                }
            } else {
                self.hand += 1;
            }
        }
    }
}

/// Hashes what is a hash already: multiplied, because those of one shard have some bits in common.
#[derive(Default)]
pub(super) struct Hashed(u64);

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
