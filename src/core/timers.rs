use std::task::Waker;

use crate::clock::{Armed, Clock, Timer};
use crate::units::Timestamp;

/// One timer for each runtime whose tasks wait: no runtime depends on another to serve the queue.
pub(super) struct Timers<T>(Vec<T>);

impl<T: Timer> Timers<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes a timer for the current runtime unless there is one. Returns `Some(true)` for a new one, and `None` if
    /// timers cannot be made here.
    pub(super) fn make<C: Clock<Timer = T>>(&mut self, clock: &C) -> Option<bool> {
        if self.0.iter().any(T::is_here) {
            return Some(false);
        }
        self.0.push(clock.timer()?);
        Some(true)
    }

    /// Sets all timers. Returns `true` if the time has come already.
    pub(super) fn arm(&mut self, at: Option<Timestamp>, waker: impl FnOnce() -> Waker) -> bool {
        let Some(at) = at.filter(|_| !self.0.is_empty()) else { return false };
        let waker = waker();
        let mut due = false;
        self.0.retain_mut(|timer| {
            let armed = timer.arm(at, &waker);
            due |= armed == Armed::Due;
            armed != Armed::Gone
        });
        due
    }

    /// Drops all timers once nobody waits: the runtime that an unset timer belongs to may be gone when it is set next.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
