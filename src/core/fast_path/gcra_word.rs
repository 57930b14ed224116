use super::{FastPath, Outcome, Sealed};
use crate::algorithm::{Algorithm, Balance, Pace, Place, Step, TokenBucket};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::types::Policy;
use crate::units::Timestamp;

/// The word that says the state is behind the lock. A state that happens to be this word is moved on by one tick.
const HELD: u64 = u64::MAX;

/// The state of a token bucket in one atomic word.
///
/// | word | meaning | leaves by |
/// |---|---|---|
/// | any but `HELD` | theoretical arrival time on the circle; nobody waits | compare-exchange by anyone; swap to `HELD` under the lock |
/// | `HELD` | the state is behind the lock | store under the lock, once nobody waits |
///
/// The other fields say how the word is read. They are written only while the word is `HELD`, so a compare-exchange
/// from a word read before succeeds only if they have not been: it precedes the swap to `HELD` in the word's order,
/// and its release makes the reads before it happen before what the swap's acquire lets be written. A refusal writes
/// no word, so it looks at the word again. No word comes twice under different readings, since every change of them
/// moves the circle on.
#[derive(Debug)]
pub struct GcraWord {
    word: AtomicU64,
    anchor_ns: AtomicU64,
    anchor_ticks: AtomicU64,
    ticks_per_ns: AtomicU64,
    ticks_per_unit: AtomicU64,
    burst_ticks: AtomicU64,
}

/// What the word was, and what it is read by.
struct Sight {
    word: u64,
    pace: Pace,
    anchor: Place,
}

impl GcraWord {
    /// Reads the word, unless the state is behind the lock.
    #[inline]
    fn see(&self) -> Option<Sight> {
        // Acquire: what the word is read by was written before it was released.
        let word = self.word.load(Ordering::Acquire);
        if word == HELD {
            return None;
        }
        let pace = Pace {
            ticks_per_ns: self.ticks_per_ns.load(Ordering::Relaxed),
            ticks_per_unit: self.ticks_per_unit.load(Ordering::Relaxed),
            burst_ticks: self.burst_ticks.load(Ordering::Relaxed),
        };
        let anchor = Place {
            at_ns: self.anchor_ns.load(Ordering::Relaxed),
            ticks: self.anchor_ticks.load(Ordering::Relaxed),
        };
        Some(Sight { word, pace, anchor })
    }

    /// `true` if the word is what it was, and so were the readings it was read by.
    #[inline]
    fn is_still(&self, word: u64) -> bool {
        // Acquire: if any of the reads before saw a later value, the load below sees the later word.
        fence(Ordering::Acquire);
        self.word.load(Ordering::Relaxed) == word
    }
}

impl FastPath<TokenBucket> for GcraWord {
    fn build(_: Sealed) -> Self {
        Self {
            word: AtomicU64::new(HELD),
            anchor_ns: AtomicU64::new(0),
            anchor_ticks: AtomicU64::new(0),
            ticks_per_ns: AtomicU64::new(0),
            ticks_per_unit: AtomicU64::new(0),
            burst_ticks: AtomicU64::new(0),
        }
    }

    #[inline]
    fn try_take(&self, now: Timestamp, cost: u64, take: bool) -> Outcome {
        loop {
            let Some(Sight { word, pace, anchor }) = self.see() else { return Outcome::Contended };
            match pace.step(anchor, word, now, cost) {
                Step::Go(_) if !take => {
                    if self.is_still(word) {
                        return Outcome::Taken;
                    }
                }
                Step::Go(next) => {
                    let next = next.wrapping_add(u64::from(next == HELD));
                    let swapped = self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
                    if swapped.is_ok() {
                        return Outcome::Taken;
                    }
                }
                Step::After(ticks) => {
                    if self.is_still(word) {
                        return Outcome::WaitUntil(pace.after(now, ticks));
                    }
                }
                Step::Never | Step::Stale => return Outcome::Contended,
            }
        }
    }

    fn status(&self, now: Timestamp) -> Option<(Policy, Balance)> {
        loop {
            let Sight { word, pace, anchor } = self.see()?;
            if self.is_still(word) {
                return Some(pace.status(anchor, word, now));
            }
        }
    }

    fn close(&self, _algorithm: &TokenBucket, state: &mut <TokenBucket as Algorithm>::State) {
        state.word = self.word.swap(HELD, Ordering::AcqRel);
    }

    fn open(&self, algorithm: &TokenBucket, state: &mut <TokenBucket as Algorithm>::State) -> bool {
        // In the instant of a change, grants before and after it are told apart under the lock.
        if !state.tells_by_time() {
            return false;
        }
        // Release before the writes: whoever sees one of them also sees that the word is HELD.
        fence(Ordering::Release);
        self.anchor_ns.store(state.anchor.at_ns, Ordering::Relaxed);
        self.anchor_ticks.store(state.anchor.ticks, Ordering::Relaxed);
        self.ticks_per_ns.store(algorithm.pace.ticks_per_ns, Ordering::Relaxed);
        self.ticks_per_unit.store(algorithm.pace.ticks_per_unit, Ordering::Relaxed);
        self.burst_ticks.store(algorithm.pace.burst_ticks, Ordering::Relaxed);
        let word = state.word.wrapping_add(u64::from(state.word == HELD));
        self.word.store(word, Ordering::Release);
        true
    }
}
