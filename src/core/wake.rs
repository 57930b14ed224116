//! Wakers and destructors run foreign code: outside of every lock, and no panic of theirs aborts the process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// Wakes all, even if one of them panics.
pub(super) fn wake_all(wakes: Vec<Waker>) -> Panicked {
    wakes.into_iter().fold(Panicked(None), |panicked, waker| {
        panicked.or(Panicked(catch_unwind(AssertUnwindSafe(|| waker.wake())).err()))
    })
}

/// The first panic of a waker, kept until the queue has been served.
#[derive(Default)]
#[must_use]
pub(super) struct Panicked(Option<Box<dyn Any + Send>>);

impl Panicked {
    pub(super) fn or(self, later: Self) -> Self {
        Self(self.0.or(later.0))
    }

    /// Continues the panic. A thread that is unwinding already drops it: a second panic would abort the process.
    pub(super) fn resume(self) {
        if let Some(panic) = self.0.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

/// Does what a destructor has to do. Where its thread unwinds already, a panic of foreign code (a clock, an algorithm)
/// would abort the process: it is dropped.
pub(super) fn in_drop(act: impl FnOnce()) {
    if std::thread::panicking() {
        drop(catch_unwind(AssertUnwindSafe(act)));
    } else {
        act();
    }
}
