//! A limiter from an async function.

use std::fmt;
use std::future::Future;

use super::{Limiter, Permit};
use crate::decision::{Ask, Error};

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
}
