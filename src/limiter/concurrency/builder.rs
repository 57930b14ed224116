use super::Concurrency;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::Line;
use crate::limiter::stripes::one_for_each_core;
use crate::units::{Name, NameError};

/// More than any machine has cores, and 128 kB.
const STRIPES_MAX: usize = 1024;

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

impl ConcurrencyBuilder {
    pub(super) fn new(slots: u64) -> Self {
        let stripes = stripes_for(slots);
        Self { slots, stripes, clock: DefaultClock::default(), line: Line::new(), name: Ok(None) }
    }
}

impl<C: Clock> ConcurrencyBuilder<C> {
    /// Tells the longest wait of an ask by `clock`.
    pub fn clock<D: Clock>(self, clock: D) -> ConcurrencyBuilder<D> {
        let Self { slots, stripes, clock: _, line, name } = self;
        ConcurrencyBuilder { slots, stripes, clock, line, name }
    }

    /// Spreads the slots over `stripes` lines of memory of 128 bytes, or the next power of two, so that threads on
    /// different ones do not meet while slots are free. One for each core where there are eight slots or more for each,
    /// unless set. What is admitted does not depend on it; a refusal looks at all of them. They are not given back to the
    /// allocator when the limit is gone: the next one uses them.
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
        Ok(Concurrency::built(self.slots, self.stripes, self.line, self.name?, self.clock))
    }
}

/// Enough slots for each core that a thread finds one at its own stripe nearly always; else one stripe.
pub(super) fn stripes_for(slots: u64) -> usize {
    const ENOUGH: u64 = 8;
    let cores = one_for_each_core().min(STRIPES_MAX).next_power_of_two();
    if slots / ENOUGH >= cores as u64 { cores } else { 1 }
}
