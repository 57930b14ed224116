use super::Concurrency;
use crate::clock::{Clock, DefaultClock};
use crate::core::{Options, Queue};
use crate::sync::per_thread::cores;
use crate::units::{Name, NameError};

/// More than any machine has cores, and 256 kB.
const STRIPES_MAX: usize = 1024;

/// Options of a concurrency limit.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConcurrencyBuilder<C = DefaultClock> {
    slots: u64,
    stripes: usize,
    options: Options<C>,
}

impl ConcurrencyBuilder {
    pub(super) fn new(slots: u64) -> Self {
        Self { slots, stripes: stripes_for(slots), options: Options::default() }
    }
}

impl<C: Clock> ConcurrencyBuilder<C> {
    /// Sets the clock by which the longest wait of an ask ends. Default: [`DefaultClock`].
    pub fn clock<D: Clock>(self, clock: D) -> ConcurrencyBuilder<D> {
        ConcurrencyBuilder { slots: self.slots, stripes: self.stripes, options: self.options.clock(clock) }
    }

    /// Spreads the free slots over `stripes` words of 256 bytes each, or the next power of two (at most 1,024), so that
    /// threads on different ones do not meet while slots are free. Default: one for each core if there are eight slots or
    /// more for each, else one. The limit admits the same whatever it is; a denial reads all of them.
    pub fn stripes(mut self, stripes: usize) -> Self {
        self.stripes = stripes.clamp(1, STRIPES_MAX).next_power_of_two();
        self
    }

    /// Sets the bound and the order of the queue. Default: [`Queue::new`].
    pub fn queue(mut self, queue: Queue) -> Self {
        self.options.queue = queue;
        self
    }

    /// Names the limit: denials, statuses and metrics carry the name. Default: none.
    pub fn name<N: TryInto<Name>>(mut self, name: N) -> Self
    where
        NameError: From<N::Error>,
    {
        self.options.name(name);
        self
    }

    /// The limit.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn build(self) -> Result<Concurrency<C>, NameError> {
        Ok(Concurrency::built(self.slots, self.stripes, self.options.checked()?))
    }
}

/// Enough slots for each core that a thread finds one at its own stripe nearly always; else one stripe.
pub(super) fn stripes_for(slots: u64) -> usize {
    const ENOUGH: u64 = 8;
    let cores = cores().min(STRIPES_MAX).next_power_of_two();
    if slots / ENOUGH >= cores as u64 { cores } else { 1 }
}
