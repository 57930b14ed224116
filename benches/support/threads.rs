//! The same operation on many threads at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

/// Operations between two looks at whether the time is over.
const PORTION: u64 = 256;
/// How long threads work: for many turns on a processor, if they must take turns.
const AT_ONCE: Duration = Duration::from_millis(4);
const IN_TURNS: Duration = Duration::from_millis(40);
/// The share of the processors that a run has to get, and how often it is tried.
const UNDISTURBED: f64 = 0.95;
const TRIES: usize = 3;

/// How long `count` operations take, by how many `threads` threads do in a given time. Had they to do a given number, all
/// would wait for the one that has lost its processor.
///
/// What the processors do for others meanwhile is no part of it: a run that did not get them is taken again, a few
/// times, and the one that got the most of them counts. Operations that sleep never get all of them, and are not favoured.
pub fn throughput<O, R, M>(threads: usize, count: u64, op: &M) -> Duration
where
    O: FnMut() -> R,
    M: Fn(usize) -> O + Sync,
{
    let run = || {
        let run = on_each(threads, op, |op| {
            for _ in 0..PORTION {
                black_box(op());
            }
        });
        let done = run.told.len() as u64 * PORTION;
        let share = run.processor.as_secs_f64() / (run.wall.as_secs_f64() * cores().min(threads) as f64);
        (share, run.wall.mul_f64(count as f64 / done as f64))
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
pub fn latency<O, R, M>(threads: usize, percentile: f64, op: &M) -> Duration
where
    O: FnMut() -> R,
    M: Fn(usize) -> O + Sync,
{
    let clock = quanta::Clock::new();
    let run = on_each(threads, op, |op| {
        let mut before = clock.raw();
        [(); PORTION as usize].map(|()| {
            black_box(op());
            let after = clock.raw();
            let latency = after.saturating_sub(before);
            before = after;
            latency
        })
    });
    let mut all: Vec<u64> = run.told.into_iter().flatten().collect();
    clock.delta(0, percentile_of(&mut all, percentile))
}

/// The least value that `percentile` of a hundred values do not exceed.
pub fn percentile_of(values: &mut [u64], percentile: f64) -> u64 {
    let rank = (values.len() as f64 * percentile / 100.0).ceil() as usize;
    *values.select_nth_unstable(rank.clamp(1, values.len()) - 1).1
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What threads did in their time.
struct Run<T> {
    wall: Duration,
    /// How long they were on processors, all together.
    processor: Duration,
    /// What was told of each portion.
    told: Vec<T>,
}

fn on_each<O, R, T, M>(threads: usize, op: &M, portion: impl Fn(&mut O) -> T + Sync) -> Run<T>
where
    O: FnMut() -> R,
    T: Send,
    M: Fn(usize) -> O + Sync,
{
    let (ready, is_over, portion) = (Barrier::new(threads + 1), AtomicBool::new(false), &portion);
    let one = |thread| {
        let mut op = op(thread);
        ready.wait();
        let (start, processor, mut told) = (Instant::now(), ThreadTime::now(), Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            told.push(portion(&mut op));
        }
        (start, processor.elapsed(), told)
    };
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        ready.wait();
        thread::sleep(if threads > cores() { IN_TURNS } else { AT_ONCE });
        is_over.store(true, Ordering::Relaxed);
        let over = Instant::now();
        let all: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        let start = all.iter().map(|(start, ..)| *start).min().unwrap();
        Run {
            wall: over.saturating_duration_since(start),
            processor: all.iter().map(|(_, processor, _)| *processor).sum(),
            told: all.into_iter().flat_map(|(.., told)| told).collect(),
        }
    })
}
