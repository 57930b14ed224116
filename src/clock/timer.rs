//! Timers of the system's clock: tokio's, where there is a runtime.

use std::fmt;
use std::task::Waker;
#[cfg(feature = "tokio")]
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

#[cfg(feature = "tokio")]
use ::tokio::{
    runtime::{Handle, Id},
    task::coop::unconstrained,
    time::{Instant, Sleep as TokioSleep, sleep_until},
};

use super::{Armed, Timer};
#[cfg(feature = "tokio")]
use super::{Clock, SystemClock};
use crate::units::Timestamp;

/// Longest sleep: tokio panics when an instant leaves the range of the system's, and the queue arms again anyway.
#[cfg(feature = "tokio")]
const SLEEP_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Tokio's timers count in milliseconds, and round up; a sleep is never early by more than this.
#[cfg(feature = "tokio")]
const TICK: Duration = Duration::from_millis(2);

/// A timer of the system's clock, set again and again: a tokio sleep, in the runtime where it was made. Without the
/// feature `tokio` there is none, and only threads can wait.
pub struct SystemTimer {
    #[cfg(feature = "tokio")]
    runtime: Id,
    #[cfg(feature = "tokio")]
    sleep: Pin<Box<TokioSleep>>,
    #[cfg(feature = "tokio")]
    armed_for: Option<Timestamp>,
    #[cfg(not(feature = "tokio"))]
    never: std::convert::Infallible,
}

impl fmt::Debug for SystemTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTimer").finish_non_exhaustive()
    }
}

#[cfg(not(feature = "tokio"))]
impl SystemTimer {
    pub(super) const fn new() -> Option<Self> {
        None
    }
}

#[cfg(not(feature = "tokio"))]
impl Timer for SystemTimer {
    fn is_here(&self) -> bool {
        match self.never {}
    }

    fn arm(&mut self, _at: Timestamp, _waker: &Waker) -> Armed {
        match self.never {}
    }
}

#[cfg(feature = "tokio")]
impl SystemTimer {
    pub(super) fn new() -> Option<Self> {
        let runtime = Handle::try_current().ok()?.id();
        // A runtime without the time driver panics here; it has no timers.
        let sleep = catch_unwind(|| Box::pin(sleep_until(Instant::now()))).ok()?;
        Some(Self { runtime, sleep, armed_for: None })
    }
}

#[cfg(feature = "tokio")]
impl Timer for SystemTimer {
    fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.runtime)
    }

    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed {
        let now = SystemClock.now();
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
        // constrained by the task's budget: this runs inside whichever task moved the queue, or in none.
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

/// The timer of a clock of your own that has none: threads can wait by it, tasks cannot.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_enums, reason = "nothing can be added to nothing")]
pub enum NoTimer {}

impl Timer for NoTimer {
    fn is_here(&self) -> bool {
        match *self {}
    }

    fn arm(&mut self, _at: Timestamp, _waker: &Waker) -> Armed {
        match *self {}
    }
}
