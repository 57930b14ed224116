//! Buckets of one cache line, and the two things done to a slot: find and swap.

use super::slot::{Id, Slot};
use crate::sync::{AtomicU64, Ordering};

/// Words of a bucket, a cache line: a head and seven slots.
pub(super) const WORDS: usize = 8;
pub(super) type Bucket = [AtomicU64; WORDS];

/// All buckets.
pub(super) struct Buckets {
    words: Box<[AtomicU64]>,
    /// The start of the first whole cache line.
    first: usize,
}

impl Buckets {
    pub(super) fn new(count: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..count * WORDS + WORDS - 1).map(|_| AtomicU64::new(0)).collect();
        let past = words.as_ptr().addr() / size_of::<u64>() % WORDS;
        Self { words, first: (WORDS - past) % WORDS }
    }

    #[inline]
    pub(super) fn get(&self, index: u64) -> &Bucket {
        let start = self.first + index as usize * WORDS;
        self.words[start..].first_chunk().expect("buckets are whole")
    }
}

/// The slot of a key in a bucket, live or moved.
// All slots are compared, without a branch for each: which of them matches cannot be predicted.
#[inline]
pub(super) fn find(bucket: &Bucket, id: Id) -> Option<(usize, Slot)> {
    let fingerprint = id.fingerprint();
    let mut matching = 0_u32;
    for (index, word) in bucket.iter().enumerate().skip(1) {
        // Relaxed: the slot is read again.
        let slot = Slot(word.load(Ordering::Relaxed));
        matching |= u32::from(slot.fingerprint() == fingerprint) << index;
    }
    let index = matching.trailing_zeros() as usize;
    // Acquire: the head and the revision are read again after it.
    let slot = Slot(bucket.get(index)?.load(Ordering::Acquire));
    (slot.fingerprint() == fingerprint).then_some((index, slot))
}

/// Writes a slot if it is still as it was.
// AcqRel: what the writer has read before (a pin, the revision) is seen by whoever reads the slot. Relaxed on failure: the
// caller reads the slot again.
#[inline]
pub(super) fn swap(word: &AtomicU64, before: Slot, after: Slot) -> bool {
    word.compare_exchange(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
