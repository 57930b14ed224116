//! Where a state lives: behind the line's lock, or where no lock is needed while nobody waits.

mod ring;
mod word;

pub use ring::Ring;
pub use word::Word;

use std::fmt;

use crate::algorithm::{
    Algorithm, Any, Balance, FixedWindow, Joint, SlidingCounter, SlidingWindow, TokenBucket,
};
use crate::decision::Policy;
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
    /// When `cost` could go if nobody else came, if that can be told without knowing what time it is. Takes nothing.
    #[doc(hidden)]
    #[inline]
    fn free_at(&self, _cost: u64) -> Option<Timestamp> {
        None
    }
    /// What its one limit promises and what is left of it, if that is known. Takes nothing.
    #[doc(hidden)]
    fn standing(&self, _now: Timestamp) -> Option<(Policy, Balance)> {
        None
    }
    /// Shuts the door and moves what was behind it into `state`.
    #[doc(hidden)]
    fn shut(&self, algorithm: &A, state: &mut A::State);
    /// Moves `state` behind the door and opens it, if it can be looked at there.
    #[doc(hidden)]
    fn open(&self, algorithm: &A, state: &mut A::State) -> bool;
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
    fn open(&self, _algorithm: &A, _state: &mut A::State) -> bool {
        true
    }
}

impl Stored for SlidingWindow {
    type Door = Ring;
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
