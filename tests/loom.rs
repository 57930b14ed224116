//! Models of everything that runs without a lock or hands work from one thread to another. Built and run with
//! `RUSTFLAGS='--cfg tollgate_loom' LOOM_MAX_PREEMPTIONS=3 cargo test --release --no-default-features --test loom`;
//! without the cfg there is nothing here.
//!
//! Each model says what it was seen to fail on: one such thing was changed in the crate at a time. Small models are run
//! in every order there is, the others in every order of as many preemptions as are asked for.
//!
//! Out of loom's sight: a load that happens after a later store, which the release of the compare-exchange in
//! `Word::look` and the acquire of the swap in `Word::shut` are there against. Not modelled: `acquire_blocking`, which
//! parks and unparks threads of the standard library.
#![cfg(tollgate_loom)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use tollgate::clock::{Armed, ManualTimer, Timer};
use tollgate::{
    Ask, Clock, Concurrency, Denied, Error, Keyed, LimiterExt, ManualClock, Permit, Quota, Reason,
    SlidingWindow, Striped, Timestamp, TokenBucket, algorithm,
};

/// Runs a model in every order there is.
fn every_order(run: impl Fn() + Sync + Send + 'static) {
    check(None, run);
}

/// Runs a model in every order of at most `LOOM_MAX_PREEMPTIONS` preemptions, or three, less `fewer`.
fn model(fewer: usize, run: impl Fn() + Sync + Send + 'static) {
    let most = Builder::new().preemption_bound.unwrap_or(3);
    check(Some(most.saturating_sub(fewer)), run);
}

fn check(preemptions: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    // A look at a key reads two buckets of slots: more steps than loom takes for a loop without an end.
    builder.max_branches = 20_000;
    builder.check(run);
}

/// Where a thread sleeps until it is woken. Loom's own `block_on` also wakes for no reason, and prints whenever it waits.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }
}

/// Polls `future` until it is ready, only when woken: a lost wake-up is a deadlock, which loom reports.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut rung = bell.rung.lock().unwrap();
        while !*rung {
            rung = bell.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Polls once with a waker that wakes nobody.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A [`ManualClock`] that loom sees being read and moved: its own accesses are not among those loom reorders.
#[derive(Clone)]
struct SeenClock {
    clock: ManualClock,
    seen: Arc<AtomicUsize>,
}

impl SeenClock {
    fn new() -> Self {
        Self { clock: ManualClock::new(), seen: Arc::new(AtomicUsize::new(0)) }
    }

    /// Relaxed: what the limiter must order, it orders itself.
    fn see(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    fn advance(&self, ns: u64) {
        self.see();
        self.clock.advance(Duration::from_nanos(ns));
    }
}

impl Clock for SeenClock {
    type Timer = SeenTimer;

    fn now(&self) -> Timestamp {
        self.see();
        self.clock.now()
    }

    fn timer(&self) -> Option<SeenTimer> {
        Some(SeenTimer { timer: self.clock.timer()?, clock: self.clone() })
    }
}

struct SeenTimer {
    timer: ManualTimer,
    clock: SeenClock,
}

impl Timer for SeenTimer {
    fn is_here(&self) -> bool {
        self.timer.is_here()
    }

    fn arm(&mut self, at: Timestamp, waker: &Waker) -> Armed {
        self.clock.see();
        self.timer.arm(at, waker)
    }
}

fn bucket(quota: Quota) -> TokenBucket<ManualClock> {
    TokenBucket::builder(quota).clock(ManualClock::new()).build().unwrap()
}

fn slots(slots: u64) -> Concurrency<ManualClock> {
    Concurrency::builder(slots).clock(ManualClock::new()).build().unwrap()
}

fn slots_on(slots: u64, stripes: usize) -> Concurrency<ManualClock> {
    Concurrency::builder(slots).stripes(stripes).clock(ManualClock::new()).build().unwrap()
}

const fn ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

/// A quota whose next unit is 15 ns away when it is empty, and one where that is 334 ns. Read by the other's numbers,
/// in whole or in part, neither comes out as either.
fn fast() -> Quota {
    Quota::per(7, ns(100)).burst(1)
}
fn slow() -> Quota {
    Quota::per(3, ns(1000)).burst(1)
}
const FAST_WAIT: Duration = ns(15);
const SLOW_WAIT: Duration = ns(334);

/// All slots are free and nobody waits.
fn assert_free<C: Clock>(slots: &Concurrency<C>, free: u64) {
    let snapshot = slots.snapshot();
    assert_eq!((snapshot.remaining, snapshot.debt, snapshot.waiting), (free, 0, 0));
}

fn reason<T>(heard: &Result<T, Error>) -> Option<Reason> {
    match heard {
        Err(Error::Denied(denied)) => Some(denied.reason()),
        _ => None,
    }
}

// The door of a token bucket.

/// Seen to fail on: a store in place of the compare-exchange in `Word::look`.
#[test]
fn two_at_the_door_are_admitted_as_the_burst_allows() {
    every_order(|| {
        let bucket = bucket(Quota::per(1, ns(10)).burst(3));
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(2));
        let heard = [bucket.check(2), other.join().unwrap()];
        assert_eq!(heard.iter().filter(|heard| heard.is_ok()).count(), 1);
        let denied = heard.into_iter().find_map(Result::err).unwrap();
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(ns(10))));
        assert_eq!(bucket.snapshot().remaining, 1);
    });
}

/// Seen to fail on: a store in place of the compare-exchange in `Word::look`.
#[test]
fn three_at_the_door_are_admitted_as_the_burst_allows() {
    every_order(|| {
        let bucket = bucket(Quota::per(1, ns(10)).burst(2));
        let others: Vec<JoinHandle<Result<(), Denied>>> = (0..2)
            .map(|_| {
                let bucket = bucket.clone();
                thread::spawn(move || bucket.check(1))
            })
            .collect();
        let mut admitted = usize::from(bucket.check(1).is_ok());
        for other in others {
            admitted += usize::from(other.join().unwrap().is_ok());
        }
        assert_eq!(admitted, 2);
        assert_eq!(bucket.snapshot().remaining, 0);
    });
}

/// Seen to fail on: a load and a store in place of the swap in `Word::shut`; `Word::open` storing the word
/// before the rest.
#[test]
fn a_look_under_the_lock_does_not_undo_a_take() {
    model(0, || {
        let bucket = bucket(Quota::per(1, ns(10)).burst(2));
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(1).is_ok());
        assert!((1..=2).contains(&bucket.snapshot().remaining));
        assert!(bucket.check(1).is_ok());
        assert!(other.join().unwrap());
        assert_eq!(bucket.snapshot().remaining, 0);
    });
}

// The ring of a sliding window.

/// A window of 100 ns whose ring is in use: making it and as many looks through the lock as its limit have gone before.
fn ring(limit: u64) -> (SlidingWindow<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    let window = SlidingWindow::builder(Quota::per(limit, ns(100))).clock(clock.clone()).build().unwrap();
    open(&window, limit);
    (window, clock)
}

fn open(window: &SlidingWindow<ManualClock>, limit: u64) {
    for _ in 0..limit {
        window.ready_in(0).unwrap();
    }
}

fn admitted(window: &SlidingWindow<ManualClock>, others: usize, each: usize) -> usize {
    let ask =
        move |window: &SlidingWindow<ManualClock>| (0..each).filter(|_| window.check(1).is_ok()).count();
    let others: Vec<JoinHandle<usize>> = (0..others)
        .map(|_| {
            let window = window.clone();
            thread::spawn(move || ask(&window))
        })
        .collect();
    ask(window) + others.into_iter().map(|other| other.join().unwrap()).sum::<usize>()
}

/// Seen to fail on: a store in place of the compare-exchange in `Ring::look`.
#[test]
fn two_at_a_ring_are_admitted_as_the_limit_allows() {
    every_order(|| {
        let (window, clock) = ring(1);
        assert_eq!(admitted(&window, 1, 1), 1);
        let denied = window.check(1).unwrap_err();
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(ns(100))));
        clock.advance(ns(100));
        assert!(window.check(1).is_ok());
        assert!(window.check(1).is_err());
    });
}

/// A lap that is begun while a place of the last one is still to be filled. Seen to fail on: no look at the lap in
/// `Ring::see`.
#[test]
fn three_at_a_ring_are_admitted_as_the_limit_allows() {
    model(1, || {
        let (window, _clock) = ring(2);
        assert_eq!(admitted(&window, 2, 2), 2);
        assert_eq!(window.snapshot().remaining, 0);
    });
}

/// Seen to fail on: no wait for those who fill their places in `Ring::shut`; a load and a store in place of its swap.
#[test]
fn a_look_under_the_lock_loses_no_unit_of_a_ring() {
    model(0, || {
        let (window, _clock) = ring(2);
        let other = window.clone();
        let other = thread::spawn(move || other.check(1).is_ok());
        assert!((1..=2).contains(&window.snapshot().remaining));
        assert!(window.check(1).is_ok());
        assert!(other.join().unwrap());
        assert_eq!(window.snapshot().remaining, 0);
    });
}

/// A unit each 100 ns leaves room for one more at any time. Seen to fail on: no look at the
/// latest unit before a refusal; a place that is filled by a relaxed store.
#[test]
fn one_who_has_read_the_clock_long_ago_is_not_refused_for_that() {
    model(0, || {
        let (window, clock) = ring(2);
        let other = window.clone();
        let other = thread::spawn(move || other.check(1));
        for _ in 0..3 {
            let _ = window.check(1);
            clock.advance(ns(100));
        }
        other.join().unwrap().unwrap();
    });
}

/// The ring is closed and opened again, a lap or a window later, while another looks. Seen to fail on: a ring that is
/// opened in the lap it was closed in; a relaxed store of the head in `Ring::open`.
#[test]
fn a_ring_that_is_opened_again_is_not_taken_for_the_one_before() {
    model(1, || {
        let (window, _clock) = ring(1);
        let other = window.clone();
        let other = thread::spawn(move || other.check(1));
        window.set_quota(Quota::per(1, ns(1000))).unwrap();
        open(&window, 1);
        let heard = [window.check(1), other.join().unwrap()];
        let refused: Vec<Denied> = heard.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].retry_after(), Some(ns(1000)));
        assert_eq!(window.check(1).unwrap_err().retry_after(), Some(ns(1000)));
    });
}

/// The ring is laid anew, from its first place on, while another reads a place. Seen to fail on: no second look at the
/// head before a refusal; no fence in `Ring::open`.
#[test]
fn a_refusal_is_told_of_one_ring() {
    model(0, || {
        let (window, clock) = ring(2);
        window.check(1).unwrap();
        clock.advance(ns(10));
        window.check(1).unwrap();
        clock.advance(ns(90));
        window.check(1).unwrap();
        clock.advance(ns(5));
        let other = window.clone();
        let other = thread::spawn(move || other.check(1).unwrap_err().retry_after());
        let _ = window.snapshot();
        open(&window, 2);
        assert_eq!(other.join().unwrap(), Some(ns(5)));
    });
}

// A quota that changes.

/// Seen to fail on: a load in place of the swap in `Word::shut`; a relaxed first load in `Word::look`; a
/// relaxed store in `Word::open`; a change of quota that leaves the circle where it is.
#[test]
fn a_take_is_charged_under_one_quota() {
    every_order(|| {
        let bucket = bucket(fast());
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(1));
        bucket.set_quota(slow()).unwrap();
        other.join().unwrap().unwrap();
        // Taken before or after, the unit is gone, and it takes the later quota's time to come back.
        let denied = bucket.check(1).unwrap_err();
        assert_eq!(denied.retry_after(), Some(SLOW_WAIT));
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.reset_after), (0, Some(SLOW_WAIT)));
    });
}

/// Seen to fail on: no second look at the word before a refusal; no fence before that look; no fence in
/// `Word::open`.
#[test]
fn a_refusal_is_told_under_one_quota() {
    every_order(|| {
        let bucket = bucket(fast().initial(0));
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(1).unwrap_err().retry_after());
        bucket.set_quota(slow()).unwrap();
        let wait = other.join().unwrap();
        assert!([Some(FAST_WAIT), Some(SLOW_WAIT)].contains(&wait), "{wait:?}");
    });
}

/// Seen to fail on: no second look at the word before a refusal; no fence in `Word::open`; a change of quota
/// that leaves the circle where it is.
#[test]
fn a_quota_that_changes_twice_is_never_read_in_between() {
    model(1, || {
        let bucket = bucket(fast().initial(0));
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(1).unwrap_err().retry_after());
        bucket.set_quota(slow()).unwrap();
        bucket.set_quota(fast()).unwrap();
        let wait = other.join().unwrap();
        assert!([Some(FAST_WAIT), Some(SLOW_WAIT)].contains(&wait), "{wait:?}");
        assert_eq!(bucket.check(1).unwrap_err().retry_after(), Some(FAST_WAIT));
    });
}

/// Seen to fail on: a load and a store in place of the swap in `Word::shut`; a relaxed first load in
/// `Word::look`; a change of quota that leaves the circle where it is.
#[test]
fn the_later_quota_is_never_exceeded() {
    model(0, || {
        let bucket = bucket(fast().burst(2));
        let other = bucket.clone();
        let other = thread::spawn(move || other.check(1));
        bucket.set_quota(slow()).unwrap();
        let heard = [bucket.check(1), other.join().unwrap()];
        // One of the two may have come too late; then only the later quota can have refused it.
        let refused: Vec<Denied> = heard.into_iter().filter_map(Result::err).collect();
        assert!(refused.len() <= 1);
        assert!(refused.iter().all(|denied| denied.retry_after() == Some(SLOW_WAIT)));
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.debt, snapshot.reset_after), (0, 0, Some(SLOW_WAIT)));
    });
}

// Slots.

/// Takes a slot if there is one, and does under it what only one may do at once. Returns how often it was done.
fn work<C: Clock>(slots: &Concurrency<C>, done: &AtomicUsize) -> usize {
    let Ok(slot) = slots.try_acquire(1) else { return 0 };
    // Relaxed, in two steps: what orders the one after the other is the slot.
    let before = done.load(Ordering::Relaxed);
    done.store(before + 1, Ordering::Relaxed);
    drop(slot);
    1
}

/// Seen to fail on: a store in place of the compare-exchange in `Stripe::update`, and a relaxed one.
#[test]
fn one_slot_is_held_by_one_at_a_time() {
    for stripes in [1, 2] {
        every_order(move || {
            let (slots, done) = (slots_on(1, stripes), Arc::new(AtomicUsize::new(0)));
            let (others_slots, others_done) = (slots.clone(), Arc::clone(&done));
            let other = thread::spawn(move || work(&others_slots, &others_done));
            let count = work(&slots, &done) + other.join().unwrap();
            assert!(count >= 1);
            assert_eq!(done.load(Ordering::Relaxed), count);
            assert_free(&slots, 1);
        });
    }
}

/// Seen to fail on: a store in place of the compare-exchange in `Stripe::update`.
#[test]
fn two_slots_are_held_by_two_of_three() {
    for stripes in [1, 2] {
        model(0, move || {
            let (slots, used) = (slots_on(2, stripes), Arc::new(AtomicUsize::new(0)));
            let use_one = |slots: &Concurrency<ManualClock>, used: &AtomicUsize| {
                let slot = slots.try_acquire(1);
                if slot.is_ok() {
                    assert!(used.fetch_add(1, Ordering::Relaxed) < 2);
                    used.fetch_sub(1, Ordering::Relaxed);
                }
            };
            let others: Vec<JoinHandle<()>> = (0..2)
                .map(|_| {
                    let (slots, used) = (slots.clone(), Arc::clone(&used));
                    thread::spawn(move || use_one(&slots, &used))
                })
                .collect();
            use_one(&slots, &used);
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_free(&slots, 2);
        });
    }
}

/// Seen to fail on: a load and a store in place of the compare-exchange in `Stripe::hold`; a relaxed store of the word in
/// `Stripe::open`.
#[test]
fn a_look_under_the_lock_loses_no_slot() {
    for stripes in [1, 2] {
        model(0, move || {
            let (slots, done) = (slots_on(1, stripes), Arc::new(AtomicUsize::new(0)));
            let (others_slots, others_done) = (slots.clone(), Arc::clone(&done));
            let other = thread::spawn(move || work(&others_slots, &others_done));
            assert!(slots.snapshot().remaining <= 1);
            let count = work(&slots, &done) + other.join().unwrap();
            assert_eq!(done.load(Ordering::Relaxed), count);
            assert_free(&slots, 1);
        });
    }
}

/// Of three slots two are free at any time, not always at the same words. Not seen to fail yet: loom does not run the
/// other between the looks at the two words, which is what the second look is there for.
#[test]
fn slots_that_are_free_throughout_are_never_refused() {
    every_order(|| {
        let slots = slots_on(3, 2);
        let slot = slots.try_acquire(1).unwrap();
        let other = slots.clone();
        let other = thread::spawn(move || {
            drop(slot);
            other.try_acquire(1).unwrap()
        });
        let two = slots.try_acquire(2).unwrap();
        drop((two, other.join().unwrap()));
        assert_free(&slots, 3);
    });
}

/// Two slots of one are too many, and of three they are free. Seen to fail on: no second look at the turns before a
/// refusal.
#[test]
fn a_refusal_is_told_of_as_many_slots_as_there_were() {
    for stripes in [1, 2] {
        every_order(move || {
            let slots = slots_on(1, stripes);
            let other = slots.clone();
            let other = thread::spawn(move || other.resize(3));
            if let Err(denied) = slots.try_acquire(2) {
                assert_eq!(denied.reason(), Reason::ExceedsCapacity);
            }
            other.join().unwrap();
            assert_free(&slots, 3);
        });
    }
}

/// Seen to fail on: a permit that does not ask whether it is the last.
#[test]
fn a_limit_goes_when_its_handle_and_its_permits_do() {
    every_order(|| {
        let clock = SeenClock::new();
        let slots = Concurrency::builder(2).stripes(2).clock(clock.clone()).build().unwrap();
        let permits = [slots.try_acquire(1).unwrap(), slots.try_acquire(1).unwrap()];
        let others = permits.map(|permit| thread::spawn(move || drop(permit)));
        drop(slots);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(Arc::strong_count(&clock.seen), 1);
    });
}

// The line.

/// Waits for a slot and does under it what only one may do at once.
fn wait_and_work<C: Clock>(slots: &Concurrency<C>, done: &AtomicUsize) {
    let slot = block_on(slots.acquire(1)).unwrap();
    let before = done.load(Ordering::Relaxed);
    done.store(before + 1, Ordering::Relaxed);
    drop(slot);
}

/// Seen to fail on: a release that does not drive the line; the lock dropped between the check and joining
/// the line; a door that stays open while somebody waits; a drive that forgets calls made meanwhile.
#[test]
fn a_release_meets_one_who_joins_the_line() {
    for stripes in [1, 2] {
        every_order(move || {
            let slots = slots_on(1, stripes);
            let slot = slots.try_acquire(1).unwrap();
            let waiter = slots.clone();
            let waiter = thread::spawn(move || drop(block_on(waiter.acquire(1)).unwrap()));
            drop(slot);
            waiter.join().unwrap();
            assert_free(&slots, 1);
        });
    }
}

/// Seen to fail on: a release that does not drive the line; the lock dropped between the check and joining
/// the line; a relaxed store in `SlotGate::open`; a drive that forgets calls made meanwhile.
#[test]
fn two_who_wait_are_served_in_turn() {
    model(0, || {
        let (slots, done) = (slots(1), Arc::new(AtomicUsize::new(0)));
        let slot = slots.try_acquire(1).unwrap();
        let others: Vec<JoinHandle<()>> = (0..2)
            .map(|_| {
                let (slots, done) = (slots.clone(), Arc::clone(&done));
                thread::spawn(move || wait_and_work(&slots, &done))
            })
            .collect();
        done.store(1, Ordering::Relaxed);
        drop(slot);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(done.load(Ordering::Relaxed), 3);
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: a release that does not drive the line; a door that stays open while somebody waits; a
/// relaxed swap in `FreeSlots::hold`.
#[test]
fn three_who_wait_are_served_in_turn() {
    model(2, || {
        let (slots, done) = (slots(1), Arc::new(AtomicUsize::new(0)));
        let slot = slots.try_acquire(1).unwrap();
        let others: Vec<JoinHandle<()>> = (0..3)
            .map(|_| {
                let (slots, done) = (slots.clone(), Arc::clone(&done));
                thread::spawn(move || wait_and_work(&slots, &done))
            })
            .collect();
        drop(slot);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(done.load(Ordering::Relaxed), 3);
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: a release that does not drive the line; a load and a store in place of the swap in
/// `SlotGate::shut`; a drive that forgets calls made meanwhile.
#[test]
fn one_who_waits_for_two_gets_both() {
    for stripes in [1, 2] {
        model(0, move || {
            let slots = slots_on(2, stripes);
            let releases: Vec<JoinHandle<()>> = (0..2)
                .map(|_| {
                    let slot = slots.try_acquire(1).unwrap();
                    thread::spawn(move || drop(slot))
                })
                .collect();
            drop(block_on(slots.acquire(2)).unwrap());
            releases.into_iter().for_each(|release| release.join().unwrap());
            assert_free(&slots, 2);
        });
    }
}

/// Seen to fail on: a later poll that keeps the waker of the first.
#[test]
fn the_last_waker_is_the_one_woken() {
    every_order(|| {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let mut waiter = Box::pin(slots.acquire(1));
        assert!(poll_once(waiter.as_mut()).is_pending());
        let release = thread::spawn(move || drop(slot));
        drop(block_on(waiter).unwrap());
        release.join().unwrap();
        assert_free(&slots, 1);
    });
}

// Giving up.

/// Seen to fail on: an ask given up that does not give back what it was granted.
#[test]
fn one_who_gives_up_as_a_slot_comes_leaves_it() {
    every_order(|| {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let quitter = slots.clone();
        let quitter = thread::spawn(move || drop(poll_once(pin!(quitter.acquire(1)))));
        drop(slot);
        quitter.join().unwrap();
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: an ask given up that does not give back what it was granted, and one that does not drive
/// the line.
#[test]
fn one_who_gives_up_in_front_lets_the_next_through() {
    model(0, || {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let mut front = Box::pin(slots.acquire(1));
        assert!(poll_once(front.as_mut()).is_pending());
        let quitter = thread::spawn(move || drop(front));
        let next = slots.clone();
        let next = thread::spawn(move || drop(block_on(next.acquire(1)).unwrap()));
        drop(slot);
        quitter.join().unwrap();
        next.join().unwrap();
        assert_free(&slots, 1);
    });
}

/// What was in the way gives up: the one behind it asks for less and fits.
///
/// Seen to fail on: an ask given up that does not drive the line.
#[test]
fn one_who_gives_up_a_large_ask_lets_a_small_one_through() {
    every_order(|| {
        let slots = slots(2);
        let slot = slots.try_acquire(1).unwrap();
        let mut large = Box::pin(slots.acquire(2));
        assert!(poll_once(large.as_mut()).is_pending());
        let quitter = thread::spawn(move || drop(large));
        drop(block_on(slots.acquire(1)).unwrap());
        quitter.join().unwrap();
        drop(slot);
        assert_free(&slots, 2);
    });
}

/// Seen to fail on: an ask given up that does not give back what it was granted.
#[test]
fn one_polled_again_and_given_up_leaves_the_slot() {
    every_order(|| {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let mut waiter = Box::pin(slots.acquire(1));
        assert!(poll_once(waiter.as_mut()).is_pending());
        let release = thread::spawn(move || drop(slot));
        let heard = poll_once(waiter.as_mut());
        drop(waiter);
        drop(heard);
        release.join().unwrap();
        assert_free(&slots, 1);
    });
}

// Closing, and pausing.

/// Seen to fail on: closing that answers nobody; closing that answers those who wait in one hold of the lock
/// and refuses newcomers from the next.
#[test]
fn closing_answers_one_who_joins_the_line() {
    every_order(|| {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let waiter = slots.clone();
        let waiter = thread::spawn(move || reason(&block_on(waiter.acquire(1))));
        slots.close();
        assert_eq!(waiter.join().unwrap(), Some(Reason::Closed));
        drop(slot);
        assert_eq!(slots.try_acquire(1).unwrap_err().reason(), Reason::Closed);
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: the lock dropped between the check and joining the line; answers that wake nobody.
#[test]
fn closing_meets_a_release() {
    model(0, || {
        let slots = slots(1);
        let slot = slots.try_acquire(1).unwrap();
        let waiter = slots.clone();
        let waiter = thread::spawn(move || reason(&block_on(waiter.acquire(1))));
        let release = thread::spawn(move || drop(slot));
        slots.close();
        assert!(matches!(waiter.join().unwrap(), None | Some(Reason::Closed)));
        release.join().unwrap();
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: a resume that does not drive the line; a drive that forgets calls made meanwhile.
#[test]
fn the_end_of_a_pause_meets_one_who_joins_the_line() {
    every_order(|| {
        let slots = slots(1);
        slots.pause();
        let waiter = slots.clone();
        let waiter = thread::spawn(move || drop(block_on(waiter.acquire(1)).unwrap()));
        slots.resume();
        waiter.join().unwrap();
        assert_free(&slots, 1);
    });
}

// The line in front of a rate.

fn empty_bucket(clock: &SeenClock) -> TokenBucket<SeenClock> {
    TokenBucket::builder(Quota::per(1, ns(10)).burst(1).initial(0)).clock(clock.clone()).build().unwrap()
}

/// Seen to fail on: a timer that is due and not heeded; a first in line that does not drive it; timers never
/// set.
#[test]
fn time_comes_as_one_joins_the_line() {
    every_order(|| {
        let clock = SeenClock::new();
        let bucket = empty_bucket(&clock);
        let mover = thread::spawn(move || clock.advance(10));
        assert!(block_on(bucket.acquire(1)).is_ok());
        mover.join().unwrap();
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.waiting), (0, 0));
    });
}

/// Seen to fail on: a timer that is due and not heeded; a drive that forgets calls made meanwhile.
#[test]
fn time_comes_for_two_who_join_the_line() {
    model(1, || {
        let clock = SeenClock::new();
        let quota = Quota::per(1, ns(10)).burst(2).initial(0);
        let bucket = TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
        let other = bucket.clone();
        let other = thread::spawn(move || assert!(block_on(other.acquire(1)).is_ok()));
        let mover = thread::spawn(move || {
            clock.advance(10);
            clock.advance(10);
        });
        assert!(block_on(bucket.acquire(1)).is_ok());
        other.join().unwrap();
        mover.join().unwrap();
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.waiting), (0, 0));
    });
}

/// Seen to fail on: an ask given up that does not give back what it was granted, and one that does not drive
/// the line; a timer that is due and not heeded.
#[test]
fn one_gives_up_as_its_time_comes() {
    model(1, || {
        let clock = SeenClock::new();
        let bucket = empty_bucket(&clock);
        let mut front = Box::pin(bucket.acquire(1));
        assert!(poll_once(front.as_mut()).is_pending());
        let quitter = thread::spawn(move || drop(front));
        let mover = thread::spawn(move || clock.advance(10));
        assert!(block_on(bucket.acquire(1)).is_ok());
        quitter.join().unwrap();
        mover.join().unwrap();
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.waiting), (0, 0));
    });
}

/// Seen to fail on: an ask given up that does not give back what it was granted.
#[test]
fn a_granted_unit_nobody_hears_of_goes_back() {
    every_order(|| {
        let clock = SeenClock::new();
        let bucket = empty_bucket(&clock);
        let quitter = bucket.clone();
        let quitter = thread::spawn(move || {
            if let Poll::Ready(permit) = poll_once(pin!(quitter.acquire(1))) {
                permit.unwrap().refund();
            }
        });
        clock.advance(10);
        quitter.join().unwrap();
        let snapshot = bucket.snapshot();
        assert_eq!((snapshot.remaining, snapshot.waiting), (1, 0));
    });
}

/// Seen to fail on: a timer that is due and not heeded; a first in line that does not drive it.
#[test]
fn a_longest_wait_ends_as_one_joins_the_line() {
    every_order(|| {
        let clock = SeenClock::new();
        let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
        let slot = slots.try_acquire(1).unwrap();
        let asks = slots.acquire(Ask::ONE.within(ns(10)));
        let mover = thread::spawn(move || clock.advance(10));
        assert_eq!(reason(&block_on(asks)), Some(Reason::Exhausted));
        mover.join().unwrap();
        drop(slot);
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: a change of quota that does not drive the line; a timer that is due and not heeded.
#[test]
fn a_faster_quota_serves_one_who_joins_the_line() {
    model(0, || {
        let clock = SeenClock::new();
        let quota = Quota::per(1, ns(100)).burst(1).initial(0);
        let bucket = TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
        let other = bucket.clone();
        let changer = thread::spawn(move || {
            other.set_quota(Quota::per(1, ns(10)).burst(1)).unwrap();
            clock.advance(10);
        });
        assert!(block_on(bucket.acquire(1)).is_ok());
        changer.join().unwrap();
    });
}

// Two limits as one.

/// Seen to fail on: `And::try_acquire` dropping the permit it has in place of refunding it, either of the
/// two.
#[test]
fn a_refusal_by_either_never_spends_the_other() {
    model(0, || {
        let rate = bucket(Quota::per(1, ns(10)).burst(2));
        let spent = bucket(Quota::per(1, ns(10)).burst(1).initial(0));
        let other = spent.clone().and(rate.clone());
        let other = thread::spawn(move || other.try_acquire(1).is_ok());
        assert!(rate.clone().and(spent).try_acquire(1).is_err());
        assert!(!other.join().unwrap());
        assert_eq!(rate.snapshot().remaining, 2);
    });
}

/// Seen to fail on: `And::try_acquire` dropping the permit of the first in place of refunding it.
#[test]
fn both_limits_are_spent_together() {
    every_order(|| {
        let (rate, slots) = (bucket(Quota::per(1, ns(10)).burst(2)), slots(1));
        let both = rate.clone().and(slots.clone());
        let other = both.clone();
        let other = thread::spawn(move || other.try_acquire(1).ok());
        let one = both.try_acquire(1).ok();
        let other = other.join().unwrap();
        let had = u64::from(one.is_some()) + u64::from(other.is_some());
        assert_eq!(had, 1);
        assert_eq!((rate.snapshot().remaining, slots.snapshot().remaining), (2 - had, 1 - had));
        drop((one, other));
        assert_eq!((rate.snapshot().remaining, slots.snapshot().remaining), (2 - had, 1));
    });
}

/// Seen to fail on: a dropped `AcquireBoth` that does not refund what it holds; one that keeps the charge of
/// its first try as it goes to wait.
#[test]
fn one_who_gives_up_both_leaves_both() {
    model(0, || {
        let (rate, slots) = (bucket(Quota::per(1, ns(10)).burst(1)), slots(1));
        let slot = slots.try_acquire(1).unwrap();
        let both = rate.clone().and(slots.clone());
        let quitter = thread::spawn(move || {
            if let Poll::Ready(permit) = poll_once(pin!(tollgate::Limiter::acquire(&both, &(), Ask::ONE))) {
                permit.unwrap().refund();
            }
        });
        drop(slot);
        quitter.join().unwrap();
        assert_eq!(rate.snapshot().remaining, 1);
        assert_free(&slots, 1);
    });
}

// A number of slots that changes.

/// Seen to fail on: a load and a store in place of the swap in `SlotGate::shut`; a resize with the door open.
#[test]
fn a_resize_meets_takes_and_releases() {
    every_order(|| {
        let slots = slots(1);
        let held = slots.try_acquire(1).unwrap();
        let other = slots.clone();
        let other = thread::spawn(move || {
            drop(held);
            other.try_acquire(1).ok()
        });
        slots.resize(2);
        let one = slots.try_acquire(1).ok();
        let other = other.join().unwrap();
        assert!(one.is_some() && other.is_some());
        assert_eq!(slots.snapshot().remaining, 0);
        drop((one, other));
        assert_free(&slots, 2);
    });
}

/// Seen to fail on: a load and a store in place of the swap in `SlotGate::shut`; a resize with the door open.
#[test]
fn fewer_slots_take_effect_as_slots_come_back() {
    every_order(|| {
        let slots = slots(2);
        let held = slots.try_acquire(1).unwrap();
        let other = slots.clone();
        let other = thread::spawn(move || {
            let more = other.try_acquire(1).ok();
            drop(held);
            more
        });
        slots.resize(1);
        let more = other.join().unwrap();
        assert_eq!(slots.snapshot().remaining, u64::from(more.is_none()));
        drop(more);
        assert_free(&slots, 1);
    });
}

/// Seen to fail on: a resize that does not drive the line; the lock dropped between the check and joining the
/// line.
#[test]
fn more_slots_serve_one_who_joins_the_line() {
    every_order(|| {
        let slots = slots(0);
        slots.resize(1);
        let slot = slots.try_acquire(1).unwrap();
        let waiter = slots.clone();
        let waiter = thread::spawn(move || drop(block_on(waiter.acquire(1)).unwrap()));
        slots.resize(2);
        waiter.join().unwrap();
        drop(slot);
        assert_free(&slots, 2);
    });
}

/// Seen to fail on: a resize that does not drive the line; a line that does not look at the capacity again.
#[test]
fn an_ask_that_no_longer_fits_is_answered() {
    every_order(|| {
        let slots = slots(2);
        let slot = slots.try_acquire(1).unwrap();
        let waiter = slots.clone();
        let waiter = thread::spawn(move || reason(&block_on(waiter.acquire(2))));
        slots.resize(1);
        assert_eq!(waiter.join().unwrap(), Some(Reason::ExceedsCapacity));
        drop(slot);
        assert_free(&slots, 1);
    });
}

// What threads hold.

/// A limit of four at once, and beside them four for each of so many threads to hold. Time stands.
fn striped(threads: u16) -> Striped<ManualClock> {
    let quota = Quota::per(1, ns(10)).burst(4 + 4 * u64::from(threads));
    TokenBucket::builder(quota).clock(ManualClock::new()).striped().reserve(threads, 4).build().unwrap()
}

/// Two checks, after which this thread holds a unit, if there were three.
fn hold<C: Clock>(limit: &Striped<C>) -> usize {
    (0..2).filter(|_| limit.check(1).is_ok()).count()
}

/// A thread that holds while `change` is made: what it gets once it knows of the change, of two units it asks for.
fn held_over(limit: Striped<ManualClock>, change: impl FnOnce(&Striped<ManualClock>)) -> Option<usize> {
    let (holder, known) = (limit.clone(), Arc::new(AtomicUsize::new(0)));
    let knows = Arc::clone(&known);
    let holder = thread::spawn(move || {
        hold(&holder);
        let knows = knows.load(Ordering::Acquire) == 1;
        let got = (0..2).filter(|_| holder.check(1).is_ok()).count();
        knows.then_some(got)
    });
    change(&limit);
    known.store(1, Ordering::Release);
    holder.join().unwrap()
}

/// Seen to fail on: a load and a store in place of the compare-exchange in `Stripe::claim`.
#[test]
fn one_seat_is_sat_at_by_one_at_a_time() {
    model(1, || {
        let limit = striped(1);
        let other = limit.clone();
        let other = thread::spawn(move || hold(&other) + usize::from(other.check(1).is_ok()));
        let admitted = hold(&limit) + usize::from(limit.check(1).is_ok());
        assert!(admitted + other.join().unwrap() <= 4);
    });
}

/// Seen to fail on: a pause without a change of epoch; an epoch read after the draw in `Stripe::take`.
#[test]
fn a_pause_stops_one_who_holds() {
    model(0, || {
        let got = held_over(striped(1), Striped::pause);
        assert!(got.is_none_or(|got| got == 0));
    });
}

/// Seen to fail on: a debt that ends no epoch; an epoch read after the draw in `Stripe::take`.
#[test]
fn a_debt_stops_one_who_holds() {
    model(0, || {
        let got = held_over(striped(1), |limit| limit.charge(9));
        assert!(got.is_none_or(|got| got == 0));
    });
}

/// Seen to fail on: a change of quota without one of epoch; an epoch read after the draw in `Stripe::take`.
#[test]
fn a_change_of_quota_leaves_no_more_than_the_later_one() {
    model(0, || {
        let got = held_over(striped(1), |limit| limit.set_quota(Quota::per(1, ns(20)).burst(5)).unwrap());
        assert!(got.is_none_or(|got| got <= 1));
    });
}

/// Seen to fail on: an ask that goes to wait without a change of epoch; one whose change is over before it waits.
#[test]
fn one_who_holds_does_not_pass_one_who_waits() {
    model(0, || {
        let limit = striped(2);
        limit.check(1).unwrap();
        let mut waiting = Box::pin(limit.acquire(4));
        let got = held_over(limit, |_| assert!(poll_once(waiting.as_mut()).is_pending()));
        assert!(got.is_none_or(|got| got == 0));
    });
}

/// Seen to fail on: a refund on another thread into stock.
#[test]
fn a_refund_elsewhere_goes_to_all() {
    model(0, || {
        let limit = striped(2);
        limit.check(1).unwrap();
        let permit = limit.try_acquire(1).unwrap();
        let other = thread::spawn(move || permit.refund());
        let admitted = 1 + (0..3).filter(|_| limit.check(1).is_ok()).count();
        assert!((3..=4).contains(&admitted));
        other.join().unwrap();
        assert_eq!(admitted + (0..3).filter(|_| limit.check(1).is_ok()).count(), 4);
    });
}

// Keys in slots.

fn keys(quota: Quota, keys: usize) -> Keyed<u64, algorithm::TokenBucket, ManualClock> {
    TokenBucket::builder(quota).clock(ManualClock::new()).keyed().max_keys(keys).build().unwrap()
}

/// Seen to fail on: no look at the slots again under the lock.
#[test]
fn a_newcomer_has_one_state_whoever_makes_it() {
    model(1, || {
        let keyed = keys(Quota::per(1, ns(10)).burst(3), 1);
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&1, 2));
        let heard = [keyed.check(&1, 2), other.join().unwrap()];
        assert_eq!(heard.iter().filter(|heard| heard.is_ok()).count(), 1);
        let denied = heard.into_iter().find_map(Result::err).unwrap();
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(ns(10))));
        assert_eq!((keyed.snapshot(&1).unwrap().remaining, keyed.len()), (1, 1));
    });
}

/// Seen to fail on: a store in place of the compare-exchange of a slot.
#[test]
fn two_at_a_slot_are_admitted_as_the_burst_allows() {
    model(0, || {
        let keyed = keys(Quota::per(1, ns(10)).burst(3), 1);
        keyed.check(&1, 1).unwrap();
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&1, 1));
        let heard = [keyed.check(&1, 2), other.join().unwrap()];
        assert_eq!(heard.iter().filter(|heard| heard.is_ok()).count(), 1);
    });
}

/// Seen to fail on: a store in place of the compare-exchange of a slot.
#[test]
fn a_key_is_not_dropped_while_it_takes() {
    model(1, || {
        let clock = ManualClock::new();
        let bucket = TokenBucket::builder(Quota::per(1, ns(10)).burst(1)).clock(clock.clone());
        let keyed = bucket.keyed().max_keys(1).build().unwrap();
        keyed.check(&1, 1).unwrap();
        clock.advance(ns(10));
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&2, 1).is_ok());
        let one = keyed.check(&1, 1).is_ok();
        assert!(one != other.join().unwrap(), "one of the two has the room, and keeps it");
        assert_eq!(keyed.len(), 1);
        assert!(keyed.check(&1, 1).is_err());
    });
}

/// Seen to fail on: a store in place of the compare-exchange of a slot.
#[test]
fn a_key_is_not_dropped_while_a_permit_of_it_is_out() {
    model(1, || {
        let clock = ManualClock::new();
        let bucket = TokenBucket::builder(Quota::per(1, ns(10)).burst(1)).clock(clock.clone());
        let keyed = bucket.keyed().max_keys(1).build().unwrap();
        keyed.check(&1, 1).unwrap();
        clock.advance(ns(10));
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&2, 1).is_ok());
        if let Ok(permit) = keyed.try_acquire(&1, 1) {
            permit.settle(3.into());
            assert_eq!(keyed.snapshot(&1).unwrap().debt, 2, "what it owes is not forgotten");
            assert!(!other.join().unwrap());
        } else {
            assert!(other.join().unwrap());
        }
    });
}

/// Seen to fail on: a store in place of the compare-exchange of a slot; no look at the slots again under the lock.
#[test]
fn a_state_that_moves_to_the_map_loses_nothing() {
    model(1, || {
        let keyed = keys(Quota::per(1, ns(10)).burst(3), 1);
        keyed.check(&1, 1).unwrap();
        let other = keyed.clone();
        let other = thread::spawn(move || {
            let limiter = other.get(&1).unwrap().unwrap();
            limiter.check(1).is_ok()
        });
        let heard = [keyed.check(&1, 1).is_ok(), other.join().unwrap()];
        assert_eq!(heard, [true, true]);
        assert!(keyed.check(&1, 1).is_err());
        assert_eq!(keyed.snapshot(&1).unwrap().reset_after, Some(ns(30)));
    });
}

/// Seen to fail on: a store in place of the compare-exchange of a slot.
#[test]
fn what_a_slot_grants_is_charged_under_one_quota() {
    model(1, || {
        let keyed = keys(fast().burst(2), 1);
        keyed.check(&1, 1).unwrap();
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&1, 1));
        keyed.set_quota(slow().burst(2)).unwrap();
        other.join().unwrap().unwrap();
        let denied = keyed.check(&1, 1).unwrap_err();
        assert_eq!(denied.retry_after(), Some(SLOW_WAIT));
        assert_eq!(keyed.snapshot(&1).unwrap().remaining, 0);
    });
}

/// Seen to fail on: no wait for those under a shard's lock before the slots are walked.
#[test]
fn a_newcomer_comes_under_one_quota() {
    model(1, || {
        let keyed = keys(fast(), 1);
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&1, 1));
        keyed.set_quota(slow()).unwrap();
        other.join().unwrap().unwrap();
        keyed.set_quota(slow().burst(2)).unwrap();
        keyed.set_quota(slow()).unwrap();
        assert_eq!(keyed.check(&1, 1).unwrap_err().retry_after(), Some(SLOW_WAIT));
    });
}

/// Seen to fail on: a version that is not looked at again before a refusal.
#[test]
fn a_slot_refuses_under_one_quota() {
    model(1, || {
        let keyed = keys(fast(), 1);
        keyed.check(&1, 1).unwrap();
        let other = keyed.clone();
        let other = thread::spawn(move || other.check(&1, 1).unwrap_err().retry_after());
        keyed.set_quota(slow()).unwrap();
        keyed.set_quota(Quota::per(11, ns(5000)).burst(1)).unwrap();
        let wait = other.join().unwrap();
        assert!([Some(FAST_WAIT), Some(SLOW_WAIT), Some(ns(455))].contains(&wait), "{wait:?}");
    });
}
