//! The system's clocks: they tell one time, and a refusal by the coarse one is as good as one by the exact one.

use std::time::Duration;

use tollgate::{Clock, Quota, SystemClock, Timestamp, TokenBucket};

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
    #[cfg(feature = "tokio")]
    tells_the_time_of_the_system(|| tollgate::TokioClock::default().now());
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

/// Planted: a horizon that lies behind now, and one that never ends.
#[test]
fn what_the_coarse_clock_refuses_goes_in_time() {
    let clock = SystemClock::default();
    let bucket = TokenBucket::builder(Quota::per_second(100).burst(20)).clock(clock).build().unwrap();
    bucket.check(20).unwrap();
    bucket.charge(5);
    let asked_at = clock.now();
    let wait = bucket.check(1).unwrap_err().retry_after().unwrap();
    let due_at_most = clock.now().after(wait);
    loop {
        let before = clock.now();
        if bucket.check(1).is_ok() {
            break;
        }
        assert!(before <= due_at_most, "refused after its time had come");
    }
    assert!(clock.now() >= asked_at.after(wait), "granted before its time");
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
