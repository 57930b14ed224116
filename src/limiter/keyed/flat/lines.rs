//! Buckets of a cache line, and the two things done to a slot.

use super::word::{Id, Word};
use crate::sync::{AtomicU64, Ordering};

/// Words of a bucket: a cache line.
pub(super) const LINE: usize = 8;
pub(super) type Line = [AtomicU64; LINE];

/// All buckets.
pub(super) struct Words {
    all: Box<[AtomicU64]>,
    /// Where the first whole cache line starts.
    first: usize,
}

impl Words {
    pub(super) fn new(lines: usize) -> Self {
        let all: Box<[AtomicU64]> = (0..lines * LINE + LINE - 1).map(|_| AtomicU64::new(0)).collect();
        let past = all.as_ptr().addr() / size_of::<u64>() % LINE;
        Self { all, first: (LINE - past) % LINE }
    }

    #[inline]
    pub(super) fn line(&self, line: u64) -> &Line {
        let start = self.first + line as usize * LINE;
        self.all[start..].first_chunk().expect("lines are whole")
    }
}

/// The slot of a key in a bucket.
#[inline]
pub(super) fn find(line: &Line, id: Id) -> Option<(usize, Word)> {
    let fingerprint = id.fingerprint();
    line.iter().enumerate().skip(1).find_map(|(slot, word)| {
        let word = Word(word.load(Ordering::Acquire));
        (word.fingerprint() == fingerprint).then_some((slot, word))
    })
}

/// Writes a slot if it is still as it was.
#[inline]
pub(super) fn swap(slot: &AtomicU64, before: Word, after: Word) -> bool {
    slot.compare_exchange(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
