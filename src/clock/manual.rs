use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::{Armed, Clock, Timer};
use crate::units::Timestamp;

/// A clock that stands still until it is moved, for tests and simulations. Clones are the same clock.
///
/// Moving it wakes whoever waits for a time passed, in order, each at its own time: a wait that leads to another is
/// followed through.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{ManualClock, Quota, TokenBucket};
///
/// let clock = ManualClock::new();
/// let bucket = TokenBucket::builder(Quota::per_second(10).burst(1)).clock(clock.clone()).build()?;
/// assert!(bucket.check(1).is_ok());
/// assert!(bucket.check(1).is_err());
/// clock.advance(Duration::from_millis(100));
/// assert!(bucket.check(1).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    now_ns: AtomicU64,
    /// The calendar less the clock, in nanoseconds.
    calendar_ahead: Mutex<i128>,
    timers: Mutex<Timers>,
}

#[derive(Default)]
struct Timers {
    next_id: u64,
    set: BTreeMap<(Timestamp, u64), Waker>,
}

impl ManualClock {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A clock at `at`.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        let clock = Self::new();
        clock.set(at);
        clock
    }

    /// Moves the clock on by `span`.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().after(span));
    }

    /// Moves the clock to `to`. A time that has passed moves nothing: clocks do not go back.
    pub fn set(&self, to: Timestamp) {
        loop {
            let mut timers = self.timers();
            let due = timers.set.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= to);
            let Some((at, id)) = due else {
                self.shared.now_ns.fetch_max(to.as_ns(), Ordering::AcqRel);
                return;
            };
            self.shared.now_ns.fetch_max(at.as_ns(), Ordering::AcqRel);
            let waker = timers.set.remove(&(at, id));
            drop(timers);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Steps the calendar: the clock's present time is `to` after the Unix epoch. From there the calendar moves with the
    /// clock. Without this, zero of the clock is the epoch.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{Clock, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// clock.set_unix_now(Duration::from_secs(1_000));
    /// clock.advance(Duration::from_secs(5));
    /// assert_eq!(clock.unix_now(), Duration::from_secs(1_005));
    /// ```
    pub fn set_unix_now(&self, to: Duration) {
        let ahead = i128::try_from(to.as_nanos()).unwrap_or(i128::MAX) - i128::from(self.now().as_ns());
        *self.calendar_ahead() = ahead;
    }

    fn calendar_ahead(&self) -> MutexGuard<'_, i128> {
        self.shared.calendar_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.shared.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_timer(&self) -> ManualTimer {
        let mut timers = self.timers();
        timers.next_id += 1;
        ManualTimer { clock: self.clone(), id: timers.next_id, armed_for: None }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Clock for ManualClock {
    type Timer = ManualTimer;

    fn now(&self) -> Timestamp {
        Timestamp::from_ns(self.shared.now_ns.load(Ordering::Acquire))
    }

    fn unix_now(&self) -> Duration {
        let unix = i128::from(self.now().as_ns()).saturating_add(*self.calendar_ahead());
        Duration::from_nanos(u64::try_from(unix.max(0)).unwrap_or(u64::MAX))
    }

    fn timer(&self) -> Option<ManualTimer> {
        Some(self.make_timer())
    }

    fn park(&self, until: Option<Timestamp>) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let mut timer = self.make_timer();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        if until.is_none_or(|until| timer.arm(until, &waker) == Armed::Set) {
            thread::park();
        }
    }
}

/// A timer of a [`ManualClock`].
#[derive(Debug)]
pub struct ManualTimer {
    clock: ManualClock,
    id: u64,
    armed_for: Option<Timestamp>,
}

impl Timer for ManualTimer {
    fn is_here(&self) -> bool {
        true
    }

    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed {
        let mut timers = self.clock.timers();
        if let Some(before) = self.armed_for.take() {
            timers.set.remove(&(before, self.id));
        }
        // Read under the lock that the mover holds, so that no move slips between the look and the entry.
        if at <= self.clock.now() {
            return Armed::Due;
        }
        timers.set.insert((at, self.id), waker.clone());
        self.armed_for = Some(at);
        Armed::Set
    }
}

impl Drop for ManualTimer {
    fn drop(&mut self) {
        if let Some(before) = self.armed_for.take() {
            let waker = self.clock.timers().set.remove(&(before, self.id));
            drop(waker);
        }
    }
}
