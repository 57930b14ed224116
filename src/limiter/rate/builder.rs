use crate::algorithm::{Anchor, FixedWindow, SlidingWindow};
use crate::clock::{Clock, DefaultClock};
use crate::core::{Named, Options, Queue};
use crate::limiter::{KeyedBuilder, RateLimiter, Stored};
use crate::units::{Name, NameError, QuotaError};

/// Options of a rate limiter. [`build`](RateBuilder::build) tells what is wrong with them.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateBuilder<A, C = DefaultClock> {
    algorithm: Result<A, QuotaError>,
    options: Options<C>,
    lends: bool,
}

/// What a limiter was built from, to build more of the same kind.
#[derive(Debug, Clone)]
pub(crate) struct Template<A, C> {
    pub(crate) algorithm: A,
    pub(crate) options: Named<C>,
    pub(crate) lends: bool,
}

impl<A, C: Clone> Template<A, C> {
    /// The same over another algorithm.
    pub(in crate::limiter) fn with(&self, algorithm: A) -> Self {
        Self { algorithm, options: self.options.clone(), lends: self.lends }
    }
}

impl<A> RateBuilder<A> {
    pub(super) fn new(algorithm: Result<A, QuotaError>) -> Self {
        Self { algorithm, options: Options::default(), lends: false }
    }
}

impl<A: Stored, C: Clock> RateBuilder<A, C> {
    /// Sets the clock. Default: [`DefaultClock`].
    pub fn clock<D: Clock>(self, clock: D) -> RateBuilder<A, D> {
        RateBuilder { algorithm: self.algorithm, options: self.options.clock(clock), lends: self.lends }
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

    /// Grants an ask above the capacity once all of the capacity is left: the rest becomes a debt that later asks wait
    /// for. Default: such an ask is denied, because no wait would help.
    pub fn lend_above_capacity(mut self) -> Self {
        self.lends = true;
        self
    }

    /// The same over what `change` makes of the algorithm.
    pub(in crate::limiter) fn map<B>(
        self,
        change: impl FnOnce(A) -> Result<B, QuotaError>,
    ) -> RateBuilder<B, C> {
        RateBuilder { algorithm: self.algorithm.and_then(change), options: self.options, lends: self.lends }
    }

    /// Makes it a limit for each key: options of keys follow.
    pub fn keyed<K>(self) -> KeyedBuilder<K, A, C> {
        KeyedBuilder::new(self.template())
    }

    /// The limiter. It starts now.
    ///
    /// # Errors
    /// What is wrong with the quota or the options.
    pub fn build(self) -> Result<RateLimiter<A, C>, QuotaError> {
        let limiter = RateLimiter::from_template(&self.template()?);
        limiter.limit.expect_use();
        Ok(limiter)
    }

    fn template(self) -> Result<Template<A, C>, QuotaError> {
        let Self { algorithm, options, lends } = self;
        let options = options.checked().map_err(QuotaError::Name)?;
        Ok(Template { algorithm: algorithm?, options, lends })
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
