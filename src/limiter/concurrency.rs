//! A limit on how much may be in progress at once.

mod builder;
mod free;
mod gate;
mod stripe;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::line::{Acquire, Core};
use super::{Limiter, Line, Now, Permit, TryLimiter};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error, Policy, Snapshot, Standing};
use crate::sync::LastingOne;
use crate::units::{Cost, Name, Timestamp};
pub use builder::ConcurrencyBuilder;
use free::{FreeSlots, Take};
use gate::SlotGate;
use stripe::{Keeper, Stripe};

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
    limit: Arc<Limit<C>>,
    free: FreeSlots,
}

/// What handles and waits share. Slots that are out hold on to the core without being counted here.
struct Limit<C: Clock> {
    core: Arc<Core<SlotGate, C>>,
    free: FreeSlots,
}

impl Concurrency {
    /// A limit of `slots`, at most 2⁶² (more is that). Zero admits nobody until it is resized.
    #[must_use]
    pub fn new(slots: u64) -> Self {
        Self::built(slots, builder::stripes_for(slots), Line::new(), None, DefaultClock::default())
    }

    /// A limit of `slots` with options.
    pub fn builder(slots: u64) -> ConcurrencyBuilder {
        ConcurrencyBuilder::new(slots)
    }
}

impl<C: Clock> Concurrency<C> {
    fn built(slots: u64, stripes: usize, line: Line, name: Option<Name>, clock: C) -> Self {
        let free = FreeSlots::held(stripes);
        let core = Arc::new(Core::new(SlotGate::new(slots, free.clone()), line, name, clock));
        free.keep(&(Arc::clone(&core) as Arc<dyn Keeper>));
        Self { limit: Arc::new(Limit { core, free: free.clone() }), free }
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
        let stage = Stage::Fresh(ask.units().units(), self.limit.core.deadline(ask.max_wait()));
        AcquireSlots { stage, limit: Arc::clone(&self.limit) }
    }

    /// Waits in line as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Concurrency::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<Slots<C>, Denied> {
        let ask = ask.into();
        let core = Arc::clone(&self.limit.core);
        let (_, grant) = Acquire::new(core, ask.units().units(), ask.max_wait()).block()?;
        Ok(Slots::new(self.limit.free.own(), grant.units))
    }

    /// Takes slots if they are free now. Needs no runtime, and no lock while nobody waits.
    ///
    /// # Errors
    /// Why not. There is no time after which it would surely pass: others must finish.
    // Always inlined, so that a permit is made where it is wanted: it is used before a copy of it would have arrived.
    #[inline(always)]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<Slots<C>, Denied> {
        let units = cost.into().units();
        match self.free.take(units) {
            Take::Taken(stripe) => Ok(Slots::new(stripe, units)),
            Take::Short => Err(Denied::exhausted(self.limit.core.name().cloned())),
            Take::Shut => self.limit.try_locked(units),
        }
    }

    /// Slots free, slots in all, and who waits, at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.limit.core.snapshot()
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.limit.core.name()
    }

    /// Changes the number of slots, in use or not. Fewer take effect as slots come back: none is taken from who holds
    /// it. Asks in line for more than there are now are refused.
    pub fn resize(&self, slots: u64) {
        self.limit.core.change(|gate, _| gate.resize(slots));
    }

    /// Lets nobody in until [`resume`](Concurrency::resume).
    pub fn pause(&self) {
        self.limit.core.pause(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.limit.core.pause(false);
    }

    /// Closes for good: those who wait and all who come are refused as closed. Slots out stay valid.
    pub fn close(&self) {
        self.limit.core.close();
    }
}

impl<C: Clock> Clone for Concurrency<C> {
    fn clone(&self) -> Self {
        Self { limit: Arc::clone(&self.limit), free: self.free.clone() }
    }
}

impl<C: Clock> fmt::Debug for Concurrency<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.core.fmt(f)
    }
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
    fn answers_now(&self) -> bool {
        true
    }

    #[inline]
    fn acquire_now(&self, _key: &K, cost: Cost, _use_permit: bool) -> Now<Self::Permit> {
        Some(Self::try_acquire(self, cost).map(Some))
    }

    fn holds(&self) -> bool {
        true
    }

    fn report(&self, _key: &K, visit: &mut dyn FnMut(&Standing)) {
        visit(&self.limit.core.standing());
    }
}

impl<K: ?Sized, C: Clock> TryLimiter<K> for Concurrency<C> {
    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }
}

impl<C: Clock> Limit<C> {
    #[cold]
    #[inline(never)]
    fn try_locked(&self, units: u64) -> Result<Slots<C>, Denied> {
        self.core.take(units, |grant| Slots::new(self.free.own(), grant.units))
    }
}

impl<C: Clock> Drop for Limit<C> {
    fn drop(&mut self) {
        // Nobody asks any more, and those who wait would share this. Closed, it leaves the words alone for good.
        self.core.close();
        if self.core.with_gate(|gate, _| gate.leave()) {
            self.free.let_go();
        }
    }
}

impl<C: Clock> Keeper for Core<SlotGate, C> {
    fn give_back(self: Arc<Self>, units: u64) {
        let was_last = self.improve(|gate, _| gate.put(units));
        if was_last {
            self.door.let_go();
        }
    }

    fn standing(&self) -> Standing {
        let Snapshot { capacity, remaining, reset_after, .. } = self.snapshot();
        Standing::new(self.name().cloned(), Policy::concurrent(capacity), remaining, reset_after)
    }
}

/// The wait for [`Slots`]. Cancel-safe: see [`Concurrency::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireSlots<C: Clock = DefaultClock> {
    /// Dropped first: what it gives back may be what the limit waits for.
    stage: Stage<C>,
    limit: Arc<Limit<C>>,
}

enum Stage<C: Clock> {
    /// Not polled yet: the units, and until when it will wait.
    Fresh(u64, Option<Timestamp>),
    Waits(Acquire<SlotGate, C>),
    Done,
}

impl<C: Clock> Future for AcquireSlots<C> {
    type Output = Result<Slots<C>, Error>;

    // Always inlined: its answer goes on to where it is wanted in registers.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Fresh(units, _) = self.stage {
            if let Take::Taken(stripe) = self.limit.free.take(units) {
                self.stage = Stage::Done;
                return Poll::Ready(Ok(Slots::new(stripe, units)));
            }
        }
        self.poll_in_line(cx)
    }
}

impl<C: Clock> AcquireSlots<C> {
    #[inline(never)]
    fn poll_in_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Slots<C>, Error>> {
        if let Stage::Fresh(units, deadline) = self.stage {
            self.stage = Stage::Waits(Acquire::until(Arc::clone(&self.limit.core), units, deadline));
        }
        let Stage::Waits(acquire) = &mut self.stage else {
            panic!("an acquire was polled after it had given its answer")
        };
        Pin::new(acquire).poll(cx).map(|heard| match heard {
            Ok((_, grant)) => Ok(Slots::new(self.limit.free.own(), grant.units)),
            Err(denied) => Err(Error::Denied(denied)),
        })
    }
}

impl<C: Clock> fmt::Debug for AcquireSlots<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireSlots").finish_non_exhaustive()
    }
}

/// Slots of a [`Concurrency`] limit, free again when dropped. Settling and refunding them is dropping them: what is in
/// progress has no cost beyond its time.
#[must_use = "slots are free again as soon as this is dropped: hold it until the work is done"]
pub struct Slots<C: Clock = DefaultClock> {
    stripe: LastingOne<Stripe>,
    units: u64,
    clock: PhantomData<fn() -> C>,
}

impl<C: Clock> Slots<C> {
    #[inline]
    const fn new(stripe: LastingOne<Stripe>, units: u64) -> Self {
        Self { stripe, units, clock: PhantomData }
    }
}

impl<C: Clock> Permit for Slots<C> {
    fn cost(&self) -> Cost {
        Cost::new(self.units)
    }

    fn settle(self, _actual: Cost) {}

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        if let Some(keeper) = self.stripe.keeper() {
            visit(&keeper.standing());
        }
    }
}

impl<C: Clock> Drop for Slots<C> {
    #[inline]
    fn drop(&mut self) {
        if self.units == 0 || !self.stripe.put_back(self.units) {
            give_back(&self.stripe, self.units);
        }
    }
}

#[cold]
#[inline(never)]
fn give_back(stripe: &Stripe, units: u64) {
    if let Some(keeper) = stripe.keeper() {
        keeper.give_back(units);
    }
}

impl<C: Clock> fmt::Debug for Slots<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("units", &self.units).finish_non_exhaustive()
    }
}
