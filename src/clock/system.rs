use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Clock, SystemTimer, calendar};
use crate::units::Timestamp;

/// The system's monotonic clock. The default clock of every limiter.
///
/// It is correct on machines whose processors' counters disagree, because the operating system says which counter to
/// trust. Threads can wait on it without a runtime. With the feature `tokio` tasks can wait on it inside a tokio runtime
/// that has the time driver on, and it follows paused tokio time wherever a test has paused it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SystemClock;

/// The time from the clock's zero to its first reading: the longest that the system's instants can express.
const HEAD_STARTS: [Duration; 3] =
    [Duration::from_secs(30 * 86_400), Duration::from_secs(3_600), Duration::from_secs(60)];

/// Zero of the process's clocks.
#[inline]
fn zero() -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(|| {
        // A paused clock stands at a time before this first reading: zero lies well before both.
        let now = Instant::now();
        HEAD_STARTS.iter().find_map(|start| now.checked_sub(*start)).unwrap_or(now)
    })
}

impl Clock for SystemClock {
    type Timer = SystemTimer;

    #[inline]
    fn now(&self) -> Timestamp {
        #[cfg(feature = "tokio")]
        let now = tokio::time::Instant::now().into_std();
        #[cfg(not(feature = "tokio"))]
        let now = Instant::now();
        let since = now.saturating_duration_since(zero());
        Timestamp::from_ns(
            since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos())),
        )
    }

    fn unix_now(&self) -> Duration {
        calendar::unix_now()
    }

    fn timer(&self) -> Option<SystemTimer> {
        SystemTimer::new()
    }
}
