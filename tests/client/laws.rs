//! A guard is a limiter, and keeps the laws of limiters.

use tollgate::client::Guard;
use tollgate::contract::Contract;
use tollgate::{Concurrency, LimiterExt, ManualClock, Quota, TokenBucket};

#[test]
fn a_guard_of_a_rate_keeps_the_contract() {
    let clock = ManualClock::new();
    let make = |capacity| {
        let rate = TokenBucket::builder(Quota::per_minute(capacity)).clock(clock.clone()).build().unwrap();
        Guard::builder(rate).clock(clock.clone()).without_slow_start().build().unwrap()
    };
    Contract::new(make, (), |span| clock.advance(span)).check();
}

#[test]
fn a_guard_of_both_kinds_keeps_the_contract() {
    let clock = ManualClock::new();
    let make = |capacity| {
        let rate = TokenBucket::builder(Quota::per_minute(capacity)).clock(clock.clone()).build().unwrap();
        let slots = Concurrency::builder(capacity).clock(clock.clone()).build().unwrap();
        Guard::builder(rate.and(slots)).clock(clock.clone()).without_slow_start().build().unwrap()
    };
    Contract::new(make, (), |span| clock.advance(span)).without_line().check();
}

#[test]
fn a_guard_with_a_quota_of_its_own_keeps_the_contract() {
    let clock = ManualClock::new();
    let make = |capacity| {
        let guard = Guard::learning_builder().clock(clock.clone()).without_slow_start();
        guard.requests(Quota::per_minute(capacity)).build().unwrap()
    };
    Contract::new(make, (), |span| clock.advance(span)).check();
}
