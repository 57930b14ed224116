//! Waking those who have been told something.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// Wakes all, even if one of them panics: each of them has been told something.
pub(crate) fn wake_all(wakes: Vec<Waker>) -> Panicked {
    wakes.into_iter().fold(Panicked(None), |panicked, waker| {
        panicked.or(Panicked(catch_unwind(AssertUnwindSafe(|| waker.wake())).err()))
    })
}

/// The first panic of a waker, kept until the line has been moved on.
#[must_use]
pub(crate) struct Panicked(Option<Box<dyn Any + Send>>);

impl Panicked {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn or(self, later: Self) -> Self {
        Self(self.0.or(later.0))
    }

    pub(crate) fn resume(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
