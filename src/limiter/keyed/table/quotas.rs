//! The present quota of the slots, and the one before it.

use super::encoding::{Encoding, SlotQuota};
use crate::algorithm::{Pace, TokenBucket};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::units::Timestamp;

/// Two quotas; the lowest bit of the revision names the present one.
///
/// Read without a lock. A reader loads the revision, then the cell, then the revision again:
///
/// 1. A writer stores into the cell of the *next* revision only, after a release fence, and then the revision.
/// 2. So a reader that saw any part of a later write sees, after its acquire fence, a later revision, and reads again.
/// 3. A reader that finds the revision unchanged has read its cell whole.
pub(super) struct Quotas {
    revision: AtomicU64,
    two: [Cell; 2],
    changed_ns: AtomicU64,
}

/// A quota in words.
#[derive(Default)]
struct Cell {
    encoding: [AtomicU64; 4],
    bucket: [AtomicU64; 5],
}

impl Quotas {
    pub(super) fn new(quota: &SlotQuota) -> Self {
        let quotas = Self {
            revision: AtomicU64::new(0),
            two: [Cell::default(), Cell::default()],
            changed_ns: AtomicU64::new(0),
        };
        quotas.two.iter().for_each(|cell| cell.write(quota));
        quotas
    }

    fn cell(&self, revision: u32) -> &Cell {
        &self.two[revision as usize & 1]
    }

    /// The revision, and what decisions need of it. Valid if [`is_at`](Self::is_at) confirms it afterwards.
    #[inline]
    pub(super) fn encoding(&self) -> (u32, Encoding) {
        // Acquire: the cell of this revision was written before it.
        let revision = self.revision.load(Ordering::Acquire) as u32;
        (revision, self.cell(revision).encoding())
    }

    #[inline]
    pub(super) fn is_at(&self, revision: u32) -> bool {
        // Acquire before the load: see point 2 above.
        fence(Ordering::Acquire);
        self.revision.load(Ordering::Relaxed) as u32 == revision
    }

    /// The quota of a revision, whole if that is still the present one.
    pub(super) fn quota(&self, revision: u32) -> SlotQuota {
        self.cell(revision).read()
    }

    pub(super) fn starts_late(&self, revision: u32) -> bool {
        self.quota(revision).late() > 0
    }

    /// The present quota, the one before it, and when it changed.
    pub(super) fn both(&self, revision: u32) -> (SlotQuota, SlotQuota, Timestamp) {
        let changed = Timestamp::from_ns(self.changed_ns.load(Ordering::Relaxed));
        (self.quota(revision), self.quota(revision.wrapping_sub(1)), changed)
    }

    pub(super) fn is_quota(&self, quota: &SlotQuota) -> bool {
        self.quota(self.revision.load(Ordering::Acquire) as u32) == *quota
    }

    /// Makes another quota the present one. By one caller at a time, when no slot is left of the one before.
    pub(super) fn change(&self, quota: &SlotQuota, now_ns: u64) {
        let revision = self.revision.load(Ordering::Relaxed);
        // Release before the stores: see point 1 above. Nobody reads this cell but one that has slept through a change,
        // and it does not find its revision again.
        fence(Ordering::Release);
        self.changed_ns.store(now_ns, Ordering::Relaxed);
        self.cell(revision.wrapping_add(1) as u32).write(quota);
        // Release: the cell is written before.
        self.revision.store(revision.wrapping_add(1), Ordering::Release);
    }
}

// Relaxed, all of them: the revision orders them.
impl Cell {
    #[inline]
    fn encoding(&self) -> Encoding {
        let [mul, shift, unit, burst] = self.encoding.each_ref().map(|word| word.load(Ordering::Relaxed));
        Encoding { mul, shift, unit, burst }
    }

    fn read(&self) -> SlotQuota {
        let [burst, initial, ticks_per_ns, ticks_per_unit, burst_ticks] =
            self.bucket.each_ref().map(|word| word.load(Ordering::Relaxed));
        let pace = Pace { ticks_per_ns, ticks_per_unit, burst_ticks };
        SlotQuota { bucket: TokenBucket::of_parts(burst, initial, pace), encoding: self.encoding() }
    }

    fn write(&self, quota: &SlotQuota) {
        let Encoding { mul, shift, unit, burst } = quota.encoding;
        let store = |words: &[AtomicU64], values: &[u64]| {
            words.iter().zip(values).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
        };
        store(&self.encoding, &[mul, shift, unit, burst]);
        let (burst, initial, pace) = quota.bucket.parts();
        let Pace { ticks_per_ns, ticks_per_unit, burst_ticks } = pace;
        store(&self.bucket, &[burst, initial, ticks_per_ns, ticks_per_unit, burst_ticks]);
    }
}
