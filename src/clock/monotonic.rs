use std::time::Duration;

use rustix::time::{ClockId, clock_getres, clock_gettime};

use crate::units::Timestamp;

/// How many ticks the coarse clock is taken to lie behind the exact one. It lies behind by one, and by more while a
/// virtual machine stands still.
const TICKS_BEHIND: u64 = 3;

/// The kernel's monotonic clock, the same that the standard library reads, exact and coarse.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    zero_ns: u64,
    behind_ns: u64,
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither is negative: monotonic clocks count from a start in the past.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

impl Kernel {
    /// The clock whose zero lies `ago` before now.
    pub(super) fn started(ago: Duration) -> Self {
        let tick = clock_getres(ClockId::MonotonicCoarse);
        let tick_ns = (tick.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(tick.tv_nsec as u64);
        Self {
            zero_ns: read(ClockId::Monotonic).wrapping_sub(ago.as_nanos() as u64),
            behind_ns: tick_ns.saturating_mul(TICKS_BEHIND),
        }
    }

    #[inline]
    pub(super) fn now(self) -> Timestamp {
        Timestamp::from_ns(read(ClockId::Monotonic).wrapping_sub(self.zero_ns))
    }

    #[inline]
    pub(super) fn horizon(self) -> Timestamp {
        let coarse_ns = read(ClockId::MonotonicCoarse).wrapping_sub(self.zero_ns);
        Timestamp::from_ns(coarse_ns.saturating_add(self.behind_ns))
    }
}
