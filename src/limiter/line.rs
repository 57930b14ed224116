//! The line: those who wait, served in order by whoever moves it. No task and no thread of its own.
//!
//! * [`queue`] keeps who waits; [`gate`] says what a limit must answer; [`inner`] decides under the lock;
//!   [`timers`] sets timers; [`wakes`] wakes who is told; [`core`] locks and moves the line; [`door`] is for who need not
//!   join it; [`acquire`] is the future.
//! * Whatever changes the line (a timer that fires, a release, a cancellation, a change of quota) drives it: it admits
//!   from the front whoever may go, wakes exactly those, and sets the timers for the next. A waiter need not be
//!   polled for the line to move on, so one that is leaked or starved costs its own grant only.
//! * While somebody waits the door is shut, so nobody passes; while nobody waits it is open and needs no lock.

mod acquire;
mod core;
mod door;
mod gate;
mod inner;
mod queue;
mod timers;
mod wakes;

pub(crate) use acquire::Acquire;
pub(crate) use core::Core;
pub(super) use gate::Charge;
#[cfg(feature = "client")]
pub(crate) use gate::Load;
pub(crate) use gate::{Gate, Later};
#[cfg(feature = "client")]
pub(crate) use wakes::wake_all;

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Order {
    /// First come, first served: no ask passes one that waits, whatever their costs.
    #[default]
    OldestFirst,
    /// The newest ask is served first, and takes the place of the oldest when the line is full: under overload those
    /// are served who have not given up yet.
    NewestFirst,
}

/// How long the line in front of a limiter may grow, and in which order it is served.
///
/// ```
/// use tollgate::{Line, Order, Quota, TokenBucket};
/// let line = Line::new().limit(500).order(Order::NewestFirst);
/// let bucket = TokenBucket::builder(Quota::per_second(50)).line(line).build()?;
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Line {
    limit: u64,
    order: Order,
}

impl Line {
    /// A line of at most 100,000 units, first come, first served.
    ///
    /// The default bounds what waits to some tens of megabytes; a line that long is hours at most rates, so set
    /// [`limit`](Line::limit) to what a caller would wait for.
    pub const fn new() -> Self {
        Self { limit: 100_000, order: Order::OldestFirst }
    }

    /// At most `units` wait. Beyond, a newcomer is refused; in a newest-first line it takes the place of the oldest.
    /// An ask larger than the whole line is refused and evicts nobody. Zero: nobody waits.
    pub const fn limit(mut self, units: u64) -> Self {
        self.limit = units;
        self
    }

    /// Who is served first.
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}
