//! The system's clocks: they tell one time, and a refusal by the coarse one is as good as one by the exact one.

use std::time::Duration;

use tollgate::{Clock, Denied, Quota, SlidingWindow, SystemClock, Timestamp, TokenBucket};

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

/// Planted: the wait counted from the coarse clock.
#[test]
fn refusals_in_a_row_tell_a_wait_that_only_shrinks() {
    let bucket = TokenBucket::builder(Quota::per_day(1)).clock(SystemClock::default()).build().unwrap();
    bucket.check(1).unwrap();
    let mut last = DAY;
    for _ in 0..1_000 {
        // The first is by the exact clock; those after it are certain by the coarse one.
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

/// Planted: a horizon that lies behind now, and one that never ends; a wait in ticks taken for nanoseconds.
#[test]
fn what_the_coarse_clock_refuses_goes_in_time() {
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
fn what_the_coarse_clock_refuses_in_a_window_goes_in_time() {
    let quota = Quota::per(4, Duration::from_millis(100));
    let window = SlidingWindow::builder(quota).clock(SystemClock::default()).build().unwrap();
    // The first time it is behind the lock to begin with, the second in its ring.
    for _ in 0..2 {
        let is_spent_for_long = |denied: Denied| denied.retry_after() > Some(Duration::from_millis(50));
        while !window.check(1).is_err_and(is_spent_for_long) {}
        goes_in_time(|| window.check(1));
    }
}

/// Planted: the hint never cleared, so that the look at the coarse clock stands in the way of a change.
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
