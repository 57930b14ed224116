//! Times that are moved on before they read as others on their circle, and slots that come under another quota.

use super::bucket::swap;
use super::encoding::SlotQuota;
use super::slot::{Head, Slot};
use super::{Id, Place, Table};
use crate::algorithm::TokenBucket;
use crate::clock::Clock;
use crate::sync::{AtomicU64, Ordering};

impl<C: Clock> Table<C> {
    /// Brings the slots of a bucket under the present quota and, if it is due, all of its times up to now.
    pub(super) fn rebase(&self, index: usize, now_ns: u64) {
        let bucket = self.buckets().get(index as u64);
        loop {
            let (revision, encoding) = self.quotas.encoding();
            let head = Head(bucket[0].load(Ordering::Acquire));
            let rebased_ns = head.rebased_ns();
            let is_due = encoding.is_due(rebased_ns, now_ns);
            let is_present = |word: &AtomicU64| {
                let slot = Slot(word.load(Ordering::Acquire));
                !slot.is_live() || slot.is_of(revision)
            };
            if !is_due && bucket[1..].iter().all(is_present) {
                return;
            }
            let (next, before, changed) = self.quotas.both(revision);
            for word in &bucket[1..] {
                let slot = Slot(word.load(Ordering::Acquire));
                if !self.is_unchanged(bucket, head, revision) {
                    break;
                }
                if !slot.is_live() {
                    continue;
                }
                let ahead = if slot.is_of(revision) {
                    encoding.ahead_of_old(rebased_ns, slot.time(), now_ns)
                } else {
                    let ahead = before.encoding.ahead_of_old(rebased_ns, slot.time(), changed.as_ns());
                    next.carried(&before, ahead, changed, now_ns)
                };
                let time = match ahead {
                    0 if is_due => encoding.expired(head.rebased(now_ns).rebased_ns()),
                    0 => encoding.expired(rebased_ns),
                    _ => encoding.time(rebased_ns, ahead, now_ns),
                };
                swap(word, slot, Slot::new(slot.fingerprint(), revision, time));
            }
            if is_due {
                // Only from the base that was read: another thread may have moved it further. AcqRel: the slots above are
                // written before.
                let _ = bucket[0].fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| {
                    Head(at).same_base(head).then_some(Head(at).rebased(now_ns).0)
                });
            }
        }
    }

    /// Goes on under another token bucket from now, if slots can say its states. `fence` is told so, and waits until nobody
    /// is left under a shard's lock that took it before. Changes must not overlap.
    pub(in crate::limiter::keyed) fn change(&self, next: &TokenBucket, fence: impl FnOnce(bool)) -> bool {
        let now_ns = self.clock.now().as_ns();
        match SlotQuota::of(next) {
            None => {
                fence(false);
                return false;
            }
            Some(quota) if self.quotas.is_quota(&quota) => fence(true),
            Some(quota) => {
                self.quotas.change(&quota, now_ns);
                // New keys are written under a lock, by the revision that is read there: after this nobody writes old
                // ones.
                fence(true);
                if self.buckets.get().is_some() {
                    (0..self.count as usize).for_each(|index| self.rebase(index, now_ns));
                }
            }
        }
        true
    }

    /// Visits an id of each live slot.
    pub(in crate::limiter::keyed) fn live_ids(&self, mut visit: impl FnMut(Id)) {
        let Some(buckets) = self.buckets.get() else { return };
        for index in 0..self.count {
            for word in &buckets.get(index)[1..] {
                let slot = Slot(word.load(Ordering::Acquire));
                if slot.is_live() {
                    visit(Id::of_slot(slot.fingerprint(), index, self.count));
                }
            }
        }
    }

    pub(super) fn word(&self, place: Place) -> &AtomicU64 {
        &self.buckets().get(place.bucket as u64)[place.slot]
    }
}
