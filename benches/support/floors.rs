//! What the machine asks for the least that any limiter must do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::{Clock, SystemClock};

/// One word that says when all is given back, moved on by a compare-and-swap: the least a strict limit on one word can
/// do, with this crate's default clock outside of tokio.
#[derive(Default)]
#[repr(align(128))]
pub struct CasLoop(AtomicU64);

impl CasLoop {
    #[inline]
    pub fn step(&self) {
        let now_ns = SystemClock::default().now().as_ns();
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(other) =
            self.0.compare_exchange_weak(word, word.max(now_ns) + 1, Ordering::Relaxed, Ordering::Relaxed)
        {
            word = other;
        }
    }
}

/// One uncontended atomic addition.
#[derive(Default)]
#[repr(align(128))]
pub struct Atomic(AtomicU64);

impl Atomic {
    #[inline]
    pub fn step(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[inline]
pub fn clock() -> Instant {
    Instant::now()
}

/// A day: a limit that admitted its one unit refuses for the rest of any run.
pub const DAY: Duration = Duration::from_secs(86_400);
