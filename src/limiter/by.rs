//! A limiter of requests from a limiter of keys.

use std::fmt;

use super::{Limiter, TryLimiter};
use crate::decision::{Ask, Denied};
use crate::units::Cost;

/// Says which key a request is about. Functions are this already; name a type to implement it for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which key a `{R}` is about",
    note = "give `.by` a function such as `|request: &Request| request.tenant.clone()`"
)]
pub trait KeyOf<R: ?Sized> {
    /// What state is kept per.
    type Key;
    /// The key of `request`.
    fn key_of(&self, request: &R) -> Self::Key;
}

impl<R: ?Sized, Key, F: Fn(&R) -> Key> KeyOf<R> for F {
    type Key = Key;
    fn key_of(&self, request: &R) -> Key {
        self(request)
    }
}

/// A limiter of requests: the key of each goes to the limiter of keys within. Made by
/// [`by`](super::LimiterExt::by).
///
/// ```
/// use tollgate::{LimiterExt, Quota, SlidingWindow, TryLimiter};
/// struct Request { user: u32 }
/// let per_user = SlidingWindow::new(Quota::per_minute(1))?.keyed().by(|request: &Request| request.user);
/// assert!(per_user.try_acquire(&Request { user: 1 }, 1.into()).is_ok());
/// assert!(per_user.try_acquire(&Request { user: 1 }, 1.into()).is_err());
/// assert!(per_user.try_acquire(&Request { user: 2 }, 1.into()).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Clone)]
pub struct By<L, F> {
    limiter: L,
    key: F,
}

impl<L, F> By<L, F> {
    pub(super) const fn new(limiter: L, key: F) -> Self {
        Self { limiter, key }
    }

    /// The limiter of keys within.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

impl<L: fmt::Debug, F> fmt::Debug for By<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl<R: ?Sized, F: KeyOf<R>, L: Limiter<F::Key>> Limiter<R> for By<L, F> {
    type Permit = L::Permit;
    type Fault = L::Fault;
    type Acquire = L::Acquire;

    fn acquire(&self, request: &R, ask: Ask) -> L::Acquire {
        self.limiter.acquire(&self.key.key_of(request), ask)
    }

    fn holds(&self) -> bool {
        self.limiter.holds()
    }
}

impl<R: ?Sized, F: KeyOf<R>, L: TryLimiter<F::Key>> TryLimiter<R> for By<L, F> {
    fn try_acquire(&self, request: &R, cost: Cost) -> Result<L::Permit, Denied> {
        self.limiter.try_acquire(&self.key.key_of(request), cost)
    }
}
