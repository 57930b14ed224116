use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::tokio::runtime::{Handle, Id};
use ::tokio::task::coop::unconstrained;
use ::tokio::time::{Instant, Sleep, sleep_until};

use super::{Armed, Clock, Timer, system};
use crate::units::Timestamp;

/// Longest sleep: tokio panics when an instant leaves the range of the system's, and the line arms again anyway.
const SLEEP_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Tokio's timers count in milliseconds, and round up; a sleep is never early by more than this.
const TICK: Duration = Duration::from_millis(2);

/// Tokio's clock: the system's monotonic clock, and paused time wherever a test has paused it.
///
/// It can be read outside a runtime. Tasks that wait must be polled inside one with the time driver on; each runtime
/// whose tasks wait drives the line with a timer of its own, so that no runtime depends on another.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TokioClock;

impl Clock for TokioClock {
    type Timer = TokioTimer;

    #[inline]
    fn now(&self) -> Timestamp {
        system::timestamp(Instant::now().into_std())
    }

    fn unix_ns(&self) -> u64 {
        system::unix_ns()
    }

    fn timer(&self) -> Option<TokioTimer> {
        let runtime = Handle::try_current().ok()?.id();
        // A runtime without the time driver panics here; it has no timers.
        let sleep = catch_unwind(|| Box::pin(sleep_until(Instant::now()))).ok()?;
        Some(TokioTimer { runtime, sleep, armed_for: None })
    }
}

/// A tokio sleep, set again and again.
pub struct TokioTimer {
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
    armed_for: Option<Timestamp>,
}

impl fmt::Debug for TokioTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioTimer").field("armed_for", &self.armed_for).finish_non_exhaustive()
    }
}

impl Timer for TokioTimer {
    fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.runtime)
    }

    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed {
        let now = TokioClock.now();
        // A sleep that ended well before its time was ended by its runtime, which is shutting down.
        if self.armed_for.is_some_and(|armed_for| armed_for.since(now) > TICK && self.sleep.is_elapsed()) {
            return Armed::Gone;
        }
        if at <= now {
            return Armed::Due;
        }
        let wait = at.since(now).min(SLEEP_MAX);
        let at = now.after(wait);
        // The runtime may begin to shut down between the look above and the poll, which then panics. Not
        // constrained by the task's budget: this runs inside whichever task moved the line, or in none.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if self.armed_for != Some(at) || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(Instant::now() + wait);
            }
            Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(&mut Context::from_waker(waker))
        }));
        self.armed_for = Some(at);
        match polled {
            Ok(Poll::Pending) => Armed::Set,
            Ok(Poll::Ready(())) => Armed::Due,
            Err(_) => Armed::Gone,
        }
    }
}
