//! What users write around limiters compiles and does what they expect.
#![cfg(not(tollgate_loom))]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::{
    And, Ask, Awaited, BoxLimiter, Concurrency, Cost, Limiter, LimiterExt, ManualClock, Permit, Queue, Quota,
    Reason, SlidingWindow, TokenBucket, limiter_fn,
};

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The combinators are those of limiters alone: other extension traits keep their methods.
#[test]
fn the_combinators_do_not_hide_those_of_futures() {
    use futures::FutureExt;
    assert_eq!(poll(std::future::ready(7).boxed()), Poll::Ready(7));
}

#[test]
fn an_ask_that_fits_the_capacity_fits_an_empty_queue() {
    let clock = ManualClock::new();
    let megabytes = Quota::per_second(1_000_000).burst(10_000_000).initial(0);
    let bytes = TokenBucket::builder(megabytes).clock(clock.clone()).build().unwrap();
    let mut upload = pin!(bytes.acquire(5_000_000));
    assert!(poll(upload.as_mut()).is_pending());
    clock.advance(Duration::from_secs(5));
    assert!(poll(upload).is_ready());
}

#[test]
fn a_queue_bounds_asks_by_default_and_units_if_told() {
    let slots = |queue| Concurrency::builder(1).queue(queue).build().unwrap();
    let (by_default, small) = (slots(Queue::new()), slots(Queue::new().limit(2)));
    let held = (by_default.try_acquire(1).unwrap(), small.try_acquire(1).unwrap());
    let mut waiting: Vec<_> = (0..100_000).map(|_| Box::pin(by_default.acquire(1))).collect();
    assert!(waiting.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
    let Poll::Ready(Err(error)) = poll(by_default.acquire(1)) else { panic!("the queue is full") };
    assert_eq!(error.denied().unwrap().reason(), Reason::QueueFull);
    let mut waiting = [(); 2].map(|()| Box::pin(small.acquire(1)));
    assert!(waiting.iter_mut().all(|one| poll(one.as_mut()).is_pending()));
    let Poll::Ready(Err(error)) = poll(small.acquire(1)) else { panic!("the queue is full") };
    assert_eq!(error.denied().unwrap().reason(), Reason::QueueFull);
    drop(held);
}

#[test]
fn compositions_of_any_shape_are_boxed_to_one_type() {
    let bucket = || TokenBucket::new(Quota::per_hour(9)).unwrap();
    let window = || SlidingWindow::new(Quota::per_hour(9)).unwrap();
    let all: Vec<BoxLimiter> = vec![
        bucket().and(window()).boxed(),
        Concurrency::new(9).and(bucket().and(window())).boxed(),
        And::all([bucket(), bucket()]).boxed(),
    ];
    for limiter in &all {
        assert_eq!(limiter.try_acquire(&(), Cost::new(9)).unwrap().cost(), Cost::new(9));
    }
    // And a list of boxes is a composition.
    let both = And::all(all);
    assert_eq!(both.try_acquire(1).unwrap_err().reason(), Reason::Exhausted);
}

#[cfg(feature = "tower")]
#[test]
fn a_boxed_limiter_sheds() {
    use tower::{Layer, Service};
    let limit: BoxLimiter<u32> = TokenBucket::new(Quota::per_hour(1)).unwrap().boxed();
    let echo = tower::service_fn(|word: u32| std::future::ready(Ok::<_, std::convert::Infallible>(word)));
    let mut service = tollgate::LimitLayer::new(limit).shed().layer(echo);
    assert!(matches!(poll(service.call(7)), Poll::Ready(Ok(7))));
    assert!(matches!(poll(service.call(7)), Poll::Ready(Err(tollgate::LimitError::Denied(_)))));
}

#[test]
fn a_list_of_limits_takes_all_or_none() {
    let slots: Vec<_> = [3, 1, 2].map(Concurrency::new).into();
    let all = And::all(slots.clone());
    let permit = all.try_acquire(1).unwrap();
    assert!(all.try_acquire(1).is_err());
    let mut waits = pin!(all.acquire(1));
    assert!(poll(waits.as_mut()).is_pending());
    let free = |slots: &[Concurrency]| slots.iter().map(|one| one.snapshot().remaining).collect::<Vec<_>>();
    assert_eq!(free(&slots), [2, 0, 1]);
    drop(permit);
    let Poll::Ready(Ok(permit)) = poll(waits) else { panic!("all are free") };
    assert_eq!((permit.0.len(), free(&slots)), (3, vec![2, 0, 1]));
    permit.refund();
    assert_eq!(free(&slots), [3, 1, 2]);
    assert!(And::all(Vec::<Concurrency>::new()).try_acquire(1).is_ok(), "no limit grants everything");
}

/// A limiter that must be awaited takes part in a composition: nothing else is held while it is asked.
#[test]
fn a_composition_asks_what_must_be_awaited_when_all_others_could_grant() {
    let (bucket, slots) = (TokenBucket::new(Quota::per_hour(2)).unwrap(), Concurrency::new(1));
    let inner = bucket.clone();
    let mine = limiter_fn(move |(): &(), ask: Ask| {
        let inner = inner.clone();
        async move { inner.acquire(ask).await }
    });
    let both = slots.clone().and(Awaited::new(mine));
    assert_eq!(both.try_acquire(1).unwrap().cost(), Cost::ONE);
    let held = slots.try_acquire(1).unwrap();
    let mut waits = pin!(both.acquire(1));
    assert!(poll(waits.as_mut()).is_pending());
    assert_eq!(bucket.snapshot().remaining, 1, "it is not asked while the slot is taken");
    drop(held);
    let Poll::Ready(Ok(permit)) = poll(waits) else { panic!("both can grant") };
    assert_eq!((bucket.snapshot().remaining, slots.snapshot().remaining), (0, 0));
    permit.refund();
    assert_eq!((bucket.snapshot().remaining, slots.snapshot().remaining), (1, 1));
}
