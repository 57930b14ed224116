//! Promises 1, 2 and 7 for compositions that wait: the worlds in which they were broken, with the right numbers.
#![cfg(not(tollgate_loom))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tollgate::{
    Ask, Compose, Concurrency, FixedWindow, Limiter, LimiterExt, Permit, Quota, SlidingWindow, TokenBucket,
};

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The most of these times that lie in one half-open span of this length.
fn busiest(times: &[Instant], span: Duration) -> usize {
    let mut times = times.to_vec();
    times.sort();
    (0..times.len())
        .map(|first| times[first..].partition_point(|at| *at < times[first] + span))
        .max()
        .unwrap_or(0)
}

/// Calls of 1,500 tasks under one limiter: nothing is answered before the twentieth second, then each within 10 ms. The
/// times at which calls begin.
async fn calls_after_a_stall<L>(limiter: L) -> Vec<Instant>
where
    L: Limiter<Acquire: Send, Permit: Send, Fault: std::fmt::Debug> + Clone + Send + 'static,
{
    let started = Instant::now();
    let begun = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for _ in 0..1_500 {
        let (acquire, begun) = (limiter.acquire(&(), Ask::ONE), Arc::clone(&begun));
        tasks.spawn(async move {
            let permit = acquire.await.expect("nothing is refused");
            begun.lock().unwrap().push(Instant::now());
            sleep_until(started + 20 * SECOND).await;
            sleep(ms(10)).await;
            drop(permit);
        });
    }
    tasks.join_all().await;
    Arc::into_inner(begun).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_window_and_slots_hand_out_what_the_window_promises() {
    let window = SlidingWindow::new(Quota::per_second(50)).unwrap();
    let begun = calls_after_a_stall(window.and(Concurrency::new(20))).await;
    assert_eq!((begun.len(), busiest(&begun, SECOND)), (1_500, 50));
}

#[tokio::test(start_paused = true)]
async fn slots_and_a_window_hand_out_what_the_window_promises() {
    let window = SlidingWindow::new(Quota::per_second(50)).unwrap();
    let begun = calls_after_a_stall(Concurrency::new(20).and(window)).await;
    assert_eq!((begun.len(), busiest(&begun, SECOND)), (1_500, 50));
}

#[cfg(feature = "client")]
#[tokio::test(start_paused = true)]
async fn a_guard_hands_out_what_its_limits_promise() {
    let limits = TokenBucket::new(Quota::per_second(50)).unwrap().and(Concurrency::new(20));
    let begun = calls_after_a_stall(tollgate::client::Guard::new(limits)).await;
    let most = busiest(&begun, SECOND);
    assert!(begun.len() == 1_500 && (50..=100).contains(&most), "{most} in one second");
}

#[tokio::test(start_paused = true)]
async fn two_windows_that_wait_hand_out_no_more_than_the_tighter() {
    let minute = FixedWindow::new(Quota::per_minute(100)).unwrap();
    let begun = calls_at_once(minute.and(SlidingWindow::new(Quota::per_second(10)).unwrap())).await;
    assert_eq!((busiest(&begun, ms(1)), busiest(&begun, SECOND)), (10, 10));
    assert!(busiest(&begun, 60 * SECOND) <= 200, "across an edge twice the limit of a fixed window");
}

async fn calls_at_once<L>(limiter: L) -> Vec<Instant>
where
    L: Limiter<Acquire: Send + 'static, Permit: Send, Fault: std::fmt::Debug>,
{
    let begun = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for _ in 0..400 {
        let (acquire, begun) = (limiter.acquire(&(), Ask::ONE), Arc::clone(&begun));
        tasks.spawn(async move {
            drop(acquire.await.expect("nothing is refused"));
            begun.lock().unwrap().push(Instant::now());
        });
    }
    tasks.join_all().await;
    Arc::into_inner(begun).unwrap().into_inner().unwrap()
}

/// The wait of `b` behind 300 asks of `a` that share a limit of ten a second with it; three seconds later.
async fn wait_behind<A, B>(a: A, b: B) -> Duration
where
    A: Limiter<Acquire: Send + 'static, Permit: Send, Fault: std::fmt::Debug>,
    B: Limiter<Fault: std::fmt::Debug>,
{
    let mut backlog = JoinSet::new();
    for _ in 0..300 {
        let acquire = a.acquire(&(), Ask::ONE);
        backlog.spawn(async move { drop(acquire.await) });
    }
    sleep(3 * SECOND).await;
    let asked = Instant::now();
    drop(b.acquire(&(), Ask::ONE).await.expect("nothing is refused"));
    asked.elapsed()
}

fn slow() -> TokenBucket {
    TokenBucket::new(Quota::per_second(1).burst(1)).unwrap()
}

fn shared() -> TokenBucket {
    let shared = TokenBucket::new(Quota::per_second(10).burst(1)).unwrap();
    shared.check(1).unwrap();
    shared
}

#[tokio::test(start_paused = true)]
async fn a_backlog_at_one_limit_delays_nobody_at_another() {
    const MOST: Duration = Duration::from_millis(101);
    let shared = shared();
    let waited = wait_behind(slow().and(shared.clone()), slow().and(shared.clone())).await;
    assert!(waited <= MOST, "{waited:?}");
    let waited = wait_behind(shared.clone().and(slow()), shared.clone().and(slow())).await;
    assert!(waited <= MOST, "{waited:?}, in the other order");
    let waited = wait_behind(slow().and(shared.clone()), shared.clone()).await;
    assert!(waited <= MOST, "{waited:?}, alone");
    let keyed = slow().keyed::<u32>();
    let of = |key: u32| keyed.clone().by(move |(): &()| key);
    let waited = wait_behind(of(1).and(shared.clone()), of(2).and(shared.clone())).await;
    assert!(waited <= MOST, "{waited:?}, for keys");
}

#[cfg(feature = "client")]
#[tokio::test(start_paused = true)]
async fn a_backlog_of_one_guard_delays_no_other_at_a_limit_they_share() {
    use tollgate::client::Guard;
    let shared = shared();
    let guard = || Guard::builder(slow().and(shared.clone())).without_slow_start().build().unwrap();
    let waited = wait_behind(guard(), guard()).await;
    assert!(waited <= ms(101), "{waited:?}");
}

/// Users of two limits of few slots: of both in either order, and of each alone. All of them come to an end.
fn storm<A, B>(both: &A, other: &B, total: &Concurrency, db: &Concurrency)
where
    A: Compose<Fault = std::convert::Infallible, Part: Send> + Sync,
    B: Compose<Fault = std::convert::Infallible, Part: Send> + Sync,
    A::Acquire: Send,
    B::Acquire: Send,
{
    const EACH: usize = 2_000;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (joint, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            runtime().block_on(async {
                for _ in 0..EACH {
                    drop(both.acquire(&(), Ask::ONE).await.unwrap());
                    joint.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let second = scope.spawn(|| {
            runtime().block_on(async {
                for _ in 0..EACH {
                    drop(other.acquire(&(), Ask::ONE).await.unwrap());
                    joint.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        for slots in [total, total, db] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    drop(slots.acquire_blocking(1).unwrap());
                }
            });
        }
        first.join().unwrap();
        second.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(joint.into_inner(), 2 * EACH);
    assert_eq!((total.snapshot().remaining, db.snapshot().remaining), (2, 1));
}

#[test]
fn two_limits_composed_in_opposite_orders_never_deadlock() {
    let (total, db) = (Concurrency::new(2), Concurrency::new(1));
    storm(&total.clone().and(db.clone()), &db.clone().and(total.clone()), &total, &db);
    storm(&total.clone().and(db.clone()), &total.clone().and(db.clone()), &total, &db);
}

#[test]
fn threads_wait_for_compositions_too() {
    let (total, db) = (Concurrency::new(2), Concurrency::new(1));
    let both = [total.clone().and(db.clone()), db.clone().and(total.clone())];
    std::thread::scope(|scope| {
        for both in both.iter().chain(&both) {
            scope.spawn(move || {
                for _ in 0..1_000 {
                    both.acquire_blocking(1).unwrap().refund();
                }
            });
        }
    });
    assert_eq!((total.snapshot().remaining, db.snapshot().remaining), (2, 1));
    let rate = TokenBucket::new(Quota::per_second(1_000).burst(1)).unwrap();
    let both = rate.clone().and(total.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| drop(both.acquire_blocking(1).unwrap())));
        }
    });
    assert_eq!(rate.snapshot().waiting, 0);
}
