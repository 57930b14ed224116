//! A limiter that can only be awaited, as a member of a composition.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::core::Members;
use crate::limiter::{Compose, Limiter, Part, PartStage};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// Any limiter as a member of a composition: one of your own, or one whose decision has to be awaited.
///
/// A composition asks it when all other members could grant, without waiting in its queue. It takes the others when the
/// answer is a permit, and refunds that permit if one of them denies meanwhile. If the answer is a denial, it asks again
/// after the wait that the denial names. So nothing is over-admitted, but such an ask has no position in the order of
/// this limiter, and each try costs it a charge and a refund.
///
/// ```
/// use tollgate::{Ask, Awaited, Concurrency, LimiterExt, Quota, TokenBucket, limiter_fn};
/// # #[cfg(feature = "tokio")] {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let bucket = TokenBucket::new(Quota::per_second(10))?;
/// let mine = limiter_fn(move |_: &(), ask: Ask| bucket.acquire(ask));
/// let both = Concurrency::new(5).and(Awaited::new(mine));
/// let permit = both.acquire(1).await?;
/// # drop(permit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?; }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Awaited<L> {
    limiter: L,
}

impl<L> Awaited<L> {
    /// `limiter`, as a member of compositions.
    pub const fn new(limiter: L) -> Self {
        Self { limiter }
    }

    /// The limiter within.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

impl<K: ?Sized, L: Limiter<K>> Limiter<K> for Awaited<L> {
    type Permit = L::Permit;
    type Fault = L::Fault;
    type Acquire = L::Acquire;

    fn acquire(&self, key: &K, ask: Ask) -> L::Acquire {
        self.limiter.acquire(key, ask)
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<L::Permit, Denied> {
        self.limiter.try_acquire(key, cost)
    }

    fn check(&self, key: &K, cost: Cost) -> Result<(), Denied> {
        self.limiter.check(key, cost)
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.limiter.status(key, visit);
    }
}

impl<K, L> Compose<K> for Awaited<L>
where
    K: ToOwned + ?Sized,
    K::Owned: Unpin,
    L: Limiter<K> + Clone + Unpin,
{
    type Part = AwaitedPart<K, L>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        AwaitedPart::new(self.limiter.clone(), key.to_owned(), cost)
    }
}

/// An ask to an [`Awaited`] limiter.
pub struct AwaitedPart<K: ToOwned + ?Sized, L: Limiter<K>> {
    limiter: L,
    key: K::Owned,
    cost: Cost,
    asked: Option<Pin<Box<L::Acquire>>>,
}

impl<K: ToOwned + ?Sized, L: Limiter<K>> AwaitedPart<K, L> {
    pub(super) const fn new(limiter: L, key: K::Owned, cost: Cost) -> Self {
        Self { limiter, key, cost, asked: None }
    }
}

impl<K, L> Part for AwaitedPart<K, L>
where
    K: ToOwned + ?Sized,
    K::Owned: Unpin,
    L: Limiter<K> + Unpin,
{
    type Permit = L::Permit;
    type Fault = L::Fault;

    fn stage(&self) -> PartStage {
        PartStage::Remote
    }

    fn now(&self) -> Option<Timestamp> {
        None
    }

    fn peek(&self) -> Result<(), Denied> {
        Ok(())
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<L::Permit, Error<L::Fault>>> {
        let ask = Ask::from(self.cost).within(Duration::ZERO);
        let (limiter, key) = (&self.limiter, &self.key);
        let asked = self
            .asked
            .get_or_insert_with(|| Box::pin(limiter.acquire(std::borrow::Borrow::borrow(key), ask)));
        let answer = std::task::ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(answer)
    }

    fn enlist(&mut self, _members: &mut Members) -> Result<(), Denied> {
        Ok(())
    }
}

impl<K: ToOwned + ?Sized, L: Limiter<K>> fmt::Debug for AwaitedPart<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitedPart").field("cost", &self.cost).finish_non_exhaustive()
    }
}
