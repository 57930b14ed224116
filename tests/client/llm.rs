//! Requests and tokens together: reserved, settled, learnt.

use tollgate::client::{Guard, Unit, Usage};
use tollgate::{Limiter, ManualClock, Permit, Quota, Reason, Unlimited};

use crate::guard::{budget, granted, is_shut, now, poll, refusal, secs, told};

fn model(clock: &ManualClock) -> Guard<Unlimited, ManualClock> {
    Guard::builder(Unlimited)
        .clock(clock.clone())
        .without_slow_start()
        .requests(Quota::per_minute(10))
        .input_tokens(Quota::per_minute(1_000))
        .output_tokens(Quota::per_minute(600))
        .build()
        .unwrap()
}

#[test]
fn all_units_are_taken_together_or_none() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    let _first = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(100, 500)))));
    // Its input would go now, its output in 40 s; nothing is taken until all of it goes.
    let mut waits = Box::pin(guard.reserve(Usage::tokens(900, 500)));
    assert!(poll(&mut waits).is_pending());
    clock.advance(secs(39));
    assert!(poll(&mut waits).is_pending());
    drop(waits);
    // Nothing was taken: all of the input is there.
    let _all = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(1_000, 10)))));
}

#[test]
fn nobody_passes_a_large_one_that_waits() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    drop(granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(10, 600))))));
    let mut large = Box::pin(guard.reserve(Usage::tokens(10, 600)));
    assert!(poll(&mut large).is_pending());
    let mut small = Box::pin(guard.reserve(Usage::tokens(1, 0)));
    assert!(poll(&mut small).is_pending());
    clock.advance(secs(60));
    let _large = granted(poll(&mut large));
    let _small = granted(poll(&mut small));
}

#[test]
fn a_settlement_gives_back_and_makes_debts() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    let permit = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(100, 600)))));
    permit.settle_usage(Usage::tokens(100, 50));
    let permit = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(100, 550)))));
    // It took 60 more than was reserved: a debt, ten tokens a second.
    permit.settle_usage(Usage::tokens(100, 610));
    let mut next = Box::pin(guard.reserve(Usage::tokens(1, 10)));
    clock.advance(secs(6));
    assert!(poll(&mut next).is_pending());
    clock.advance(secs(1));
    let _next = granted(poll(&mut next));
}

#[test]
fn settling_the_permit_corrects_the_quota_of_requests() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    let take = |units: u64| Limiter::<()>::try_acquire(&guard, &(), units.into());
    take(4).unwrap().settle(1.into());
    take(9).unwrap().settle(19.into());
    // Ten more than there were: a debt, one request in six seconds.
    clock.advance(secs(60));
    assert!(is_shut(&guard));
    clock.advance(secs(6));
    drop(now(&guard));
}

#[test]
fn a_settlement_that_never_comes_is_not_a_leak() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    for _ in 0..100 {
        // Dropped, or leaked: the reservation stands, and time refills it as any charge.
        drop(granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(1_000, 600))))));
        clock.advance(secs(60));
        Box::leak(Box::new(granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(1_000, 600)))))));
        clock.advance(secs(60));
    }
    let _all = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(1_000, 600)))));
}

#[test]
fn estimates_learn_from_what_was_written() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    let most = Usage::tokens(10, 400);
    assert_eq!(guard.estimate(most).output_tokens, 400);
    for written in 0..100 {
        let permit = granted(poll(&mut Box::pin(guard.reserve(most))));
        permit.settle_usage(Usage::tokens(10, if written % 20 == 0 { 390 } else { 40 + written % 20 }));
        clock.advance(secs(60));
    }
    // Nineteen in twenty wrote at most 59 tokens.
    assert_eq!(guard.estimate(most).output_tokens, 59);
    assert_eq!(guard.estimate(Usage::tokens(10, 30)).output_tokens, 30);
}

#[test]
fn an_estimate_is_no_reason_to_refuse_what_fits_and_an_input_too_long_is() {
    let clock = ManualClock::new();
    let guard = model(&clock);
    assert_eq!(guard.estimate(Usage::tokens(10, 100_000)).output_tokens, 600);
    let denied = refusal(poll(&mut Box::pin(guard.reserve(Usage::tokens(1_001, 10)))));
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::ExceedsCapacity, None));
}

#[test]
fn told_budgets_of_tokens_bind_as_well() {
    let clock = ManualClock::new();
    let guard = crate::guard::plain(Unlimited, &clock);
    now(&guard).observe(&told(budget(Unit::Tokens, 10_000, 300, secs(20))));
    let permit = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(100, 100)))));
    let mut large = Box::pin(guard.reserve(Usage::tokens(100, 100)));
    assert!(poll(&mut large).is_pending());
    drop(large);
    let small = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(50, 50)))));
    // One of which nobody knows the tokens takes at least one.
    assert!(is_shut(&guard));
    drop((permit, small));
    clock.advance(secs(20));
    drop(now(&guard));
    // More than all of it goes when all of it is there.
    now(&guard).observe(&told(budget(Unit::Tokens, 1_000, 1_000, secs(20))));
    let _huge = granted(poll(&mut Box::pin(guard.reserve(Usage::tokens(5_000, 0)))));
}
