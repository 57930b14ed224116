//! The same operation on many threads at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

/// Operations a thread takes on at once: all threads end within a portion of each other, so none runs alone.
const PORTION: u64 = 1024;
/// The share of the processors that a run has to get, and how often it is tried.
const UNDISTURBED: f64 = 0.95;
const TRIES: usize = 3;

/// From when the first of the threads starts until the last of `count` operations is done.
///
/// What the processors do for others meanwhile is no part of it: a run that did not get them is taken again, a few
/// times, and the one that got the most of them counts. Operations that sleep never get all of them, and are not favoured.
pub fn throughput<O, R, M>(threads: usize, count: u64, op: &M) -> Duration
where
    O: FnMut() -> R,
    M: Fn(usize) -> O + Sync,
{
    let processors = thread::available_parallelism().map_or(1, usize::from).min(threads);
    let run = || {
        let each = on_each(threads, count, op, |portion, op| {
            for _ in 0..portion {
                black_box(op());
            }
        });
        let start = each.iter().map(|thread| thread.start).min().unwrap();
        let end = each.iter().map(|thread| thread.end).max().unwrap();
        let wall = end - start;
        let used: Duration = each.iter().map(|thread| thread.processor).sum();
        (used.as_secs_f64() / (wall.as_secs_f64() * processors as f64), wall)
    };
    let mut best = (0.0, Duration::ZERO);
    for _ in 0..TRIES {
        let run = run();
        if run.0 > best.0 {
            best = run;
        }
        if best.0 > UNDISTURBED {
            break;
        }
    }
    best.1
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
    let mut all: Vec<u64> = each.into_iter().flat_map(|thread| thread.told).flatten().collect();
    clock.delta(0, percentile_of(&mut all, percentile))
}

/// The least value that `percentile` of a hundred values do not exceed.
pub fn percentile_of(values: &mut [u64], percentile: f64) -> u64 {
    let rank = (values.len() as f64 * percentile / 100.0).ceil() as usize;
    *values.select_nth_unstable(rank.clamp(1, values.len()) - 1).1
}

/// When a thread worked, how long it was on a processor, and what it told of each portion.
struct Thread<T> {
    start: Instant,
    end: Instant,
    processor: Duration,
    told: Vec<T>,
}

fn on_each<O, R, T, M>(
    threads: usize,
    count: u64,
    op: &M,
    portion: impl Fn(u64, &mut O) -> T + Sync,
) -> Vec<Thread<T>>
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
        let (start, processor) = (Instant::now(), ThreadTime::now());
        loop {
            let before = taken.fetch_add(PORTION, Ordering::Relaxed);
            if before >= count {
                let processor = processor.elapsed();
                return Thread { start, end: Instant::now(), processor, told };
            }
            told.push(portion(PORTION.min(count - before), &mut op));
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
