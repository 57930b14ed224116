//! A limit on how much may be in progress at once.

mod builder;
mod slots;
mod state;
mod stripe;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Compose, Limiter, Part, Permit};
use crate::clock::{Clock, DefaultClock};
use crate::core::{Acquire, Limit, Members, Named, Options, Ticket};
use crate::types::{Ask, Denied, Error, LimitStatus, Policy, Snapshot};
use crate::units::{Cost, Name, Timestamp};
pub use builder::ConcurrencyBuilder;
use slots::SharedStripe;
use state::SlotState;

/// A limit on how much may be in progress at once: weighted, first come, first served, resizable while in use,
/// closable. A cheap handle: clones share one limit.
///
/// **At the limit** [`acquire`](Concurrency::acquire) waits in line for others to finish;
/// [`try_acquire`](Concurrency::try_acquire) refuses. A permit holds its slots until it is dropped.
///
/// ```
/// use tollgate::Concurrency;
/// let slots = Concurrency::new(2);
/// let (one, two) = (slots.try_acquire(1)?, slots.try_acquire(1)?);
/// assert!(slots.try_acquire(1).is_err());
/// drop(one);
/// assert!(slots.try_acquire(1).is_ok());
/// # drop(two);
/// # Ok::<(), tollgate::Denied>(())
/// ```
pub struct Concurrency<C: Clock = DefaultClock> {
    limit: Arc<Limit<SlotState<C>, C>>,
}

impl Concurrency {
    /// A limit of `slots`, at most 2⁶² (more is that). Zero admits nobody until it is resized.
    #[must_use]
    pub fn new(slots: u64) -> Self {
        let Options { clock, queue, .. } = Options::default();
        Self::built(slots, builder::stripes_for(slots), Named { clock, queue, name: None })
    }

    /// A limit of `slots` with options.
    pub fn builder(slots: u64) -> ConcurrencyBuilder {
        ConcurrencyBuilder::new(slots)
    }
}

impl<C: Clock> Concurrency<C> {
    fn built(slots: u64, stripes: usize, options: Named<C>) -> Self {
        let limit = Arc::new_cyclic(|limit| Limit::new(SlotState::new(slots, stripes, limit), options));
        Self { limit }
    }

    /// Waits in line for slots.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the line, and those behind move up;
    /// slots granted but not yet delivered go back.
    ///
    /// # Errors
    /// [`Denied`]: more slots than there are; not within the longest wait; the line is full; the limit is closed; or a
    /// longest wait was given and there is no timer to wait by.
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    #[inline]
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireSlots<C> {
        let ask = ask.into();
        AcquireSlots { acquire: Acquire::new(Arc::clone(&self.limit), ask.units().units(), ask.max_wait()) }
    }

    /// Waits as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Concurrency::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<Slots<C>, Denied> {
        let ask = ask.into();
        let acquire = Acquire::new(Arc::clone(&self.limit), ask.units().units(), ask.max_wait());
        acquire.block().map(|(limit, units)| Slots::of(&limit, units))
    }

    /// Takes slots if they are free now. Needs no runtime, and no lock while nobody waits.
    ///
    /// # Errors
    /// The reason. No time is known after which it would pass: others must release slots.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<Slots<C>, Denied> {
        self.limit.take(cost.into().units(), |units| Slots::of(&self.limit, units))
    }

    /// Slots free, slots in all, and who waits, at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.limit.snapshot()
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.limit.name()
    }

    /// Changes the number of slots, in use or not. Fewer take effect as slots come back: none is taken from who holds
    /// it. Asks in line for more than there are now are refused.
    pub fn resize(&self, slots: u64) {
        self.limit.change(|state, _| state.resize(slots));
    }

    /// Lets nobody in until [`resume`](Concurrency::resume).
    pub fn pause(&self) {
        self.limit.pause(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.limit.pause(false);
    }

    /// Closes for good: those who wait and all who come are refused as closed. Slots out stay valid.
    pub fn close(&self) {
        self.limit.close();
    }
}

impl<C: Clock> Clone for Concurrency<C> {
    fn clone(&self) -> Self {
        Self { limit: Arc::clone(&self.limit) }
    }
}

impl<C: Clock> fmt::Debug for Concurrency<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

fn status<C: Clock>(limit: &Limit<SlotState<C>, C>) -> LimitStatus {
    let Snapshot { capacity, remaining, reset_after, .. } = limit.snapshot();
    LimitStatus::new(limit.name().cloned(), Policy::concurrent(capacity), remaining, reset_after)
}

impl<K: ?Sized, C: Clock> Limiter<K> for Concurrency<C> {
    type Permit = Slots<C>;
    type Fault = Infallible;
    type Acquire = AcquireSlots<C>;

    #[inline]
    fn acquire(&self, _key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, ask)
    }

    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }

    fn status(&self, _key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        visit(&status(&self.limit));
    }
}

impl<K: ?Sized, C: Clock> Compose<K> for Concurrency<C> {
    type Part = SlotsPart<C>;

    fn part(&self, _key: &K, cost: Cost) -> SlotsPart<C> {
        SlotsPart { limit: Arc::clone(&self.limit), units: cost.units(), ticket: None }
    }
}

/// An ask to a [`Concurrency`] limit as a member of a composition.
pub struct SlotsPart<C: Clock = DefaultClock> {
    limit: Arc<Limit<SlotState<C>, C>>,
    units: u64,
    ticket: Option<Ticket<SlotState<C>, C>>,
}

impl<C: Clock> Part for SlotsPart<C> {
    type Permit = Slots<C>;
    type Fault = Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.limit.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        self.limit.peek(self.units)
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Slots<C>, Error>> {
        let claimed = self.ticket.take().and_then(|ticket| ticket.claim());
        let taken = claimed.map_or_else(|| self.limit.take(self.units, |units| units), Ok);
        Poll::Ready(taken.map(|units| Slots::of(&self.limit, units)).map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.ticket = Some(members.add(&self.limit, self.units));
        Ok(())
    }
}

impl<C: Clock> fmt::Debug for SlotsPart<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotsPart").field("units", &self.units).finish_non_exhaustive()
    }
}

/// The wait for [`Slots`]. Cancel-safe: see [`Concurrency::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireSlots<C: Clock = DefaultClock> {
    acquire: Acquire<SlotState<C>, C>,
}

impl<C: Clock> Future for AcquireSlots<C> {
    type Output = Result<Slots<C>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let permit = |limit: Arc<_>, units| Slots::of(&limit, units);
        self.acquire.poll_with(cx.waker(), false, permit).map_err(Error::Denied)
    }
}

impl<C: Clock> fmt::Debug for AcquireSlots<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.acquire.fmt(f)
    }
}

/// Slots of a [`Concurrency`] limit, free again when dropped. Settling and refunding them is dropping them: what is in
/// progress has no cost beyond its time.
#[must_use = "slots are free again as soon as this is dropped: hold it until the work is done"]
pub struct Slots<C: Clock = DefaultClock> {
    stripe: Arc<SharedStripe<C>>,
    units: u64,
}

impl<C: Clock> Slots<C> {
    /// The permit goes back to this thread's stripe, wherever it was taken: slots are all alike.
    #[inline]
    fn of(limit: &Limit<SlotState<C>, C>, units: u64) -> Self {
        Self { stripe: Arc::clone(limit.fast().own()), units }
    }
}

impl<C: Clock> Permit for Slots<C> {
    fn cost(&self) -> Cost {
        Cost::new(self.units)
    }

    fn settle(self, _actual: Cost) {}

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Some(limit) = self.stripe.limit.upgrade() {
            visit(&status(&limit));
        }
    }
}

impl<C: Clock> Drop for Slots<C> {
    #[inline]
    fn drop(&mut self) {
        if self.units > 0 && !self.stripe.word.put_back(self.units) {
            give_back(&self.stripe, self.units);
        }
    }
}

#[cold]
#[inline(never)]
fn give_back<C: Clock>(stripe: &SharedStripe<C>, units: u64) {
    if let Some(limit) = stripe.limit.upgrade() {
        limit.give_back(units, units);
    }
}

impl<C: Clock> fmt::Debug for Slots<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("units", &self.units).finish_non_exhaustive()
    }
}
