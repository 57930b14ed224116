//! No grant and no refusal allocates: what is decided on the spot is decided in memory that is there already.
#![cfg(not(tollgate_loom))]

use allocation_counter::measure;
use tollgate::{
    Concurrency, Cost, FixedWindow, Limiter, LimiterExt, ManualClock, Name, Permit, Quota, Share,
    SlidingCounter, SlidingWindow, TokenBucket,
};

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Asks more than enough to grow whatever grows, and to be refused.
const ASKS: usize = 1_000;

fn allocations(act: impl FnOnce()) -> u64 {
    measure(act).count_total
}

#[test]
fn an_allocation_would_be_seen() {
    assert_eq!(allocations(|| drop(black_box(Box::new(7)))), 1);
}

/// Counts grants and refusals on the spot, and when awaited, while time passes by `step` between asks.
fn decisions<K: ?Sized, L>(clock: &ManualClock, step: Duration, key: &K, limiter: &L) -> (u64, u64)
where
    L: Limiter<K>,
{
    let (mut granted, mut refused) = (0, 0);
    for _ in 0..ASKS {
        clock.advance(step);
        match limiter.try_acquire(key, Cost::new(1)) {
            Ok(permit) => {
                granted += 1;
                drop(permit);
            }
            Err(_) => refused += 1,
        }
        let wait = limiter.acquire(key, tollgate::Ask::ONE.within(Duration::ZERO));
        match pin!(wait).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(permit)) => {
                granted += 1;
                drop(permit);
            }
            Poll::Ready(Err(_)) => refused += 1,
            Poll::Pending => panic!("an ask within zero waited"),
        }
    }
    (granted, refused)
}

/// Asked for more than it grants, once to grow what it remembers, and once more to be counted.
fn steady<K: ?Sized, L: Limiter<K>>(name: &str, clock: &ManualClock, key: &K, limiter: &L) {
    // Two asks each 2.5 ms are 800 a second; 100 may go.
    let step = Duration::from_micros(2_500);
    let before = decisions(clock, step, key, limiter);
    let mut seen = (0, 0);
    let count = allocations(|| seen = decisions(clock, step, key, limiter));
    assert!(before.0 > 0 && seen.0 > 0, "{name} granted nothing");
    assert!(seen.1 > 0, "{name} refused nothing");
    assert_eq!(count, 0, "{name} allocated for {seen:?} grants and refusals");
}

const QUOTA: Quota = Quota::per_second(100);

#[test]
fn rates() {
    let clock = ManualClock::new();
    let name = || Name::new("api").unwrap();
    macro_rules! each {
        ($($limiter:expr),* $(,)?) => {
            $(steady(stringify!($limiter), &clock, &(), &$limiter.clock(clock.clone()).name(name()).build().unwrap());)*
        };
    }
    each!(
        TokenBucket::builder(QUOTA),
        TokenBucket::builder(QUOTA).lend_above_capacity(),
        SlidingWindow::builder(QUOTA),
        SlidingWindow::builder(QUOTA).segments(10),
        SlidingCounter::builder(QUOTA),
        FixedWindow::builder(QUOTA),
        TokenBucket::all([QUOTA, Quota::per_hour(1_000_000)]),
        SlidingWindow::all([QUOTA, Quota::per_hour(1_000_000)]),
    );
}

#[test]
fn striped() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::builder(QUOTA).clock(clock.clone()).name("api");
    steady("striped", &clock, &(), &bucket.striped().reserve(2, 20).build().unwrap());
}

#[test]
fn slots() {
    let slots = Concurrency::builder(2).clock(ManualClock::new()).build().unwrap();
    let count = allocations(|| {
        for _ in 0..ASKS {
            let (one, other) = (slots.try_acquire(1).unwrap(), slots.try_acquire(1).unwrap());
            assert!(slots.try_acquire(1).is_err());
            drop((one, other));
        }
    });
    assert_eq!(count, 0);
}

/// Its words stay, for the next one.
#[test]
fn limits_of_slots_that_come_and_go() {
    let come_and_go = || {
        let slots = Concurrency::builder(64).stripes(8).clock(ManualClock::new()).build().unwrap();
        let permit = slots.try_acquire(1).unwrap();
        drop(slots);
        drop(permit);
    };
    come_and_go();
    let seen = measure(|| (0..100).for_each(|_| come_and_go()));
    assert_eq!(seen.bytes_current, 0);
}

#[test]
fn corrections() {
    let bucket =
        TokenBucket::builder(Quota::per_second(1_000_000)).clock(ManualClock::new()).build().unwrap();
    let count = allocations(|| {
        for _ in 0..ASKS {
            bucket.try_acquire(2).unwrap().settle(Cost::new(1));
            bucket.try_acquire(1).unwrap().settle(Cost::new(2));
            bucket.try_acquire(1).unwrap().refund();
            bucket.charge(1);
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn keys_that_are_known() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::builder(QUOTA).clock(clock.clone()).name("client").build().unwrap();
    steady("by number", &clock, &7, &bucket.keyed::<u64>());
    let ann = "ann".to_owned();
    steady("by text", &clock, &ann, &bucket.keyed::<String>());
    let windows = SlidingWindow::builder(QUOTA).clock(clock.clone()).build().unwrap();
    steady("windows by text", &clock, &ann, &windows.keyed::<String>());
    let by_length = bucket.keyed::<usize>().by(|text: &str| text.len());
    steady("by what is made of it", &clock, "ann", &by_length);
}

#[test]
fn compositions() {
    let clock = ManualClock::new();
    let bucket = || TokenBucket::builder(QUOTA).clock(clock.clone()).build().unwrap();
    let slots = || Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let windows = || SlidingWindow::builder(QUOTA).clock(clock.clone()).build().unwrap();
    steady("a rate and a rate", &clock, &(), &bucket().and(windows()));
    steady("a rate and slots", &clock, &(), &bucket().and(slots()));
    steady("three", &clock, &(), &bucket().and(windows()).and(slots()));
    steady("in earnest for all keys", &clock, &7u64, &bucket().shadow().enforcing(Share::percent(100)));
    let trial = bucket().shadow();
    decisions(&clock, Duration::ZERO, &(), &trial);
    let count = allocations(|| {
        decisions(&clock, Duration::ZERO, &(), &trial);
    });
    assert_eq!(count, 0, "on trial");
}
