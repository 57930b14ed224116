//! Rate limits: an algorithm, its state, a line and a clock.

mod builder;
mod state;
mod statuses;

pub use builder::RateBuilder;
pub(super) use builder::Template;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Compose, Keyed, Limiter, Part, Permit, Stored};
use crate::algorithm::{self, AllOf, FromQuota, Grant};
use crate::clock::{Clock, DefaultClock, unix_ns};
use crate::core::{Acquire, Charge, Limit, Members, Named, Ticket};
use crate::types::{Ask, Denied, Error, LimitStatus, Snapshot};
use crate::units::{Cost, Name, Quota, QuotaError, Timestamp};
pub(super) use state::RateState;
pub(super) use statuses::Statuses;

/// At most a burst at one instant, refilled continuously. See [`algorithm::TokenBucket`] for the guarantee.
pub type TokenBucket<C = DefaultClock> = RateLimiter<algorithm::TokenBucket, C>;
/// Never more than the limit in any window, exactly. See [`algorithm::SlidingWindow`] for the guarantee.
pub type SlidingWindow<C = DefaultClock> = RateLimiter<algorithm::SlidingWindow, C>;
/// Two windows, weighted: approximate, in three words. See [`algorithm::SlidingCounter`] for the bound.
pub type SlidingCounter<C = DefaultClock> = RateLimiter<algorithm::SlidingCounter, C>;
/// Units come back all at once at the edges of windows. See [`algorithm::FixedWindow`] for the guarantee.
pub type FixedWindow<C = DefaultClock> = RateLimiter<algorithm::FixedWindow, C>;

/// A limit on how much may go over time. A cheap handle: clones share one limit.
///
/// **At the limit** [`acquire`](RateLimiter::acquire) waits in line, first come, first served;
/// [`try_acquire`](RateLimiter::try_acquire) and [`check`](RateLimiter::check) refuse and say when. Nobody passes those
/// who wait.
///
/// ```
/// use tollgate::{Quota, TokenBucket};
/// # #[cfg(feature = "tokio")] {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let api = TokenBucket::new(Quota::per_second(50).burst(100))?;
/// let permit = api.acquire(1).await?;
/// // ... the call ...
/// drop(permit); // the charge stands; `settle` corrects it, `refund` takes it back
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?; }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RateLimiter<A: Stored, C: Clock = DefaultClock> {
    pub(super) limit: Arc<Limit<RateState<A>, C>>,
}

impl<A: FromQuota + Stored> RateLimiter<A> {
    /// A limiter for `quota` on the default clock, that starts now.
    ///
    /// # Errors
    /// What is wrong with the quota, for this algorithm.
    pub fn new(quota: Quota) -> Result<Self, QuotaError> {
        Self::builder(quota).build()
    }

    /// A limiter for `quota` with options.
    pub fn builder(quota: Quota) -> RateBuilder<A> {
        RateBuilder::new(A::from_quota(quota))
    }

    /// Several limits of one subject as one limiter with one decision: 10 a second *and* 1000 an hour.
    ///
    /// ```
    /// use tollgate::{Quota, SlidingWindow};
    /// let both = SlidingWindow::all([Quota::per_second(10), Quota::per_hour(1000)]).build()?;
    /// assert!(both.check(10).is_ok());
    /// assert!(both.check(1).is_err());
    /// # Ok::<(), tollgate::QuotaError>(())
    /// ```
    pub fn all(quotas: impl IntoIterator<Item = Quota>) -> RateBuilder<AllOf<A>> {
        RateBuilder::new(AllOf::new(quotas))
    }
}

impl<A: Stored> RateLimiter<A> {
    /// A limiter over an algorithm of your own.
    pub fn over(algorithm: A) -> RateBuilder<A> {
        RateBuilder::new(Ok(algorithm))
    }
}

impl<A: Stored, C: Clock> RateLimiter<A, C> {
    /// Waits in line for a permit.
    ///
    /// **At the limit** it waits first come, first served, for at most the ask's longest wait.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the line, and those behind move up; a
    /// permit granted but not yet delivered goes back.
    ///
    /// # Errors
    /// [`Denied`]: the ask can never be met, or not within its longest wait (refused at once, not after waiting); the
    /// line is full; the limiter is closed; or there is no timer to wait by.
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    #[inline]
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireRate<A, C> {
        let ask = ask.into();
        AcquireRate { acquire: Acquire::new(Arc::clone(&self.limit), ask.units().units(), ask.max_wait()) }
    }

    /// Waits in line as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](RateLimiter::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<RatePermit<A, C>, Denied> {
        let ask = ask.into();
        let acquire = Acquire::new(Arc::clone(&self.limit), ask.units().units(), ask.max_wait());
        acquire.block().map(|(limit, grant)| RatePermit { limit, grant })
    }

    /// Takes a permit if it may be had now. Needs no runtime, and no lock where the algorithm's state is one word.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would be had.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<RatePermit<A, C>, Denied> {
        self.limit.take(cost.into().units(), |grant| RatePermit { limit: Arc::clone(&self.limit), grant })
    }

    /// Decides and takes, and holds nothing: a [`try_acquire`](RateLimiter::try_acquire) whose permit is dropped.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would pass.
    #[inline]
    pub fn check(&self, cost: impl Into<Cost>) -> Result<(), Denied> {
        self.limit.take(cost.into().units(), |_| ())
    }

    /// When `cost` could go behind those who wait, if nobody else came. Takes nothing; zero means now.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn ready_in(&self, cost: impl Into<Cost>) -> Result<Duration, Denied> {
        self.limit.ready_in(cost.into().units())
    }

    /// What is left, what is owed and who waits, at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.limit.snapshot()
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.limit.name()
    }

    /// Goes on as `algorithm` from now. What was spent stays spent, as each algorithm says; a debt stays in units; those who wait are served by the new one, and refused at once if their longest wait can no longer be
    /// kept or their cost can never go.
    pub fn change(&self, algorithm: A) {
        self.limit.change(|state, now| state.change(algorithm, now));
    }

    /// Takes `cost` whether it is there or not: what is missing becomes a debt that those who wait and all who come
    /// wait for. A fine, or what was used without asking.
    pub fn charge(&self, cost: impl Into<Cost>) {
        let units = cost.into().units();
        self.limit.change(|state, now| state.charge(now, units));
    }

    /// Starts anew, as when it was made: what was spent and owed is forgotten, and what permits from before give
    /// back is not counted. Those who wait stay in line.
    pub fn reset(&self) {
        self.limit.change(|state, now| state.reset(now, unix_ns(self.limit.clock())));
    }

    /// Lets nobody in until [`resume`](RateLimiter::resume). Time goes on: what refills, refills.
    pub fn pause(&self) {
        self.limit.pause(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.limit.pause(false);
    }

    /// Closes for good: those who wait and all who come are refused as closed. Permits out stay valid.
    pub fn close(&self) {
        self.limit.close();
    }
}

impl<A: FromQuota + Stored, C: Clock> RateLimiter<A, C> {
    /// Changes the quota from now on. Options such as segments stay. See [`change`](RateLimiter::change).
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.limit
            .change(|state, now| state.algorithm().with_quota(quota).map(|next| state.change(next, now)))
    }
}

impl<A: FromQuota, C: Clock> RateLimiter<AllOf<A>, C> {
    /// Changes the quotas from now on: one for each the limiter was built with, in the same order.
    ///
    /// # Errors
    /// Another number of quotas, or what is wrong with one of them; nothing has changed then.
    pub fn set_quotas(&self, quotas: impl IntoIterator<Item = Quota>) -> Result<(), QuotaError> {
        self.limit
            .change(|state, now| state.algorithm().with_quotas(quotas).map(|next| state.change(next, now)))
    }
}

impl<A: Stored, C: Clock> RateLimiter<A, C> {
    /// A limit for each key, like this one and fresh, with the defaults of [`KeyedBuilder`](super::KeyedBuilder):
    /// 100,000 keys. For options use [`RateBuilder::keyed`].
    #[must_use]
    pub fn keyed<K>(&self) -> Keyed<K, A, C>
    where
        K: std::hash::Hash + Eq + Clone + Send + 'static,
    {
        Keyed::new(self.template())
    }

    pub(super) fn change_numbered(&self, number: u64, algorithm: A) {
        self.limit.change(|state, now| state.change_numbered(number, algorithm, now));
    }

    pub(super) fn template(&self) -> Template<A, C> {
        let (algorithm, lends) =
            self.limit.with_state(|state, _| (state.algorithm().clone(), state.is_lending()));
        let options = Named {
            clock: self.limit.clock().clone(),
            queue: self.limit.queue(),
            name: self.limit.name().cloned(),
        };
        Template { algorithm, options, lends }
    }

    pub(super) fn from_template(template: &Template<A, C>) -> Self {
        let now = template.options.clock.now();
        let unix_ns = unix_ns(&template.options.clock);
        Self::resumed(template, template.algorithm.start(now, unix_ns), now)
    }

    /// One that goes on from this state.
    pub(super) fn resumed(template: &Template<A, C>, state: A::State, now: Timestamp) -> Self {
        let state = RateState::new(template.algorithm.clone(), state, now, template.lends);
        Self { limit: Arc::new(Limit::new(state, template.options.clone())) }
    }

    /// Its state equals a fresh one: nobody holds or waits, and all of the capacity is left.
    pub(super) fn is_fresh(&self) -> bool {
        Arc::strong_count(&self.limit) == 1 && {
            let snapshot = self.limit.snapshot();
            let starts_full = self.limit.with_state(|state, _| state.starts_full());
            starts_full && snapshot.waiting == 0 && snapshot.reset_after == Some(Duration::ZERO)
        }
    }
}

impl<A: Stored, C: Clock> Clone for RateLimiter<A, C> {
    fn clone(&self) -> Self {
        Self { limit: Arc::clone(&self.limit) }
    }
}

impl<A: Stored, C: Clock> fmt::Debug for RateLimiter<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

impl<K: ?Sized, A: Stored, C: Clock> Limiter<K> for RateLimiter<A, C> {
    type Permit = RatePermit<A, C>;
    type Fault = std::convert::Infallible;
    type Acquire = AcquireRate<A, C>;

    #[inline]
    fn acquire(&self, _key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, ask)
    }

    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }

    #[inline]
    fn check(&self, _key: &K, cost: Cost) -> Result<(), Denied> {
        Self::check(self, cost)
    }

    fn status(&self, _key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        Statuses::seen(&self.limit, self.limit.clock().now()).tell(self.limit.name(), visit);
    }
}

impl<K: ?Sized, A: Stored, C: Clock> Compose<K> for RateLimiter<A, C> {
    type Part = RatePart<A, C>;

    fn part(&self, _key: &K, cost: Cost) -> RatePart<A, C> {
        RatePart::new(Arc::clone(&self.limit), cost.units())
    }
}

/// An ask to a [`RateLimiter`] as a member of a composition.
pub struct RatePart<A: Stored, C: Clock = DefaultClock> {
    limit: Arc<Limit<RateState<A>, C>>,
    units: u64,
    ticket: Option<Ticket<RateState<A>, C>>,
}

impl<A: Stored, C: Clock> RatePart<A, C> {
    const fn new(limit: Arc<Limit<RateState<A>, C>>, units: u64) -> Self {
        Self { limit, units, ticket: None }
    }
}

impl<A: Stored, C: Clock> Part for RatePart<A, C> {
    type Permit = RatePermit<A, C>;
    type Fault = std::convert::Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.limit.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        self.limit.peek(self.units)
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error>> {
        let claimed = self.ticket.take().and_then(|ticket| ticket.claim());
        let granted = claimed.map_or_else(|| self.limit.take(self.units, |grant| grant), Ok);
        let permit = |grant| RatePermit { limit: Arc::clone(&self.limit), grant };
        Poll::Ready(granted.map(permit).map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.ticket = Some(members.add(&self.limit, self.units));
        Ok(())
    }
}

impl<A: Stored, C: Clock> fmt::Debug for RatePart<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatePart").field("units", &self.units).finish_non_exhaustive()
    }
}

/// The wait for a [`RatePermit`]. Cancel-safe: see [`RateLimiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRate<A: Stored, C: Clock = DefaultClock> {
    acquire: Acquire<RateState<A>, C>,
}

impl<A: Stored, C: Clock> Future for AcquireRate<A, C> {
    type Output = Result<RatePermit<A, C>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let permit = |limit, grant| RatePermit { limit, grant };
        self.acquire.poll_with(cx.waker(), false, permit).map_err(Error::Denied)
    }
}

impl<A: Stored, C: Clock> fmt::Debug for AcquireRate<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.acquire.fmt(f)
    }
}

/// Proof that one may act once. Dropped, its charge stands.
#[must_use = "a permit stands for the work done under it; a charge alone is `check`"]
pub struct RatePermit<A: Stored, C: Clock = DefaultClock> {
    limit: Arc<Limit<RateState<A>, C>>,
    grant: Grant,
}

impl<A: Stored, C: Clock> Permit for RatePermit<A, C> {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        Cost::new(self.grant.units)
    }

    fn settle(self, actual: Cost) {
        self.limit.settle(self.grant, actual.units());
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        Statuses::seen(&self.limit, self.grant.at).tell(self.limit.name(), visit);
    }
}

impl<A: Stored, C: Clock> fmt::Debug for RatePermit<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatePermit").field("grant", &self.grant).finish_non_exhaustive()
    }
}
