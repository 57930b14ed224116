//! Upstreams that are wrong, or mean harm: nothing they say stops a guard for ever, looses a storm, or loosens a limit.

use http::{HeaderMap, StatusCode};
use tollgate::client::{Guard, Guards, Origin, Profile, Scope, Signals, Unit, Usage};
use tollgate::{ManualClock, Reason, Unlimited};

use crate::guard::{budget, granted, is_shut, now, plain, poll, refusal, secs, throttle, told};

#[test]
fn a_wait_of_nothing_is_no_licence_to_storm() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut held = Vec::new();
    for _ in 0..8 {
        now(&guard).observe(&throttle(secs(0)));
        held.push(guard.held_for());
        clock.advance(secs(120));
    }
    assert_eq!(held, [1, 2, 4, 8, 16, 32, 60, 60].map(secs));
}

#[test]
fn a_limit_of_nothing_lets_one_call_a_window_ask_again() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    now(&guard).observe(&told(budget(Unit::Requests, 0, 0, secs(30))));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    clock.advance(secs(30));
    let _asks = granted(poll(&mut waits));
    assert!(is_shut(&guard));
}

#[test]
fn of_one_budget_told_twice_the_most_restrictive_counts() {
    for field in [r#""a";r=0;t=5, "a";r=50;t=60"#, r#""a";r=50;t=60, "a";r=0;t=5"#] {
        let clock = ManualClock::new();
        let guard = plain(Unlimited, &clock);
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", field.parse().unwrap());
        let said = Signals::read(Profile::Auto, StatusCode::OK, &headers, secs(0));
        now(&guard).observe(&said);
        assert!(is_shut(&guard), "{field}");
        clock.advance(secs(5));
        drop(now(&guard));
    }
}

#[test]
fn who_waits_for_tokens_is_told_too_when_the_server_asks_for_too_long() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let (mut first, mut second) = (now(&guard), now(&guard));
    first.observe(&told(budget(Unit::Tokens, 10_000, 300, secs(20))));
    let mut waits = Box::pin(guard.reserve(Usage::tokens(400, 100)));
    assert!(poll(&mut waits).is_pending());
    second.observe(&told(budget(Unit::Tokens, 10_000, 300, secs(120))));
    let denied = refusal(poll(&mut waits));
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::AskedTooLong, Some(secs(120))));
    let _small = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(100, 100)))));
}

#[test]
fn no_server_speaks_for_another() {
    let clock = ManualClock::new();
    let make = clock.clone();
    let origins = Guards::new(move |_: &Origin| plain(Unlimited, &make));
    let guard = |url: &str| -> Guard<Unlimited, ManualClock> {
        origins.of(&Origin::of(&url.parse().unwrap())).unwrap()
    };
    let (evil, other) = (guard("https://evil.example/"), guard("https://other.example/"));
    let mut everything = throttle(Signals::WAIT_MAX);
    everything.scope = Scope::Everyone;
    now(&evil).observe(&everything);
    assert!(is_shut(&evil));
    drop((now(&other), now(&guard("https://new.example/"))));
    // The caller may still hold them all.
    origins.hold(secs(5));
    assert!(is_shut(&other) && is_shut(&guard("https://newer.example/")));
}
