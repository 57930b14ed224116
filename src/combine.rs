//! Wrappers over the trait: compositions, keys of requests, shadow mode, metrics, one boxed type.

mod and;
mod awaited;
mod boxed;
mod by;
mod from_fn;
mod key;
#[cfg(any(feature = "metrics", feature = "tracing"))]
mod observed;
mod shadow;

pub use crate::core::Members;
#[cfg(any(feature = "client", feature = "rules"))]
pub(crate) use and::take_now;
pub use and::{AcquireAll, And, AndPermit, ListPart, PairPart};
pub use awaited::{Awaited, AwaitedPart};
pub use boxed::{BoxAcquire, BoxLimiter, BoxPart, BoxPermit};
pub use by::{AcquireBy, By, ByPart, ByPermit};
pub use from_fn::{LimiterFn, limiter_fn};
pub use key::{EitherKey, Found, FoundBy, KeyOf, OrKey, OrSkip, Unless, found_by};
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub use observed::{AcquireObserved, Observed, ObservedPart};
#[cfg(all(feature = "rules", any(feature = "metrics", feature = "tracing")))]
pub(crate) use observed::{Outcome, Watch};
pub use shadow::{AcquireShadow, Enforced, Nobody, Shadow, ShadowPart, ShadowPermit, Share};

use crate::clock::Clock;
use crate::limiter::{Compose, Concurrency, Keyed, RateLimiter, Stored, Striped, Unlimited};
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::units::{Name, NameError};

/// The combinators of limiters. Import it to use its methods.
///
/// All limiters of this crate implement it. It has no required methods: `impl LimiterExt for Mine {}` gives them to a
/// limiter of your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no combinators",
    note = "for a limiter of your own: `impl LimiterExt for Mine {{}}`"
)]
pub trait LimiterExt: Sized {
    /// Both limits, all or nothing: see [`And`].
    fn and<B>(self, other: B) -> And<(Self, B)> {
        And::pair(self, other)
    }

    /// A limiter of requests from this limiter of keys: `key` extracts the key of a request.
    fn by<F>(self, key: F) -> By<Self, F> {
        By::new(self, key)
    }

    /// The limit with metrics and events under `name`.
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

    /// The limit in shadow mode: it evaluates and counts, and denies nobody.
    fn shadow(self) -> Shadow<Self> {
        Shadow::new(self)
    }

    /// The limiter behind one type, whatever it is made of. The only box, and only when asked for.
    fn boxed<K: ?Sized>(self) -> BoxLimiter<K, Self::Fault>
    where
        Self: Compose<K> + Send + Sync + 'static,
        Self::Permit: Send + 'static,
        Self::Acquire: Send + 'static,
        Self::Part: Send + 'static,
        Self::Fault: 'static,
    {
        BoxLimiter::new(self)
    }
}

impl<A: Stored, C: Clock> LimiterExt for RateLimiter<A, C> {}
impl<C: Clock> LimiterExt for Striped<C> {}
impl<C: Clock> LimiterExt for Concurrency<C> {}
impl<K, A: Stored, C: Clock> LimiterExt for Keyed<K, A, C> {}
impl LimiterExt for Unlimited {}
impl<M> LimiterExt for And<M> {}
impl<L> LimiterExt for Awaited<L> {}
impl<K: ?Sized, F> LimiterExt for BoxLimiter<K, F> {}
impl<L, F> LimiterExt for By<L, F> {}
impl<F> LimiterExt for LimiterFn<F> {}
#[cfg(any(feature = "metrics", feature = "tracing"))]
impl<L> LimiterExt for Observed<L> {}
impl<L, S> LimiterExt for Shadow<L, S> {}
#[cfg(feature = "governor")]
impl<L> LimiterExt for std::sync::Arc<L> {}
