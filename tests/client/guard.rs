//! What a guard promises, on a clock that stands still.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tollgate::client::{AcquireGuarded, Budget, Guard, GuardError, Guarded, Scope, Signals, Unit};
use tollgate::{
    Ask, Compose, Concurrency, Denied, Error, Limiter, LimiterExt, ManualClock, Permit, Queue, Quota, Reason,
    TokenBucket, Unlimited,
};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const MS: Duration = Duration::from_millis(1);

pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
pub(crate) fn granted<T>(answer: Poll<Result<T, Error>>) -> T {
    match answer {
        Poll::Ready(Ok(permit)) => permit,
        Poll::Ready(Err(error)) => panic!("refused: {error}"),
        Poll::Pending => panic!("still waiting"),
    }
}

#[track_caller]
pub(crate) fn refusal<T>(answer: Poll<Result<T, Error>>) -> Denied {
    match answer {
        Poll::Ready(Err(Error::Denied(denied))) => denied,
        Poll::Ready(Ok(_)) => panic!("granted"),
        Poll::Pending => panic!("still waiting"),
    }
}

/// A guard with a clock that stands still, which sends at once what it may.
pub(crate) fn plain<L: Compose>(limits: L, clock: &ManualClock) -> Guard<L, ManualClock> {
    Guard::builder(limits).clock(clock.clone()).jitter_percent(0).without_slow_start().build().unwrap()
}

#[track_caller]
pub(crate) fn now<L: Compose + Clone>(guard: &Guard<L, ManualClock>) -> Guarded<L::Permit, ManualClock> {
    match Limiter::<()>::try_acquire(guard, &(), 1.into()) {
        Ok(permit) => permit,
        Err(denied) => panic!("refused: {denied}"),
    }
}

pub(crate) fn is_shut<L: Compose + Clone>(guard: &Guard<L, ManualClock>) -> bool {
    Limiter::<()>::try_acquire(guard, &(), 1.into()).map(Permit::refund).is_err()
}

pub(crate) fn throttle(wait: Duration) -> Signals {
    let mut signals = Signals::default();
    signals.throttled = true;
    signals.failed = true;
    signals.wait = Some(wait);
    signals
}

pub(crate) fn budget(unit: Unit, limit: u64, remaining: u64, reset: Duration) -> Budget {
    let mut budget = Budget::default();
    budget.unit = unit;
    budget.limit = Some(limit);
    budget.remaining = Some(remaining);
    budget.reset_after = Some(reset);
    budget
}

pub(crate) fn told(budget: Budget) -> Signals {
    let mut signals = Signals::default();
    signals.budgets = vec![budget];
    signals
}

fn left(limit: u64, remaining: u64, reset: Duration) -> Signals {
    told(budget(Unit::Requests, limit, remaining, reset))
}

#[test]
fn after_a_throttle_everybody_holds_until_the_servers_time_has_passed() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut permit = now(&guard);
    let other = guard.clone();
    permit.observe(&throttle(secs(10)));
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(other.acquire(1))).collect();
    clock.advance(secs(10) - Duration::from_nanos(1));
    for one in &mut waiting {
        assert!(poll(one).is_pending());
    }
    assert_eq!(guard.held_for(), Duration::from_nanos(1));
    clock.advance(Duration::from_nanos(1));
    for mut one in waiting {
        let _permit = granted(poll(&mut one));
    }
}

#[test]
fn who_waits_already_holds_too() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let guard = plain(slots, &clock);
    let mut permit = now(&guard);
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    permit.observe(&throttle(secs(10)));
    drop(permit); // the slot is free, and nobody may use it
    assert!(poll(&mut waits).is_pending());
    clock.advance(secs(10));
    let _permit = granted(poll(&mut waits));
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_cannot_wait_out_a_hold_is_told_when_it_begins() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let guard = plain(slots, &clock);
    let mut permit = now(&guard);
    let mut impatient = Box::pin(guard.acquire(Ask::ONE.within(secs(5))));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    assert!(impatient.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    permit.observe(&throttle(secs(10)));
    assert!(count.0.load(Ordering::Relaxed) > 0, "it was woken");
    let denied = refusal(poll(&mut impatient));
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(secs(10))));

    // The same for one that waits in the guard's own line.
    let mut patient = Box::pin(guard.acquire(Ask::ONE.within(secs(15))));
    assert!(poll(&mut patient).is_pending());
    permit.observe(&throttle(secs(20)));
    assert_eq!(refusal(poll(&mut patient)).reason(), Reason::Exhausted);
}

#[test]
fn a_hold_that_is_shortened_or_lifted_lets_those_go_who_wait() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    guard.hold(secs(50));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    guard.hold(secs(2));
    assert!(poll(&mut waits).is_pending());
    clock.advance(secs(2));
    drop(granted(poll(&mut waits)));

    guard.hold(secs(50));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    guard.lift();
    drop(granted(poll(&mut waits)));
    // What a server has asked for is never shortened by what it asks for next.
    let (mut one, mut other) = (now(&guard), now(&guard));
    one.observe(&throttle(secs(30)));
    other.observe(&throttle(secs(1)));
    assert_eq!(guard.held_for(), secs(30));
}

#[test]
fn jitter_is_upward_only_and_spread() {
    let mut waits = Vec::new();
    for _ in 0..200 {
        let clock = ManualClock::new();
        let guard = Guard::builder(Unlimited).clock(clock).build().unwrap();
        now(&guard).observe(&throttle(secs(10)));
        waits.push(guard.held_for());
    }
    assert!(waits.iter().all(|wait| (secs(10)..secs(11)).contains(wait)), "{waits:?}");
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*most - *least > Duration::from_millis(500), "{least:?} to {most:?}");
}

#[test]
fn a_server_that_asks_for_too_long_is_told_of_at_once() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut permit = now(&guard);
    permit.observe(&throttle(secs(50)));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    permit.observe(&throttle(secs(60))); // the ceiling itself is allowed
    assert!(poll(&mut waits).is_pending());
    permit.observe(&throttle(secs(61)));
    let mut new = Box::pin(guard.acquire(1));
    for answer in [poll(&mut waits), poll(&mut new)] {
        let denied = refusal(answer);
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::AskedTooLong, Some(secs(61))));
    }
    // When so much of it has passed that the rest is below the ceiling, one may wait again.
    clock.advance(secs(1));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    // And who waits then is told again.
    permit.observe(&throttle(secs(62)));
    assert_eq!(refusal(poll(&mut waits)).reason(), Reason::AskedTooLong);
}

#[test]
fn hostile_waits_are_refusals_not_waits() {
    for wait in [Signals::WAIT_MAX, Duration::MAX, secs(3_600)] {
        let clock = ManualClock::new();
        let guard = plain(Unlimited, &clock);
        now(&guard).observe(&throttle(wait));
        let mut one = Box::pin(guard.acquire(1));
        assert_eq!(refusal(poll(&mut one)).reason(), Reason::AskedTooLong);
        guard.lift();
        now(&guard).observe(&left(u64::MAX, 0, wait));
        let mut one = Box::pin(guard.acquire(1));
        assert_eq!(refusal(poll(&mut one)).reason(), Reason::AskedTooLong);
        guard.lift();
        now(&guard).observe(&left(0, u64::MAX, Duration::ZERO));
        let _one = now(&guard);
    }
}

#[test]
fn a_throttle_without_a_wait_is_waited_out_longer_each_time() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut silent = throttle(Duration::ZERO);
    silent.wait = None;
    let mut held = Vec::new();
    for _ in 0..8 {
        now(&guard).observe(&silent);
        held.push(guard.held_for());
        clock.advance(secs(120));
    }
    assert_eq!(held, [1, 2, 4, 8, 16, 32, 60, 60].map(secs));
    now(&guard).observe(&Signals::default());
    clock.advance(secs(120));
    now(&guard).observe(&silent);
    assert_eq!(guard.held_for(), secs(1), "after a success it begins again");
}

#[test]
fn no_more_is_sent_than_the_server_says_is_left() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    now(&guard).observe(&left(10, 2, secs(30)));
    let _two = (now(&guard), now(&guard));
    assert!(is_shut(&guard));
    clock.advance(secs(30) - MS);
    assert!(is_shut(&guard));
    clock.advance(MS);
    // A new window: all of the limit, less what is under way and may be counted in it.
    let held: Vec<_> = (0..8).map(|_| now(&guard)).collect();
    assert!(is_shut(&guard));
    drop(held);
}

#[test]
fn calls_under_way_are_taken_off_what_is_left() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut first = now(&guard);
    let under_way: Vec<_> = (0..4).map(|_| now(&guard)).collect();
    // The server may have counted none of the four when it said six.
    first.observe(&left(10, 6, secs(30)));
    let more = (now(&guard), now(&guard));
    assert!(is_shut(&guard));
    // Their answers tell that it had not: nothing more. That of the last says what is true.
    for (mut permit, remaining) in under_way.into_iter().zip([5, 4, 3, 2]) {
        permit.observe(&left(10, remaining, secs(30)));
        assert!(is_shut(&guard), "two are still under way and {remaining} left");
    }
    drop(more);
}

#[test]
fn the_last_answer_frees_what_was_held_back() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut first = now(&guard);
    let mut second = now(&guard);
    // It had counted both when it said one: taken off twice, nothing goes.
    first.observe(&left(10, 1, secs(30)));
    assert!(is_shut(&guard));
    second.observe(&left(10, 1, secs(30)));
    let _one = now(&guard);
    assert!(is_shut(&guard));
}

#[test]
fn an_answer_that_was_overtaken_loosens_nothing() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let (mut early, mut late) = (now(&guard), now(&guard));
    late.observe(&left(10, 1, secs(30)));
    early.observe(&left(10, 9, secs(30)));
    let _one = now(&guard);
    assert!(is_shut(&guard), "one was left");
    // It may tighten.
    let guard = plain(Unlimited, &clock);
    let (mut early, mut late) = (now(&guard), now(&guard));
    late.observe(&left(10, 5, secs(30)));
    early.observe(&left(10, 0, secs(30)));
    assert!(is_shut(&guard));
    // But not by what it tells of a window that is over.
    let guard = plain(Unlimited, &clock);
    let (mut early, mut late) = (now(&guard), now(&guard));
    late.observe(&left(10, 5, secs(30)));
    early.observe(&left(10, 0, secs(1)));
    let _five = [(); 5].map(|()| now(&guard));
    assert!(is_shut(&guard));
}

#[test]
fn each_budget_binds_and_the_longest_most() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let (mut burst, mut daily) =
        (budget(Unit::Requests, 10, 0, secs(2)), budget(Unit::Requests, 100, 1, secs(50)));
    (burst.name, daily.name) = (Some("burst".into()), Some("daily".into()));
    let mut signals = Signals::default();
    signals.budgets = vec![burst, daily];
    now(&guard).observe(&signals);
    assert!(is_shut(&guard));
    clock.advance(secs(2));
    let _one = now(&guard);
    assert!(is_shut(&guard));
}

#[test]
fn a_server_that_says_more_than_was_configured_is_not_believed() {
    let clock = ManualClock::new();
    let bucket = TokenBucket::builder(Quota::per_second(1).burst(2)).clock(clock.clone()).build().unwrap();
    let guard = plain(bucket, &clock);
    now(&guard).observe(&left(1_000, 1_000, secs(60)));
    let _one = now(&guard);
    assert!(is_shut(&guard));
    clock.advance(secs(1));
    let _one = now(&guard);
    assert!(is_shut(&guard));
}

#[test]
fn a_permit_that_is_leaked_costs_its_own_and_not_for_ever() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    Box::leak(Box::new(now(&guard)));
    now(&guard).observe(&left(2, 1, secs(100)));
    assert!(is_shut(&guard), "the leaked one may not have been counted");
    clock.advance(secs(100));
    let mut one = now(&guard);
    one.observe(&left(2, 1, secs(100)));
    drop(one);
    let _one = now(&guard);
}

#[test]
fn a_wait_that_is_given_up_gives_everything_back() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let rate = TokenBucket::builder(Quota::per_minute(3)).clock(clock.clone()).build().unwrap();
    let guard = plain(rate.clone().and(slots.clone()), &clock);
    let mut first = now(&guard);
    first.observe(&left(10, 2, secs(30)));
    // Given up before it is polled, while it waits for a slot, and while it waits in a hold.
    drop(guard.acquire(1));
    for hold in [false, true] {
        let mut waits = Box::pin(guard.acquire(1));
        assert!(poll(&mut waits).is_pending());
        if hold {
            guard.hold(secs(1));
            assert!(poll(&mut waits).is_pending());
        }
        drop(waits);
        guard.hold(Duration::ZERO);
        assert_eq!((rate.snapshot().remaining, guard.waiting()), (2, 0));
    }
    drop(first);
    let second = now(&guard);
    drop(second);
    let _third = now(&guard);
    assert_eq!(rate.snapshot().remaining, 0);
}

#[test]
fn first_come_first_served_through_holds_and_limits() {
    let clock = ManualClock::new();
    let rate = TokenBucket::builder(Quota::per_second(1).burst(1)).clock(clock.clone()).build().unwrap();
    let guard = plain(rate, &clock);
    drop(now(&guard));
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(guard.acquire(1))).collect();
    for one in &mut waiting {
        assert!(poll(one).is_pending());
    }
    guard.hold(secs(10));
    for one in &mut waiting {
        assert!(poll(one).is_pending());
    }
    let mut served = Vec::new();
    for _ in 0..20 {
        clock.advance(secs(1));
        for (number, one) in waiting.iter_mut().enumerate() {
            if !served.contains(&number) && poll(one).map(|answer| drop(answer.unwrap())).is_ready() {
                served.push(number);
            }
        }
    }
    assert_eq!(served, [0, 1, 2, 3, 4]);
}

#[test]
fn it_begins_with_few_calls_and_takes_more_as_they_are_answered() {
    let clock = ManualClock::new();
    let guard = Guard::learning_builder().clock(clock.clone()).build().unwrap();
    let mut first = now(&guard);
    assert!(is_shut(&guard), "the answer of one tells more than many");
    first.observe(&Signals::default());
    drop(first);
    let two = (now(&guard), now(&guard));
    assert!(is_shut(&guard));
    // A server that takes its time holds nobody back for long.
    clock.advance(secs(1));
    let _more = (now(&guard), now(&guard));
    drop(two);
}

#[test]
fn a_throttle_that_is_not_explained_teaches_a_rate() {
    let clock = ManualClock::new();
    let guard = Guard::learning_builder().clock(clock.clone()).jitter_percent(0).build().unwrap();
    for _ in 0..40 {
        let mut permit = now(&guard);
        clock.advance(Duration::from_millis(50));
        permit.observe(&Signals::default());
    }
    assert_eq!(guard.learned_rate(), None);
    now(&guard).observe(&throttle(secs(2)));
    clock.advance(secs(2));
    drop(now(&guard));
    // Forty in two seconds, and the two that it was held: ten a second, and a little less to begin with.
    let rate = guard.learned_rate().expect("a throttle teaches");
    assert!((9.0..=10.0).contains(&rate), "{rate}");
    assert!(is_shut(&guard));
    clock.advance(Duration::from_millis(105));
    drop(now(&guard));

    // One that a told budget explains does not.
    let guard = plain(Unlimited, &clock);
    let mut explained = throttle(secs(2));
    explained.budgets = vec![budget(Unit::Requests, 10, 0, secs(2))];
    now(&guard).observe(&explained);
    clock.advance(secs(3));
    drop(now(&guard));
    assert_eq!(guard.learned_rate(), None);
}

#[test]
fn throttles_of_calls_that_were_on_their_way_are_one_lesson() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut silent = throttle(Duration::ZERO);
    silent.wait = None;
    let mut calls: Vec<_> = (0..5).map(|_| now(&guard)).collect();
    calls.iter_mut().for_each(|call| call.observe(&silent));
    assert_eq!(guard.held_for(), secs(1));
}

#[test]
fn shared_throttles_teach_nothing_about_us() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut shared = throttle(secs(1));
    shared.scope = Scope::Shared;
    now(&guard).observe(&shared);
    assert_eq!(guard.held_for(), secs(1));
    clock.advance(secs(1));
    drop(now(&guard));
    assert_eq!(guard.learned_rate(), None);
}

#[test]
fn bad_options_do_not_start() {
    let build = || Guard::builder(Unlimited);
    assert_eq!(build().ceiling(Duration::ZERO).build().unwrap_err(), GuardError::ZeroCeiling);
    assert_eq!(build().jitter_percent(101).build().unwrap_err(), GuardError::Jitter(101));
    assert_eq!(build().estimate_percentile(0).build().unwrap_err(), GuardError::Percentile(0));
    assert_eq!(build().start_at(Quota::once(5)).build().unwrap_err(), GuardError::StartWithoutPeriod);
    assert!(matches!(build().tokens(Quota::per_minute(0)).build(), Err(GuardError::Quota(_))));
    assert!(matches!(build().name("a\nb").build(), Err(GuardError::Name(_))));
}

#[test]
fn a_closed_guard_refuses_those_who_wait() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    guard.hold(secs(5));
    let mut waits = Box::pin(guard.acquire(1));
    assert!(poll(&mut waits).is_pending());
    guard.close();
    assert_eq!(refusal(poll(&mut waits)).reason(), Reason::Closed);
}

#[test]
fn closing_refuses_those_too_who_wait_for_the_limits() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let guard = plain(slots, &clock);
    let held = now(&guard);
    let mut waits = Box::pin(guard.acquire(1));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&count)))).is_pending());
    guard.close();
    assert!(count.0.load(Ordering::Relaxed) > 0, "it was woken");
    assert_eq!(refusal(poll(&mut waits)).reason(), Reason::Closed);
    drop(held);
}

#[test]
fn what_takes_nothing_goes_in_a_hold_too() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    guard.hold(secs(10));
    drop(granted(poll(&mut Box::pin(guard.acquire(0)))));
    assert!(Limiter::<()>::try_acquire(&guard, &(), 0.into()).is_ok());
    guard.close();
    assert_eq!(refusal(poll(&mut Box::pin(guard.acquire(0)))).reason(), Reason::Closed);
}

#[test]
fn one_that_was_lifted_is_as_careful_as_a_new_one() {
    let clock = ManualClock::new();
    let guard = Guard::learning_builder().clock(clock.clone()).jitter_percent(0).build().unwrap();
    for _ in 0..10 {
        let mut permit = now(&guard);
        clock.advance(50 * MS);
        permit.observe(&Signals::default());
    }
    now(&guard).observe(&throttle(secs(2)));
    clock.advance(secs(2));
    drop(now(&guard));
    assert!(guard.learned_rate().is_some());
    guard.lift();
    assert_eq!(guard.learned_rate(), None);
    let _one = now(&guard);
    assert!(is_shut(&guard), "nothing is known, and one call is under way");

    let builder = Guard::learning_builder().clock(clock.clone()).start_at(Quota::per_second(10));
    let guard = builder.build().unwrap();
    drop(now(&guard));
    guard.lift();
    assert_eq!(guard.learned_rate(), Some(10.0));
    drop(now(&guard));
    assert!(is_shut(&guard), "a tenth of a second is between two calls");
}

#[test]
fn a_call_without_an_answer_teaches_nothing() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    let mut silent = throttle(Duration::ZERO);
    silent.wait = None;
    now(&guard).observe(&silent);
    clock.advance(secs(1));
    drop(now(&guard));
    now(&guard).observe(&silent);
    assert_eq!(guard.held_for(), secs(2), "nobody has said that it serves again");

    // Nor is it served for that it was given up.
    let guard = plain(Unlimited, &clock);
    (0..40).for_each(|_| drop(now(&guard)));
    now(&guard).observe(&silent);
    clock.advance(secs(1));
    drop(now(&guard));
    assert_eq!(guard.learned_rate(), None);
}

#[test]
fn who_waits_for_the_limits_is_not_sent_into_a_budget_that_is_spent() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let guard = plain(slots.clone(), &clock);
    let mut first = now(&guard);
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(guard.acquire(1))).collect();
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    first.observe(&left(10, 1, secs(30)));
    drop(first);
    let mut last = granted(poll(&mut waiting[0]));
    last.observe(&left(10, 0, secs(30)));
    drop(last);
    assert!(poll(&mut waiting[1]).is_pending());
    assert!(poll(&mut waiting[2]).is_pending());
    assert_eq!(slots.snapshot().remaining, 1, "it holds no slot while it waits for the server");
    clock.advance(secs(30));
    drop(granted(poll(&mut waiting[1])));
    drop(granted(poll(&mut waiting[2])));
}

#[tokio::test(start_paused = true)]
async fn a_hold_does_not_put_those_last_who_came_first() {
    let rate = TokenBucket::new(Quota::per_second(1).burst(1)).unwrap();
    let guard = Guard::new(rate);
    drop(guard.acquire(1).await.unwrap());
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (guard, served) = (guard.clone(), Arc::clone(&served));
        tasks.spawn(async move {
            drop(guard.acquire(1).await.unwrap());
            served.lock().unwrap().push(number);
        });
    }
    tokio::time::sleep(MS).await;
    assert_eq!(guard.waiting(), 12);
    for _ in 0..3 {
        guard.hold(secs(10));
        tokio::time::sleep(secs(9)).await;
    }
    tasks.join_all().await;
    assert_eq!(*served.lock().unwrap(), (0..12).collect::<Vec<_>>());
}

#[test]
fn a_hold_sends_nobody_away_that_waits_in_a_full_queue() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
    let builder = Guard::builder(slots).clock(clock.clone()).jitter_percent(0).queue(Queue::new().limit(4));
    let guard = builder.build().unwrap();
    let held = now(&guard);
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(guard.acquire(1))).collect();
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    assert_eq!(refusal(poll(&mut Box::pin(guard.acquire(1)))).reason(), Reason::QueueFull);
    guard.hold(secs(10));
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()), "they were there before");
    assert_eq!(refusal(poll(&mut Box::pin(guard.acquire(1)))).reason(), Reason::QueueFull);
    drop(held);
    clock.advance(secs(10));
    for mut one in waiting {
        drop(granted(poll(&mut one)));
    }
}

#[test]
fn a_wait_behind_others_counts_whole_windows() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    now(&guard).observe(&left(10, 0, secs(30)));
    // Ten in each window to come.
    let mut waiting: Vec<_> = (0..30).map(|_| Box::pin(guard.acquire(Ask::ONE.within(secs(95))))).collect();
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    let denied = refusal(poll(&mut Box::pin(guard.acquire(Ask::ONE.within(secs(95))))));
    assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, Some(secs(120))));
    // Those who wait already are not sent away either when something changes.
    guard.observe(&Signals::default());
    let mut served = 0;
    for _ in 0..3 {
        clock.advance(secs(30));
        waiting.retain_mut(|one| match poll(one) {
            Poll::Pending => true,
            answer => {
                granted(answer).observe(&Signals::default());
                served += 1;
                false
            }
        });
    }
    assert_eq!(served, 30);
}

#[test]
fn a_leaked_permit_is_forgotten_whoever_else_waits() {
    let clock = ManualClock::new();
    let rate = TokenBucket::builder(Quota::per_second(1).burst(1)).clock(clock.clone()).build().unwrap();
    let guard = plain(rate, &clock);
    drop(now(&guard));
    let mut never_polled_again = Box::pin(guard.acquire(1));
    assert!(poll(&mut never_polled_again).is_pending());
    clock.advance(secs(2));
    Box::leak(Box::new(now(&guard)));
    clock.advance(secs(1));
    now(&guard).observe(&left(2, 2, secs(50)));
    clock.advance(secs(1));
    assert!(is_shut(&guard), "two may not have been counted");
    clock.advance(secs(58));
    let _one = now(&guard);
}

#[test]
fn what_is_told_outside_of_calls_loosens_nothing() {
    let clock = ManualClock::new();
    let guard = plain(Unlimited, &clock);
    now(&guard).observe(&left(10, 2, secs(30)));
    let _one = now(&guard);
    guard.observe(&left(10, 9, secs(30)));
    let _two = now(&guard);
    assert!(is_shut(&guard), "two were left");
    // Of a new window it tells what is new.
    guard.observe(&left(10, 3, secs(90)));
    let _three = now(&guard);
    assert!(is_shut(&guard));
}

type Waiting = Pin<Box<AcquireGuarded<Concurrency<ManualClock>, ManualClock>>>;

struct Note(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

proptest! {
    #[test]
    fn a_hold_leaves_those_that_wait_in_order_whoever_is_polled_first(
        order in Just((0_usize..12).collect::<Vec<_>>()).prop_shuffle(),
        given_up in prop::collection::vec(any::<bool>(), 12),
        again in 1_usize..3,
    ) {
        const BEFORE: usize = 8;
        let clock = ManualClock::new();
        let slots = Concurrency::builder(1).clock(clock.clone()).build().unwrap();
        let guard = plain(slots, &clock);
        let held = now(&guard);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wakers: Vec<_> =
            (0..order.len()).map(|number| Waker::from(Arc::new(Note(number, Arc::clone(&woken))))).collect();
        let mut waiting: Vec<_> = order.iter().map(|_| Some(Box::pin(guard.acquire(1)))).collect();
        let poll = |one: &mut Option<Waiting>, number: usize| {
            let cx = &mut Context::from_waker(&wakers[number]);
            one.as_mut().is_none_or(|one| one.as_mut().poll(cx).is_pending())
        };
        for (number, one) in waiting.iter_mut().enumerate().take(BEFORE) {
            prop_assert!(poll(one, number));
        }
        // The others come in a hold, in between.
        let in_turn = (0..BEFORE).chain(order.iter().copied().filter(|number| *number >= BEFORE));
        let in_turn: Vec<_> = in_turn.collect();
        for _ in 0..again {
            guard.hold(secs(10));
            for number in &order {
                prop_assert!(poll(&mut waiting[*number], *number));
            }
            prop_assert_eq!(guard.waiting(), order.len());
            clock.advance(secs(10));
        }
        // Those that give up leave the others in order.
        for (one, _) in waiting.iter_mut().zip(&given_up).filter(|(_, given_up)| **given_up) {
            *one = None;
        }
        woken.lock().unwrap().clear();
        guard.hold(secs(10));
        drop(held);
        prop_assert!(woken.lock().unwrap().is_empty(), "the slot is free, and the hold is not over");
        clock.advance(secs(10));
        for number in in_turn.into_iter().filter(|number| !given_up[*number]) {
            prop_assert_eq!(woken.lock().unwrap().pop(), Some(number));
            prop_assert!(!poll(&mut waiting[number], number));
            // Dropped with its permit: the next one is granted.
            waiting[number] = None;
        }
    }
}

/// Planted: those who are to be woken woken one after the other, without a second thought.
#[test]
fn a_waker_that_panics_costs_nobody_the_news() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the caller's");
        }
    }
    struct Counts(AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let clock = ManualClock::new();
    let bucket = TokenBucket::builder(Quota::per_day(1)).clock(clock.clone()).build().unwrap();
    let guard = plain(bucket.clone(), &clock);
    bucket.check(1).unwrap();
    let counts = Arc::new(Counts(AtomicUsize::new(0)));
    let wakers = [Waker::from(Arc::new(Panics)), Waker::from(Arc::clone(&counts))];
    let mut waits = [(); 2].map(|()| Box::pin(guard.acquire(1)));
    for (wait, waker) in waits.iter_mut().zip(&wakers) {
        assert!(wait.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard.close()));
    assert!(closed.is_err(), "the panic reaches whoever woke");
    assert_eq!(counts.0.load(Ordering::Relaxed), 1);
}
