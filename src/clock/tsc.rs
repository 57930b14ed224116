use std::sync::OnceLock;
use std::task::Waker;
use std::time::Duration;

use super::{Armed, Clock, SystemClock, SystemTimer, Timer};
use crate::units::Timestamp;

/// The processor's time-stamp counter: cheaper to read than the system's clock, where it can be trusted.
///
/// Nobody but the operating system knows whether the counters of all processors agree, keep their pace, and survive a
/// move of the virtual machine. Where they do not, a limit by this clock keeps its promise by the readings it is given:
/// a reading that lags refuses for longer, one that leaps ahead refills early. Where there is no counter the system's
/// clock is read. It waits by the timers of [`SystemClock`].
#[derive(Debug, Clone)]
pub struct TscClock {
    counter: quanta::Clock,
    zero: Zero,
}

/// A reading of the counter, and what the system's clock told then.
#[derive(Debug, Clone, Copy)]
struct Zero {
    raw: u64,
    at_ns: u64,
}

impl Default for TscClock {
    fn default() -> Self {
        static FIRST: OnceLock<TscClock> = OnceLock::new();
        let first = FIRST.get_or_init(|| {
            let counter = quanta::Clock::new();
            let zero = Zero { raw: counter.raw(), at_ns: SystemClock.now().as_ns() };
            Self { counter, zero }
        });
        first.clone()
    }
}

impl Clock for TscClock {
    type Timer = TscTimer;

    #[inline]
    fn now(&self) -> Timestamp {
        // Of a reading before zero the difference is zero.
        let since_ns = self.counter.delta_as_nanos(self.zero.raw, self.counter.raw());
        Timestamp::from_ns(self.zero.at_ns.saturating_add(since_ns))
    }

    fn unix_now(&self) -> Duration {
        SystemClock.unix_now()
    }

    fn timer(&self) -> Option<TscTimer> {
        Some(TscTimer { clock: self.clone(), timer: SystemClock.timer()? })
    }
}

/// A timer of the [`TscClock`]: one of the system's clock, set for the time that is left.
#[derive(Debug)]
pub struct TscTimer {
    clock: TscClock,
    timer: SystemTimer,
}

impl Timer for TscTimer {
    fn is_here(&self) -> bool {
        self.timer.is_here()
    }

    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed {
        let left = at.since(self.clock.now());
        if left.is_zero() {
            return Armed::Due;
        }
        match self.timer.arm(SystemClock.now().after(left), waker) {
            // The two clocks differ by a little: it is armed again until its own says that the time has come.
            Armed::Due if at > self.clock.now() => {
                self.timer.arm(SystemClock.now().after(at.since(self.clock.now())), waker)
            }
            armed => armed,
        }
    }
}
