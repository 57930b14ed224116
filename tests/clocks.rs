//! Clocks: they agree, they do not go back, and each can be waited by.

use std::time::Duration;

use tollgate::algorithm::Anchor;
use tollgate::{
    Clock, Denied, FixedWindow, ManualClock, Quota, SlidingWindow, SystemClock, Timestamp, TokenBucket,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Readings of one clock between two of another, apart by at most what zero may be off.
fn tells_the_time_of_the_system(now: impl Fn() -> Timestamp) {
    const OFF: Duration = Duration::from_millis(500);
    let (before, between, after) = (SystemClock::default().now(), now(), SystemClock::default().now());
    assert!(between.after(OFF) >= before && between <= after.after(OFF), "{before:?} {between:?} {after:?}");
}

#[test]
fn clocks_tell_one_time() {
    tells_the_time_of_the_system(|| SystemClock::default().now());
    #[cfg(feature = "tsc")]
    tells_the_time_of_the_system(|| tollgate::clock::TscClock::default().now());
}

#[test]
fn clocks_do_not_go_back() {
    fn goes_on(clock: &impl Clock) {
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
    }
    goes_on(&SystemClock::default());
    #[cfg(feature = "tsc")]
    goes_on(&tollgate::clock::TscClock::default());
}

#[test]
fn refusals_in_a_row_tell_a_wait_that_only_shrinks() {
    let bucket = TokenBucket::builder(Quota::per_day(1)).clock(SystemClock::default()).build().unwrap();
    bucket.check(1).unwrap();
    let mut last = DAY;
    for _ in 0..1_000 {
        let wait = bucket.check(1).unwrap_err().retry_after().unwrap();
        assert!(wait <= last, "{wait:?} after {last:?}");
        last = wait;
    }
    assert_eq!(bucket.check(2).unwrap_err().retry_after(), None, "beyond the burst no wait helps");
}

/// A limit that is spent, asked until it grants: not before the wait it tells, and not after it.
fn goes_in_time(check: impl Fn() -> Result<(), Denied>) {
    let clock = SystemClock::default();
    let asked_at = clock.now();
    let wait = check().unwrap_err().retry_after().unwrap();
    let due_at_most = clock.now().after(wait);
    loop {
        let before = clock.now();
        if check().is_ok() {
            break;
        }
        assert!(before <= due_at_most, "refused after its time had come");
    }
    assert!(clock.now() >= asked_at.after(wait), "granted before its time");
}

#[test]
fn a_refused_ask_is_granted_after_the_wait_it_was_told() {
    let built = |quota| TokenBucket::builder(quota).clock(SystemClock::default());
    // Ticks of a nanosecond, and of a seventh of one.
    for quota in [Quota::per_second(100).burst(20), Quota::per(700, Duration::from_millis(7_001)).burst(20)] {
        let bucket = built(quota).build().unwrap();
        bucket.check(20).unwrap();
        bucket.charge(5);
        goes_in_time(|| bucket.check(1));

        let striped = built(quota.burst(1_024)).striped().build().unwrap();
        while striped.check(1).is_ok() {}
        striped.charge(5);
        goes_in_time(|| striped.check(1));

        let keyed = built(quota).build().unwrap().keyed::<u64>();
        keyed.check(&7, 20).unwrap();
        goes_in_time(|| keyed.check(&7, 6));
    }
}

#[test]
fn an_ask_that_a_window_refuses_is_granted_after_the_wait_it_was_told() {
    let quota = Quota::per(4, Duration::from_millis(100));
    let window = SlidingWindow::builder(quota).clock(SystemClock::default()).build().unwrap();
    // The first time it is behind the lock to begin with, the second in its ring.
    for _ in 0..2 {
        let is_spent_for_long = |denied: Denied| denied.retry_after() > Some(Duration::from_millis(50));
        while !window.check(1).is_err_and(is_spent_for_long) {}
        goes_in_time(|| window.check(1));
    }
}

#[test]
fn a_change_for_the_better_is_seen_at_once() {
    let bucket = TokenBucket::builder(Quota::per_day(1)).clock(SystemClock::default()).build().unwrap();
    bucket.check(1).unwrap();
    for _ in 0..10 {
        bucket.check(1).unwrap_err();
    }
    bucket.reset();
    bucket.check(1).unwrap();
}

// -------------------------------------------------------------------------------------------------------- calendar

#[test]
fn the_calendar_of_a_manual_clock_is_stepped_apart_from_the_clock() {
    let clock = ManualClock::at(Timestamp::from_ns(5));
    assert_eq!(clock.unix_now(), Duration::from_nanos(5), "zero is the epoch unless it is set");
    clock.set_unix_now(DAY * 20_000);
    clock.advance(DAY);
    assert_eq!((clock.now(), clock.unix_now()), (Timestamp::from_ns(5).after(DAY), DAY * 20_001));
    clock.set_unix_now(DAY);
    assert_eq!((clock.now(), clock.clone().unix_now()), (Timestamp::from_ns(5).after(DAY), DAY));
}

#[test]
fn a_window_anchored_to_the_epoch_keeps_its_edges_when_the_calendar_is_stepped_until_it_is_reset() {
    let hour = DAY / 24;
    let clock = ManualClock::new();
    clock.set_unix_now(DAY * 10 + hour * 9);
    let window =
        FixedWindow::builder(Quota::per_day(1)).anchored(Anchor::Epoch).clock(clock.clone()).build().unwrap();
    let keyed = window.keyed::<u8>();
    let to_edge = |key: u8| {
        keyed.check(&key, 1).unwrap();
        keyed.check(&key, 1).unwrap_err().retry_after().unwrap()
    };
    window.check(1).unwrap();
    assert_eq!((window.ready_in(1).unwrap(), to_edge(1)), (hour * 15, hour * 15));
    clock.set_unix_now(clock.unix_now() + hour * 10);
    assert_eq!(window.ready_in(1).unwrap(), hour * 15, "a window that has begun keeps its edge");
    assert_eq!(to_edge(2), hour * 5, "a key that is made now has the edge of the calendar as it is");
    clock.advance(hour * 15);
    window.check(1).unwrap();
    assert_eq!(window.ready_in(1).unwrap(), hour * 24, "and so have the windows after it");
    window.reset();
    window.check(1).unwrap();
    assert_eq!(window.ready_in(1).unwrap(), hour * 14, "until it is reset");
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn the_calendar_moves_with_paused_tokio_time_to_the_nanosecond() {
    let clock = SystemClock::default();
    let (start, unix) = (clock.now(), clock.unix_now());
    for moved in [Duration::ZERO, Duration::from_nanos(1), DAY * 400, Duration::from_millis(3)] {
        tokio::time::advance(moved).await;
        std::thread::yield_now();
        assert_eq!(clock.unix_now() - unix, clock.now().since(start));
    }
}
