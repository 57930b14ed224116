//! Room for new keys: keys are dropped whose state equals a fresh one.

use super::keys::Keys;
use super::map::{Entry, Shard};
use super::store::KeyLimiter;
use crate::clock::Clock;

/// The limiters that a new key looks at to find fresh ones, once half of the room is taken, and at the cap: in its own
/// shard, and in each of a few others.
const LOOKS: usize = 2;
const LOOKS_AT_CAP: usize = 64;
const LOOKS_ELSEWHERE: usize = 8;
const SHARDS_LOOKED_AT: usize = 8;
/// The buckets of slots, at the cap. Below it, expired slots are in nobody's way.
const BUCKETS_AT_CAP: usize = 16;

impl<L: KeyLimiter> Keys<L> {
    pub(super) fn is_fresh(&self, entry: &Entry<L>) -> bool {
        let is_pinned =
            entry.mark.zip(self.table.as_ref()).is_some_and(|(mark, table)| table.is_pinned(mark));
        !is_pinned && entry.limiter.is_fresh()
    }

    /// A limiter was removed: its mark goes, and its room is free.
    pub(super) fn dropped(&self, entry: &Entry<L>) {
        if let Some((mark, table)) = entry.mark.zip(self.table.as_ref()) {
            table.unmark(mark);
        }
        self.room.give_back(1);
        self.room.count_evicted(1);
    }

    fn sweep(&self, shard: &mut Shard<L>, looks: usize) {
        shard.limiters.sweep(looks, |entry| self.is_fresh(entry), |entry| self.dropped(&entry));
    }

    /// Drops the expired slots of the next few buckets.
    pub(super) fn sweep_slots(&self, buckets: usize) {
        if let Some(table) = &self.table {
            let dropped = table.sweep(buckets, self.clock().now().as_ns());
            self.room.give_back(dropped);
            self.room.count_evicted(dropped);
        }
    }

    /// Takes room for a new key, with what can be dropped for it.
    pub(super) fn make_room(&self, shard: &mut Shard<L>) -> bool {
        if self.room.is_half_full() {
            self.sweep(shard, LOOKS);
        }
        self.room.take() || self.make_room_at_cap(shard)
    }

    #[cold]
    #[inline(never)]
    fn make_room_at_cap(&self, shard: &mut Shard<L>) -> bool {
        self.sweep(shard, LOOKS_AT_CAP);
        self.sweep_slots(BUCKETS_AT_CAP);
        if self.room.take() {
            return true;
        }
        // Whoever holds another shard may be looking at this one: no waiting.
        let start = self.room.stats().refused as usize;
        let shards = self.map.shards();
        for index in 0..SHARDS_LOOKED_AT.min(shards.len()) {
            if let Some(mut other) = shards[(start + index) % shards.len()].try_lock() {
                self.sweep(&mut other, LOOKS_ELSEWHERE);
            }
        }
        self.room.take()
    }
}
