//! Slots for new keys: found, written, marked and pinned. All but pins under the lock of the key's shard.

use super::bucket::{Bucket, swap};
use super::encoding::{Decision, Encoding};
use super::slot::{Head, Slot};
use super::{Id, Place, SlotGrant, Table};
use crate::clock::Clock;
use crate::sync::Ordering;
use crate::types::Denied;
use crate::units::Timestamp;

/// A slot that a new key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limiter::keyed) enum Vacancy {
    /// This slot is free: one key more.
    Free(Place),
    /// The state of the key in this one equals a fresh one: it is replaced.
    Expired(Place, u64),
}

impl Vacancy {
    const fn slot(self) -> (Place, Slot) {
        match self {
            Self::Free(place) => (place, Slot::FREE),
            Self::Expired(place, slot) => (place, Slot(slot)),
        }
    }
}

impl<C: Clock> Table<C> {
    /// A slot for a key that has none: a free one, or where `full` one of another key first. `None`: all are live.
    pub(in crate::limiter::keyed) fn vacancy(&self, id: Id, now_ns: u64, full: bool) -> Option<Vacancy> {
        let (first, second) = id.buckets(self.count);
        let [(one, one_left), (two, two_left)] =
            [first, second].map(|index| self.vacancy_in(index as usize, now_ns, full));
        // The first bucket as long as it has room to spare, so that most searches end there; then the emptier one.
        match (one, two) {
            (Some(Vacancy::Free(_)), Some(Vacancy::Expired(..))) if full => two,
            (Some(Vacancy::Expired(..)), Some(Vacancy::Free(_))) if !full => two,
            (None, two) => two,
            (one, None) => one,
            (one, _) if one_left > 2 || one_left >= two_left => one,
            (_, two) => two,
        }
    }

    /// A vacancy in one bucket, and the number of them.
    fn vacancy_in(&self, index: usize, now_ns: u64, full: bool) -> (Option<Vacancy>, usize) {
        self.rebase(index, now_ns);
        let bucket = self.buckets().get(index as u64);
        let (revision, encoding) = self.quotas.encoding();
        let head = Head(bucket[0].load(Ordering::Acquire));
        let keeps = head.is_pinned() || self.quotas.starts_late(revision);
        let (mut free, mut expired, mut left) = (None, None, 0);
        for (slot, word) in bucket.iter().enumerate().skip(1) {
            let word = Slot(word.load(Ordering::Acquire));
            let place = Place { bucket: index, slot };
            if word.is_free() {
                left += 1;
                free = free.or(Some(Vacancy::Free(place)));
            } else if !keeps && is_expired(word, head, revision, encoding, now_ns) {
                left += 1;
                expired = expired.or(Some(Vacancy::Expired(place, word.0)));
            }
        }
        let vacancy = if full { expired.or(free) } else { free.or(expired) };
        if self.is_unchanged(bucket, head, revision) { (vacancy, left) } else { (None, 0) }
    }

    /// Marks a slot found for a new key.
    pub(in crate::limiter::keyed) fn mark(&self, id: Id, vacancy: Vacancy) -> Option<Place> {
        let (place, before) = vacancy.slot();
        swap(self.word(place), before, Slot::moved(id.fingerprint())).then_some(place)
    }

    /// Decides about `units` of a new key.
    pub(in crate::limiter::keyed) fn peek_new(&self, now: Timestamp, units: u64) -> Result<(), Denied> {
        match self.start(now, units).2 {
            Decision::Grant(_) => Ok(()),
            denied => Err(self.denied(denied)),
        }
    }

    /// The quota, and the decision about `units` of a new key.
    fn start(&self, now: Timestamp, units: u64) -> (u32, Encoding, Decision) {
        loop {
            let (revision, encoding) = self.quotas.encoding();
            let late = self.quotas.quota(revision).late();
            if self.quotas.is_at(revision) {
                return (revision, encoding, encoding.decide(late, now.as_ns(), units));
            }
        }
    }

    /// Makes a slot for a new key in place of its mark, and takes `units` of it. `None`: its state must be in the map.
    pub(in crate::limiter::keyed) fn insert(
        &self,
        id: Id,
        place: Place,
        now: Timestamp,
        units: u64,
        keep: bool,
    ) -> Option<SlotGrant> {
        let (revision, encoding, decision) = self.start(now, units);
        let Decision::Grant(ahead) = decision else { return None };
        if keep && !self.pin(place) {
            return None;
        }
        let head = &self.buckets().get(place.bucket as u64)[0];
        while encoding.is_due(Head(head.load(Ordering::Acquire)).rebased_ns(), now.as_ns()) {
            self.rebase(place.bucket, now.as_ns());
        }
        let head = Head(head.load(Ordering::Acquire));
        let slot =
            Slot::new(id.fingerprint(), revision, encoding.time(head.rebased_ns(), ahead, now.as_ns()));
        // A store: nobody else writes a mark. If the quota has changed meanwhile, the change waits for this lock and then
        // rewrites the slot.
        self.word(place).store(slot.0, Ordering::Release);
        Some(SlotGrant { place, revision, at: now })
    }

    /// Frees a mark: its key is dropped.
    pub(in crate::limiter::keyed) fn unmark(&self, place: Place) {
        // A store: nobody else writes a mark.
        self.word(place).store(Slot::FREE.0, Ordering::Release);
    }

    /// Keeps the slots of a bucket from being dropped. `false`: a bucket has so many pins and no more.
    pub(super) fn pin(&self, place: Place) -> bool {
        let head = &self.buckets().get(place.bucket as u64)[0];
        if !Head(head.load(Ordering::Relaxed)).may_pin() {
            return false;
        }
        // Before the compare-exchange of the slot: whoever finds the slot as it was before it has seen no pin, and
        // whoever finds it as it is after it sees this one.
        let before = Head(head.fetch_add(Head::PIN, Ordering::AcqRel));
        debug_assert!(before.may_pin(), "threads are fewer than pins");
        true
    }

    pub(in crate::limiter::keyed) fn unpin(&self, place: Place) {
        // AcqRel: a settlement before it is seen by whoever drops the key after it.
        self.buckets().get(place.bucket as u64)[0].fetch_sub(Head::PIN, Ordering::AcqRel);
    }

    /// Permits of keys of this bucket are out.
    pub(in crate::limiter::keyed) fn is_pinned(&self, place: Place) -> bool {
        Head(self.buckets().get(place.bucket as u64)[0].load(Ordering::Acquire)).is_pinned()
    }

    /// Drops a few expired slots, the next ones round and round. Returns the number of them.
    pub(in crate::limiter::keyed) fn sweep(&self, buckets: usize, now_ns: u64) -> usize {
        let Some(all) = self.buckets.get() else { return 0 };
        (0..buckets.min(self.count as usize))
            .map(|_| {
                // Relaxed: the hand orders nothing.
                let index = self.hand.fetch_add(1, Ordering::Relaxed) % self.count as usize;
                self.rebase(index, now_ns);
                self.drop_expired(all.get(index as u64), now_ns)
            })
            .sum()
    }

    fn drop_expired(&self, bucket: &Bucket, now_ns: u64) -> usize {
        let (revision, encoding) = self.quotas.encoding();
        let head = Head(bucket[0].load(Ordering::Acquire));
        if head.is_pinned() || self.quotas.starts_late(revision) {
            return 0;
        }
        let is_dropped = |word: &&crate::sync::AtomicU64| {
            let slot = Slot(word.load(Ordering::Acquire));
            is_expired(slot, head, revision, encoding, now_ns)
                && self.is_unchanged(bucket, head, revision)
                && swap(word, slot, Slot::FREE)
        };
        bucket[1..].iter().filter(is_dropped).count()
    }
}

fn is_expired(slot: Slot, head: Head, revision: u32, encoding: Encoding, now_ns: u64) -> bool {
    slot.is_live() && slot.is_of(revision) && encoding.ahead(head.rebased_ns(), slot.time(), now_ns) == 0
}
