//! Calendar time, read at each call: it may be stepped, by NTP, by hand, or because the machine slept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
#[cfg(feature = "tokio")]
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The time since the Unix epoch by the system's calendar. Zero before the epoch.
fn system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(not(feature = "tokio"))]
pub(super) fn unix_now() -> Duration {
    system()
}

/// As [`system`]. Where tokio's time is not the real one (a test has paused it) the calendar moves with tokio's time.
#[cfg(feature = "tokio")]
pub(super) fn unix_now() -> Duration {
    let before = Instant::now();
    let clock = ::tokio::time::Instant::now().into_std();
    let unix = system();
    let after = Instant::now();
    let mut shifted = SHIFTED.lock().unwrap_or_else(PoisonError::into_inner);
    shifted.read(clock, before..=after, unix)
}

#[cfg(feature = "tokio")]
static SHIFTED: Mutex<Shifted> = Mutex::new(Shifted(None));

/// Two real readings taken at one time, once a clock has been seen that does not tell real time.
///
/// The calendar and the monotonic clock cannot be read at one instant: what lies between two such pairs differs by
/// some nanoseconds each time. One pair serves all readings, so that time that stands still is one time to the
/// nanosecond, until the calendar has been stepped.
#[cfg(feature = "tokio")]
struct Shifted(Option<(Instant, Duration)>);

/// A calendar that is off by more than this from the pair was stepped. More than a thread is off the processor between
/// two readings.
#[cfg(feature = "tokio")]
const STEP: Duration = Duration::from_secs(1);

#[cfg(feature = "tokio")]
impl Shifted {
    /// The calendar at the clock's time. `unix` was read within `real`, and so was the clock.
    fn read(&mut self, clock: Instant, real: std::ops::RangeInclusive<Instant>, unix: Duration) -> Duration {
        if self.0.is_none() && real.contains(&clock) {
            return unix;
        }
        let expected = self.0.map(|pair| at(pair, *real.start()));
        if expected.is_none_or(|expected| expected.abs_diff(unix) > STEP) {
            self.0 = Some((*real.start(), unix));
        }
        self.0.map_or(unix, |pair| at(pair, clock))
    }
}

/// The calendar at an instant, by a pair of readings.
#[cfg(feature = "tokio")]
fn at((then, unix): (Instant, Duration), instant: Instant) -> Duration {
    let since = instant.saturating_duration_since(then);
    let before = then.saturating_duration_since(instant);
    unix.saturating_add(since).saturating_sub(before)
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const NS: Duration = Duration::from_nanos(1);

    #[test]
    fn a_clock_of_real_time_tells_the_calendar_as_it_is_read() {
        let (mut shifted, now) = (Shifted(None), Instant::now());
        for unix in [S * 1_000, S * 40_000, S * 7] {
            assert_eq!(shifted.read(now + NS, now..=now + NS * 2, unix), unix);
        }
    }

    #[test]
    fn a_paused_clock_tells_one_time_to_the_nanosecond_until_it_is_moved() {
        let (mut shifted, start) = (Shifted(None), Instant::now());
        let mut real = |after: Duration, clock: Duration, unix: Duration| {
            shifted.read(start + clock, start + after..=start + after + NS * 90, unix)
        };
        let first = real(S, Duration::ZERO, S * 1_000 + NS * 40);
        assert_eq!(first, S * 999 + NS * 40);
        // Read again a second later; the readings lie differently by a few nanoseconds, and by a pause of the thread.
        assert_eq!(real(S * 2, Duration::ZERO, S * 1_001 + NS * 73), first);
        assert_eq!(real(S * 2, Duration::ZERO, S * 1_001 + S / 2), first);
        assert_eq!(real(S * 2, S * 3_600, S * 1_001 + NS * 2), first + S * 3_600);
        // Where the clock happens to tell real time, it tells the same.
        assert_eq!(real(S * 3, S * 3 + NS, S * 1_002 + NS * 9), first + S * 3 + NS);
    }

    #[test]
    fn a_paused_clock_follows_a_step_of_the_calendar() {
        let (mut shifted, start) = (Shifted(None), Instant::now());
        let first = shifted.read(start, start + S..=start + S, S * 1_000);
        let stepped = shifted.read(start, start + S * 2..=start + S * 2, S * 37_001);
        assert_eq!(stepped, first + S * 36_000);
        let back = shifted.read(start, start + S * 3..=start + S * 3, S * 2);
        assert_eq!(back, Duration::ZERO, "before the epoch there is no time");
    }
}
