//! The same operation on many threads at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Operations a thread takes on at once: all threads end within a portion of each other, so none runs alone.
const PORTION: u64 = 1024;

/// From when the first of the threads starts until the last of `count` operations is done.
pub fn throughput<O, R, M>(threads: usize, count: u64, op: &M) -> Duration
where
    O: FnMut() -> R,
    M: Fn(usize) -> O + Sync,
{
    let spans = on_each(threads, count, op, |portion, op| {
        for _ in 0..portion {
            black_box(op());
        }
    });
    let start = spans.iter().map(|(span, _)| span.0).min().unwrap();
    let end = spans.iter().map(|(span, _)| span.1).max().unwrap();
    end - start
}

/// The latency that `percentile` of a hundred operations stay within. It includes one look at the clock.
pub fn latency<O, R, M>(threads: usize, count: u64, percentile: f64, op: &M) -> Duration
where
    O: FnMut() -> R,
    M: Fn(usize) -> O + Sync,
{
    let clock = quanta::Clock::new();
    let each = on_each(threads, count, op, |portion, op| {
        let mut latencies = Vec::with_capacity(portion as usize);
        let mut before = clock.raw();
        for _ in 0..portion {
            black_box(op());
            let after = clock.raw();
            latencies.push(after.saturating_sub(before));
            before = after;
        }
        latencies
    });
    let mut all: Vec<u64> = each.into_iter().flat_map(|(_, portions)| portions).flatten().collect();
    clock.delta(0, percentile_of(&mut all, percentile))
}

/// The least value that `percentile` of a hundred values do not exceed.
pub fn percentile_of(values: &mut [u64], percentile: f64) -> u64 {
    let rank = (values.len() as f64 * percentile / 100.0).ceil() as usize;
    *values.select_nth_unstable(rank.clamp(1, values.len()) - 1).1
}

type Span = (Instant, Instant);

fn on_each<O, R, T, M>(
    threads: usize,
    count: u64,
    op: &M,
    portion: impl Fn(u64, &mut O) -> T + Sync,
) -> Vec<(Span, Vec<T>)>
where
    O: FnMut() -> R,
    T: Send,
    M: Fn(usize) -> O + Sync,
{
    let (taken, ready, portion) = (AtomicU64::new(0), Barrier::new(threads), &portion);
    let one = |thread| {
        let mut op = op(thread);
        let mut told = Vec::new();
        ready.wait();
        let start = Instant::now();
        loop {
            let before = taken.fetch_add(PORTION, Ordering::Relaxed);
            if before >= count {
                return ((start, Instant::now()), told);
            }
            told.push(portion(PORTION.min(count - before), &mut op));
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
