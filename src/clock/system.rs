use std::convert::Infallible;
use std::sync::OnceLock;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Armed, Clock, Timer};
use crate::units::Timestamp;

/// The system's monotonic clock.
///
/// It is correct on machines whose processors' counters disagree, because the operating system says which counter to
/// trust. It has no timers: threads can wait on it (`acquire_blocking`), tasks cannot.
///
/// With the feature `coarse`, on Linux, a limiter that refuses looks at the kernel's coarse clock first: a refusal that
/// is certain by it, several ticks from turning into a grant, costs a fraction of a reading of the exact one.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SystemClock;

/// Zero of the process's clocks, on the monotonic and on the calendar clock.
pub(super) struct Zero {
    #[cfg(any(feature = "tokio", not(all(feature = "coarse", target_os = "linux"))))]
    instant: Instant,
    unix_ns: u64,
    #[cfg(all(feature = "coarse", target_os = "linux"))]
    pub(super) kernel: super::monotonic::Kernel,
}

/// How long before the first look at the clock its zero lies: the longest that the system's instants can express.
const HEAD_STARTS: [Duration; 3] =
    [Duration::from_secs(30 * 86_400), Duration::from_secs(3_600), Duration::from_secs(60)];

#[inline]
pub(super) fn zero() -> &'static Zero {
    static ZERO: OnceLock<Zero> = OnceLock::new();
    ZERO.get_or_init(|| {
        // A paused clock stands at a time before this first look at the clock: zero lies well before both.
        let (now, past) = (Instant::now(), HEAD_STARTS.iter().copied());
        let (instant, start) = past
            .filter_map(|start| Some((now.checked_sub(start)?, start)))
            .next()
            .unwrap_or((now, Duration::ZERO));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(start);
        Zero {
            #[cfg(any(feature = "tokio", not(all(feature = "coarse", target_os = "linux"))))]
            instant,
            unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            #[cfg(all(feature = "coarse", target_os = "linux"))]
            kernel: super::monotonic::Kernel::started(now.duration_since(instant)),
        }
    })
}

#[cfg(any(feature = "tokio", not(all(feature = "coarse", target_os = "linux"))))]
#[inline]
pub(super) fn timestamp(instant: Instant) -> Timestamp {
    let since = instant.saturating_duration_since(zero().instant);
    Timestamp::from_ns(
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos())),
    )
}

pub(super) fn unix_ns() -> u64 {
    zero().unix_ns
}

impl Clock for SystemClock {
    type Timer = NoTimer;

    #[cfg(all(feature = "coarse", target_os = "linux"))]
    const HORIZON: super::Horizon =
        super::Horizon { read: Some(|| zero().kernel.horizon()), now: || Self.now() };

    #[inline]
    fn now(&self) -> Timestamp {
        #[cfg(all(feature = "coarse", target_os = "linux"))]
        return zero().kernel.now();
        #[cfg(not(all(feature = "coarse", target_os = "linux")))]
        timestamp(Instant::now())
    }

    fn unix_ns(&self) -> u64 {
        unix_ns()
    }

    fn timer(&self) -> Option<NoTimer> {
        None
    }
}

/// The timer of a clock that has none.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_enums, reason = "nothing can be added to nothing")]
pub struct NoTimer(Infallible);

impl Timer for NoTimer {
    fn is_here(&self) -> bool {
        match self.0 {}
    }

    fn arm(&mut self, _at: Timestamp, _waker: &Waker) -> Armed {
        match self.0 {}
    }
}
