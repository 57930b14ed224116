//! Tasks that wait: the rate that they reach, the processor time of a grant, and their order.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, LocalSet};
use tollgate::{Quota, TokenBucket};

use crate::bench::Bench;
use crate::peers::{RATE_NET, THROTTLE_NET, units};

type Wait = Pin<Box<dyn Future<Output = ()>>>;
/// A limiter without units at the start. Each call returns a wait for one.
type Waits = Box<dyn Fn() -> Wait>;
type Make = fn(Asked) -> Waits;

#[derive(Clone, Copy)]
struct Asked {
    per_second: u32,
    burst: u32,
    tasks: usize,
}

const SEMAPHORE: &str = "floor: Semaphore and ticker";

fn tollgate(asked: Asked) -> Waits {
    let quota = Quota::per_second(asked.per_second.into()).burst(asked.burst.into()).initial(0);
    let queue = tollgate::Queue::new().limit(1 << 20);
    let bucket = TokenBucket::builder(quota).queue(queue).build().unwrap();
    Box::new(move || {
        let wait = bucket.acquire(1);
        Box::pin(async { drop(wait.await.unwrap()) })
    })
}

fn governor(asked: Asked) -> Waits {
    let quota = governor::Quota::per_second(units(asked.per_second)).allow_burst(units(asked.burst));
    let limiter = Rc::new(governor::RateLimiter::direct(quota));
    while limiter.check().is_ok() {}
    Box::new(move || {
        let limiter = Rc::clone(&limiter);
        Box::pin(async move { limiter.until_ready().await })
    })
}

fn leaky_bucket_each(asked: Asked, interval: Duration) -> Waits {
    let refill = f64::from(asked.per_second) * interval.as_secs_f64();
    let limiter = leaky_bucket::RateLimiter::builder()
        .refill(refill as usize)
        .interval(interval)
        .max(asked.burst as usize)
        .initial(0)
        .build();
    let limiter = Arc::new(limiter);
    Box::new(move || Box::pin(Arc::clone(&limiter).acquire_owned(1)))
}

fn leaky_bucket(asked: Asked) -> Waits {
    leaky_bucket_each(asked, Duration::from_millis(1))
}

fn leaky_bucket_coarse(asked: Asked) -> Waits {
    leaky_bucket_each(asked, Duration::from_millis(10))
}

fn throttle_net(asked: Asked) -> Waits {
    let builder = throttle_net::Throttle::builder().per_second(asked.per_second).burst(asked.burst);
    let limiter = Rc::new(builder.initial(0).try_build().unwrap());
    Box::new(move || {
        let limiter = Rc::clone(&limiter);
        Box::pin(async move { limiter.acquire().await.unwrap() })
    })
}

fn rate_net(asked: Asked) -> Waits {
    let quota = rate_net::Quota::per_second(asked.per_second).with_burst(asked.burst);
    let limiter = Rc::new(rate_net::DirectLimiter::with_quota(quota));
    while limiter.check().is_allow() {}
    Box::new(move || {
        let limiter = Rc::clone(&limiter);
        Box::pin(async move { limiter.try_until_ready().await.unwrap() })
    })
}

/// Ends a task together with what owns this.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A semaphore, and a task that adds each millisecond the permits that are due: the least that a fair queue costs.
fn semaphore(asked: Asked) -> Waits {
    let semaphore = Arc::new(Semaphore::new(0));
    let ticker = {
        let semaphore = Arc::clone(&semaphore);
        tokio::task::spawn_local(async move {
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

/// The figures of one run, each such that less is better.
struct Run {
    processor_us: f64,
    off_rate: f64,
    overtaken: f64,
    spread: f64,
}

const FIGURES: [(&str, &str, fn(&Run) -> f64); 4] = [
    ("processor time of a grant", "µs", |run| run.processor_us),
    ("deviation from the rate", "%", |run| run.off_rate),
    ("grants after that of a later request", "%", |run| run.overtaken),
    ("grants of the task with most over the mean", "%", |run| run.spread),
];

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Tasks that ask again and again, each after its grant, for `span`.
fn run(make: Make, asked: Asked, span: Duration) -> Run {
    let (runtime, local) = (runtime(), LocalSet::new());
    local.block_on(&runtime, async move {
        let (waits, grants) = (make(asked), Rc::new(RefCell::new(Vec::<(usize, Duration)>::new())));
        let (waits, tickets) = (Rc::new(waits), Rc::new(Cell::new(0)));
        let (processor, start) = (ProcessTime::now(), Instant::now());
        let each_has = Rc::new(RefCell::new(vec![0u64; asked.tasks]));
        let running: Vec<_> = (0..asked.tasks)
            .map(|task| {
                let (waits, tickets) = (Rc::clone(&waits), Rc::clone(&tickets));
                let (grants, each_has) = (Rc::clone(&grants), Rc::clone(&each_has));
                let task = tokio::task::spawn_local(async move {
                    loop {
                        let ticket = tickets.replace(tickets.get() + 1);
                        waits().await;
                        grants.borrow_mut().push((ticket, start.elapsed()));
                        each_has.borrow_mut()[task] += 1;
                    }
                });
                Aborts(task.abort_handle())
            })
            .collect();
        tokio::time::sleep(span).await;
        let processor = processor.elapsed();
        drop(running);
        let grants = grants.borrow();
        let overtaken = grants.iter().scan(0, |latest, &(ticket, _)| {
            *latest = ticket.max(*latest);
            Some(ticket < *latest)
        });
        let overtaken = overtaken.filter(|&overtaken| overtaken).count();
        // From the first fifth to the end: the time to start all tasks is not the limiter's.
        let (from, to) = (grants.len() / 5, grants.len() - 1);
        let took = grants[to].1 - grants[from].1;
        let achieved = (to - from) as f64 / (took.as_secs_f64() * f64::from(asked.per_second));
        let mean = grants.len() as f64 / asked.tasks as f64;
        let most = *each_has.borrow().iter().max().unwrap() as f64;
        Run {
            processor_us: processor.as_secs_f64() * 1e6 / grants.len() as f64,
            off_rate: (1.0 - achieved).abs() * 100.0,
            overtaken: overtaken as f64 * 100.0 / grants.len() as f64,
            spread: (most / mean - 1.0) * 100.0,
        }
    })
}

/// Runs of all in turns, beginning with another one in each round; the pairs are those of one round.
fn rounds(bench: &mut Bench, asked: Asked, span: Duration, all: &[(&str, Make)]) {
    let row = |figure: &str| format!("{} tasks wait at {}/s: {figure}", asked.tasks, asked.per_second);
    let peers: Vec<_> = all
        .iter()
        .filter(|(peer, _)| FIGURES.iter().any(|(figure, ..)| bench.wants(&row(figure), peer)))
        .collect();
    if peers.is_empty() {
        return;
    }
    let makes: Vec<Make> = [tollgate as Make].into_iter().chain(peers.iter().map(|(_, make)| *make)).collect();
    let mut runs: Vec<Vec<Run>> = makes.iter().map(|_| Vec::new()).collect();
    let count = bench.choose(3, 7);
    for round in 0..count {
        for offset in 0..makes.len() {
            let number = (round + offset) % makes.len();
            runs[number].push(run(makes[number], asked, span));
        }
    }
    for (figure, unit, of) in FIGURES {
        for (number, (peer, _)) in peers.iter().enumerate() {
            if bench.wants(&row(figure), peer) {
                let pairs: Vec<_> = runs[0].iter().zip(&runs[number + 1]).map(|(a, b)| (of(a), of(b))).collect();
                bench.record(&row(figure), peer, unit, &pairs);
            }
        }
    }
}

/// The time until 100 of 1000 tasks have their grants, after the other 900 have given up, beside the time that the rate
/// requires.
fn cancelled(bench: &mut Bench) {
    let (row, peer) = ("100 of 1000 tasks stay, 900 give up: time to the last grant", "what the rate requires");
    if !bench.wants(row, peer) {
        return;
    }
    let pairs: Vec<_> = (0..bench.choose(3, 9))
        .map(|_| {
            let (runtime, local) = (runtime(), LocalSet::new());
            let took = local.block_on(&runtime, async {
                let start = Instant::now();
                // tokio's timers count milliseconds: some units must be able to come together.
                let waits = tollgate(Asked { per_second: 1_000, burst: 10, tasks: 1_000 });
                let joined = Rc::new(AtomicUsize::new(0));
                let running: Vec<_> = (0..1_000)
                    .map(|_| {
                        let (wait, joined) = (waits(), Rc::clone(&joined));
                        tokio::task::spawn_local(async move {
                            joined.fetch_add(1, Ordering::Relaxed);
                            wait.await;
                        })
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
                start.elapsed()
            });
            (took.as_secs_f64() * 1e3, 100.0)
        })
        .collect();
    bench.record(row, peer, "ms", &pairs);
}

pub fn measure(bench: &mut Bench) {
    let span = Duration::from_millis(bench.choose(500, 2_000) as u64);
    let asked = Asked { per_second: 10_000, burst: 100, tasks: 1_000 };
    let all: [(&str, Make); 6] = [
        (SEMAPHORE, semaphore),
        ("governor", governor),
        ("leaky-bucket, each ms", leaky_bucket),
        ("leaky-bucket, each 10 ms", leaky_bucket_coarse),
        (THROTTLE_NET, throttle_net),
        (RATE_NET, rate_net),
    ];
    rounds(bench, asked, span, &all);
    // Ten milliseconds' worth of burst: timers that count in milliseconds keep the rate.
    let asked = Asked { per_second: 100_000, burst: 1_000, tasks: 10_000 };
    rounds(bench, asked, span, &all[..1]);
    cancelled(bench);
}
