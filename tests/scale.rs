//! Long lines and high rates: order, rate error, lost capacity and wake-ups, as numbers.
#![cfg(all(feature = "tokio", not(tollgate_loom)))]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tollgate::{Ask, Concurrency, ManualClock, Permit, Queue, Quota, TokenBucket};

/// One at a time: each test here keeps a processor busy, and one of them reads real time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runtime of one thread whose time stands still until nobody has anything to do.
fn on_paused_time<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the tasks run until they `wait`.
async fn until(wait: impl Fn() -> bool) {
    while !wait() {
        tokio::task::yield_now().await;
    }
}

type Log<T> = Arc<Mutex<Vec<T>>>;

/// 100,000 tasks wait for one unit each. The limit has 10 ms of burst to make up for timers that count in
/// milliseconds.
fn hundred_thousand_in_order(per_second: u64) {
    const WAITERS: usize = 100_000;
    let _alone = alone();
    on_paused_time(async {
        let quota = Quota::per_second(per_second).burst((per_second / 100).max(1)).initial(0);
        let bucket = TokenBucket::new(quota).unwrap();
        let log: Log<usize> = Log::default();
        let start = Instant::now();
        let tasks: Vec<_> = (0..WAITERS)
            .map(|waiter| {
                let (bucket, log) = (bucket.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    drop(bucket.acquire(1).await.unwrap());
                    log.lock().unwrap().push(waiter);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let elapsed = start.elapsed().as_secs_f64();
        let ideal = WAITERS as f64 / per_second as f64;
        let error = elapsed / ideal - 1.0;
        println!("{per_second} a second: {elapsed} s for {ideal} s, error {error:e}");
        assert!(log.lock().unwrap().iter().copied().eq(0..WAITERS), "not in order");
        assert!(error.abs() < 1e-6, "rate error {error:e}");
        assert_eq!(bucket.snapshot().waiting, 0);
    });
}

#[test]
fn a_hundred_thousand_in_order_at_a_thousand_a_second() {
    hundred_thousand_in_order(1_000);
}

#[test]
fn a_hundred_thousand_in_order_at_a_hundred_thousand_a_second() {
    hundred_thousand_in_order(100_000);
}

#[test]
fn a_hundred_thousand_in_order_at_a_million_a_second() {
    hundred_thousand_in_order(1_000_000);
}

/// Real time, two workers: the line never runs ahead of the rate, and does not fall behind it.
#[test]
fn a_hundred_thousand_a_second_in_real_time() {
    const PER_SECOND: u64 = 100_000;
    const UNITS: u64 = 5 * PER_SECOND;
    const TASKS: usize = 256;
    let _alone = alone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let (count, elapsed) = runtime.block_on(async {
        let left = Arc::new(AtomicU64::new(UNITS));
        let start = std::time::Instant::now();
        let bucket =
            TokenBucket::new(Quota::per_second(PER_SECOND).burst(PER_SECOND / 10).initial(0)).unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (bucket, left) = (bucket.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let mut count = 0_u64;
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok()
                    {
                        drop(bucket.acquire(1).await.unwrap());
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.unwrap();
        }
        (count, start.elapsed())
    });
    assert_eq!(count, UNITS);
    let achieved = count as f64 / elapsed.as_secs_f64();
    let error = achieved / PER_SECOND as f64 - 1.0;
    println!("real time: {achieved:.0} a second over {elapsed:?}, error {:.3} %", error * 100.0);
    assert!(error <= 0.0, "faster than the rate: {achieved} a second");
    assert!(error > -0.005, "slower than the rate: {achieved} a second");
}

#[test]
fn cancelled_waiters_lose_no_capacity() {
    const WAITERS: usize = 1_000;
    let _alone = alone();
    on_paused_time(async {
        let bucket = TokenBucket::new(Quota::per_second(1_000).burst(1).initial(0)).unwrap();
        let start = Instant::now();
        let done: Log<Duration> = Log::default();
        let tasks: Vec<_> = (0..WAITERS)
            .map(|_| {
                let (bucket, done) = (bucket.clone(), Arc::clone(&done));
                tokio::spawn(async move {
                    drop(bucket.acquire(1).await.unwrap());
                    done.lock().unwrap().push(start.elapsed());
                })
            })
            .collect();
        until(|| bucket.snapshot().waiting == WAITERS).await;
        for (waiter, task) in tasks.into_iter().enumerate() {
            if waiter % 2 == 1 {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            } else if waiter == WAITERS - 2 {
                task.await.unwrap();
            }
        }
        let ideal: Vec<_> = (1..=WAITERS as u64 / 2).map(Duration::from_millis).collect();
        assert_eq!(*done.lock().unwrap(), ideal);
    });
}

/// Every second waiter is dropped at the worst time: when it has been granted and has not heard of it.
#[test]
fn cancelled_grants_lose_no_capacity() {
    const WAITERS: usize = 1_000;
    let _alone = alone();
    let clock = ManualClock::new();
    let quota = Quota::per_second(1_000).burst(1).initial(0);
    let bucket = TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
    let mut waiters: Vec<_> = (0..WAITERS).map(|_| bucket.acquire(1)).collect();
    for waiter in &mut waiters {
        assert!(poll(waiter).is_pending());
    }
    let mut waiters = waiters.into_iter();
    for left in (0..WAITERS).step_by(2).rev() {
        clock.advance(Duration::from_millis(1));
        assert_eq!(bucket.snapshot().waiting, left + 1, "one was granted");
        drop(waiters.next());
        assert_eq!(bucket.snapshot().waiting, left, "its grant went to the next");
        assert!(poll(&mut waiters.next().unwrap()).is_ready());
    }
}

/// Lost at the head of the line: leaked, or held and never polled again.
#[derive(Clone, Copy)]
enum Lost {
    Forgotten,
    Unpolled,
}

impl Lost {
    #[allow(clippy::mem_forget, reason = "what the test is about")]
    fn lose<F: Future>(self, future: F) -> Option<F> {
        match self {
            Self::Forgotten => {
                std::mem::forget(future);
                None
            }
            Self::Unpolled => Some(future),
        }
    }
}

#[test]
fn a_lost_waiter_costs_its_own_grant_of_a_rate() {
    for lost in [Lost::Forgotten, Lost::Unpolled] {
        on_paused_time(async {
            let bucket = TokenBucket::new(Quota::per_second(100).burst(1).initial(0)).unwrap();
            let start = Instant::now();
            let mut head = bucket.acquire(1);
            assert!(poll(&mut head).is_pending());
            let _held = lost.lose(head);
            for turn in 2..=101 {
                drop(bucket.acquire(1).await.unwrap());
                assert_eq!(start.elapsed(), Duration::from_millis(10 * turn));
            }
            assert_eq!(bucket.snapshot().waiting, 0);
        });
    }
}

#[test]
fn a_lost_waiter_costs_its_own_slot() {
    for lost in [Lost::Forgotten, Lost::Unpolled] {
        on_paused_time(async {
            let slots = Concurrency::new(2);
            let (one, other) = (slots.try_acquire(1).unwrap(), slots.try_acquire(1).unwrap());
            let mut head = slots.acquire(1);
            assert!(poll(&mut head).is_pending());
            let held = lost.lose(head);
            let tasks: Vec<_> = (0..100)
                .map(|_| {
                    let slots = slots.clone();
                    tokio::spawn(async move {
                        let _slot = slots.acquire(1).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    })
                })
                .collect();
            until(|| slots.snapshot().waiting == 101).await;
            drop(one);
            assert_eq!(slots.snapshot().waiting, 100, "the lost one has its slot");
            let start = Instant::now();
            drop(other);
            for task in tasks {
                task.await.unwrap();
            }
            // The other slot serves all of them, one after the other.
            assert_eq!(start.elapsed(), Duration::from_millis(100));
            assert_eq!(slots.snapshot().remaining, 1);
            drop(held);
            assert_eq!(slots.snapshot().remaining, if matches!(lost, Lost::Forgotten) { 1 } else { 2 });
        });
    }
}

/// 50 units are served in their turn, though small asks stand before and behind and others ask all the time.
#[test]
fn a_large_ask_is_served_in_its_turn() {
    const BEFORE: usize = 200;
    on_paused_time(async {
        let bucket = TokenBucket::new(Quota::per_second(100).burst(100).initial(0)).unwrap();
        let start = Instant::now();
        let log: Log<(usize, Duration)> = Log::default();
        let costs = (0..2 * BEFORE + 1).map(|waiter| if waiter == BEFORE { 50 } else { 1 });
        let tasks: Vec<_> = costs
            .clone()
            .enumerate()
            .map(|(waiter, cost)| {
                let (bucket, log) = (bucket.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    assert_eq!(bucket.acquire(cost).await.unwrap().cost().units(), cost);
                    log.lock().unwrap().push((waiter, start.elapsed()));
                })
            })
            .collect();
        until(|| bucket.snapshot().waiting == 2 * BEFORE + 1).await;
        for _ in 0..2_400 {
            assert!(bucket.check(1).is_err(), "passed those who wait");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let mut units = 0;
        let ideal: Vec<_> = costs
            .enumerate()
            .map(|(waiter, cost)| {
                units += cost;
                (waiter, Duration::from_millis(10 * units))
            })
            .collect();
        assert_eq!(*log.lock().unwrap(), ideal);
    });
}

/// Counts how often a future is polled.
struct Polls<F> {
    future: F,
    polls: Arc<AtomicUsize>,
}

impl<F: Future + Unpin> Future for Polls<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.future).poll(cx)
    }
}

/// A thousand wait, some of them by a time: each is woken for its own admission.
#[test]
fn each_admission_wakes_one() {
    const WAITERS: usize = 1_000;
    on_paused_time(async {
        let bucket = TokenBucket::new(Quota::per_second(500).burst(1).initial(0)).unwrap();
        let polls = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..WAITERS)
            .map(|waiter| {
                let ask = if waiter % 3 == 0 { Ask::ONE.within(Duration::from_secs(10)) } else { Ask::ONE };
                let future = Polls { future: bucket.acquire(ask), polls: Arc::clone(&polls) };
                tokio::spawn(async move { future.await.map(|_| ()) })
            })
            .collect();
        until(|| bucket.snapshot().waiting == WAITERS).await;
        let joined = polls.load(Ordering::Relaxed);
        assert_eq!(joined, WAITERS);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let wakes = polls.load(Ordering::Relaxed) - joined;
        println!("{wakes} wake-ups for {WAITERS} admissions");
        assert!(wakes <= WAITERS + WAITERS / 100, "{wakes} wake-ups for {WAITERS} admissions");
    });
}

/// Refunds let in the first of a long line, as many as they give back. Prints how long they took: they do not walk it.
#[test]
fn refunds_let_in_the_first_of_a_long_line() {
    const WAITERS: usize = 50_000;
    const REFUNDS: usize = 2_000;
    let _alone = alone();
    let clock = ManualClock::new();
    let quota = Quota::per_second(1).burst(REFUNDS as u64);
    let queue = Queue::new();
    let bucket = TokenBucket::builder(quota).queue(queue).clock(clock.clone()).build().unwrap();
    let permits: Vec<_> = (0..REFUNDS).map(|_| bucket.try_acquire(1).unwrap()).collect();
    let mut waiters: Vec<_> =
        (0..WAITERS).map(|_| bucket.acquire(Ask::ONE.within(Duration::from_secs(1_000_000)))).collect();
    for waiter in &mut waiters {
        assert!(poll(waiter).is_pending());
    }
    let start = std::time::Instant::now();
    for permit in permits {
        permit.refund();
    }
    let elapsed = start.elapsed();
    println!("{REFUNDS} refunds before {WAITERS} waiters: {elapsed:?}");
    assert_eq!(bucket.snapshot().waiting, WAITERS - REFUNDS);
    let first = waiters.iter_mut().take(REFUNDS).map(poll).filter(Poll::is_ready).count();
    assert_eq!(first, REFUNDS);
}
