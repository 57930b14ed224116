//! Upstreams that are wrong, or mean harm: nothing they say stops a guard for ever, looses a storm, or loosens a limit.

use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use proptest::prelude::*;
use tollgate::client::{Guard, Guards, Origin, Profile, Scope, Signals, Unit, Usage};
use tollgate::{Clock, Error, Limiter, ManualClock, Quota, Reason, TokenBucket, Unlimited};

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

const NAMES: [&str; 16] = [
    "retry-after",
    "retry-after-ms",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-reset-tokens",
    "grpc-status",
    "grpc-retry-pushback-ms",
];

const LINES: [&str; 20] = [
    "0",
    "1",
    "2",
    "8",
    "59",
    "3600",
    "2147483648",
    "1772366400",
    "99999999999999999999999",
    "0.0000000001",
    "-1",
    "NaN",
    "1ns",
    "876000h",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    r#""a";r=0;t=1, "b";r=1;t=0, "a";r=999999999999999"#,
    r#""a";r=0;t=999999999999999"#,
    r#""a";q=0;w=1, "b";q=1;w=999999999999999"#,
    r#""b";q=999999999999999;w=0, "a";q=1;w=1"#,
];

const COUNTS: [&str; 5] = ["0", "1", "2", "59", "99999999999999999999999"];

fn answer() -> impl Strategy<Value = (u16, HeaderMap)> {
    let status = prop::sample::select(vec![200_u16, 403, 429, 500, 503]);
    let line = (prop::sample::select(&NAMES[..]), prop::sample::select(&LINES[..]));
    let count = || prop::sample::select(&COUNTS[..]);
    let budget = prop::option::of((count(), count(), count()));
    (status, prop::collection::vec(line, 0..6), budget).prop_map(|(status, lines, budget)| {
        let named = |(limit, remaining, reset)| {
            [("ratelimit-limit", limit), ("ratelimit-remaining", remaining), ("ratelimit-reset", reset)]
        };
        let mut headers = HeaderMap::new();
        for (name, line) in budget.map(named).into_iter().flatten().chain(lines) {
            headers.append(HeaderName::from_static(name), line.parse().unwrap());
        }
        (status, headers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_said_limits_are_kept_and_nobody_waits_for_ever(
        answers in prop::collection::vec((answer(), 0_u64..20_000, any::<bool>()), 1..40),
        is_learning in any::<bool>(),
    ) {
        let clock = ManualClock::new();
        let quota = Quota::per_second(1).burst(3);
        let bucket = TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
        let builder = Guard::builder(bucket).clock(clock.clone()).tokens(Quota::per_minute(1_000));
        let guard = if is_learning { builder.start_at(Quota::per_second(100)) } else { builder }.build().unwrap();
        let mut granted = Vec::new();
        for ((status, headers), ms, is_heard) in answers {
            let (status, unix) = (StatusCode::from_u16(status).unwrap(), guard.unix());
            let said = Signals::read(Profile::Auto, status, &headers, unix);
            match Limiter::<()>::try_acquire(&guard, &(), 1.into()) {
                Ok(mut permit) => {
                    granted.push(clock.now());
                    if is_heard {
                        permit.observe(&said);
                    }
                }
                Err(_) => guard.observe(&said),
            }
            clock.advance(Duration::from_millis(ms));
        }
        for (first, from) in granted.iter().enumerate() {
            for (last, to) in granted.iter().enumerate().skip(first) {
                prop_assert!((last - first) as u64 <= 3 + to.since(*from).as_secs());
            }
        }
        // The ceiling, the longest space between calls, and the limit's own.
        let mut waits = Box::pin(guard.acquire(1));
        let end = (0..200).find_map(|_| match poll(&mut waits) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => {
                clock.advance(secs(1));
                None
            }
        });
        match end {
            None => prop_assert!(false, "it waits for ever: {guard:?}"),
            Some(Ok(_)) => {}
            Some(Err(Error::Denied(denied))) => prop_assert_eq!(denied.reason(), Reason::AskedTooLong),
            Some(Err(error)) => prop_assert!(false, "{error}"),
        }
        guard.lift();
        clock.advance(secs(200));
        prop_assert!(Limiter::<()>::try_acquire(&guard, &(), 1.into()).is_ok());
    }
}
