//! The least that a decision costs on this machine: a clock reading and an atomic operation.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tollgate::clock::TscClock;
use tollgate::{Clock, SystemClock};

use crate::bench::{Bench, Floor};
use crate::sample::one_thread;

/// One word that a compare-exchange moves on to the given time: the least a strict limit in one word can do.
#[derive(Default)]
#[repr(align(128))]
pub struct Word(AtomicU64);

impl Word {
    #[inline]
    pub fn step(&self, now_ns: u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(other) =
            self.0.compare_exchange_weak(word, word.max(now_ns) + 1, Ordering::Relaxed, Ordering::Relaxed)
        {
            word = other;
        }
    }

    /// The same at the time that the standard library's clock reads.
    #[inline]
    pub fn step_now(&self, start: Instant) {
        self.step(start.elapsed().as_nanos() as u64);
    }
}

/// Measures each floor once.
pub fn measure(bench: &Bench) -> Vec<Floor> {
    let start = Instant::now();
    let (system, tsc) = (SystemClock::default(), TscClock::default());
    let (alone, timed, counter) = (Word::default(), Word::default(), AtomicU64::default());
    vec![
        bench.floor("std clock", &mut one_thread(|| start.elapsed())),
        bench.floor("SystemClock", &mut one_thread(|| system.now())),
        bench.floor("TscClock", &mut one_thread(|| tsc.now())),
        bench.floor("compare-exchange", &mut one_thread(|| alone.step(black_box(1)))),
        bench.floor("std clock and compare-exchange", &mut one_thread(|| timed.step_now(start))),
        bench.floor("atomic addition", &mut one_thread(|| counter.fetch_add(1, Ordering::Relaxed))),
    ]
}
