//! The one trait, the permit, and what every limiter can be put into.

mod and;
mod boxed;
mod by;
mod concurrency;
mod door;
mod func;
#[cfg(feature = "governor")]
mod governor;
mod keyed;
mod line;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod observed;
mod rate;
mod shadow;
mod striped;
mod stripes;
mod unlimited;

pub use and::{AcquireBoth, And, BothPermits, EitherFault};
pub use boxed::{BoxAcquire, BoxLimiter, BoxPermit};
pub use by::{AcquireBy, By, EitherKey, Found, FoundBy, KeyOf, OrKey, OrSkip, Unless, found_by};
pub use concurrency::{AcquireSlots, Concurrency, ConcurrencyBuilder, Slots};
pub use door::{Door, Locked, Ring, Stored, Word};
pub use func::{LimiterFn, limiter_fn};
#[cfg(feature = "governor")]
pub use governor::{AcquireGovernor, GovernorPermit};
#[cfg(feature = "rules")]
pub(crate) use keyed::Later;
pub use keyed::{AcquireKeyed, Census, Keyed, KeyedPermit, Tier};
#[cfg(feature = "client")]
pub(crate) use keyed::{HashStore, Room};
pub use line::{Line, Order};
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub use observed::{AcquireObserved, Observed};
#[cfg(all(feature = "rules", any(feature = "metrics", feature = "tracing")))]
pub(crate) use observed::{Outcome, Watch};
pub use rate::{
    AcquireRate, FixedWindow, RateBuilder, RateLimiter, RatePermit, SlidingCounter, SlidingWindow,
    TokenBucket,
};
pub use shadow::{AcquireShadow, Enforced, Nobody, Shadow, ShadowPermit, Share};
pub use striped::{AcquireStriped, Striped, StripedBuilder, StripedPermit};
pub use unlimited::{Free, Unlimited};

/// What a gate of another room needs to stand on the line.
#[cfg(feature = "client")]
pub(crate) mod gate {
    pub(crate) use super::door::{Glance, Sealed};
    pub(crate) use super::line::{Acquire, Core, Gate, Later, Load, wake_all};
}

use std::future::Future;

use crate::decision::{Ask, Denied, Error, Standing};
use crate::units::Cost;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::units::{Name, NameError};

/// Decides when requests about `K` may go.
///
/// A limiter is a cheap handle: clones share one state. A limiter that looks at no key limits every `K`.
///
/// What implementers owe, and [`contract`](crate::contract) tests: the future is lazy (nothing happens before its first
/// poll), owned, and cancel-safe (dropping it leaves the limit as if it had never been asked); a refusal takes
/// nothing; an ask [`within`](Ask::within) zero never waits.
///
/// Implement it with [`limiter_fn`] if you prefer `async`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not limit `{K}`",
    label = "not a limiter of `{K}`",
    note = "a limiter of keys becomes a limiter of requests with `.by(|request| key)`",
    note = "a quota becomes a limiter with `TokenBucket::new(quota)?`, and its keyed form with `.keyed()`"
)]
pub trait Limiter<K: ?Sized = ()> {
    /// Proof that one may act.
    type Permit: Permit;
    /// What can go wrong besides refusal. [`Infallible`](std::convert::Infallible) in process.
    type Fault;
    /// The wait, owned and named.
    type Acquire: Future<Output = Result<Self::Permit, Error<Self::Fault>>>;

    /// Waits for a permit about `key`. Nothing is taken before the first poll; the longest wait of the ask is counted
    /// from the call.
    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire;

    /// Whether [`acquire_now`](Self::acquire_now) answers.
    #[doc(hidden)]
    #[inline]
    fn answers_now(&self) -> bool {
        false
    }

    /// Answers on the spot an ask that would not wait; `None` if it must be awaited all the same. What need not be kept for
    /// later in a future is most of what a layer costs.
    ///
    /// A grant is a permit, but for one case: without `use_permit` it would only be held until the work is done and then
    /// dropped, and where a drop does nothing there need be none.
    #[doc(hidden)]
    #[inline]
    fn acquire_now(&self, _key: &K, _cost: Cost, _use_permit: bool) -> Now<Self::Permit> {
        None
    }

    /// Whether a permit holds something others wait for until it is dropped, as slots are held. Compositions take
    /// such permits last.
    fn holds(&self) -> bool {
        false
    }

    /// Tells where each of its limits stands about `key`: what headers and administrators are shown. Takes nothing;
    /// a limiter that cannot tell says nothing.
    fn report(&self, _key: &K, _visit: &mut dyn FnMut(&Standing)) {}

    /// How many keys it keeps, if it keeps keys.
    fn census(&self) -> Option<Census> {
        None
    }
}

/// The answer of [`Limiter::acquire_now`].
#[doc(hidden)]
pub type Now<P> = Option<Result<Option<P>, Denied>>;

/// A limiter that can also answer on the spot, without a runtime.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot decide about `{K}` on the spot",
    note = "shedding needs a limiter in process; a remote one can only be awaited"
)]
pub trait TryLimiter<K: ?Sized = ()>: Limiter<K> {
    /// Takes a permit about `key` if it may be had now. Never passes those who wait.
    ///
    /// # Errors
    /// Which limit said no, and the smallest wait after which the same ask would pass.
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied>;
}

/// Proof that one may act. Dropped, the work happened: the charge of a rate stands, the slot of a concurrency limit is
/// free again.
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub trait Permit {
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

    /// The refusal that a limit on trial would have given: see [`shadow`](LimiterExt::shadow).
    fn shadowed(&self) -> Option<&Denied> {
        None
    }

    /// Tells where each of the limits that granted it stands, as [`Limiter::report`] does, at the time of the grant or
    /// later: what has been taken since counts, what has come back since need not.
    fn report(&self, _visit: &mut dyn FnMut(&Standing)) {}
}

/// What every limiter can be put into. Import it to use its methods.
pub trait LimiterExt: Sized {
    /// Both limits, all or nothing: neither is spent when the other refuses.
    fn and<B>(self, other: B) -> And<Self, B> {
        And::new(self, other)
    }

    /// A limiter of requests from this limiter of keys: `key` says which key a request is about.
    fn by<F>(self, key: F) -> By<Self, F> {
        By::new(self, key)
    }

    /// The limit under the eyes of `metrics` and `tracing`, by `name`.
    ///
    /// # Errors
    /// What is wrong with the name.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    fn observed<N: TryInto<Name>>(self, name: N) -> Result<Observed<Self>, NameError>
    where
        NameError: From<N::Error>,
    {
        Ok(Observed::new(self, name.try_into()?))
    }

    /// The limit on trial: it decides and counts, and refuses nobody.
    fn shadow(self) -> Shadow<Self> {
        Shadow::new(self)
    }

    /// The limiter behind one type, whatever it is made of. The only box, and only when asked for.
    fn boxed<K: ?Sized>(self) -> BoxLimiter<K, Self::Fault>
    where
        Self: Limiter<K> + Send + Sync + 'static,
        Self::Permit: Send + 'static,
        Self::Acquire: Send + 'static,
        Self::Fault: 'static,
    {
        BoxLimiter::new(self)
    }
}

impl<T> LimiterExt for T {}
