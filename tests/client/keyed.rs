//! A guard for each key.

use tollgate::client::{Guard, Guards, Scope};
use tollgate::{ManualClock, Quota, Reason, TokenBucket, Unlimited};

use crate::guard::{is_shut, now, plain, secs, throttle};

fn hosts(clock: &ManualClock) -> Guards<String, Unlimited, ManualClock> {
    let clock = clock.clone();
    Guards::new(move |_: &String| plain(Unlimited, &clock))
}

#[test]
fn a_throttle_of_one_key_is_obeyed_for_that_key() {
    let clock = ManualClock::new();
    let hosts = hosts(&clock);
    let (one, other) = (hosts.of("one").unwrap(), hosts.of("other").unwrap());
    now(&one).observe(&throttle(secs(5)));
    assert!(is_shut(&one) && is_shut(&hosts.of("one").unwrap()));
    drop(now(&other));
}

#[test]
fn a_throttle_of_everything_holds_all_of_them_and_those_to_come() {
    let clock = ManualClock::new();
    let hosts = hosts(&clock);
    let (one, other) = (hosts.of("one").unwrap(), hosts.of("other").unwrap());
    let mut everything = throttle(secs(5));
    everything.scope = Scope::Everyone;
    now(&one).observe(&everything);
    assert!(is_shut(&one) && is_shut(&other) && is_shut(&hosts.of("new").unwrap()));
    clock.advance(secs(5));
    drop((now(&one), now(&other), now(&hosts.of("new").unwrap())));
}

#[test]
fn keys_are_bounded_and_no_live_state_is_flushed() {
    let clock = ManualClock::new();
    let make = clock.clone();
    let hosts = Guards::new(move |_: &u32| {
        let rate = TokenBucket::builder(Quota::per_second(1).burst(1)).clock(make.clone()).build().unwrap();
        Guard::builder(rate).clock(make.clone()).without_slow_start().build().unwrap()
    })
    .max_keys(4);
    for key in 0..4 {
        drop(now(&hosts.of(&key).unwrap()));
    }
    assert_eq!(hosts.of(&9).unwrap_err().reason(), Reason::TooManyKeys);
    assert!(is_shut(&hosts.of(&0).unwrap()), "what was spent is remembered");
    clock.advance(secs(1));
    drop(now(&hosts.of(&9).unwrap()));
    assert!(hosts.stats().keys <= 4 && hosts.stats().evicted > 0, "{:?}", hosts.stats());
    // One that is held is not dropped for a newcomer, however many come.
    clock.advance(secs(1));
    hosts.of(&9).unwrap().hold(secs(50));
    for key in 100..200 {
        let _ = hosts.of(&key);
    }
    assert!(is_shut(&hosts.of(&9).unwrap()));
}

#[test]
fn a_throttle_of_everything_without_a_wait_holds_all_of_them_too() {
    let clock = ManualClock::new();
    let hosts = hosts(&clock);
    let (one, other) = (hosts.of("one").unwrap(), hosts.of("other").unwrap());
    let mut everything = throttle(secs(0));
    (everything.scope, everything.wait) = (Scope::Everyone, None);
    let (mut permit, mut another) = (now(&one), now(&one));
    another.observe(&throttle(secs(20)));
    permit.observe(&everything);
    assert!(is_shut(&one) && is_shut(&other) && is_shut(&hosts.of("new").unwrap()));
    // For that, and not for what one of them was told alone.
    clock.advance(secs(1));
    drop((now(&other), now(&hosts.of("newer").unwrap())));
    assert!(is_shut(&one));
}

#[test]
fn a_hold_of_all_holds_the_first_of_them() {
    let clock = ManualClock::new();
    let hosts = hosts(&clock);
    hosts.hold(secs(5));
    let first = hosts.of("first").unwrap();
    assert_eq!(first.held_for(), secs(5));
    clock.advance(secs(2));
    assert_eq!(hosts.of("second").unwrap().held_for(), secs(3));
    clock.advance(secs(3));
    drop((now(&first), now(&hosts.of("third").unwrap())));
}
