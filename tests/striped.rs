//! The striped token bucket: what threads hold, what makes it void, and that the envelope is kept whatever they do.
//!
//! Each test was seen to fail on a fault planted in the crate, which is named above it.
#![cfg(not(tollgate_loom))]

#[allow(dead_code, reason = "one oracle of several")]
mod oracle;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oracle::{Bucket, Oracle, Side, Terms};
use proptest::prelude::*;
use tollgate::{
    Ask, Denied, Error, Limiter, ManualClock, Permit, Quota, QuotaError, Reason, Striped, StripedPermit,
    TokenBucket,
};

type Limit = Striped<ManualClock>;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator as it came; the counter touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const fn ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

/// A thread that does what it is told, one thing at a time, and ends when it is dropped.
struct Worker {
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn new() -> Self {
        let (jobs, told) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = thread::spawn(move || told.into_iter().for_each(|job| job()));
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    #[track_caller]
    fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, heard) = mpsc::channel();
        let job = Box::new(move || answer.send(job()).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        heard.recv().unwrap()
    }

    fn check(&self, limit: &Limit, units: u64) -> Result<(), Denied> {
        let limit = limit.clone();
        self.run(move || limit.check(units))
    }

    #[track_caller]
    fn fill(&self, limit: &Limit) {
        let limit = limit.clone();
        self.run(move || fill(&limit));
    }

    fn take(&self, limit: &Limit, units: u64) -> StripedPermit<ManualClock> {
        let limit = limit.clone();
        self.run(move || limit.try_acquire(units).unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Comes so often that this thread draws whole portions of eight. It spends eight units and holds seven.
#[track_caller]
fn fill(limit: &Limit) {
    for units in [1, 1, 1, 1, 3, 1] {
        limit.check(units).unwrap();
    }
}

/// How many units this thread gets at once.
fn drain(limit: &Limit) -> u64 {
    (0..1_000_000).take_while(|_| limit.check(1).is_ok()).count() as u64
}

/// A unit each 100 ns, 40 at once, and a reserve of so many portions of eight beside it.
fn limit(threads: u16) -> (Limit, ManualClock) {
    let clock = ManualClock::new();
    let quota = Quota::per(1, ns(100)).burst(40 + u64::from(threads) * 8);
    let bucket = TokenBucket::builder(quota).clock(clock.clone()).name("hot");
    (bucket.striped().reserve(threads, 8).build().unwrap(), clock)
}

/// Enough for any of these limits to fill.
const LONG: Duration = Duration::from_secs(1);

#[track_caller]
fn refused(answer: Result<(), Denied>, wait_ns: u64) {
    let denied = answer.unwrap_err();
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(ns(wait_ns))));
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

// How much is held.

/// Seen to fail on: a part of 15 in `reserve.rs`; a reserve that is not taken out of the burst.
#[test]
fn the_reserve_is_a_sixteenth_of_the_burst_from_128_on() {
    let capacity = |burst| {
        let quota = Quota::per_second(1_000_000).burst(burst);
        let limit = TokenBucket::builder(quota).clock(ManualClock::new()).striped().build().unwrap();
        let snapshot = limit.snapshot();
        assert_eq!(snapshot.remaining, snapshot.capacity);
        snapshot.capacity
    };
    assert_eq!(capacity(1), 1);
    assert_eq!(capacity(127), 127);
    assert_eq!(capacity(128), 120);
    assert_eq!(capacity(160), 150);
    for burst in [1_000, 10_000, 100_000_000] {
        let capacity = capacity(burst);
        assert!(capacity < burst && capacity >= burst - burst / 16, "{capacity} of {burst}");
    }
    let reserve = |burst, threads, portion| {
        let quota = Quota::per_second(10).burst(burst);
        TokenBucket::builder(quota).clock(ManualClock::new()).striped().reserve(threads, portion).build()
    };
    let error = reserve(80, 10, 8).unwrap_err();
    assert_eq!(error, QuotaError::ReserveTooLarge { reserve: 80, burst: 80 });
    let error = reserve(80, 10, u64::MAX).unwrap_err();
    assert_eq!(error, QuotaError::ReserveTooLarge { reserve: u64::MAX, burst: 80 });
    assert_eq!(reserve(81, 10, 8).unwrap().snapshot().capacity, 1);
    assert_eq!(reserve(80, 0, 8).unwrap().snapshot().capacity, 80);
    assert!(TokenBucket::builder(Quota::per_second(0)).striped().build().is_err());
}

/// Seen to fail on: two threads at one stripe; a reserve that is not taken out of the burst.
#[test]
fn threads_hold_no_more_than_the_reserve() {
    let (limit, clock) = limit(2);
    let [first, second, third] = [Worker::new(), Worker::new(), Worker::new()];
    for worker in [&first, &second, &third] {
        worker.fill(&limit);
        clock.advance(LONG);
    }
    assert_eq!(drain(&limit), 40);
    assert_eq!(limit.snapshot().remaining, 14);
    assert_eq!(
        [&first, &second, &third].map(|worker| {
            let limit = limit.clone();
            worker.run(move || drain(&limit))
        }),
        [7, 7, 0]
    );
    assert_eq!((drain(&limit), limit.snapshot().remaining), (0, 0));
    clock.advance(ns(100));
    assert!(third.check(&limit, 1).is_ok());
}

/// Seen to fail on: a draw of a whole portion at first.
#[test]
fn a_thread_that_comes_once_holds_nothing() {
    let (limit, _) = limit(2);
    let once = Worker::new();
    assert!(once.check(&limit, 3).is_ok());
    assert_eq!(drain(&limit), 37);
    refused(once.check(&limit, 1), 100);
}

/// Seen to fail on: no second try for what is missing alone.
#[test]
fn while_little_is_left_only_what_is_asked_for_is_drawn() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    assert!(worker.check(&limit, 7).is_ok());
    assert_eq!(drain(&limit), 25);
    clock.advance(ns(300));
    // A portion is not there: one unit is drawn, and the next time as well.
    assert!(worker.check(&limit, 1).is_ok());
    assert!(limit.check(1).is_ok());
    assert!(worker.check(&limit, 1).is_ok());
    refused(limit.check(1), 100);
}

/// Seen to fail on: an end of a thread that gives nothing back; one that does not free its seat; one that leaves the
/// next to draw as much at once.
#[test]
fn a_thread_that_ends_gives_back_what_it_holds() {
    let (limit, clock) = limit(2);
    limit.check(1).unwrap();
    let worker = Worker::new();
    worker.fill(&limit);
    assert_eq!(limit.snapshot().remaining, 31);
    drop(worker);
    assert_eq!(limit.snapshot().remaining, 31);
    assert_eq!(drain(&limit), 31);
    // The next one at its seat begins as it did.
    clock.advance(LONG);
    Worker::new().fill(&limit);
    clock.advance(LONG);
    let worker = Worker::new();
    worker.fill(&limit);
    assert_eq!(drain(&limit), 25);
}

/// Seen to fail on: units that go back as of now, not as of their draw; an end of a thread that gives nothing back.
#[test]
fn what_is_given_back_late_is_worth_nothing() {
    let (limit, clock) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    clock.advance(LONG);
    // Others' units must not pay for what has been refilled already.
    assert_eq!(drain(&limit), 40);
    drop(worker);
    assert_eq!(drain(&limit), 0);
}

/// Seen to fail on: units of threads that end left at the stripe for the next, and added to by it or not.
#[test]
fn threads_that_come_and_go_mint_nothing() {
    let (limit, clock) = limit(2);
    for _ in 0..99 {
        let worker = Worker::new();
        worker.fill(&limit);
        clock.advance(LONG);
    }
    assert_eq!(drain(&limit), 40);
    assert_eq!(
        Worker::new().run({
            let limit = limit.clone();
            move || drain(&limit)
        }),
        0
    );
}

/// Seen to fail on: a large ask drawn into stock; stock not used for one; its refund to the shared word.
#[test]
fn a_large_ask_takes_what_its_thread_holds_and_the_rest() {
    let (limit, clock) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    clock.advance(LONG);
    for units in [41, 47, 48, u64::MAX] {
        let denied = worker.check(&limit, units).unwrap_err();
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::ExceedsCapacity, None));
    }
    let permit = worker.take(&limit, 40);
    assert_eq!((permit.cost().units(), limit.snapshot().remaining), (40, 7));
    worker.run(move || permit.refund());
    assert_eq!(drain(&limit), 40);
    refused(worker.check(&limit, 40), 3_300);
    assert!(worker.check(&limit, 7).is_ok());
    refused(worker.check(&limit, 1), 100);
}

/// Seen to fail on: a wait told for all of the units, not for those missing; stock given back by a refusal.
#[test]
fn a_refusal_changes_nothing_and_says_when() {
    let (limit, clock) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    drain(&limit);
    for (units, wait) in [(8, 100), (9, 200), (20, 1_300)] {
        let denied = worker.check(&limit, units).unwrap_err();
        assert_eq!(denied.limit().map(|name| name.as_str()), Some("hot"));
        refused(worker.check(&limit, units), wait);
        let ready = {
            let limit = limit.clone();
            worker.run(move || limit.ready_in(units))
        };
        assert_eq!(ready.unwrap(), ns(wait));
    }
    assert_eq!(limit.ready_in(1).unwrap(), ns(100));
    let ready = {
        let limit = limit.clone();
        worker.run(move || limit.ready_in(7))
    };
    assert_eq!(ready.unwrap(), ns(0));
    clock.advance(ns(199));
    refused(worker.check(&limit, 9), 1);
    clock.advance(ns(1));
    assert!(worker.check(&limit, 9).is_ok());
    refused(worker.check(&limit, 1), 100);
    assert!(worker.check(&limit, 0).is_ok());
}

/// Seen to fail on: a seat that the next limit takes over.
#[test]
fn a_thread_asks_more_limits_than_it_has_seats() {
    let limits: Vec<_> = (0..40).map(|_| limit(2).0).collect();
    for limit in &limits {
        fill(limit);
    }
    for limit in &limits {
        assert_eq!((limit.snapshot().remaining, drain(limit), drain(limit)), (32, 32, 0));
    }
}

/// Seen to fail on: seats of limits that are gone kept.
#[test]
fn seats_of_limits_that_are_gone_are_free() {
    let worker = Worker::new();
    for _ in 0..100 {
        let (limit, _) = limit(1);
        worker.fill(&limit);
        // It holds seven: it has a seat.
        assert_eq!(drain(&limit), 25);
    }
}

/// Seen to fail on: a box for each draw.
#[test]
fn nothing_is_allocated_once_a_thread_sits() {
    let (limit, clock) = limit(1);
    let poll_once = || {
        let mut acquire = pin!(limit.acquire(1));
        acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    assert!(poll_once());
    limit.check(1).unwrap();
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        let _ = limit.check(1);
        let _ = limit.check(9);
        if let Ok(permit) = limit.try_acquire(2) {
            permit.settle(1.into());
        }
        clock.advance(ns(150));
    }
    clock.advance(LONG);
    assert!(poll_once());
    assert_eq!(ALLOCATIONS.get(), before);
}

// What comes back.

/// Seen to fail on: every refund to the shared word.
#[test]
fn a_refund_on_its_thread_goes_back_to_what_it_holds() {
    let (limit, clock) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    let permit = worker.take(&limit, 5);
    clock.advance(LONG);
    assert_eq!(drain(&limit), 40);
    worker.run(move || permit.refund());
    assert_eq!((drain(&limit), limit.snapshot().remaining), (0, 7));
    assert!(worker.check(&limit, 7).is_ok());
    refused(worker.check(&limit, 1), 100);
}

/// Seen to fail on: refunds into stock whatever their draw.
#[test]
fn a_refund_of_an_earlier_draw_mints_nothing() {
    let (limit, clock) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    let early: Vec<_> = (0..7).map(|_| worker.take(&limit, 1)).collect();
    clock.advance(LONG);
    // The next draw is of eight, of which seven are held.
    assert!(worker.check(&limit, 1).is_ok());
    clock.advance(LONG);
    assert_eq!(drain(&limit), 40);
    worker.run(move || early.into_iter().for_each(Permit::refund));
    assert_eq!((limit.snapshot().remaining, drain(&limit)), (7, 0));
    assert!(worker.check(&limit, 7).is_ok());
    refused(worker.check(&limit, 1), 100);
}

/// Seen to fail on: units that go back as of now, not as of their draw; a refund on another thread into its own stock.
#[test]
fn a_refund_elsewhere_is_worth_what_has_not_been_refilled() {
    for (late_ns, worth) in [(0, 5), (300, 2), (500, 0), (5_000, 0)] {
        let (limit, clock) = limit(2);
        let worker = Worker::new();
        worker.fill(&limit);
        let permit = worker.take(&limit, 5);
        clock.advance(ns(late_ns));
        let left = drain(&limit);
        assert_eq!(left, 25 + (late_ns / 100).min(15));
        permit.refund();
        assert_eq!(drain(&limit), worth);
    }
}

/// Seen to fail on: the settled part given back whole.
#[test]
fn a_settlement_gives_back_the_difference() {
    let (limit, _) = limit(1);
    let worker = Worker::new();
    worker.fill(&limit);
    let permit = worker.take(&limit, 5);
    worker.run(move || permit.settle(2.into()));
    assert_eq!(limit.snapshot().remaining, 30);
    assert_eq!(drain(&limit), 25);
    assert!(worker.check(&limit, 5).is_ok());
    refused(worker.check(&limit, 1), 100);
}

// What makes void what is held.

/// Seen to fail on: a debt that ends no epoch.
#[test]
fn a_debt_is_waited_for_by_those_who_hold() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    let permit = limit.try_acquire(10).unwrap();
    assert_eq!(drain(&limit), 15);
    permit.settle(20.into());
    // What it holds pays seven of ten.
    assert_eq!(limit.snapshot().debt, 10);
    refused(worker.check(&limit, 1), 400);
    assert_eq!((limit.snapshot().debt, limit.snapshot().remaining), (3, 0));
}

/// Seen to fail on: an epoch that ends with every charge.
#[test]
fn a_charge_without_a_debt_leaves_what_is_held() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    // Were it given back, it would be worth nothing.
    clock.advance(LONG);
    limit.charge(40);
    refused(limit.check(1), 100);
    assert!(worker.check(&limit, 7).is_ok());
    limit.charge(1);
    refused(worker.check(&limit, 1), 200);
}

/// Seen to fail on: a pause without a change of epoch.
#[test]
fn a_pause_stops_those_who_hold() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    limit.pause();
    let denied = worker.check(&limit, 1).unwrap_err();
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::Paused, None));
    limit.resume();
    assert_eq!(limit.snapshot().remaining, 32);
    assert_eq!(drain(&limit), 32);
}

/// Seen to fail on: closing without a change of epoch.
#[test]
fn closing_stops_those_who_hold() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    limit.close();
    for units in [0, 1, 0, 9] {
        assert_eq!(worker.check(&limit, units).unwrap_err().reason(), Reason::Closed);
    }
    let asked = limit.clone();
    let waited = worker.run(move || poll(&mut asked.acquire(1)));
    assert!(matches!(waited, Poll::Ready(Err(Error::Denied(denied))) if denied.reason() == Reason::Closed));
}

/// Seen to fail on: a reset without a change of epoch.
#[test]
fn a_reset_forgets_what_is_held() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    let permit = worker.take(&limit, 3);
    limit.reset();
    assert_eq!(drain(&limit), 40);
    worker.run(move || permit.refund());
    refused(worker.check(&limit, 1), 100);
    assert_eq!(limit.snapshot().remaining, 0);
}

/// Seen to fail on: a change of quota without one of epoch; without one of the reserve.
#[test]
fn a_change_of_quota_ends_what_is_held() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    // 25 of 40 are left and stay; what the burst is larger by fills with time. The seven go back.
    limit.set_quota(Quota::per(1, ns(50)).burst(80)).unwrap();
    assert_eq!((limit.snapshot().capacity, drain(&limit)), (64, 25));
    assert!(worker.check(&limit, 7).is_ok());
    refused(worker.check(&limit, 1), 50);

    clock.advance(LONG);
    worker.fill(&limit);
    limit.set_quota(Quota::per(1, ns(50)).burst(20)).unwrap();
    assert_eq!((limit.snapshot().capacity, drain(&limit)), (4, 4));
    refused(worker.check(&limit, 1), 50);

    clock.advance(LONG);
    let error = limit.set_quota(Quota::per(1, ns(50)).burst(16)).unwrap_err();
    assert_eq!(error, QuotaError::ReserveTooLarge { reserve: 16, burst: 16 });
    assert!(limit.set_quota(Quota::per(1, ns(50)).burst(0)).is_err());
    assert_eq!(limit.snapshot().capacity, 4);

    let bucket = TokenBucket::builder(Quota::per(1, ns(100)).burst(1_000)).clock(clock);
    let limit = bucket.striped().build().unwrap();
    limit.set_quota(Quota::per(1, ns(100)).burst(100)).unwrap();
    worker.fill(&limit);
    // Nothing is held of so small a burst.
    assert_eq!((limit.snapshot().capacity, drain(&limit)), (100, 92));
}

// The line.

/// Seen to fail on: a wait that begins without a change of epoch.
#[test]
fn nobody_passes_who_waits_and_what_is_held_goes_to_the_line() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    assert_eq!(drain(&limit), 25);
    let mut waiting = limit.acquire(10);
    assert!(poll(&mut waiting).is_pending());
    // Seven of ten go back, three are missing, and one behind them.
    refused(worker.check(&limit, 1), 400);
    assert_eq!(limit.snapshot().remaining, 7);
    clock.advance(ns(299));
    assert!(poll(&mut waiting).is_pending());
    clock.advance(ns(1));
    refused(worker.check(&limit, 1), 100);
    let Poll::Ready(Ok(permit)) = poll(&mut waiting) else { panic!("not served") };
    assert_eq!(permit.cost().units(), 10);
    permit.refund();
    assert_eq!(drain(&limit), 10);
}

/// Seen to fail on: an ask that goes to wait and keeps what its thread holds; one that goes to wait in vain.
#[test]
fn one_who_waits_gives_back_what_its_thread_holds() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    drain(&limit);
    let asks = |max_wait: Option<u64>| {
        let (limit, ask) = (limit.clone(), Ask::cost(9));
        worker.run(move || {
            let ask = max_wait.map_or(ask, |most| ask.within(ns(most)));
            let mut acquire = limit.acquire(ask);
            (poll(&mut acquire).map_ok(|permit| permit.cost()), acquire)
        })
    };
    // One that cannot be met in time is refused at once, and changes nothing.
    for most in [0, 199] {
        let (Poll::Ready(Err(Error::Denied(denied))), _) = asks(Some(most)) else { panic!("not refused") };
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(ns(200))));
        assert_eq!(drain(&limit), 0);
    }
    let (Poll::Pending, mut waiting) = asks(Some(200)) else { panic!("not waiting") };
    clock.advance(ns(200));
    assert!(poll(&mut waiting).is_ready());
    // One that gives up leaves the seven, and two that came.
    clock.advance(LONG);
    worker.fill(&limit);
    drain(&limit);
    let (Poll::Pending, waiting) = asks(None) else { panic!("not waiting") };
    clock.advance(ns(199));
    drop(waiting);
    assert_eq!(drain(&limit), 8);
}

/// Seen to fail on: a refund into what its thread holds although somebody waits.
#[test]
fn a_refund_reaches_those_who_wait() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    let permit = worker.take(&limit, 5);
    assert_eq!(drain(&limit), 25);
    let mut waiting = limit.acquire(4);
    assert!(poll(&mut waiting).is_pending());
    worker.run(move || permit.refund());
    assert!(matches!(poll(&mut waiting), Poll::Ready(Ok(_))));
    assert_eq!(drain(&limit), 1);
}

/// Seen to fail on: a thread that waits and leaves the change of epoch open.
#[test]
fn a_thread_waits_without_a_runtime() {
    let (limit, clock) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    drain(&limit);
    let waiter = {
        let limit = limit.clone();
        thread::spawn(move || limit.acquire_blocking(10))
    };
    while limit.snapshot().waiting == 0 {
        thread::yield_now();
    }
    refused(worker.check(&limit, 1), 400);
    clock.advance(ns(300));
    waiter.join().unwrap().unwrap().refund();
    assert_eq!(drain(&limit), 10);
    clock.advance(LONG);
    // Portions are drawn again.
    worker.fill(&limit);
    assert_eq!(drain(&limit), 25);
    assert!(worker.check(&limit, 7).is_ok());
    let refused = limit.acquire_blocking(Ask::ONE.within(ns(99))).unwrap_err();
    assert_eq!(refused.retry_after(), Some(ns(100)));
}

/// Seen to fail on: a poll that spends at the stripe of the thread it was made on.
#[test]
fn an_ask_may_be_polled_on_another_thread() {
    let (limit, _) = limit(2);
    let worker = Worker::new();
    worker.fill(&limit);
    let mut asks = {
        let limit = limit.clone();
        worker.run(move || limit.acquire(3))
    };
    assert!(matches!(poll(&mut asks), Poll::Ready(Ok(_))));
    assert_eq!(drain(&limit), 22);
    assert!(worker.check(&limit, 7).is_ok());
}

/// Seen to fail on: held units left out; not cut at the capacity.
#[test]
fn what_threads_hold_is_left() {
    let (limit, clock) = limit(2);
    let told = |limit: &Limit| {
        let mut told = None;
        limit.status(&(), &mut |standing| told = Some((standing.remaining, standing.policy.limit)));
        let snapshot = limit.snapshot();
        assert_eq!(told, Some((snapshot.remaining, snapshot.capacity)));
        snapshot.remaining
    };
    assert_eq!(told(&limit), 40);
    let worker = Worker::new();
    worker.fill(&limit);
    assert_eq!(told(&limit), 32);
    clock.advance(LONG);
    assert_eq!(told(&limit), 40);
    drain(&limit);
    assert_eq!(told(&limit.clone()), 7);
    assert!(format!("{limit:?}").contains("remaining: 7"));
}

// Never more than promised.

/// One thread: whatever is admitted fits the burst, and whatever a bucket of the capacity would admit is admitted.
///
/// Seen to fail on: a reserve that is not taken out of the burst; a large ask that leaves what is held aside; a draw of a
/// whole portion on top of what is held; a wait told for all of the units.
#[test]
fn one_thread_is_served_between_two_buckets() {
    let op = prop_oneof![
        3 => (0..2_000_u64).prop_map(|advance| (advance, 0, false)),
        6 => (1..12_u64, any::<bool>()).prop_map(|(units, refund)| (0, units, refund)),
        2 => (1..60_u64, any::<bool>()).prop_map(|(units, refund)| (0, units, refund)),
    ];
    let ops = prop::collection::vec(op, 1..200);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 64 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in ops, count in 1..9_u64, period_ns in 1..900_u64, portion in 1..16_u64)| {
        let clock = ManualClock::new();
        let burst = 30 + portion;
        let quota = Quota::per(count, ns(period_ns)).burst(burst);
        let limit = TokenBucket::builder(quota).clock(clock.clone()).striped().reserve(1, portion).build().unwrap();
        let bucket = |burst| Bucket::new(Terms { count, period_ns, burst, initial: burst }, Side::Floor, 0);
        let (mut most, mut least, mut now) = (bucket(burst), bucket(30), 0);
        for (advance, units, refund) in ops {
            now += advance;
            clock.advance(ns(advance));
            if units == 0 {
                continue;
            }
            let is_ready = limit.ready_in(units) == Ok(ns(0));
            prop_assert!(is_ready || least.ready(now, units) != Some(now));
            let permit = match limit.try_acquire(units) {
                Ok(permit) => permit,
                Err(denied) if units > 30 => {
                    prop_assert_eq!(denied.reason(), Reason::ExceedsCapacity);
                    continue;
                }
                Err(denied) => {
                    prop_assert!(!is_ready);
                    let wait = denied.retry_after().unwrap();
                    clock.advance(wait - ns(1));
                    prop_assert_eq!(limit.check(units).unwrap_err().retry_after(), Some(ns(1)));
                    clock.advance(ns(1));
                    now += wait.as_nanos() as u64;
                    limit.try_acquire(units).unwrap()
                }
            };
            prop_assert_eq!(most.ready(now, units), Some(now));
            for bucket in [&mut most, &mut least] {
                bucket.take(now, units);
            }
            if refund {
                permit.refund();
                for bucket in [&mut most, &mut least] {
                    bucket.give_back(now, now, units, units);
                }
            }
        }
    });
}

/// What was admitted and not refunded, in order of time, and that it fits the envelope up to now.
#[derive(Default)]
struct Record(Vec<(u64, u64)>);

impl Record {
    fn assert_fits(&self, now: u64, burst: u64, period_ns: u64) {
        let mut units = 0;
        for (at, admitted) in self.0.iter().rev() {
            units += admitted;
            assert!(
                units * period_ns <= burst * period_ns + (now - at),
                "{units} units from {at} to {now}, of a burst of {burst} and one each {period_ns} ns"
            );
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Advance(u64),
    Check(usize, u64),
    /// So that the thread holds what it may.
    Fill(usize),
    /// By all threads until they are refused.
    Drain,
    Take(usize, u64),
    /// A permit, the thread it is settled on, and the real cost in quarters.
    Settle(usize, usize, u64),
    End(usize),
    Pause(bool),
    Charge(u64),
    Quota(u64),
    Reset,
}

/// Several threads in turn, that end, settle each other's permits, and see the limit change.
///
/// Seen to fail on: a reserve that is not taken out of the burst; a pause without a change of epoch.
#[test]
fn threads_in_turn_are_never_admitted_more() {
    const PERIOD_NS: u64 = 100;
    let (threads, units) = (0..3_usize, prop_oneof![4 => 1..5_u64, 1 => 1..30_u64]);
    let op = prop_oneof![
        4 => prop_oneof![0..300_u64, 0..6_000_u64, Just(10_000)].prop_map(Op::Advance),
        2 => threads.clone().prop_map(Op::Fill),
        1 => Just(Op::Drain),
        10 => (threads.clone(), units.clone()).prop_map(|(thread, units)| Op::Check(thread, units)),
        6 => (threads.clone(), units).prop_map(|(thread, units)| Op::Take(thread, units)),
        5 => (any::<usize>(), threads.clone(), 0..6_u64).prop_map(|(nth, thread, real)| Op::Settle(nth, thread, real)),
        2 => threads.prop_map(Op::End),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => (1..60_u64).prop_map(Op::Charge),
        1 => (24..80_u64).prop_map(Op::Quota),
        1 => Just(Op::Reset),
    ];
    let ops = prop::collection::vec(op, 1..300);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 48 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ops in ops)| {
        let (mut burst, clock) = (40, ManualClock::new());
        let quota = |burst| Quota::per(1, ns(PERIOD_NS)).burst(burst);
        // Two seats for three threads.
        let limit = TokenBucket::builder(quota(burst)).clock(clock.clone()).striped().reserve(2, 8).build().unwrap();
        let mut workers = [Worker::new(), Worker::new(), Worker::new()];
        let (mut record, mut permits, mut paused, mut now) = (Record::default(), Vec::new(), false, 0);
        for op in ops {
            match op {
                Op::Advance(span) => {
                    now += span;
                    clock.advance(ns(span));
                }
                Op::Check(thread, units) => {
                    if workers[thread].check(&limit, units).is_ok() {
                        assert!(!paused);
                        record.0.push((now, units));
                    }
                }
                Op::Fill(thread) => {
                    for units in [1, 1, 1, 1, 3, 1] {
                        if workers[thread].check(&limit, units).is_ok() {
                            record.0.push((now, units));
                        }
                    }
                }
                Op::Drain => {
                    for worker in &workers {
                        let limit = limit.clone();
                        record.0.push((now, worker.run(move || drain(&limit))));
                    }
                }
                Op::Take(thread, units) => {
                    let limit = limit.clone();
                    if let Ok(permit) = workers[thread].run(move || limit.try_acquire(units)) {
                        assert!(!paused);
                        permits.push((permit, Some(record.0.len())));
                        record.0.push((now, units));
                    }
                }
                Op::Settle(nth, thread, real) if !permits.is_empty() => {
                    let (permit, entry) = permits.swap_remove(nth % permits.len());
                    let units = permit.cost().units();
                    let real = units * real / 4;
                    workers[thread].run(move || permit.settle(real.into()));
                    if let Some(entry) = entry {
                        record.0[entry].1 = units.min(real);
                    }
                }
                Op::Settle(..) => {}
                Op::End(thread) => workers[thread] = Worker::new(),
                Op::Pause(true) => { limit.pause(); paused = true }
                Op::Pause(false) => { limit.resume(); paused = false }
                Op::Charge(units) => limit.charge(units),
                Op::Quota(next) => {
                    limit.set_quota(quota(next)).unwrap();
                    burst = next;
                    record.0.clear();
                    permits.iter_mut().for_each(|(_, entry)| *entry = None);
                }
                Op::Reset => {
                    limit.reset();
                    record.0.clear();
                    permits.iter_mut().for_each(|(_, entry)| *entry = None);
                }
            }
            record.assert_fits(now, burst, PERIOD_NS);
        }
    });
}

/// Threads that come and go, at once, on a clock that is moved under them: in no interval more than the envelope. From
/// time to time they ask little until they hold what they may and the bucket is full again, and then all of them ask.
///
/// Seen to fail on: a reserve that is not taken out of the burst.
#[test]
fn threads_that_come_and_go_are_never_admitted_more() {
    const PERIOD_NS: u64 = 10;
    const BURST: u64 = 160;
    const MOVES: u32 = 250;
    let clock = ManualClock::new();
    let quota = Quota::per(1, ns(PERIOD_NS)).burst(BURST);
    let limit = TokenBucket::builder(quota).clock(clock.clone()).striped().reserve(6, 16).build().unwrap();
    // Before and after each admission, and its units.
    let admitted = Mutex::new(Vec::<(u64, u64, u64)>::new());
    let (refusals, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Odd: a time to hold back; and how many do.
    let (time, calmed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_calm = |time: usize| time % 2 == 1;
    let now = || tollgate::Clock::now(&clock).as_ns();

    // Asks by dice until told to stop. Those that never rest see to it that the limit is reached at every time.
    let ask = |seed: u64, rests: bool, asks: u64| {
        let (mut dice, mut mine, mut permits) = (seed, Vec::new(), Vec::new());
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for _ in 0..asks {
            if done.load(Ordering::Relaxed) {
                break;
            }
            if rests && roll(40) == 0 {
                let (then, until) = (now(), roll(2_000));
                while now() < then + until
                    && !done.load(Ordering::Relaxed)
                    && !is_calm(time.load(Ordering::Relaxed))
                {
                    thread::yield_now();
                }
            }
            let this = time.load(Ordering::Acquire);
            if is_calm(this) {
                for _ in 0..if asks == u64::MAX { 16 } else { 0 } {
                    let before = now();
                    if limit.check(1).is_ok() {
                        mine.push((before, now(), 1));
                    }
                }
                calmed.fetch_add(1, Ordering::Release);
                while time.load(Ordering::Acquire) == this && !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            }
            let units = if roll(8) == 0 { 1 + roll(30) } else { 1 + roll(3) };
            let before = now();
            if roll(4) > 0 {
                match limit.check(units) {
                    Ok(()) => mine.push((before, now(), units)),
                    Err(_) => _ = refusals.fetch_add(1, Ordering::Relaxed),
                }
            } else if let Ok(permit) = limit.try_acquire(units) {
                permits.push((permit, (before, now(), units)));
                if permits.len() > 8 {
                    let (permit, entry) = permits.swap_remove(roll(8) as usize);
                    if roll(2) == 0 { permit.refund() } else { mine.push(entry) }
                }
            }
        }
        mine.extend(permits.into_iter().map(|(_, entry)| entry));
        admitted.lock().unwrap().append(&mut mine);
    };

    thread::scope(|scope| {
        let ask = &ask;
        for thread in 0..4 {
            scope.spawn(move || ask(thread, thread > 0, u64::MAX));
        }
        for thread in 4..6 {
            let done = &done;
            scope.spawn(move || {
                // One short life after the other. Joined to its very end, which a scope would not wait for.
                for life in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::scope(|scope| {
                        _ = scope.spawn(|| ask(thread * 1_000_000 + life, false, 12)).join()
                    });
                }
            });
        }
        let mut dice = 7_u64;
        for turn in 0..MOVES {
            if turn % 16 == 0 {
                // Six threads hold back, at a full bucket each time.
                clock.advance(ns(BURST * PERIOD_NS));
                calmed.store(0, Ordering::Relaxed);
                time.fetch_add(1, Ordering::Release);
                while calmed.load(Ordering::Acquire) < 6 {
                    thread::yield_now();
                }
                clock.advance(ns(BURST * PERIOD_NS));
                time.fetch_add(1, Ordering::Release);
            }
            let seen = refusals.load(Ordering::Relaxed);
            while refusals.load(Ordering::Relaxed) < seen + 3 {
                thread::yield_now();
            }
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let span = if dice >> 61 == 0 { 3_000 } else { (dice >> 33) % 300 };
            clock.advance(ns(span));
        }
        done.store(true, Ordering::Relaxed);
    });

    let admitted = admitted.into_inner().unwrap();
    let mut times: Vec<u64> = admitted.iter().flat_map(|(before, after, _)| [*before, *after]).collect();
    times.sort_unstable();
    times.dedup();
    let index = |at: u64| times.binary_search(&at).unwrap();
    // Units that were surely admitted from one time to the other: row by row, from the latest beginning to the first.
    let mut within = vec![0_u64; times.len()];
    let mut begun = vec![Vec::new(); times.len()];
    for (before, after, units) in &admitted {
        begun[index(*before)].push((index(*after), *units));
    }
    let mut fullest = 0.0_f64;
    for from in (0..times.len()).rev() {
        for (to, units) in &begun[from] {
            within[*to] += units;
        }
        let mut units = 0;
        for to in from..times.len() {
            units += within[to];
            let most = BURST * PERIOD_NS + (times[to] - times[from]);
            assert!(units * PERIOD_NS <= most, "{units} from {} to {}", times[from], times[to]);
            let above = (units * PERIOD_NS) as f64 - (times[to] - times[from]) as f64;
            fullest = fullest.max(above / (BURST * PERIOD_NS) as f64);
        }
    }
    let total: u64 = admitted.iter().map(|(_, _, units)| units).sum();
    println!("{total} units in {} asks; at most {fullest:.3} of the burst", admitted.len());
    assert!(total > 2 * BURST, "the limit was not reached: {total}");
}
