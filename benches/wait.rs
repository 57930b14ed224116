//! Lines: how near the rate comes to the one asked for, what a permit costs the processor, how often who waits is
//! woken, in which order it goes, and how late.
//!
//! A run of a line gives all of these at once. Runs of this crate's limit, of the floor (a semaphore that a ticker
//! fills, which is no limiter yet) and of peers are taken in turns, and criterion is told what each run gave.

mod support;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use support::Suite;
use support::threads::percentile_of;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tollgate::{Quota, TokenBucket};

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A limit whose units come at a rate, with none there at the start: what it gives is a wait for one.
type Line = Box<dyn Fn() -> Wait>;
type Make = fn(Asked) -> Line;

#[derive(Clone, Copy)]
struct Asked {
    per_second: u64,
    burst: u64,
}

fn tollgate(asked: Asked) -> Line {
    let quota = Quota::per_second(asked.per_second).burst(asked.burst).initial(0);
    let queue = tollgate::Queue::new().limit(1 << 20);
    let bucket = TokenBucket::builder(quota).queue(queue).build().unwrap();
    Box::new(move || {
        let wait = bucket.acquire(1);
        Box::pin(async { drop(wait.await.unwrap()) })
    })
}

fn governor(asked: Asked) -> Line {
    let units = |count| std::num::NonZeroU32::new(u32::try_from(count).unwrap()).unwrap();
    let quota = governor::Quota::per_second(units(asked.per_second)).allow_burst(units(asked.burst));
    let limiter = Arc::new(governor::RateLimiter::direct(quota));
    while limiter.check().is_ok() {}
    Box::new(move || {
        let limiter = Arc::clone(&limiter);
        Box::pin(async move { limiter.until_ready().await })
    })
}

fn leaky_bucket(asked: Asked) -> Line {
    let limiter = leaky_bucket::RateLimiter::builder()
        .refill((asked.per_second / 1_000).max(1) as usize)
        .interval(Duration::from_millis((1_000 / asked.per_second).max(1)))
        .max(asked.burst as usize)
        .initial(0)
        .build();
    let limiter = Arc::new(limiter);
    Box::new(move || {
        let wait = Arc::clone(&limiter).acquire_owned(1);
        Box::pin(wait)
    })
}

/// Ends a task with what it serves.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A semaphore, and a task that puts into it each millisecond what is due: the least that a fair line costs in tokio.
fn floor(asked: Asked) -> Line {
    let semaphore = Arc::new(Semaphore::new(0));
    let ticker = {
        let semaphore = Arc::clone(&semaphore);
        tokio::spawn(async move {
            let start = Instant::now();
            let (mut tick, mut added) = (tokio::time::interval(Duration::from_millis(1)), 0);
            loop {
                tick.tick().await;
                let due =
                    (start.elapsed().as_nanos() * u128::from(asked.per_second) / 1_000_000_000) as usize;
                semaphore.add_permits(due - added);
                added = due;
            }
        })
    };
    let ticker = Aborts(ticker.abort_handle());
    Box::new(move || {
        let _ = &ticker;
        let semaphore = Arc::clone(&semaphore);
        Box::pin(async move { semaphore.acquire().await.unwrap().forget() })
    })
}

/// What a run gave.
struct Run {
    achieved: f64,
    processor_us: f64,
    polls: f64,
    late_us: f64,
}

/// A future, and how often it is polled.
async fn counted(mut wait: Wait, polls: &AtomicUsize) {
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        wait.as_mut().poll(cx)
    })
    .await;
}

/// `tasks` tasks that ask `asks` times each, one ask after the other.
fn run(runtime: &Runtime, make: Make, asked: Asked, tasks: usize, asks: usize) -> Run {
    runtime.block_on(async move {
        let (processor, start) = (ProcessTime::now(), Instant::now());
        let (line, polls) = (make(asked), Arc::new(AtomicUsize::new(0)));
        let spawn = |_| {
            let waits: Vec<Wait> = (0..asks).map(|_| line()).collect();
            let polls = Arc::clone(&polls);
            tokio::spawn(async move {
                let mut went_ns = Vec::with_capacity(waits.len());
                for wait in waits {
                    counted(wait, &polls).await;
                    went_ns.push(start.elapsed().as_nanos() as u64);
                }
                went_ns
            })
        };
        let running: Vec<_> = (0..tasks).map(spawn).collect();
        let mut went_ns = Vec::with_capacity(tasks * asks);
        for task in running {
            went_ns.extend(task.await.unwrap());
        }
        let (processor, permits) = (processor.elapsed(), went_ns.len() as f64);
        went_ns.sort_unstable();
        let due_ns = |rank: usize| (rank as u64 + 1) * 1_000_000_000 / asked.per_second;
        let mut late_ns: Vec<_> =
            went_ns.iter().enumerate().map(|(rank, &at)| at.saturating_sub(due_ns(rank))).collect();
        // Between two ranks: neither the time to start all tasks nor that of the last tick is the line's.
        let (from, to) = (went_ns.len() / 5, went_ns.len() - 1);
        Run {
            achieved: (due_ns(to) - due_ns(from)) as f64 / (went_ns[to] - went_ns[from]) as f64,
            processor_us: processor.as_secs_f64() * 1e6 / permits,
            polls: polls.load(Ordering::Relaxed) as f64 / permits,
            late_us: percentile_of(&mut late_ns, 99.0).max(1) as f64 / 1e3,
        }
    })
}

/// Who has been woken, in that order.
#[derive(Default)]
struct Woken {
    ranks: Mutex<VecDeque<usize>>,
    any: Notify,
}

struct Ranked {
    rank: usize,
    woken: Arc<Woken>,
}

impl Wake for Ranked {
    fn wake(self: Arc<Self>) {
        self.woken.ranks.lock().unwrap().push_back(self.rank);
        self.woken.any.notify_one();
    }
}

/// The share of those who wait that go at their own rank. They join the line one after the other, and are polled in the
/// order in which they are woken: tasks would add the disorder of the runtime.
fn in_order(make: Make, asked: Asked, waiters: usize) -> f64 {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (line, woken) = (make(asked), Arc::new(Woken::default()));
        let mut waits: Vec<_> = (0..waiters)
            .map(|rank| Some((line(), Waker::from(Arc::new(Ranked { rank, woken: Arc::clone(&woken) })))))
            .collect();
        let (mut turn, mut at_rank) = (0, 0);
        let mut poll = |rank: usize| {
            let ready = waits[rank].as_mut().is_some_and(|(wait, waker): &mut (Wait, Waker)| {
                wait.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
            });
            if ready {
                waits[rank] = None;
                at_rank += usize::from(turn == rank);
                turn += 1;
            }
            turn < waiters
        };
        let mut some_wait = (0..waiters).fold(true, |_, rank| poll(rank));
        while some_wait {
            let next = woken.ranks.lock().unwrap().pop_front();
            match next {
                Some(rank) => some_wait = poll(rank),
                None => woken.any.notified().await,
            }
        }
        at_rank as f64 / waiters as f64
    })
}

/// The time until 100 of 1000 are through, after the other 900 have given up, as a multiple of the time it has to take.
fn cancelled(runtime: &Runtime, make: Make) -> f64 {
    runtime.block_on(async {
        let start = Instant::now();
        // Timers that count in milliseconds keep a rate of one a millisecond if some units may come together.
        let line = make(Asked { per_second: 1_000, burst: 10 });
        let joined = Arc::new(AtomicUsize::new(0));
        let running: Vec<_> = (0..1_000)
            .map(|_| {
                let (wait, joined) = (line(), Arc::clone(&joined));
                tokio::spawn(async move { counted(wait, &joined).await })
            })
            .collect();
        while joined.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
        let (stay, go): (Vec<_>, Vec<_>) =
            running.into_iter().enumerate().partition(|(rank, _)| rank % 10 == 9);
        go.iter().for_each(|(_, task)| task.abort());
        for (_, task) in stay {
            task.await.unwrap();
        }
        start.elapsed().as_secs_f64() / 0.1
    })
}

const ROUNDS: usize = 10;
const FLOOR: &str = "floor: Semaphore and ticker";
const LINES: [(&str, Make); 4] =
    [("tollgate", tollgate), (FLOOR, floor), ("governor", governor), ("leaky-bucket", leaky_bucket)];

fn line(
    suite: &mut Suite,
    runtime: &Runtime,
    asked: Asked,
    tasks: usize,
    asks: usize,
    lines: &[(&str, Make)],
) {
    let mut runs: Vec<Vec<Run>> = lines.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for place in 0..lines.len() {
            let row = (round + place) % lines.len();
            runs[row].push(run(runtime, lines[row].1, asked, tasks, asks));
        }
    }
    let floor = lines.iter().position(|(name, _)| *name == FLOOR).unwrap();
    let mut group = suite.group(&format!("wait/{tasks}"));
    for (row, (name, make)) in lines.iter().enumerate() {
        let figures = |figure: fn(&Run) -> f64| runs[row].iter().map(figure).collect::<Vec<_>>();
        group.figure(name, "achieved of asked", &figures(|run| run.achieved));
        group.figure(name, "processor time, us a permit", &figures(|run| run.processor_us));
        group.figure(name, "polls a permit", &figures(|run| run.polls));
        group.figure(name, "late by, p99 us", &figures(|run| run.late_us));
        let ratios =
            runs[row].iter().zip(&runs[floor]).map(|(run, floor)| run.processor_us / floor.processor_us);
        group.figure(name, FLOOR, &ratios.collect::<Vec<_>>());
        if asks == 1 {
            group.figure(name, "in order", &[in_order(*make, asked, tasks)]);
        }
    }
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(3));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    // Ten milliseconds' worth of burst: timers that count in milliseconds keep the rate.
    let asked = Asked { per_second: 100_000, burst: 1_000 };
    line(&mut suite, &runtime, asked, 1, 20_000, &LINES);
    line(&mut suite, &runtime, asked, 100, 200, &LINES);
    line(&mut suite, &runtime, asked, 10_000, 1, &LINES);
    // governor and leaky-bucket take minutes for this one.
    line(&mut suite, &runtime, asked, 100_000, 1, &LINES[..2]);
    let mut group = suite.group("wait/cancelled");
    // leaky-bucket does not come to an end here.
    for (name, make) in &LINES[..3] {
        let times: Vec<_> = (0..ROUNDS).map(|_| cancelled(&runtime, *make)).collect();
        group.figure(name, "time of ideal", &times);
    }
    group.finish();
}
