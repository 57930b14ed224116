//! A limiter from an async function.

use std::fmt;
use std::future::Future;

use super::AwaitedPart;
use crate::limiter::{Compose, Limiter, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus, Reason};
use crate::units::Cost;

/// A limiter from a function that returns a future: `async` in place of a named one.
///
/// The function gets the key, or what it needs of it, and the ask. It owes what every
/// [`Limiter`] owes; [`contract`](crate::contract) tests it.
///
/// ```
/// use tollgate::{Ask, Limiter, Quota, TokenBucket, limiter_fn};
/// let bucket = TokenBucket::new(Quota::per_second(10))?;
/// // Twice the price for long names.
/// let by_length = limiter_fn(move |name: &str, ask: Ask| {
///     let (bucket, units) = (bucket.clone(), ask.units().units() * if name.len() > 8 { 2 } else { 1 });
///     async move { bucket.acquire(units).await }
/// });
/// # fn limits<L: Limiter<str>>(_: L) {}
/// # limits(by_length);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub const fn limiter_fn<F>(acquire: F) -> LimiterFn<F> {
    LimiterFn { acquire }
}

/// Made by [`limiter_fn`].
#[derive(Clone, Copy)]
pub struct LimiterFn<F> {
    acquire: F,
}

impl<F> fmt::Debug for LimiterFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterFn").finish_non_exhaustive()
    }
}

impl<K, F, Fut, P, Fault> Limiter<K> for LimiterFn<F>
where
    K: ?Sized,
    F: Fn(&K, Ask) -> Fut,
    Fut: Future<Output = Result<P, Error<Fault>>>,
    P: Permit,
{
    type Permit = P;
    type Fault = Fault;
    type Acquire = Fut;

    fn acquire(&self, key: &K, ask: Ask) -> Fut {
        (self.acquire)(key, ask)
    }

    /// The function has to be awaited.
    fn try_acquire(&self, _key: &K, _cost: Cost) -> Result<P, Denied> {
        Err(Denied::new(Reason::MustAwait))
    }

    fn status(&self, _key: &K, _visit: &mut dyn FnMut(&LimitStatus)) {}
}

/// As a member of a composition it is asked as an [`Awaited`](crate::Awaited) limiter is.
impl<K, F, Fut, P, Fault> Compose<K> for LimiterFn<F>
where
    K: ToOwned<Owned: Unpin> + ?Sized,
    F: Fn(&K, Ask) -> Fut + Clone + Unpin,
    Fut: Future<Output = Result<P, Error<Fault>>>,
    P: Permit,
{
    type Part = AwaitedPart<K, Self>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        AwaitedPart::new(self.clone(), key.to_owned(), cost)
    }
}
