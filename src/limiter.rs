//! The one trait, the permit, and the limiters: names, options and documentation over the mechanism in `core`.
//!
//! * [`rate`] is an algorithm over time; [`striped`] spreads one over threads; [`concurrency`] counts what is in
//!   progress; [`keyed`] keeps a limit for each key; [`unlimited`] and [`governor`] fill in where a limiter is needed.
//! * [`Limiter`] is what layers and wrappers know of them. [`Compose`] is what a composition needs of a member.

mod concurrency;
#[cfg(feature = "governor")]
mod governor;
mod keyed;
mod rate;
mod striped;
mod unlimited;

pub use crate::core::fast_path::{FastPath, GcraWord, NoFastPath, Stored, WindowRing};
pub use crate::core::{Order, Queue};
pub use concurrency::{AcquireSlots, Concurrency, ConcurrencyBuilder, Slots, SlotsPart};
#[cfg(feature = "governor")]
pub use governor::{AcquireGovernor, GovernorPart, GovernorPermit};
#[cfg(feature = "rules")]
pub(crate) use keyed::PendingChange;
pub use keyed::{AcquireKeyed, Keyed, KeyedBuilder, KeyedPart, KeyedPermit, Tier};
#[cfg(feature = "client")]
pub(crate) use keyed::{HashStore, Room};
pub use rate::{
    AcquireRate, FixedWindow, RateBuilder, RateLimiter, RatePart, RatePermit, SlidingCounter, SlidingWindow,
    TokenBucket,
};
pub use striped::{AcquireStriped, Striped, StripedBuilder, StripedPart, StripedPermit};
pub use unlimited::{Free, Unlimited};

use std::future::Future;
use std::task::{Context, Poll};

use crate::core::Members;
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// Decides when requests about `K` may go.
///
/// A limiter is a cheap handle: clones share one state. A limiter that looks at no key limits every `K`.
///
/// Implementers owe what [`contract`](crate::contract) tests: the future is lazy (nothing happens before its first
/// poll), owned, and cancel-safe (dropping it leaves the limit as if it had never been asked); a denial takes nothing;
/// an ask [`within`](Ask::within) zero never waits.
///
/// [`limiter_fn`](crate::limiter_fn) implements it with an `async` function. Implement [`LimiterExt`](crate::LimiterExt)
/// (it has no required methods) for the combinators, and wrap the limiter in [`Awaited`](crate::Awaited) to put it into
/// a composition.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not limit `{K}`",
    label = "not a limiter of `{K}`",
    note = "a limiter of keys becomes a limiter of requests with `.by(|request| key)`",
    note = "a quota becomes a limiter with `TokenBucket::new(quota)?`, and its keyed form with `.keyed()`"
)]
pub trait Limiter<K: ?Sized = ()> {
    /// Proof that the work may run.
    type Permit: Permit;
    /// A failure to decide. [`Infallible`](std::convert::Infallible) in process.
    type Fault;
    /// The wait, owned and named.
    type Acquire: Future<Output = Result<Self::Permit, Error<Self::Fault>>>;

    /// Waits for a permit about `key`. Takes nothing before the first poll; the longest wait of the ask counts from the
    /// call.
    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire;

    /// Takes a permit about `key` if it can be granted now. Never passes an ask that waits.
    ///
    /// # Errors
    /// The limit that denied it, and the smallest wait after which the same ask passes if nobody else comes.
    /// [`Reason::MustAwait`](crate::Reason::MustAwait): the limiter cannot decide now; await
    /// [`acquire`](Limiter::acquire).
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied>;

    /// Charges `cost` if it can be granted now, and holds nothing: [`try_acquire`](Limiter::try_acquire) with the permit
    /// dropped, for permits whose drop has no effect ([`Permit::IS_HELD`]).
    ///
    /// # Errors
    /// As [`try_acquire`](Limiter::try_acquire).
    #[inline]
    fn check(&self, key: &K, cost: Cost) -> Result<(), Denied> {
        self.try_acquire(key, cost).map(drop)
    }

    /// Visits the status of each limit about `key`. Takes nothing; a limiter that cannot tell visits none.
    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus));
}

/// A limiter that composes: [`and`](crate::LimiterExt::and) takes all members at one instant, or none.
///
/// All limiters of this crate implement it. [`Awaited`](crate::Awaited) makes any other limiter a member.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a member of a composition about `{K}`",
    note = "wrap a limiter of your own in `Awaited::new(limiter)`, which is asked last and refunded if another denies"
)]
pub trait Compose<K: ?Sized = ()>: Limiter<K> {
    /// An ask of this limiter.
    type Part: Part<Permit = Self::Permit, Fault = Self::Fault>;

    /// An ask about `key`, not made yet.
    fn part(&self, key: &K, cost: Cost) -> Self::Part;
}

/// The part of one member in an ask to several limits: owned, made by [`Compose::part`].
pub trait Part: Unpin {
    /// Proof that the work may run.
    type Permit: Permit;
    /// A failure to decide.
    type Fault;

    /// When this member is taken, relative to others.
    fn stage(&self) -> PartStage {
        PartStage::Local
    }

    /// The time by the member's clock; `None` if it has none.
    fn now(&self) -> Option<Timestamp>;

    /// Tells if the member could grant now. Takes nothing.
    ///
    /// # Errors
    /// The denial that a try would give.
    fn peek(&self) -> Result<(), Denied>;

    /// Tells if the members that are taken after the first one could grant now: with it, a denial is found before anything
    /// is taken, save for a race with others. Takes nothing.
    ///
    /// # Errors
    /// The denial that a try would give.
    fn peek_rest(&self) -> Result<(), Denied> {
        Ok(())
    }

    /// Claims what was granted after [`enlist`](Part::enlist), or takes now.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<Self::Fault>>>;

    /// Adds the limits that the ask has to wait for.
    ///
    /// # Errors
    /// The denial, if it cannot wait.
    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied>;
}

/// When a member of a composition is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums, reason = "before, at, or after the one instant")]
pub enum PartStage {
    /// First, and held while the others are taken: it must be awaited, and is refunded if another denies.
    Remote,
    /// Together, at one instant.
    Local,
    /// Last: it decides at once and gives nothing back.
    Last,
}

/// Proof that the work may run. Dropped, the work happened: the charge of a rate stands, the slot of a concurrency limit
/// is free again.
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub trait Permit {
    /// Dropping the permit has an effect, as with slots. A layer need not keep a permit for which this is `false`.
    /// Default: `true`.
    const IS_HELD: bool = true;

    /// The units it was granted for.
    fn cost(&self) -> Cost;

    /// Replaces the estimate by the real cost. More than estimated becomes a debt that later asks wait for; less is
    /// given back, as much as idle time has not restored already.
    fn settle(self, actual: Cost)
    where
        Self: Sized;

    /// The work never happened: settles at zero.
    fn refund(self)
    where
        Self: Sized,
    {
        self.settle(Cost::ZERO);
    }

    /// The denial that a limit in shadow mode would have given: see [`shadow`](crate::LimiterExt::shadow).
    fn shadowed(&self) -> Option<&Denied> {
        None
    }

    /// Visits the status of each limit that granted it, as of the grant or later: units spent since are included, units
    /// refilled since may not be.
    fn status(&self, _visit: &mut dyn FnMut(&LimitStatus)) {}
}
