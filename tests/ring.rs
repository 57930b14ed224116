//! A busy sliding window decides through a ring, without the lock: what it answers is what the algorithm alone answers.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::algorithm::{self, Algorithm, FromQuota, Grant, When};
use tollgate::{ManualClock, Permit, Quota, SlidingWindow, Timestamp};

#[derive(Debug, Clone, Copy)]
enum Step {
    Advance(u64),
    /// So many asks of one unit, more than the limit has: the ring opens, and turns.
    Ones(usize),
    Many(u64),
    /// A unit that is given back at once.
    Refund,
    Look,
    Change(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..150_u64).prop_map(Step::Advance),
        5 => (1..20_usize).prop_map(Step::Ones),
        1 => (0..6_u64).prop_map(Step::Many),
        1 => Just(Step::Refund),
        1 => Just(Step::Look),
        1 => (1..6_u64, 1..200_u64).prop_map(|(limit, window_ns)| Step::Change(limit, window_ns)),
    ]
}

fn quota(limit: u64, window_ns: u64) -> Quota {
    Quota::per(limit, Duration::from_nanos(window_ns))
}

/// The same window without a limiter around it.
struct Bare {
    window: algorithm::SlidingWindow,
    state: <algorithm::SlidingWindow as Algorithm>::State,
}

impl Bare {
    fn ask(&mut self, now: Timestamp, cost: u64) -> Result<(), Option<Duration>> {
        match self.window.ready_at(&mut self.state, now, cost) {
            _ if cost == 0 => Ok(()),
            When::At(at) if at <= now => {
                self.window.force(&mut self.state, now, cost);
                Ok(())
            }
            When::At(at) => Err(Some(at.since(now))),
            When::Never => Err(None),
        }
    }
}

proptest! {
    /// Planted: a unit that stays a nanosecond less; a log taken newest first from the ring.
    #[test]
    fn a_ring_answers_as_the_log_does(
        (limit, window_ns) in (1..6_u64, 1..200_u64),
        start_ns in 0..50_u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let clock = ManualClock::at(Timestamp::from_ns(start_ns));
        let limiter = SlidingWindow::builder(quota(limit, window_ns)).clock(clock.clone()).build().unwrap();
        let window = algorithm::SlidingWindow::from_quota(quota(limit, window_ns)).unwrap();
        let mut bare = Bare { state: window.start(Timestamp::from_ns(start_ns), 0), window };
        for step in steps {
            let now = tollgate::Clock::now(&clock);
            match step {
                Step::Advance(ns) => clock.advance(Duration::from_nanos(ns)),
                Step::Ones(times) => for _ in 0..times {
                    let heard = limiter.check(1).map_err(|denied| denied.retry_after());
                    prop_assert_eq!(heard, bare.ask(now, 1));
                },
                Step::Many(cost) => {
                    let heard = limiter.check(cost).map_err(|denied| denied.retry_after());
                    prop_assert_eq!(heard, bare.ask(now, cost));
                }
                Step::Refund => {
                    let heard = limiter.try_acquire(1);
                    prop_assert_eq!(heard.is_ok(), bare.ask(now, 1).is_ok());
                    if let Ok(permit) = heard {
                        permit.refund();
                        bare.window.give_back(&mut bare.state, now, Grant::new(now, 1), 1);
                    }
                }
                Step::Look => {
                    let balance = bare.window.balance(&mut bare.state, now);
                    let snapshot = limiter.snapshot();
                    prop_assert_eq!((snapshot.remaining, snapshot.debt), (balance.remaining, balance.debt));
                    let full = snapshot.reset_after.map(|after| When::At(now.after(after)));
                    prop_assert_eq!(full, Some(balance.full));
                }
                Step::Change(limit, window_ns) => {
                    limiter.set_quota(quota(limit, window_ns)).unwrap();
                    let next = bare.window.with_quota(quota(limit, window_ns)).unwrap();
                    bare.window.change(next, &mut bare.state, now);
                }
            }
        }
    }
}

/// Planted: no look at the largest time in `Ring::look`, and none in `Ring::open`.
#[test]
fn times_that_no_place_can_hold_are_left_to_the_log() {
    let far = Timestamp::from_ns(u64::MAX / 2 - 50);
    let clock = ManualClock::at(Timestamp::from_ns(u64::MAX / 2 - 5000));
    let limiter = SlidingWindow::builder(quota(2, 100)).clock(clock.clone()).build().unwrap();
    assert_eq!((0..10).filter(|_| limiter.check(1).is_ok()).count(), 2);
    clock.set(far);
    for _ in 0..10 {
        limiter.check(1).unwrap();
        limiter.check(1).unwrap();
        for _ in 0..10 {
            let heard = limiter.check(1).unwrap_err();
            assert_eq!(heard.retry_after(), Some(Duration::from_nanos(100)));
        }
        clock.advance(Duration::from_nanos(100));
    }
}
