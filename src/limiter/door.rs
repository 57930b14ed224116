//! Where a state lives: behind the line's lock, or in a word that needs no lock while nobody waits.

use std::fmt;

use crate::algorithm::{
    Algorithm, Any, FixedWindow, Joint, Pace, Place, SlidingCounter, SlidingWindow, Step, TokenBucket,
};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::units::Timestamp;

/// Says where a limiter over this algorithm keeps the state. For an algorithm of your own:
/// `impl Stored for Mine { type Door = Locked; }`.
pub trait Stored: Algorithm {
    /// The way in.
    type Door: Door<Self>;

    /// The token bucket it is, whose states keyed limits keep in a word.
    #[doc(hidden)]
    fn flat(_: Sealed, _algorithm: &Self) -> Option<Flattened<Self>> {
        None
    }
}

/// How states of an algorithm that is a token bucket are those of that.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, unnameable_types, reason = "hidden")]
pub struct Flattened<A: Algorithm> {
    pub(super) bucket: TokenBucket,
    pub(super) algorithm: fn(TokenBucket) -> A,
    pub(super) pack: fn(<TokenBucket as Algorithm>::State) -> A::State,
    pub(super) unpack: fn(&A::State) -> <TokenBucket as Algorithm>::State,
}

/// A way in without the lock. Sealed: [`Locked`] fits every algorithm.
pub trait Door<A: Algorithm>: Send + Sync + fmt::Debug + 'static {
    #[doc(hidden)]
    fn build(sealed: Sealed) -> Self;
    #[doc(hidden)]
    fn look(&self, now: Timestamp, cost: u64) -> Glance;
    /// When `cost` could go, if that is known and after `horizon`. Takes nothing.
    #[doc(hidden)]
    #[inline]
    fn not_by(&self, _horizon: Timestamp, _cost: u64) -> Option<Timestamp> {
        None
    }
    /// Shuts the door and moves what was behind it into `state`.
    #[doc(hidden)]
    fn shut(&self, algorithm: &A, state: &mut A::State);
    /// Moves `state` behind the door and opens it, if it can be looked at there.
    #[doc(hidden)]
    fn open(&self, algorithm: &A, state: &A::State) -> bool;
}

/// What a look through the door says.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, unnameable_types, reason = "hidden")]
pub enum Glance {
    /// Taken.
    Go,
    /// Not before.
    At(Timestamp),
    /// Only the lock can tell.
    Shut,
}

#[doc(hidden)]
#[derive(Debug)]
#[allow(clippy::exhaustive_structs, unnameable_types, reason = "hidden")]
pub struct Sealed(pub(super) ());

/// Always through the lock.
#[derive(Debug)]
#[non_exhaustive]
pub struct Locked;

impl<A: Algorithm> Door<A> for Locked {
    fn build(_: Sealed) -> Self {
        Self
    }
    #[inline]
    fn look(&self, _now: Timestamp, _cost: u64) -> Glance {
        Glance::Shut
    }
    fn shut(&self, _algorithm: &A, _state: &mut A::State) {}
    fn open(&self, _algorithm: &A, _state: &A::State) -> bool {
        true
    }
}

impl Stored for SlidingWindow {
    type Door = Locked;
}
impl Stored for SlidingCounter {
    type Door = Locked;
}
impl Stored for FixedWindow {
    type Door = Locked;
}
impl Stored for Any {
    type Door = Locked;
}
impl<A: Algorithm> Stored for Joint<A> {
    type Door = Locked;
}
impl Stored for TokenBucket {
    type Door = Word;

    fn flat(_: Sealed, algorithm: &Self) -> Option<Flattened<Self>> {
        let (pack, unpack) = (|state| state, |state: &_| *state);
        Some(Flattened { bucket: *algorithm, algorithm: |bucket| bucket, pack, unpack })
    }
}

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
pub struct Word {
    word: AtomicU64,
    anchor_ns: AtomicU64,
    anchor_ticks: AtomicU64,
    ticks_per_ns: AtomicU64,
    ticks_per_unit: AtomicU64,
    burst_ticks: AtomicU64,
}

/// What one look at the word has shown.
struct Sight {
    word: u64,
    pace: Pace,
    step: Step,
}

impl Word {
    /// Reads the word and what it says, unless the state is behind the lock.
    #[inline]
    fn see(&self, now: Timestamp, cost: u64) -> Option<Sight> {
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
        Some(Sight { word, pace, step: pace.step(anchor, word, now, cost) })
    }

    /// Whether the word is what it was, and so were the readings it was read by.
    #[inline]
    fn is_still(&self, word: u64) -> bool {
        // Acquire: if any of the reads before saw a later value, the load below sees the later word.
        fence(Ordering::Acquire);
        self.word.load(Ordering::Relaxed) == word
    }
}

impl Door<TokenBucket> for Word {
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
    fn look(&self, now: Timestamp, cost: u64) -> Glance {
        loop {
            let Some(Sight { word, pace, step }) = self.see(now, cost) else { return Glance::Shut };
            match step {
                Step::Go(next) => {
                    let next = next.wrapping_add(u64::from(next == HELD));
                    let swapped = self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
                    if swapped.is_ok() {
                        return Glance::Go;
                    }
                }
                Step::After(ticks) => {
                    if self.is_still(word) {
                        return Glance::At(pace.after(now, ticks));
                    }
                }
                Step::Never | Step::Stale => return Glance::Shut,
            }
        }
    }

    #[inline]
    fn not_by(&self, horizon: Timestamp, cost: u64) -> Option<Timestamp> {
        match self.see(horizon, cost)? {
            Sight { word, pace, step: Step::After(ticks) } if self.is_still(word) => {
                Some(pace.after(horizon, ticks))
            }
            _ => None,
        }
    }

    fn shut(&self, _algorithm: &TokenBucket, state: &mut <TokenBucket as Algorithm>::State) {
        state.word = self.word.swap(HELD, Ordering::AcqRel);
    }

    fn open(&self, algorithm: &TokenBucket, state: &<TokenBucket as Algorithm>::State) -> bool {
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
