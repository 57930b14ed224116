//! The token bucket behind all stripes: it has the burst less the reserve, and the revision of what threads hold.
//!
//! | revision | meaning | leaves by |
//! |---|---|---|
//! | even | the fast path is open; units drawn in this revision may be spent | to the next odd number, under the lock |
//! | odd | the state is behind the lock: somebody waits, the limit is paused or closed, or a thread holds the lock for a moment; nothing is spent from stripes | to the number before, or after a change that voids what threads hold to the number behind, under the lock |

use crate::algorithm::{Algorithm, Balance, FromQuota, Grant, TokenBucket, When};
use crate::core::Outcome;
use crate::core::fast_path::{FastPath, GcraWord, Sealed, Stored};
use crate::sync::per_thread::Padded;
use crate::sync::{AtomicU64, Ordering};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

use super::builder::{Reserve, Sizing};

/// A token bucket less a reserve.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedBucket {
    bucket: TokenBucket,
    sizing: Sizing,
    reserve: Reserve,
}

#[derive(Clone, Copy)]
pub(super) struct State {
    bucket: <TokenBucket as Algorithm>::State,
    /// The next revision is a new one: threads do not spend what they drew before.
    is_void: bool,
}

impl SharedBucket {
    pub(super) fn new(bucket: TokenBucket, sizing: Sizing) -> Result<Self, QuotaError> {
        let reserve = sizing.of(bucket.capacity())?;
        Ok(Self { bucket: bucket.less(reserve.threads * reserve.portion), sizing, reserve })
    }
}

impl FromQuota for SharedBucket {
    fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
        Self::new(TokenBucket::from_quota(quota)?, Sizing::fitted())
    }

    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
        Self::new(TokenBucket::from_quota(quota)?, self.sizing)
    }
}

impl Algorithm for SharedBucket {
    type State = State;

    fn start(&self, now: Timestamp, unix_ns: u64) -> State {
        State { bucket: self.bucket.start(now, unix_ns), is_void: true }
    }

    fn capacity(&self) -> u64 {
        self.bucket.capacity()
    }

    fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
        self.bucket.ready_at(&mut state.bucket, now, cost)
    }

    /// A debt is waited for by those who hold units too.
    fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
        self.bucket.force(&mut state.bucket, now, cost);
        state.is_void |= self.balance(state, now).debt > 0;
    }

    fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
        self.bucket.give_back(&mut state.bucket, now, grant, units);
    }

    fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
        self.bucket.balance(&mut state.bucket, now)
    }

    fn policy(&self) -> Policy {
        self.bucket.policy()
    }

    fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
        self.bucket.change(next.bucket, &mut state.bucket, now);
        *self = next;
        state.is_void = true;
    }

    fn ready_behind(&self, state: &State, now: Timestamp, ahead: u64, cost: u64) -> Option<When> {
        self.bucket.ready_behind(&state.bucket, now, ahead, cost)
    }
}

impl Stored for SharedBucket {
    type FastPath = SharedWord;
}

/// The word of the bucket, and what threads draw and spend by.
///
/// All but the word and `claimed` is read by decisions and written under the lock only, so it is in every cache.
#[derive(Debug)]
pub(super) struct SharedWord {
    word: Padded<GcraWord>,
    pub(super) revision: AtomicU64,
    threads: AtomicU64,
    portion: AtomicU64,
    /// The largest ask.
    pub(super) capacity: AtomicU64,
    /// The number of stripes that threads have claimed.
    pub(super) claimed: Padded<AtomicU64>,
}

impl SharedWord {
    /// The most units that the thread at this stripe may hold. Zero: none.
    #[inline]
    pub(super) fn portion_of(&self, stripe: usize) -> u64 {
        let has_one = (stripe as u64) < self.threads.load(Ordering::Relaxed);
        if has_one { self.portion.load(Ordering::Relaxed) } else { 0 }
    }
}

impl FastPath<SharedBucket> for SharedWord {
    fn build(sealed: Sealed) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            word: Padded(GcraWord::build(sealed)),
            revision: AtomicU64::new(1),
            threads: zero(),
            portion: zero(),
            capacity: zero(),
            claimed: Padded(zero()),
        }
    }

    #[inline]
    fn try_take(&self, now: Timestamp, cost: u64, take: bool) -> Outcome {
        self.word.0.try_take(now, cost, take)
    }

    fn status(&self, now: Timestamp) -> Option<(Policy, Balance)> {
        self.word.0.status(now)
    }

    fn close(&self, algorithm: &SharedBucket, state: &mut State) {
        // Relaxed: only the lock's holder writes it, and whoever learns of what is done under the lock sees this first.
        self.revision.store(self.revision.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        self.word.0.close(&algorithm.bucket, &mut state.bucket);
    }

    fn open(&self, algorithm: &SharedBucket, state: &mut State) -> bool {
        if !self.word.0.open(&algorithm.bucket, &mut state.bucket) {
            return false;
        }
        self.threads.store(algorithm.reserve.threads, Ordering::Relaxed);
        self.portion.store(algorithm.reserve.portion, Ordering::Relaxed);
        self.capacity.store(algorithm.capacity(), Ordering::Relaxed);
        let before = self.revision.load(Ordering::Relaxed) - 1;
        let revision = if std::mem::take(&mut state.is_void) { before + 2 } else { before };
        // Release: whoever draws by this revision reads the reserve above, and sees the change that it stands for.
        self.revision.store(revision, Ordering::Release);
        true
    }
}
