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
//! | free | | live, or moved: a new key, under the lock of its shard |
//! | live | what the key has spent; *expired* when that is nothing | live: a grant, a settlement or a rebase, by anyone. Moved: under the lock of its shard. Once expired: another key's, or free, under the lock of a shard |
//! | moved | the state is in the map | free: the key is dropped, under the lock of its shard |
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

pub(super) use alloc::{Failed, Vacancy};
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

/// The outcome of a search and a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The units are taken, with a pin if one was asked for.
    Granted(SlotGrant),
    Denied(Decision),
    /// The key has no slot. One may have been made meanwhile: only the lock tells.
    Absent,
    /// The state of the key is in the map, or only the lock can decide.
    Moved,
}

/// What a slot granted, under this revision of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotGrant {
    pub(super) place: Place,
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
}

/// A live slot as it was read: what a compare-exchange needs to write it again.
struct Live {
    place: Place,
    slot: Slot,
    head: Head,
    revision: u32,
    encoding: Encoding,
    /// Ticks ahead of now.
    ahead: u64,
}

/// The state of a live slot: the bucket, and its backlog now.
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
    /// A table for `keys` keys of this token bucket, if slots can say its states exactly.
    pub(super) fn new(bucket: &TokenBucket, keys: usize, clock: C, name: Option<Name>) -> Option<Self> {
        let count = keys.div_ceil(KEYS_A_BUCKET).max(2) as u64;
        let quota = SlotQuota::of(bucket).filter(|_| count <= u64::from(u32::MAX))?;
        let (buckets, hand) = (OnceLock::new(), AtomicUsize::new(0));
        Some(Self { clock, name, buckets, count, quotas: Quotas::new(&quota), hand })
    }

    /// Goes on under another token bucket, if slots can say its states: see [`change_to`](Self::change_to).
    pub(super) fn change(&self, next: &TokenBucket, now: Timestamp, fence: impl FnOnce(bool)) -> bool {
        let quota = SlotQuota::of(next);
        match &quota {
            Some(quota) => self.change_to(quota, now.as_ns(), || fence(true)),
            None => fence(false),
        }
        quota.is_some()
    }

    pub(super) const fn buckets_count(&self) -> u64 {
        self.count
    }

    fn buckets(&self) -> &Buckets {
        self.buckets.get_or_init(|| Buckets::new(self.count as usize))
    }

    /// Takes `units` of a known key if they are left. Lock-free. With `pin`, the slot is kept until
    /// [`unpin`](Self::unpin).
    #[inline]
    pub(super) fn try_take(&self, id: Id, units: u64, pin: bool) -> Outcome {
        let Some(buckets) = self.buckets.get() else { return Outcome::Absent };
        loop {
            let (revision, encoding) = self.quotas.encoding();
            let Some((bucket, place, head, slot)) = self.search(buckets, id) else { return Outcome::Absent };
            if slot.is_moved() {
                return Outcome::Moved;
            }
            let now = self.clock.now();
            let rebased_ns = head.rebased_ns();
            if encoding.is_due(rebased_ns, now.as_ns()) || !slot.is_of(revision) {
                self.rebase(place.bucket, now.as_ns());
                continue;
            }
            let ahead = encoding.ahead(rebased_ns, slot.time(), now.as_ns());
            let decision = encoding.decide(ahead, now.as_ns(), units);
            if !self.is_unchanged(bucket, head, revision) {
                continue;
            }
            let Decision::Grant(ahead) = decision else { return Outcome::Denied(decision) };
            let granted = Outcome::Granted(SlotGrant { place, revision, at: now });
            if units == 0 && !pin {
                return granted;
            }
            if pin && !self.pin(place) {
                return Outcome::Moved;
            }
            let time = encoding.time(rebased_ns, ahead, now.as_ns());
            if swap(&bucket[place.slot], slot, Slot::new(slot.fingerprint(), revision, time)) {
                return granted;
            }
            if pin {
                self.unpin(place);
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

    /// The live slot of a key, rebased if it was due.
    fn live(&self, id: Id, now_ns: u64) -> Option<Live> {
        let buckets = self.buckets.get()?;
        loop {
            let (revision, encoding) = self.quotas.encoding();
            let (bucket, place, head, slot) = self.search(buckets, id)?;
            if slot.is_moved() {
                return None;
            }
            if encoding.is_due(head.rebased_ns(), now_ns) || !slot.is_of(revision) {
                self.rebase(place.bucket, now_ns);
                continue;
            }
            let ahead = encoding.ahead(head.rebased_ns(), slot.time(), now_ns);
            if self.is_unchanged(bucket, head, revision) {
                return Some(Live { place, slot, head, revision, encoding, ahead });
            }
        }
    }

    /// The state of a known key. Lock-free.
    fn spent(&self, id: Id) -> Option<Spent> {
        loop {
            let now = self.clock.now();
            let live = self.live(id, now.as_ns())?;
            let spent = self.spent_of(&live, now);
            // Otherwise the bucket may have been read in parts.
            if self.quotas.is_at(live.revision) {
                return Some(spent);
            }
        }
    }

    fn spent_of(&self, live: &Live, now: Timestamp) -> Spent {
        let Live { place, revision, ahead, .. } = *live;
        let quota = self.quotas.quota(revision);
        Spent { bucket: quota.bucket, backlog: quota.backlog(ahead), now, revision, place }
    }

    /// Changes the state of a known key by `act`. Lock-free. `false`: the key has no live slot, or would owe, which a slot
    /// cannot say.
    fn alter(&self, id: Id, act: impl Fn(&TokenBucket, &mut BucketState, Timestamp, u32)) -> bool {
        loop {
            let now = self.clock.now();
            let Some(live) = self.live(id, now.as_ns()) else { return false };
            let quota = self.quotas.quota(live.revision);
            if !self.quotas.is_at(live.revision) {
                continue;
            }
            let mut state = quota.bucket.resume(now, quota.backlog(live.ahead));
            act(&quota.bucket, &mut state, now, live.revision);
            let Some(ahead) = quota.ahead_of(quota.bucket.backlog(&state, now)) else { return false };
            let time = live.encoding.time(live.head.rebased_ns(), ahead, now.as_ns());
            let next = Slot::new(live.slot.fingerprint(), live.revision, time);
            if swap(self.word(live.place), live.slot, next) {
                return true;
            }
        }
    }

    /// Marks the slot of a key and returns its state, which goes to the map. Under the lock of its shard.
    pub(super) fn move_out(&self, id: Id) -> Option<Spent> {
        loop {
            let now = self.clock.now();
            let live = self.live(id, now.as_ns())?;
            let spent = self.spent_of(&live, now);
            let is_whole = self.quotas.is_at(live.revision);
            if is_whole && swap(self.word(live.place), live.slot, Slot::moved(live.slot.fingerprint())) {
                return Some(spent);
            }
        }
    }

    pub(super) fn revision(&self) -> u32 {
        self.quotas.encoding().0
    }
}

impl<C: Clock> Table<C> {
    /// The denial of a decision.
    #[inline]
    pub(super) fn denied(&self, decision: Decision) -> Denied {
        let name = self.name.clone();
        match decision {
            Decision::Wait(wait_ns) => Denied::exhausted(wait_ns, name),
            Decision::Grant(_) | Decision::TooLarge => Denied::new(Reason::ExceedsCapacity).by(name),
        }
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
        match self.try_take(id, units, keep) {
            Outcome::Granted(grant) => Taken::Granted(grant),
            Outcome::Denied(decision) => Taken::Denied(self.denied(decision)),
            Outcome::Absent | Outcome::Moved => Taken::Elsewhere,
        }
    }

    fn peek(&self, id: Id, units: u64) -> Option<Result<(), Denied>> {
        let now_ns = self.clock.now().as_ns();
        let live = self.live(id, now_ns)?;
        Some(match live.encoding.decide(live.ahead, now_ns, units) {
            Decision::Grant(_) => Ok(()),
            decision => Err(self.denied(decision)),
        })
    }

    fn snapshot(&self, id: Id) -> Option<Snapshot> {
        let spent = self.spent(id)?;
        let Balance { remaining, debt, full, .. } = spent.bucket.balance(&mut spent.state(), spent.now);
        let reset_after = match full {
            When::At(at) => Some(at.since(spent.now)),
            When::Never => None,
        };
        let capacity = spent.bucket.capacity();
        Some(Snapshot { capacity, remaining, debt, reset_after, waiting: 0, waiting_units: 0 })
    }

    fn status(&self, id: Id, visit: &mut dyn FnMut(&LimitStatus)) -> bool {
        let Some(spent) = self.spent(id) else { return false };
        Statuses::of(&spent.bucket, &mut spent.state(), spent.now).tell(self.name.as_ref(), visit);
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
