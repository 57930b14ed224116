//! A limit on how much may be in progress at once.

mod free;
mod gate;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::line::{Acquire, Core, Hold};
use super::stripes::{one_for_each_core, own};
use super::{Limiter, Line, Permit, TryLimiter};
use crate::algorithm::Grant;
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error, Policy, Snapshot, Standing};
use crate::units::{Cost, Name, NameError, Timestamp};
use gate::SlotGate;

/// More than any machine has cores, and 128 kB.
const STRIPES_MAX: usize = 1024;

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
    core: Arc<Core<SlotGate, C>>,
    ties: Arc<[Arc<Tie<C>>]>,
}

/// What permits hold on to the limit by: one for each stripe, so that counting the permits of one thread does not
/// meet another's.
#[repr(align(128))]
struct Tie<C: Clock> {
    core: Arc<Core<SlotGate, C>>,
}

impl<C: Clock> Hold for Arc<Tie<C>> {
    type Gate = SlotGate;
    type Clock = C;

    #[inline]
    fn core(&self) -> &Arc<Core<SlotGate, C>> {
        &self.core
    }
}

impl Concurrency {
    /// A limit of `slots`, at most 2⁶² (more is that). Zero admits nobody until it is resized.
    #[must_use]
    pub fn new(slots: u64) -> Self {
        let stripes = stripes_for(slots);
        Self::built(SlotGate::new(slots, stripes), Line::new(), None, DefaultClock::default())
    }

    /// A limit of `slots` with options.
    pub fn builder(slots: u64) -> ConcurrencyBuilder {
        let stripes = stripes_for(slots);
        ConcurrencyBuilder {
            slots,
            stripes,
            clock: DefaultClock::default(),
            line: Line::new(),
            name: Ok(None),
        }
    }
}

/// Enough slots for each core that a thread finds one at its own stripe nearly always; else one stripe.
fn stripes_for(slots: u64) -> usize {
    const ENOUGH: u64 = 8;
    let cores = one_for_each_core().min(STRIPES_MAX).next_power_of_two();
    if slots / ENOUGH >= cores as u64 { cores } else { 1 }
}

/// Options of a concurrency limit.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConcurrencyBuilder<C = DefaultClock> {
    slots: u64,
    stripes: usize,
    clock: C,
    line: Line,
    name: Result<Option<Name>, NameError>,
}

impl<C: Clock> ConcurrencyBuilder<C> {
    /// Tells the longest wait of an ask by `clock`.
    pub fn clock<D: Clock>(self, clock: D) -> ConcurrencyBuilder<D> {
        let Self { slots, stripes, clock: _, line, name } = self;
        ConcurrencyBuilder { slots, stripes, clock, line, name }
    }

    /// Spreads the slots over `stripes` lines of memory of 128 bytes, or the next power of two, so that threads on
    /// different ones do not meet while slots are free. One for each core where there are eight slots or more for each,
    /// unless set. What is admitted does not depend on it; a refusal looks at all of them.
    pub fn stripes(mut self, stripes: usize) -> Self {
        self.stripes = stripes.clamp(1, STRIPES_MAX).next_power_of_two();
        self
    }

    /// Sets how long the line may grow and in which order it is served.
    pub fn line(mut self, line: Line) -> Self {
        self.line = line;
        self
    }

    /// Names the limit, for refusals to carry.
    pub fn name<N: TryInto<Name>>(mut self, name: N) -> Self
    where
        NameError: From<N::Error>,
    {
        self.name = name.try_into().map(Some).map_err(NameError::from);
        self
    }

    /// The limit.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn build(self) -> Result<Concurrency<C>, NameError> {
        Ok(Concurrency::built(SlotGate::new(self.slots, self.stripes), self.line, self.name?, self.clock))
    }
}

impl<C: Clock> Concurrency<C> {
    fn built(gate: SlotGate, line: Line, name: Option<Name>, clock: C) -> Self {
        let stripes = gate.stripes();
        let core = Arc::new(Core::new(gate, line, name, clock));
        let ties = (0..stripes).map(|_| Arc::new(Tie { core: Arc::clone(&core) })).collect();
        Self { core, ties }
    }

    /// The tie of this thread.
    #[inline]
    fn tie(&self) -> Arc<Tie<C>> {
        Arc::clone(&self.ties[own(&self.ties)])
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
        AcquireSlots { acquire: Acquire::new(self.tie(), ask.units().units(), ask.max_wait()) }
    }

    /// Waits in line as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Concurrency::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<Slots<C>, Denied> {
        let ask = ask.into();
        let acquire = Acquire::new(self.tie(), ask.units().units(), ask.max_wait());
        acquire.block().map(|(tie, grant)| Slots { tie, units: grant.units })
    }

    /// Takes slots if they are free now. Needs no runtime, and no lock while nobody waits.
    ///
    /// # Errors
    /// Why not. There is no time after which it would surely pass: others must finish.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<Slots<C>, Denied> {
        self.core.take(cost.into().units(), |grant| Slots { tie: self.tie(), units: grant.units })
    }

    /// Slots free, slots in all, and who waits, at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.core.name()
    }

    /// Changes the number of slots, in use or not. Fewer take effect as slots come back: none is taken from who holds
    /// it. Asks in line for more than there are now are refused.
    pub fn resize(&self, slots: u64) {
        self.core.change(|gate, _| gate.resize(slots));
    }

    /// Lets nobody in until [`resume`](Concurrency::resume).
    pub fn pause(&self) {
        self.core.pause(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.core.pause(false);
    }

    /// Closes for good: those who wait and all who come are refused as closed. Slots out stay valid.
    pub fn close(&self) {
        self.core.close();
    }
}

impl<C: Clock> Clone for Concurrency<C> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), ties: Arc::clone(&self.ties) }
    }
}

impl<C: Clock> fmt::Debug for Concurrency<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
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
    fn acquire_now(
        &self,
        _key: &K,
        ask: Ask,
        _use_permit: bool,
    ) -> Option<Result<Option<Self::Permit>, Denied>> {
        let permit = |grant: Grant| Some(Slots { tie: self.tie(), units: grant.units });
        let units = ask.units().units();
        match self.core.pass(units) {
            Ok(grant) => Some(Ok(permit(grant))),
            Err(refused) => ask.is_now().then(|| self.core.tell(refused, units).map(permit)),
        }
    }

    fn holds(&self) -> bool {
        true
    }

    fn report(&self, _key: &K, visit: &mut dyn FnMut(&Standing)) {
        visit(&standing(&self.core));
    }
}

impl<K: ?Sized, C: Clock> TryLimiter<K> for Concurrency<C> {
    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }
}

/// The wait for [`Slots`]. Cancel-safe: see [`Concurrency::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireSlots<C: Clock = DefaultClock> {
    acquire: Acquire<Arc<Tie<C>>>,
}

impl<C: Clock> Future for AcquireSlots<C> {
    type Output = Result<Slots<C>, Error>;

    // Always inlined: its answer goes on to where it is wanted in registers.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = self.acquire.poll_to(cx.waker(), false, |tie, grant| Slots { tie, units: grant.units });
        poll.map_err(Error::Denied)
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
    tie: Arc<Tie<C>>,
    units: u64,
}

impl<C: Clock> Permit for Slots<C> {
    fn cost(&self) -> Cost {
        Cost::new(self.units)
    }

    fn settle(self, _actual: Cost) {}

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        visit(&standing(&self.tie.core));
    }
}

fn standing<C: Clock>(core: &Core<SlotGate, C>) -> Standing {
    let Snapshot { capacity, remaining, reset_after, .. } = core.snapshot();
    Standing::new(core.name().cloned(), Policy::concurrent(capacity), remaining, reset_after)
}

impl<C: Clock> Drop for Slots<C> {
    fn drop(&mut self) {
        // Slots do not age: when they were granted is of no account.
        self.tie.core.release(Grant::new(Timestamp::ZERO, self.units));
    }
}

impl<C: Clock> fmt::Debug for Slots<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("units", &self.units).finish_non_exhaustive()
    }
}
