//! The state of an algorithm in atomics: decisions without a lock while nobody waits.
//!
//! * [`gcra_word`] is a token bucket in one word; [`window_ring`] is the log of an exact window.
//!
//! The state is either on the fast path or behind the limit's lock. [`FastPath::close`] moves it behind the lock, where
//! it stays while somebody waits.

mod gcra_word;
mod window_ring;

pub use gcra_word::GcraWord;
pub use window_ring::WindowRing;

use std::fmt;

use super::state::Outcome;
use crate::algorithm::{
    Algorithm, AllOf, Any, Balance, FixedWindow, SlidingCounter, SlidingWindow, TokenBucket,
};
use crate::types::Policy;
use crate::units::Timestamp;

/// Says which fast path a limiter over this algorithm has. For an algorithm of your own:
/// `impl Stored for Mine { type FastPath = NoFastPath; }`.
pub trait Stored: Algorithm {
    /// The lock-free form of the state.
    type FastPath: FastPath<Self>;

    /// The token bucket that this algorithm is, if it is one: keyed limits may keep its states in a word each.
    #[doc(hidden)]
    fn flat(_: Sealed, _algorithm: &Self) -> Option<Flattened<Self>> {
        None
    }
}

/// An algorithm that is a token bucket, and the way back from a bucket and its state.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, unnameable_types, reason = "hidden")]
pub struct Flattened<A: Algorithm> {
    pub(crate) bucket: TokenBucket,
    pub(crate) restore: fn(TokenBucket, <TokenBucket as Algorithm>::State) -> (A, A::State),
}

/// A lock-free form of a state. Sealed: [`NoFastPath`] fits every algorithm.
pub trait FastPath<A: Algorithm>: Send + Sync + fmt::Debug + 'static {
    #[doc(hidden)]
    fn build(sealed: Sealed) -> Self;
    /// Takes `cost`; with `take` false it only tells what would happen.
    #[doc(hidden)]
    fn try_take(&self, now: Timestamp, cost: u64, take: bool) -> Outcome;
    /// The one limit and what is left of it, if that is known. Takes nothing.
    #[doc(hidden)]
    fn status(&self, _now: Timestamp) -> Option<(Policy, Balance)> {
        None
    }
    /// Prepares for a limiter of its own, in place of one of many keys: memory is taken at once.
    #[doc(hidden)]
    fn expect_use(&self) {}
    /// Closes the fast path and moves its state into `state`.
    #[doc(hidden)]
    fn close(&self, algorithm: &A, state: &mut A::State);
    /// Moves `state` out to the fast path. `false`: it does not fit and stays.
    #[doc(hidden)]
    fn open(&self, algorithm: &A, state: &mut A::State) -> bool;
}

#[doc(hidden)]
#[derive(Debug)]
#[allow(clippy::exhaustive_structs, unnameable_types, reason = "hidden")]
pub struct Sealed(pub(crate) ());

/// Every decision takes the lock.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoFastPath;

impl<A: Algorithm> FastPath<A> for NoFastPath {
    fn build(_: Sealed) -> Self {
        Self
    }
    #[inline]
    fn try_take(&self, _now: Timestamp, _cost: u64, _take: bool) -> Outcome {
        Outcome::Contended
    }
    fn close(&self, _algorithm: &A, _state: &mut A::State) {}
    fn open(&self, _algorithm: &A, _state: &mut A::State) -> bool {
        true
    }
}

impl Stored for SlidingWindow {
    type FastPath = WindowRing;
}
impl Stored for SlidingCounter {
    type FastPath = NoFastPath;
}
impl Stored for FixedWindow {
    type FastPath = NoFastPath;
}
impl Stored for Any {
    type FastPath = NoFastPath;
}
impl<A: Algorithm> Stored for AllOf<A> {
    type FastPath = NoFastPath;
}
impl Stored for TokenBucket {
    type FastPath = GcraWord;

    fn flat(_: Sealed, algorithm: &Self) -> Option<Flattened<Self>> {
        Some(Flattened { bucket: *algorithm, restore: |bucket, state| (bucket, state) })
    }
}
