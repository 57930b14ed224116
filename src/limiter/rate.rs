//! Rate limits: an algorithm, its state, a line and a clock.

mod builder;
mod gate;
mod standings;

pub use builder::RateBuilder;
pub(super) use builder::Template;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::line::{Acquire, Charge, Core};
use super::{Keyed, Limiter, Now, Permit, Stored, TryLimiter};
use crate::algorithm::{self, FromQuota, Grant, Joint};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error, Snapshot, Standing};
use crate::units::{Cost, Name, Quota, QuotaError, Timestamp};
pub(super) use gate::RateGate;
pub(super) use standings::Standings;

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
    pub(super) core: Arc<Core<RateGate<A>, C>>,
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
    pub fn all(quotas: impl IntoIterator<Item = Quota>) -> RateBuilder<Joint<A>> {
        RateBuilder::new(Joint::new(quotas))
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
        AcquireRate { acquire: Acquire::new(Arc::clone(&self.core), ask.units().units(), ask.max_wait()) }
    }

    /// Waits in line as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](RateLimiter::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<RatePermit<A, C>, Denied> {
        let ask = ask.into();
        let acquire = Acquire::new(Arc::clone(&self.core), ask.units().units(), ask.max_wait());
        acquire.block().map(|(core, grant)| RatePermit { core, grant })
    }

    /// Takes a permit if it may be had now. Needs no runtime, and no lock where the algorithm's state is one word.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would be had.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<RatePermit<A, C>, Denied> {
        self.core.take(cost.into().units(), |grant| RatePermit { core: Arc::clone(&self.core), grant })
    }

    /// Decides and takes, and holds nothing: a [`try_acquire`](RateLimiter::try_acquire) whose permit is dropped.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would pass.
    #[inline]
    pub fn check(&self, cost: impl Into<Cost>) -> Result<(), Denied> {
        self.core.take(cost.into().units(), |_| ())
    }

    /// When `cost` could go behind those who wait, if nobody else came. Takes nothing; zero means now.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn ready_in(&self, cost: impl Into<Cost>) -> Result<Duration, Denied> {
        self.core.ready_in(cost.into().units())
    }

    /// What is left, what is owed and who waits, at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.core.name()
    }

    /// Goes on as `algorithm` from now. What was accrued up to now stays, clipped to the new capacity; a debt stays in
    /// units; those who wait are served by the new one, and refused at once if their longest wait can no longer be
    /// kept or their cost can never go.
    pub fn change(&self, algorithm: A) {
        self.core.change(|gate, now| gate.change(algorithm, now));
    }

    /// Takes `cost` whether it is there or not: what is missing becomes a debt that those who wait and all who come
    /// wait for. A fine, or what was used without asking.
    pub fn charge(&self, cost: impl Into<Cost>) {
        let units = cost.into().units();
        self.core.change(|gate, now| gate.charge(now, units));
    }

    /// Starts anew, as when it was made: what was spent and owed is forgotten, and what permits from before give
    /// back is not counted. Those who wait stay in line.
    pub fn reset(&self) {
        let unix_ns = self.core.clock().unix_ns();
        self.core.change(|gate, now| gate.reset(now, unix_ns.saturating_add(now.as_ns())));
    }

    /// Lets nobody in until [`resume`](RateLimiter::resume). Time goes on: what refills, refills.
    pub fn pause(&self) {
        self.core.pause(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.core.pause(false);
    }

    /// Closes for good: those who wait and all who come are refused as closed. Permits out stay valid.
    pub fn close(&self) {
        self.core.close();
    }
}

impl<A: FromQuota + Stored, C: Clock> RateLimiter<A, C> {
    /// Changes the quota from now on. Options such as segments stay. See [`change`](RateLimiter::change).
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.core.change(|gate, now| gate.algorithm().with_quota(quota).map(|next| gate.change(next, now)))
    }
}

impl<A: FromQuota, C: Clock> RateLimiter<Joint<A>, C> {
    /// Changes the quotas from now on: one for each the limiter was built with, in the same order.
    ///
    /// # Errors
    /// Another number of quotas, or what is wrong with one of them; nothing has changed then.
    pub fn set_quotas(&self, quotas: impl IntoIterator<Item = Quota>) -> Result<(), QuotaError> {
        self.core.change(|gate, now| gate.algorithm().with_quotas(quotas).map(|next| gate.change(next, now)))
    }
}

impl<A: Stored, C: Clock> RateLimiter<A, C> {
    /// A limiter with a state like this one's, fresh, for each key.
    #[must_use]
    pub fn keyed<K>(&self) -> Keyed<K, A, C>
    where
        K: std::hash::Hash + Eq + Clone + Send + 'static,
    {
        Keyed::new(&self.template())
    }

    pub(super) fn change_numbered(&self, number: u64, algorithm: A) {
        self.core.change(|gate, now| gate.change_numbered(number, algorithm, now));
    }

    pub(super) fn settle(&self, grant: Grant, actual: u64) {
        self.core.settle(grant, actual);
    }

    pub(super) fn template(&self) -> Template<A, C> {
        let (algorithm, lends) = self.core.with_gate(|gate, _| (gate.algorithm().clone(), gate.is_lending()));
        Template {
            algorithm,
            lends,
            line: self.core.line(),
            name: self.core.name().cloned(),
            clock: self.core.clock().clone(),
        }
    }

    pub(super) fn from_template(template: &Template<A, C>) -> Self {
        let now = template.clock.now();
        let unix_ns = template.clock.unix_ns().saturating_add(now.as_ns());
        Self::resumed(template, template.algorithm.start(now, unix_ns), now)
    }

    /// One that goes on from this state.
    pub(super) fn resumed(template: &Template<A, C>, state: A::State, now: Timestamp) -> Self {
        let gate = RateGate::new(template.algorithm.clone(), state, now, template.lends);
        Self { core: Arc::new(Core::new(gate, template.line, template.name.clone(), template.clock.clone())) }
    }

    /// Its state, if that is all there is to it: nobody holds or waits, and `is_plain` says that nothing in its past
    /// counts, the time of its last reset included.
    pub(super) fn state_alone(
        &self,
        is_plain: impl FnOnce(&A, &A::State, Timestamp, Option<Timestamp>) -> bool,
    ) -> Option<(A, A::State, Timestamp)> {
        if Arc::strong_count(&self.core) > 1 || !self.core.is_open() {
            return None;
        }
        self.core.with_gate(|gate, now| gate.state_alone(now, is_plain))
    }

    /// Whether its state cannot be told from a new one's: nobody holds or waits, and all of the capacity is there.
    pub(super) fn is_fresh(&self) -> bool {
        Arc::strong_count(&self.core) == 1 && {
            let snapshot = self.core.snapshot();
            let starts_full = self.core.with_gate(|gate, _| gate.starts_full());
            starts_full && snapshot.waiting == 0 && snapshot.reset_after == Some(Duration::ZERO)
        }
    }
}

impl<A: Stored, C: Clock> Clone for RateLimiter<A, C> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<A: Stored, C: Clock> fmt::Debug for RateLimiter<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
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
    fn answers_now(&self) -> bool {
        true
    }

    #[inline]
    fn acquire_now(&self, _key: &K, cost: Cost, use_permit: bool) -> Now<Self::Permit> {
        let permit = |grant| use_permit.then(|| RatePermit { core: Arc::clone(&self.core), grant });
        let passed = self.core.pass(cost.units());
        Some(passed.or_else(|refused| self.core.tell(refused, cost.units())).map(permit))
    }

    fn report(&self, _key: &K, visit: &mut dyn FnMut(&Standing)) {
        Standings::seen(&self.core, self.core.clock().now()).tell(self.core.name(), visit);
    }
}

impl<K: ?Sized, A: Stored, C: Clock> TryLimiter<K> for RateLimiter<A, C> {
    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }
}

/// The wait for a [`RatePermit`]. Cancel-safe: see [`RateLimiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRate<A: Stored, C: Clock = DefaultClock> {
    acquire: Acquire<RateGate<A>, C>,
}

impl<A: Stored, C: Clock> Future for AcquireRate<A, C> {
    type Output = Result<RatePermit<A, C>, Error>;

    // Always inlined: its answer goes on to where it is wanted in registers.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.acquire
            .poll_to(cx.waker(), false, |core, grant| RatePermit { core, grant })
            .map_err(Error::Denied)
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
    core: Arc<Core<RateGate<A>, C>>,
    grant: Grant,
}

impl<A: Stored, C: Clock> Permit for RatePermit<A, C> {
    fn cost(&self) -> Cost {
        Cost::new(self.grant.units)
    }

    fn settle(self, actual: Cost) {
        self.core.settle(self.grant, actual.units());
    }

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        Standings::seen(&self.core, self.grant.at).tell(self.core.name(), visit);
    }
}

impl<A: Stored, C: Clock> fmt::Debug for RatePermit<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatePermit").field("grant", &self.grant).finish_non_exhaustive()
    }
}
