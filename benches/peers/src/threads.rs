//! The same operation on several threads at once.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

/// Operations between two readings of the flag that ends a run.
const PORTION: u64 = 256;
/// The least time for threads that must take turns on the processors.
const IN_TURNS: Duration = Duration::from_millis(40);
/// The share of the processors that a run must get, and the number of attempts.
const UNDISTURBED: f64 = 0.95;
const TRIES: usize = 3;

/// Nanoseconds an operation, from the number of operations that `threads` threads complete together in a given time.
/// `op` makes what each thread does from its number. (With a given number of operations all threads would wait for the
/// one that lost its processor.)
///
/// A run that did not get the processors is repeated up to [`TRIES`] times, and the one that got the most of them
/// counts. Operations that sleep never get all of them.
pub fn throughput<O, R>(threads: usize, op: impl Fn(usize) -> O + Sync) -> impl FnMut(Duration) -> f64
where
    O: FnMut() -> R,
{
    move |span| {
        let mut best = (0.0, 0.0);
        for _ in 0..TRIES {
            let run = run(threads, span, &op);
            if run.0 > best.0 {
                best = run;
            }
            if best.0 > UNDISTURBED {
                break;
            }
        }
        best.1
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The share of the processors that the run got, and its nanoseconds an operation.
fn run<O, R>(threads: usize, span: Duration, op: &(impl Fn(usize) -> O + Sync)) -> (f64, f64)
where
    O: FnMut() -> R,
{
    let (ready, is_over) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let one = |thread| {
        let mut op = op(thread);
        ready.wait();
        let (start, processor, mut done) = (Instant::now(), ThreadTime::now(), 0);
        while !is_over.load(Ordering::Relaxed) {
            for _ in 0..PORTION {
                black_box(op());
            }
            done += PORTION;
        }
        (start, processor.elapsed(), done)
    };
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        ready.wait();
        thread::sleep(if threads > cores() { span.max(IN_TURNS) } else { span });
        is_over.store(true, Ordering::Relaxed);
        let over = Instant::now();
        let all: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        let start = all.iter().map(|(start, ..)| *start).min().unwrap();
        let wall = over.saturating_duration_since(start);
        let processor: Duration = all.iter().map(|(_, processor, _)| *processor).sum();
        let done: u64 = all.iter().map(|(.., done)| done).sum();
        let share = processor.as_secs_f64() / (wall.as_secs_f64() * cores().min(threads) as f64);
        (share, wall.as_nanos() as f64 / done as f64)
    })
}
