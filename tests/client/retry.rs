//! Trying again is bounded.

use std::cell::Cell;
use std::time::Duration;

use http::{Response, StatusCode};
use proptest::prelude::*;
use tollgate::client::{Guard, Repeat, RetryBudget, RetryBudgetError, Signals};
use tollgate::{ManualClock, Unlimited};

use crate::guard::{now, secs, throttle};

fn failed() -> Signals {
    let mut signals = Signals::default();
    signals.failed = true;
    signals
}

fn guard(budget: RetryBudget) -> Guard<Unlimited, ManualClock> {
    Guard::builder(Unlimited).clock(ManualClock::new()).retries(budget).build().unwrap()
}

#[test]
fn without_a_budget_nothing_is_tried_again() {
    let guard = Guard::new(Unlimited);
    assert!(!guard.may_retry(&failed(), Repeat::Safe));
}

#[test]
fn what_must_not_be_repeated_is_not_and_the_servers_no_is_a_no() {
    let guard = guard(RetryBudget::new(100, 1.0).unwrap());
    assert!(guard.may_retry(&failed(), Repeat::Safe));
    assert!(!guard.may_retry(&failed(), Repeat::Never));
    assert!(!guard.may_retry(&Signals::default(), Repeat::Safe), "it did not fail");
    let mut no = failed();
    no.may_retry = Some(false);
    assert!(!guard.may_retry(&no, Repeat::Safe));
}

#[test]
fn bad_budgets_do_not_start() {
    assert_eq!(RetryBudget::new(0, 0.1).unwrap_err(), RetryBudgetError::Tokens(0));
    assert_eq!(RetryBudget::new(1_001, 0.1).unwrap_err(), RetryBudgetError::Tokens(1_001));
    for ratio in [0.0, -1.0, 1.1, f64::INFINITY, 0.000_1] {
        assert_eq!(RetryBudget::new(10, ratio).unwrap_err(), RetryBudgetError::Ratio(ratio));
    }
    assert!(matches!(RetryBudget::new(10, f64::NAN), Err(RetryBudgetError::Ratio(_))));
}

proptest! {
    /// The bound of the documentation, over any run of answers: tries beyond the first are at most half of the tokens and
    /// the ratio for each success.
    #[test]
    fn extra_traffic_is_bounded(tokens in 1_u32..50, thousandths in 1_u32..=1_000, answers in prop::collection::vec(any::<bool>(), 0..500)) {
        let budget = RetryBudget::new(tokens, f64::from(thousandths) / 1_000.0).unwrap();
        let (mut successes, mut retries) = (0_u64, 0_u64);
        for success in answers {
            if success {
                budget.succeeded();
                successes += 1;
            } else {
                retries += u64::from(budget.failed());
            }
            let most = u64::from(tokens) * 1_000 / 2 + u64::from(thousandths) * successes;
            prop_assert!(retries * 1_000 <= most, "{retries} retries after {successes} successes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_always_fails_sees_the_stated_factor_and_no_more() {
    let budget = RetryBudget::new(20, 0.1).unwrap();
    let guard = Guard::builder(Unlimited).retries(budget).build().unwrap();
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        let made = Cell::new(0);
        for _ in 0..100 {
            let response = guard
                .call_again(4, 1, || async {
                    made.set(made.get() + 1);
                    Response::builder().status(status).body(()).unwrap()
                })
                .await
                .unwrap();
            assert_eq!(response.status(), status);
        }
        assert!(made.get() <= 100 + 10, "{status}: {}", made.get());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(made.get() > 100, "some are tried again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_succeeds_at_last_is_a_success() {
    let guard = Guard::builder(Unlimited).retries(RetryBudget::new(10, 0.5).unwrap()).build().unwrap();
    let tried = Cell::new(0);
    let started_at = tokio::time::Instant::now();
    let response = guard
        .call_again(5, 1, || async {
            tried.set(tried.get() + 1);
            let throttled = Response::builder().status(429).header("retry-after", "3").body(()).unwrap();
            if tried.get() < 3 { throttled } else { Response::new(()) }
        })
        .await
        .unwrap();
    assert_eq!((response.status(), tried.get()), (StatusCode::OK, 3));
    assert!(started_at.elapsed() >= Duration::from_secs(6), "each try obeyed what the one before was told");
}

#[tokio::test(start_paused = true)]
async fn tries_are_counted() {
    let guard = Guard::builder(Unlimited).retries(RetryBudget::new(1_000, 1.0).unwrap()).build().unwrap();
    let made = Cell::new(0);
    let answer = guard
        .call_again(3, 1, || async {
            made.set(made.get() + 1);
            throttle(secs(1))
        })
        .await
        .unwrap();
    assert!(answer.throttled);
    assert_eq!(made.get(), 3);
}

#[test]
fn a_reply_in_two_parts_that_fails_is_no_success() {
    let guard = guard(RetryBudget::new(10, 1.0).unwrap());
    let mut retries = 0;
    for _ in 0..100 {
        let mut permit = now(&guard);
        // The head of a gRPC reply says nothing yet of how it went.
        permit.observe(&Response::new(()));
        permit.observe(&failed());
        retries += u64::from(guard.may_retry(&failed(), Repeat::Safe));
    }
    assert_eq!(retries, 4);
    // What succeeds does so once, when it is over.
    let mut permit = now(&guard);
    permit.observe(&Response::new(()));
    permit.observe(&Signals::default());
    drop(permit);
    (0..10).for_each(|_| now(&guard).observe(&Signals::default()));
    assert!(guard.may_retry(&failed(), Repeat::Safe));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_asks_for_a_wait_is_given_it() {
    let guard = Guard::builder(Unlimited).retries(RetryBudget::new(1_000, 1.0).unwrap()).build().unwrap();
    for (wait, tries) in [(5, 2), (3_600, 1)] {
        let made = Cell::new(0);
        let started_at = tokio::time::Instant::now();
        let answer = guard
            .call_again(2, 1, || async {
                made.set(made.get() + 1);
                let mut signals = failed();
                signals.wait = Some(secs(wait));
                signals
            })
            .await
            .unwrap();
        assert!(answer.failed);
        assert_eq!(made.get(), tries, "nobody waits beyond the ceiling");
        assert!(tries == 1 || started_at.elapsed() >= secs(wait), "{:?}", started_at.elapsed());
    }
}
