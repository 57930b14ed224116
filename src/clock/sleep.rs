//! A wait for a time.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Armed, Clock, DefaultClock, Timer};
use crate::units::Timestamp;

/// Waits until a time by a clock.
#[derive(Debug)]
pub(crate) struct Sleep<C: Clock = DefaultClock> {
    clock: C,
    until: Timestamp,
    timer: Option<C::Timer>,
}

impl<C: Clock> Sleep<C> {
    /// A sleep of `wait` from now.
    pub(crate) fn new(clock: C, wait: Duration) -> Self {
        Self { until: clock.now().after(wait), clock, timer: None }
    }

    /// Sleeps for `wait` from now instead.
    #[cfg(feature = "governor")]
    pub(crate) fn reset(&mut self, wait: Duration) {
        self.until = self.clock.now().after(wait);
    }

    /// `true` once the time has come; `false` if there are no timers here. A thread needs none: it uses
    /// [`park`](Self::park).
    pub(crate) fn poll(&mut self, waker: &Waker, is_thread: bool) -> Poll<bool> {
        loop {
            if self.clock.now() >= self.until {
                return Poll::Ready(true);
            }
            if is_thread {
                return Poll::Pending;
            }
            let here = self.timer.take().filter(Timer::is_here);
            let Some(mut timer) = here.or_else(|| self.clock.timer()) else { return Poll::Ready(false) };
            if timer.arm(self.until, waker) == Armed::Set {
                self.timer = Some(timer);
                return Poll::Pending;
            }
            // Due, or gone with its runtime: looked at again, and made anew where this is polled.
        }
    }

    /// Blocks the thread until the time has come, or it is unparked.
    pub(crate) fn park(&self) {
        self.clock.park(Some(self.until));
    }
}
