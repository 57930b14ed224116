//! Options that every limit with a queue has.

use crate::units::{Name, NameError};

/// The order in which waiters are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Order {
    /// First come, first served: no ask passes one that waits, whatever their costs.
    #[default]
    OldestFirst,
    /// The newest ask is served first, and evicts the oldest when the queue is full. Under overload this serves the
    /// callers that have not given up yet.
    NewestFirst,
}

/// The bound and the order of the queue in front of a limit.
///
/// ```
/// use tollgate::{Order, Queue, Quota, TokenBucket};
/// let queue = Queue::new().limit(500).order(Order::NewestFirst);
/// let bucket = TokenBucket::builder(Quota::per_second(50)).queue(queue).build()?;
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Queue {
    pub(super) asks: usize,
    pub(super) units: Option<u64>,
    pub(super) order: Order,
}

/// Bounds a queue to some tens of megabytes.
const ASKS_MAX: usize = 100_000;

impl Queue {
    /// A queue of at most 100,000 asks of any cost, first come, first served.
    ///
    /// A queue that long is hours at most rates: set [`limit`](Queue::limit) to what a caller would wait for.
    pub const fn new() -> Self {
        Self { asks: ASKS_MAX, units: None, order: Order::OldestFirst }
    }

    /// Bounds the queue to `units`, the sum of the costs that wait. Default: no such bound, only that of 100,000 asks.
    ///
    /// A newcomer that does not fit is denied; in a newest-first queue it evicts the oldest. An ask larger than the
    /// whole bound is denied and evicts nobody. Zero: nobody waits.
    pub const fn limit(mut self, units: u64) -> Self {
        self.units = Some(units);
        self
    }

    /// Sets the order in which waiters are served.
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// An ask of `units` fits behind `asks` waiters with `waiting` units.
    pub(super) const fn fits(self, units: u64, asks: usize, waiting: u64) -> bool {
        asks < self.asks
            && match self.units {
                Some(most) => units <= most.saturating_sub(waiting),
                None => true,
            }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// What all builders have in common: the clock, the queue and the name of a limit.
#[derive(Debug, Clone)]
pub(crate) struct Options<C> {
    pub(crate) clock: C,
    pub(crate) queue: Queue,
    pub(crate) name: Result<Option<Name>, NameError>,
}

impl<C: Default> Default for Options<C> {
    fn default() -> Self {
        Self { clock: C::default(), queue: Queue::new(), name: Ok(None) }
    }
}

impl<C> Options<C> {
    pub(crate) fn clock<D>(self, clock: D) -> Options<D> {
        Options { clock, queue: self.queue, name: self.name }
    }

    pub(crate) fn name<N: TryInto<Name>>(&mut self, name: N)
    where
        NameError: From<N::Error>,
    {
        self.name = name.try_into().map(Some).map_err(NameError::from);
    }

    /// The same options with a name that has been checked.
    pub(crate) fn checked(self) -> Result<Named<C>, NameError> {
        Ok(Named { clock: self.clock, queue: self.queue, name: self.name? })
    }
}

/// Checked options, from which a limit is made.
#[derive(Debug, Clone)]
pub(crate) struct Named<C> {
    pub(crate) clock: C,
    pub(crate) queue: Queue,
    pub(crate) name: Option<Name>,
}
