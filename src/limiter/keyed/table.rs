//! The states of keys that only spend, one word each: decisions about known keys take no lock.
//!
//! * [`slot`] packs words; [`bucket`] is a cache line of them; [`encoding`] is the arithmetic of a time.
//! * [`quotas`] is the quota that all slots are under; [`rebase`] brings slots under it and keeps their times apart.
//! * [`alloc`] finds and writes slots for new keys, pins them while permits are out, and drops expired ones.
//!
//! A bucket is a head and seven slots. A key is in one of two buckets, found by its hash alone. A decision about a known
//! key reads one or two cache lines and does one compare-exchange.
//!
//! | slot | meaning | becomes |
//! |---|---|---|
//! | free | | moved: a new key, under the lock of its shard |
//! | live | what the key has spent; *expired* when that is nothing | live: a grant, a settlement or a rebase, by anyone. Moved: under the lock of its shard. Once expired: another key's mark, or free, under the lock of a shard |
//! | moved | a mark: the state is in the map | live: a new key is made. Free: the key is dropped. Both under the lock of its shard |
//!
//! Why it is correct:
//!
//! 1. *A key has one state.* Only the holder of its shard's lock makes a slot for it, after it found none. Keys that
//!    share a fingerprint and two buckets share the slot, and the shard. A state goes to the map once and does not come
//!    back, so whoever searches the table first and then the map misses none.
//! 2. *No update is lost.* All writes to a live slot are compare-exchanges of the whole word.
//! 3. *A time is read under the quota it was written under.* The slot has the lowest bit of the quota's revision. A change
//!    writes the quota, then the revision, waits for all shards' locks, and rewrites every old slot before it ends; the
//!    next change begins after that. So the bit names one of two quotas, and no word of the one before the last is left.
//! 4. *A time is not mistaken for another on its circle.* The head says when the bucket was last rebased. A bucket that was
//!    left alone for a sixteenth of the circle is rebased before its times are read. The head is read before and after
//!    the slot: if it is the same, the time was written under it. A writer that was held up for longer fails its
//!    compare-exchange, because the rebase has rewritten the slot.
//! 5. *A key is not dropped while a permit of it is out.* The pin is counted before the compare-exchange that grants.
//!    Whoever drops a slot reads the pins before its own compare-exchange, which succeeds only if the grant came later;
//!    that grant then fails and finds the slot gone.

mod alloc;
mod bucket;
mod encoding;
mod quotas;
mod rebase;
mod slot;
#[cfg(all(test, not(tollgate_loom)))]
mod tests;

pub(super) use alloc::Vacancy;
pub(super) use slot::Id;

use super::store::{Store, Taken};
use super::tiers::Tier;
use crate::algorithm::{Algorithm, Balance, Grant, TokenBucket, When};
use crate::clock::Clock;
use crate::limiter::rate::Statuses;
use crate::sync::{AtomicUsize, OnceLock, Ordering};
use crate::types::{Denied, LimitStatus, Reason, Snapshot};
use crate::units::{Name, Timestamp};
use bucket::{Bucket, Buckets, find, swap};
use encoding::{Decision, Encoding, SlotQuota};
use quotas::Quotas;
use slot::{Head, Slot};

/// Keys to a bucket: with seven slots to four keys, two buckets are enough for all but a few keys in a hundred million.
const KEYS_A_BUCKET: usize = 4;

pub(super) type BucketState = <TokenBucket as Algorithm>::State;

/// The table.
pub(super) struct Table<C> {
    clock: C,
    name: Option<Name>,
    /// Made when the first key comes.
    buckets: OnceLock<Buckets>,
    count: u64,
    quotas: Quotas,
    hand: AtomicUsize,
}

/// The position of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    bucket: usize,
    slot: usize,
}

/// What a slot granted, under this revision of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotGrant {
    place: Place,
    revision: u32,
    at: Timestamp,
}

impl SlotGrant {
    pub(super) const fn of_units(&self, units: u64) -> Grant {
        Grant::new(self.at, units)
    }

    pub(super) const fn revision(&self) -> u32 {
        self.revision
    }

    pub(super) const fn place(&self) -> Place {
        self.place
    }
}

/// A live slot as it was read: what a compare-exchange needs to write it again.
struct Live<'a> {
    bucket: &'a Bucket,
    place: Place,
    slot: Slot,
    head: Head,
    revision: u32,
    encoding: Encoding,
    now: Timestamp,
    /// Ticks ahead of now.
    ahead: u64,
}

impl Live<'_> {
    /// Writes the slot again, so far ahead of now, if it is still as it was.
    #[inline]
    fn write(&self, ahead: u64) -> bool {
        let time = self.encoding.time(self.head.rebased_ns(), ahead, self.now.as_ns());
        self.swap(Slot::new(self.slot.fingerprint(), self.revision, time))
    }

    #[inline]
    fn swap(&self, next: Slot) -> bool {
        swap(&self.bucket[self.place.slot], self.slot, next)
    }
}

/// The state of a live slot: the token bucket, and its backlog now.
pub(crate) struct Spent {
    pub(super) bucket: TokenBucket,
    backlog: u64,
    pub(super) now: Timestamp,
    pub(super) revision: u32,
    pub(super) place: Place,
}

impl Spent {
    pub(super) fn state(&self) -> BucketState {
        self.bucket.resume(self.now, self.backlog)
    }
}

impl<C: Clock> Table<C> {
    /// A table for `keys` keys of this token bucket, if slots can say its states.
    pub(super) fn new(bucket: &TokenBucket, keys: usize, clock: C, name: Option<Name>) -> Option<Self> {
        let count = keys.div_ceil(KEYS_A_BUCKET).max(2) as u64;
        let quota = SlotQuota::of(bucket).filter(|_| count <= u64::from(u32::MAX))?;
        let (buckets, hand) = (OnceLock::new(), AtomicUsize::new(0));
        Some(Self { clock, name, buckets, count, quotas: Quotas::new(&quota), hand })
    }

    pub(super) const fn buckets_count(&self) -> u64 {
        self.count
    }

    pub(super) fn revision(&self) -> u32 {
        self.quotas.encoding().0
    }

    fn buckets(&self) -> &Buckets {
        self.buckets.get_or_init(|| Buckets::new(self.count as usize))
    }

    /// The slot of a key, if it is live, rebased if it was due. Lock-free.
    #[inline]
    fn live(&self, id: Id) -> Option<Live<'_>> {
        let buckets = self.buckets.get()?;
        loop {
            let (revision, encoding) = self.quotas.encoding();
            let (bucket, place, head, slot) = self.search(buckets, id)?;
            if slot.is_moved() {
                return None;
            }
            let now = self.clock.now();
            let rebased_ns = head.rebased_ns();
            if encoding.is_due(rebased_ns, now.as_ns()) || !slot.is_of(revision) {
                self.rebase(place.bucket, now.as_ns());
                continue;
            }
            let ahead = encoding.ahead(rebased_ns, slot.time(), now.as_ns());
            if self.is_unchanged(bucket, head, revision) {
                return Some(Live { bucket, place, slot, head, revision, encoding, now, ahead });
            }
        }
    }

    #[inline]
    fn search<'a>(&self, buckets: &'a Buckets, id: Id) -> Option<(&'a Bucket, Place, Head, Slot)> {
        let search_in = |index: u64| {
            let bucket = buckets.get(index);
            // Acquire: the slot is read after it.
            let head = Head(bucket[0].load(Ordering::Acquire));
            let (slot, word) = find(bucket, id)?;
            Some((bucket, Place { bucket: index as usize, slot }, head, word))
        };
        search_in(id.first(self.count)).or_else(|| search_in(id.buckets(self.count).1))
    }

    /// Neither has the bucket been rebased since the head was read, nor has the quota changed.
    #[inline]
    fn is_unchanged(&self, bucket: &Bucket, head: Head, revision: u32) -> bool {
        head.same_base(Head(bucket[0].load(Ordering::Acquire))) && self.quotas.is_at(revision)
    }

    /// The slot of a key, if it is live, and the whole quota that it is under. Lock-free.
    fn known(&self, id: Id) -> Option<(Live<'_>, SlotQuota)> {
        loop {
            let live = self.live(id)?;
            let quota = self.quotas.quota(live.revision);
            if self.quotas.is_at(live.revision) {
                return Some((live, quota));
            }
        }
    }

    /// Marks the slot of a key and returns its state, which goes to the map. Under the lock of its shard.
    pub(super) fn move_out(&self, id: Id) -> Option<Spent> {
        loop {
            let (live, quota) = self.known(id)?;
            if live.swap(Slot::moved(live.slot.fingerprint())) {
                return Some(Spent::new(&live, &quota));
            }
        }
    }

    /// Changes the state of a known key by `act`. Lock-free. `false`: the key has no live slot, or would owe, which a slot
    /// cannot say.
    fn alter(&self, id: Id, act: impl Fn(&TokenBucket, &mut BucketState, Timestamp, u32)) -> bool {
        loop {
            let Some((live, quota)) = self.known(id) else { return false };
            let mut state = Spent::new(&live, &quota).state();
            act(&quota.bucket, &mut state, live.now, live.revision);
            let Some(ahead) = quota.ahead_of(quota.bucket.backlog(&state, live.now)) else { return false };
            if live.write(ahead) {
                return true;
            }
        }
    }

    #[inline]
    fn denied(&self, decision: Decision) -> Denied {
        let name = self.name.clone();
        match decision {
            Decision::Wait(wait_ns) => Denied::exhausted(wait_ns, name),
            Decision::Grant(_) | Decision::TooLarge => Denied::new(Reason::ExceedsCapacity).by(name),
        }
    }
}

impl Spent {
    fn new(live: &Live<'_>, quota: &SlotQuota) -> Self {
        let (bucket, backlog) = (quota.bucket, quota.backlog(live.ahead));
        Self { bucket, backlog, now: live.now, revision: live.revision, place: live.place }
    }
}

impl<C: Clock> Store for Table<C> {
    type Grant = SlotGrant;

    // Always inlined, so that a denial is built where it is returned.
    #[inline(always)]
    fn take(&self, id: Id, tier: Tier, units: u64, keep: bool) -> Taken<SlotGrant> {
        if tier != Tier::DEFAULT {
            return Taken::Elsewhere;
        }
        loop {
            let Some(live) = self.live(id) else { return Taken::Elsewhere };
            let ahead = match live.encoding.decide(live.ahead, live.now.as_ns(), units) {
                Decision::Grant(ahead) => ahead,
                decision => return Taken::Denied(self.denied(decision)),
            };
            if keep && !self.pin(live.place) {
                return Taken::Elsewhere;
            }
            if units == 0 && !keep || live.write(ahead) {
                let Live { place, revision, now, .. } = live;
                return Taken::Granted(SlotGrant { place, revision, at: now });
            }
            if keep {
                self.unpin(live.place);
            }
        }
    }

    fn peek(&self, id: Id, units: u64) -> Option<Result<(), Denied>> {
        let live = self.live(id)?;
        Some(match live.encoding.decide(live.ahead, live.now.as_ns(), units) {
            Decision::Grant(_) => Ok(()),
            decision => Err(self.denied(decision)),
        })
    }

    fn snapshot(&self, id: Id) -> Option<Snapshot> {
        let (live, quota) = self.known(id)?;
        let mut state = Spent::new(&live, &quota).state();
        let Balance { remaining, debt, full, .. } = quota.bucket.balance(&mut state, live.now);
        let reset_after = match full {
            When::At(at) => Some(at.since(live.now)),
            When::Never => None,
        };
        let capacity = quota.bucket.capacity();
        Some(Snapshot { capacity, remaining, debt, reset_after, waiting: 0, waiting_units: 0 })
    }

    fn status(&self, id: Id, visit: &mut dyn FnMut(&LimitStatus)) -> bool {
        let Some((live, quota)) = self.known(id) else { return false };
        let mut state = Spent::new(&live, &quota).state();
        Statuses::of(&quota.bucket, &mut state, live.now).tell(self.name.as_ref(), visit);
        true
    }

    fn charge(&self, id: Id, units: u64) -> bool {
        self.alter(id, |bucket, state, now, _| bucket.force(state, now, units))
    }

    fn give_back(&self, id: Id, slot: SlotGrant, grant: Grant, units: u64) -> bool {
        // Of a grant from before a change of quota a slot does not know what is left.
        self.alter(id, |bucket, state, now, revision| {
            if revision == slot.revision {
                bucket.give_back(state, now, grant, units);
            }
        })
    }
}
