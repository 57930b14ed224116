use std::task::Waker;

use crate::clock::{Armed, Clock, Timer};
use crate::units::Timestamp;

/// One timer for each runtime whose tasks wait, so that none depends on another to move the line.
pub(super) struct Timers<T>(Vec<T>);

impl<T: Timer> Timers<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sees to a timer for the place this is called in. Whether one was made, or nothing if there is none.
    pub(super) fn make<C: Clock<Timer = T>>(&mut self, clock: &C) -> Option<bool> {
        if self.0.iter().any(T::is_here) {
            return Some(false);
        }
        self.0.push(clock.timer()?);
        Some(true)
    }

    /// Sets all of them. Whether the time has come already.
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

    /// Nobody waits. Timers are not kept: the runtime an unset one belongs to may be gone when it is set next.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
