use std::sync::OnceLock;

use super::{Clock, NoTimer, system};
use crate::units::Timestamp;

/// The processor's time-stamp counter: cheaper to read than the system's clock, where it can be trusted.
///
/// Nobody but the operating system knows whether the counters of all processors agree, keep their pace, and survive a
/// move of the virtual machine. Where they do not, a limit by this clock keeps its promise by the readings it is given:
/// a reading that lags refuses for longer, one that leaps ahead refills early. Where there is no counter the system's
/// clock is read. It has no timers, as [`SystemClock`](super::SystemClock).
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
            let zero = Zero { raw: counter.raw(), at_ns: super::SystemClock.now().as_ns() };
            Self { counter, zero }
        });
        first.clone()
    }
}

impl Clock for TscClock {
    type Timer = NoTimer;

    #[inline]
    fn now(&self) -> Timestamp {
        // Of a reading before zero the difference is zero.
        let since_ns = self.counter.delta_as_nanos(self.zero.raw, self.counter.raw());
        Timestamp::from_ns(self.zero.at_ns.saturating_add(since_ns))
    }

    fn unix_ns(&self) -> u64 {
        system::unix_ns()
    }

    fn timer(&self) -> Option<NoTimer> {
        None
    }
}
