use crate::limiter::stripes::{Padded, own};
use crate::sync::{AtomicU64, Ordering};

/// The word that says the count is behind the lock.
const HELD: u64 = u64::MAX;

/// Free slots, in a few atomic words on lines of their own; all of them `HELD` while somebody waits.
///
/// A thread takes from the word it calls its own and puts back there, so that threads do not meet; where there are too
/// few it takes from another's. Too few in each word is no refusal: only the lock, under which all words are held, tells
/// what is free in all. How many slots there are is not needed to decide, so a resize leaves nothing stale to decide by.
#[derive(Debug)]
pub(crate) struct FreeSlots(Box<[Padded<AtomicU64>]>);

impl FreeSlots {
    /// So many words, a power of two.
    pub(super) fn held(stripes: usize) -> Self {
        Self((0..stripes).map(|_| Padded(AtomicU64::new(HELD))).collect())
    }

    #[inline]
    pub(super) fn take(&self, units: u64) -> bool {
        let taken = |word: &Padded<AtomicU64>| update(&word.0, |free| free.checked_sub(units));
        let own = own(&self.0);
        taken(&self.0[own]) || (1..self.0.len()).any(|next| taken(&self.0[(own + next) & (self.0.len() - 1)]))
    }

    #[inline]
    pub(super) fn put_back(&self, units: u64) -> bool {
        update(&self.0[own(&self.0)].0, |free| Some(free + units))
    }

    /// Takes all words behind the lock, and what is free with them.
    pub(super) fn hold(&self) -> u64 {
        self.0.iter().map(|word| word.0.swap(HELD, Ordering::AcqRel)).sum()
    }

    /// Spreads what is free over the words.
    pub(super) fn open(&self, free: u64) {
        let words = self.0.len() as u64;
        for (nth, word) in (0..).zip(&self.0) {
            word.0.store(free / words + u64::from(nth < free % words), Ordering::Release);
        }
    }
}

#[inline]
fn update(word: &AtomicU64, next: impl Fn(u64) -> Option<u64>) -> bool {
    let mut free = word.load(Ordering::Relaxed);
    loop {
        if free == HELD {
            return false;
        }
        let Some(next) = next(free) else { return false };
        // Acquire and release: what was done under a slot happens before what is done under it next.
        match word.compare_exchange_weak(free, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => free = now,
        }
    }
}
