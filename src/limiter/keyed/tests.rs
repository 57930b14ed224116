//! What only the inside shows: where the states of keys are.

use super::*;
use crate::clock::ManualClock;
use crate::limiter::{Permit, TokenBucket};
use crate::types::Reason;
use crate::units::Quota;
use std::future::Future;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

type Buckets = Keyed<u64, crate::algorithm::TokenBucket, ManualClock>;

fn buckets(quota: Quota) -> (Buckets, ManualClock) {
    let clock = ManualClock::new();
    (TokenBucket::builder(quota).clock(clock.clone()).keyed().build().unwrap(), clock)
}

/// The keys whose state is a limiter.
fn limiters(keyed: &Buckets) -> usize {
    keyed.shared.keys.map.shards().iter().map(|shard| shard.lock().limiters.values().count()).sum()
}

/// Planted: a fresh limiter that stays in the map.
#[test]
fn a_state_moves_once_and_leaves_as_a_fresh_one() {
    let (keyed, clock) = buckets(Quota::per_second(10).burst(2));
    keyed.check(&1, 2).unwrap();
    assert_eq!(limiters(&keyed), 0);
    {
        let mut wait = pin!(keyed.acquire(&1, 1));
        let poll = wait.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Pending));
    }
    assert_eq!(limiters(&keyed), 1, "it waited");
    for _ in 0..5 {
        clock.advance(Duration::from_millis(100));
        keyed.check(&1, 1).unwrap();
        assert_eq!(limiters(&keyed), 1, "it is not fresh, and stays");
    }
    clock.advance(Duration::from_millis(200));
    keyed.check(&1, 1).unwrap();
    assert_eq!((limiters(&keyed), keyed.len()), (0, 1), "it was fresh, and is a new key");
}

#[test]
fn what_slots_cannot_say_lives_in_limiters() {
    let (keyed, clock) = buckets(Quota::per_second(10).burst(2));
    let permit = keyed.try_acquire(&1, 1).unwrap();
    permit.settle(Cost::new(3));
    assert_eq!((limiters(&keyed), keyed.snapshot(&1).unwrap().debt), (1, 1), "a debt");
    keyed.check(&2, 1).unwrap();
    keyed.set_quota_of(&2, Quota::per_second(5)).unwrap();
    assert_eq!(limiters(&keyed), 2, "a quota of its own");
    keyed.check(&3, 1).unwrap();
    drop(keyed.get(&3));
    assert_eq!(limiters(&keyed), 3, "a handle");
    keyed.check(&4, 1).unwrap();
    keyed.check(&5, 2).unwrap();
    clock.advance(Duration::from_millis(100));
    keyed.check(&6, 1).unwrap();
    keyed.set_quota(Quota::per_second(17).burst(2)).unwrap();
    assert_eq!((limiters(&keyed), keyed.len()), (5, 5), "all that were not fresh");
    assert_eq!(keyed.snapshot(&5).unwrap().remaining, 1);
    keyed.check(&7, 2).unwrap();
    assert_eq!(keyed.check(&7, 1).unwrap_err().retry_after(), Some(Duration::from_nanos(58_823_530)));
    keyed.set_quota(Quota::per_second(10).burst(2)).unwrap();
    keyed.check(&8, 2).unwrap();
    assert_eq!((limiters(&keyed), keyed.len()), (6, 7), "new keys have slots again");
    assert_eq!(keyed.check(&8, 1).unwrap_err().reason(), Reason::Exhausted);

    let (never, _clock) = buckets(Quota::per_second(17));
    never.check(&1, 17).unwrap();
    assert_eq!((limiters(&never), never.check(&1, 1).unwrap_err().reason()), (1, Reason::Exhausted));
}
