//! The only place that reads time: what time it is, and being woken at a time.

mod calendar;
mod manual;
mod sleep;
mod system;
mod timer;
#[cfg(feature = "tsc")]
mod tsc;

pub use manual::{ManualClock, ManualTimer};
pub(crate) use sleep::Sleep;
pub use system::SystemClock;
pub use timer::{NoTimer, SystemTimer};
#[cfg(feature = "tsc")]
pub use tsc::{TscClock, TscTimer};

use std::task::Waker;
use std::time::Duration;

use crate::units::Timestamp;

/// The clock that limiters use unless another is named: one type, whatever the features.
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

    /// The time since the Unix epoch by the calendar, read at each call: it may be stepped at any time, forwards or
    /// backwards. Default: [`now`](Self::now), for a clock whose zero is the epoch, or that has no calendar.
    fn unix_now(&self) -> Duration {
        Duration::from_nanos(self.now().as_ns())
    }

    /// A timer that belongs to the place this is called in, for example to the current runtime; `None` if there are
    /// no timers here.
    fn timer(&self) -> Option<Self::Timer>;

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

/// The time since the Unix epoch in nanoseconds.
pub(crate) fn unix_ns<C: Clock>(clock: &C) -> u64 {
    u64::try_from(clock.unix_now().as_nanos()).unwrap_or(u64::MAX)
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
    /// `true` if this timer belongs to the place this is called in.
    fn is_here(&self) -> bool;

    /// Wakes `waker` at `at`, in place of whatever was set before.
    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed;
}
