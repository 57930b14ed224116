use crate::algorithm::{Anchor, FixedWindow, SlidingWindow};
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{Line, RateLimiter, Stored};
use crate::units::{Name, NameError, QuotaError};

/// Options of a rate limiter. What is wrong with them is told by [`build`](RateBuilder::build).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateBuilder<A, C = DefaultClock> {
    algorithm: Result<A, QuotaError>,
    clock: C,
    line: Line,
    name: Result<Option<Name>, NameError>,
    lends: bool,
}

/// What a limiter was built from, to build more of.
#[derive(Debug, Clone)]
pub(in crate::limiter) struct Template<A, C> {
    pub(in crate::limiter) algorithm: A,
    pub(in crate::limiter) clock: C,
    pub(in crate::limiter) line: Line,
    pub(in crate::limiter) name: Option<Name>,
    pub(in crate::limiter) lends: bool,
}

impl<A, C: Clone> Template<A, C> {
    /// The same over another algorithm.
    pub(in crate::limiter) fn with(&self, algorithm: A) -> Self {
        Self {
            algorithm,
            clock: self.clock.clone(),
            line: self.line,
            name: self.name.clone(),
            lends: self.lends,
        }
    }
}

impl<A> RateBuilder<A> {
    pub(super) fn new(algorithm: Result<A, QuotaError>) -> Self {
        Self { algorithm, clock: DefaultClock::default(), line: Line::new(), name: Ok(None), lends: false }
    }
}

impl<A: Stored, C: Clock> RateBuilder<A, C> {
    /// Tells the time by `clock`.
    pub fn clock<D: Clock>(self, clock: D) -> RateBuilder<A, D> {
        let Self { algorithm, clock: _, line, name, lends } = self;
        RateBuilder { algorithm, clock, line, name, lends }
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

    /// Lets an ask above the capacity go once all of the capacity is there: the rest becomes a debt that later asks
    /// wait for. Otherwise such an ask is refused, because no wait would help.
    pub fn lend_above_capacity(mut self) -> Self {
        self.lends = true;
        self
    }

    /// The same over what `change` makes of the algorithm.
    pub(in crate::limiter) fn map(mut self, change: impl FnOnce(A) -> Result<A, QuotaError>) -> Self {
        self.algorithm = self.algorithm.and_then(change);
        self
    }

    /// The limiter. It starts now.
    ///
    /// # Errors
    /// What is wrong with the quota or the options.
    pub fn build(self) -> Result<RateLimiter<A, C>, QuotaError> {
        let Self { algorithm, clock, line, name, lends } = self;
        let name = name.map_err(QuotaError::Name)?;
        Ok(RateLimiter::from_template(&Template { algorithm: algorithm?, clock, line, name, lends }))
    }
}

impl<C: Clock> RateBuilder<SlidingWindow, C> {
    /// Counts in `segments` segments of the window: bounded memory, still strict. See
    /// [`segments`](SlidingWindow::segments).
    pub fn segments(self, segments: u64) -> Self {
        self.map(|window| window.segments(segments))
    }
}

impl<C: Clock> RateBuilder<FixedWindow, C> {
    /// Puts the edges of the windows where `anchor` says.
    pub fn anchored(self, anchor: Anchor) -> Self {
        self.map(|window| Ok(window.anchored(anchor)))
    }
}
