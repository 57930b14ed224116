//! The only place that reads time: what time it is, and being woken at a time.

mod manual;
#[cfg(all(feature = "coarse", target_os = "linux"))]
mod monotonic;
mod system;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tsc")]
mod tsc;

pub use manual::{ManualClock, ManualTimer};
pub use system::{NoTimer, SystemClock};
#[cfg(feature = "tokio")]
pub use tokio::{TokioClock, TokioTimer};
#[cfg(feature = "tsc")]
pub use tsc::TscClock;

use std::task::Waker;
use std::time::Duration;

use crate::units::Timestamp;

/// The clock limiters use when none is named: tokio's where the `tokio` feature is on, else the system's.
///
/// Outside a paused tokio test the two tell the same time.
#[cfg(feature = "tokio")]
pub type DefaultClock = TokioClock;
/// The clock limiters use when none is named: tokio's where the `tokio` feature is on, else the system's.
#[cfg(not(feature = "tokio"))]
pub type DefaultClock = SystemClock;

/// Tells the time and makes timers.
///
/// A clock should not go backwards. If it does, no limiter gains by it: a reading before an earlier one counts as that
/// earlier one, or is decided by as it is, and what is promised then holds over the readings.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Wakes at a time.
    type Timer: Timer;

    /// Now, since the clock's zero.
    fn now(&self) -> Timestamp;

    /// Nanoseconds from the Unix epoch to the clock's zero.
    fn unix_ns(&self) -> u64 {
        0
    }

    /// A timer that belongs to the place this is called in, for example to the current runtime; `None` if there are
    /// no timers here.
    fn timer(&self) -> Option<Self::Timer>;

    /// What now has not reached yet, if it is read for less than now: what could not go even then is refused by it.
    #[doc(hidden)]
    const HORIZON: Horizon = Horizon::NONE;

    /// Blocks the thread until it is unparked or `until` has come. May return early.
    fn park(&self, until: Option<Timestamp>) {
        match until {
            None => std::thread::park(),
            Some(until) => match until.since(self.now()) {
                Duration::ZERO => {}
                wait => std::thread::park_timeout(wait),
            },
        }
    }
}

/// How to read a time that now has not reached yet, and how to read now. A machine that stood still may be past it:
/// whoever relies on it then refuses what might have gone, and never the other way round.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "hidden")]
pub struct Horizon {
    pub(crate) read: Option<fn() -> Timestamp>,
    pub(crate) now: fn() -> Timestamp,
}

impl Horizon {
    /// There is none cheaper than now.
    pub(crate) const NONE: Self = Self { read: None, now: || Timestamp::MAX };
}

/// What became of setting a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a timer is set, or too late to set, or gone")]
pub enum Armed {
    /// The waker will be woken at the time.
    Set,
    /// The time has come already.
    Due,
    /// The runtime this timer belongs to is shutting down: it never wakes again.
    Gone,
}

/// Wakes at a time, again and again.
pub trait Timer: Send + 'static {
    /// Whether this timer belongs to the place this is called in.
    fn is_here(&self) -> bool;

    /// Wakes `waker` at `at`, in place of whatever was set before.
    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed;
}
