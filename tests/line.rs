//! What happens in line: order, longest waits, giving up, changes while others wait, and foreign code inside of it.
#![cfg(all(feature = "tokio", not(tollgate_loom)))]

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tollgate::{
    Ask, BoxLimiter, Concurrency, Cost, Denied, Error, FixedWindow, Limiter, LimiterExt, ManualClock, Order,
    Permit, Queue, Quota, RateLimiter, Reason, SlidingCounter, SlidingWindow, Stored, TokenBucket,
    limiter_fn,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const NS: Duration = Duration::from_nanos(1);

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// The refusal among answers.
#[track_caller]
fn refusal<T>(answer: Poll<Result<T, Error>>) -> Denied {
    match answer {
        Poll::Ready(Err(Error::Denied(denied))) => denied,
        Poll::Ready(_) => panic!("granted"),
        Poll::Pending => panic!("still waiting"),
    }
}

#[track_caller]
fn granted<T>(answer: Poll<Result<T, Error>>) -> T {
    match answer {
        Poll::Ready(Ok(permit)) => permit,
        Poll::Ready(Err(error)) => panic!("refused: {error}"),
        Poll::Pending => panic!("still waiting"),
    }
}

/// A token bucket on a clock of its own.
fn bucket(quota: Quota) -> (TokenBucket<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    (TokenBucket::builder(quota).clock(clock.clone()).build().unwrap(), clock)
}

/// One unit each 100 ms, none at the start.
fn one_each_100_ms() -> (TokenBucket<ManualClock>, ManualClock) {
    bucket(Quota::per_second(10).burst(1).initial(0))
}

/// What a thread that may hang does, in time.
#[track_caller]
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || sender.send(act()).unwrap());
    match receiver.recv_timeout(Duration::from_secs(10)) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn on_paused_time<F: Future>(test: F) -> F::Output {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// Lets the tasks run until they `wait`.
async fn until(wait: impl Fn() -> bool) {
    while !wait() {
        tokio::task::yield_now().await;
    }
}

/// Panics on this thread while `act` runs, caught or not.
fn panics_in(act: impl FnOnce()) -> usize {
    thread_local!(static PANICS: Cell<usize> = const { Cell::new(0) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    let before = PANICS.get();
    act();
    PANICS.get() - before
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// ---------------------------------------------------------------------------------------------------------- order

#[test]
fn first_come_first_served_whatever_the_costs() {
    let costs = [5, 1, 10, 2, 3];
    let (bucket, clock) = bucket(Quota::per_second(10).burst(10).initial(0));
    let mut waiters: Vec<_> = costs.map(|cost| Some(bucket.acquire(cost))).into();
    waiters.iter_mut().flatten().for_each(|waiter| assert!(poll(waiter).is_pending()));
    let mut log = Vec::new();
    for tenth in 1..=21 {
        clock.advance(ms(100));
        // The last in line is polled first, and has no advantage.
        for (index, waiter) in waiters.iter_mut().enumerate().rev() {
            if let Some(Poll::Ready(permit)) = waiter.as_mut().map(poll) {
                assert_eq!(permit.unwrap().cost().units(), costs[index]);
                log.push((index, tenth));
                *waiter = None;
            }
        }
    }
    assert_eq!(log, [(0, 5), (1, 6), (2, 16), (3, 18), (4, 21)]);
}

#[test]
fn nobody_passes_those_who_wait() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(10).initial(5));
    let mut large = bucket.acquire(10);
    assert!(poll(&mut large).is_pending());
    for cost in [1, 5] {
        let wait = ms(500 + 100 * cost);
        let hint = Some(wait);
        assert_eq!(bucket.check(cost).unwrap_err(), Denied::new(Reason::Exhausted).after(hint));
        assert_eq!(bucket.try_acquire(cost).unwrap_err(), Denied::new(Reason::Exhausted).after(hint));
        assert_eq!(bucket.ready_in(cost).unwrap(), wait);
        let at_once = refusal(poll(&mut bucket.acquire(Ask::cost(cost).within(Duration::ZERO))));
        assert_eq!(at_once, Denied::new(Reason::Exhausted).after(hint));
    }
    assert!(bucket.check(0).is_ok(), "nothing is always there");
    assert_eq!(bucket.snapshot().remaining, 5);
    clock.advance(ms(500));
    assert!(bucket.check(1).is_err(), "the waiter was admitted first");
    drop(granted(poll(&mut large)));
    clock.advance(ms(100));
    assert!(bucket.check(1).is_ok());
}

#[test]
fn a_waiter_that_is_dropped_lets_those_behind_move_up() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(10).initial(5));
    let (wakes, waker) = Count::new();
    let (mut first, mut second) = (bucket.acquire(10), bucket.acquire(3));
    assert!(poll(&mut first).is_pending());
    assert!(poll_with(&mut second, &waker).is_pending());
    let mut third = bucket.acquire(4);
    assert!(poll(&mut third).is_pending());
    drop(first);
    assert_eq!(wakes.get(), 1, "what the first waited for is enough for the second");
    drop(granted(poll(&mut second)));
    assert!(poll(&mut third).is_pending());
    clock.advance(ms(200));
    drop(granted(poll(&mut third)));
    assert_eq!(bucket.snapshot().waiting, 0);
}

#[test]
fn a_grant_that_nobody_hears_of_goes_back() {
    let (bucket, clock) = one_each_100_ms();
    let (wakes, waker) = Count::new();
    let (mut first, mut second) = (bucket.acquire(1), bucket.acquire(1));
    assert!(poll(&mut first).is_pending());
    assert!(poll_with(&mut second, &waker).is_pending());
    clock.advance(ms(100));
    assert_eq!((bucket.snapshot().waiting, wakes.get()), (1, 0));
    drop(first);
    assert_eq!(wakes.get(), 1);
    drop(granted(poll(&mut second)));
    clock.advance(ms(100) - NS);
    assert!(bucket.check(1).is_err(), "only one has been granted, and it was granted");
    clock.advance(NS);
    assert!(bucket.check(1).is_ok());
}

#[test]
fn a_slot_that_nobody_hears_of_goes_back() {
    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let mut waiter = slots.acquire(1);
    assert!(poll(&mut waiter).is_pending());
    drop(held);
    assert_eq!((slots.snapshot().remaining, slots.snapshot().waiting), (0, 0));
    drop(waiter);
    assert_eq!(slots.snapshot().remaining, 1);
}

#[test]
fn nothing_happens_before_the_first_poll() {
    let (bucket, _clock) = bucket(Quota::per_second(10));
    let before = bucket.snapshot();
    let unpolled = bucket.acquire(10);
    assert_eq!(bucket.snapshot(), before);
    drop(unpolled);
    assert_eq!(bucket.snapshot(), before);
}

// --------------------------------------------------------------------------------------------------- longest waits

/// A longest wait of what it takes is enough; a nanosecond less is refused at once and spends nothing. Alone, and
/// behind another.
fn longest_wait_is_inclusive<A: Stored>(limiter: &RateLimiter<A, ManualClock>, clock: &ManualClock) {
    clock.advance(ms(12));
    while limiter.check(1).is_ok() {
        clock.advance(ms(7));
    }
    let mut ahead = None;
    for _ in 0..2 {
        let (now, before) = (clock.now_ns(), limiter.snapshot());
        let hint = limiter.check(1).unwrap_err().retry_after().unwrap();
        assert!(hint > Duration::ZERO);
        let mut short = limiter.acquire(Ask::ONE.within(hint - NS));
        let denied = refusal(poll(&mut short));
        assert_eq!(denied, Denied::new(Reason::Exhausted).after(Some(hint)));
        drop(short);
        assert_eq!((clock.now_ns(), limiter.snapshot()), (now, before));

        let mut enough = limiter.acquire(Ask::ONE.within(hint));
        assert!(poll(&mut enough).is_pending());
        assert_eq!(limiter.snapshot().waiting, before.waiting + 1);
        if let Some((mut ahead, ahead_hint)) = ahead.take() {
            clock.advance(ahead_hint);
            drop(granted(poll(&mut ahead)));
            // Where units come back all at once both go at once.
            if hint > ahead_hint {
                clock.advance(hint - ahead_hint - NS);
                assert!(poll(&mut enough).is_pending());
                clock.advance(NS);
            }
            drop(granted(poll(&mut enough)));
            return;
        }
        ahead = Some((enough, hint));
    }
}

trait NowNs {
    fn now_ns(&self) -> u64;
}

impl NowNs for ManualClock {
    fn now_ns(&self) -> u64 {
        tollgate::Clock::now(self).as_ns()
    }
}

#[test]
fn longest_wait_is_inclusive_for_every_algorithm() {
    let clock = ManualClock::new();
    let at = || clock.clone();
    longest_wait_is_inclusive(
        &TokenBucket::builder(Quota::per_second(7)).clock(at()).build().unwrap(),
        &clock,
    );
    longest_wait_is_inclusive(
        &SlidingWindow::builder(Quota::per_second(7)).clock(at()).build().unwrap(),
        &clock,
    );
    longest_wait_is_inclusive(
        &SlidingCounter::builder(Quota::per_second(7)).clock(at()).build().unwrap(),
        &clock,
    );
    longest_wait_is_inclusive(
        &FixedWindow::builder(Quota::per_second(7)).clock(at()).build().unwrap(),
        &clock,
    );
    let joint =
        SlidingWindow::all([Quota::per_second(7), Quota::per_minute(20)]).clock(at()).build().unwrap();
    longest_wait_is_inclusive(&joint, &clock);
}

#[test]
fn a_longest_wait_is_counted_from_the_call() {
    let (bucket, clock) = one_each_100_ms();
    let (mut enough, mut late) =
        (bucket.acquire(Ask::ONE.within(ms(100))), bucket.acquire(Ask::ONE.within(ms(199))));
    clock.advance(ms(50));
    assert!(poll(&mut enough).is_pending());
    // 150 ms from here, which is 200 ms from the call.
    assert_eq!(refusal(poll(&mut late)).retry_after(), Some(ms(150)));
    clock.advance(ms(50));
    drop(granted(poll(&mut enough)));
    let mut gone = bucket.acquire(Ask::ONE.within(ms(99)));
    clock.advance(ms(100));
    drop(granted(poll(&mut gone)));
}

#[test]
fn a_refusal_does_not_sleep() {
    on_paused_time(async {
        let start = tokio::time::Instant::now();
        let bucket = TokenBucket::new(Quota::per_second(10).burst(1).initial(0)).unwrap();
        let Err(Error::Denied(denied)) = bucket.acquire(Ask::ONE.within(ms(100) - NS)).await else {
            panic!("granted")
        };
        assert_eq!(denied, Denied::new(Reason::Exhausted).after(Some(ms(100))));
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(bucket.acquire(Ask::ONE.within(ms(100))).await.unwrap());
        assert_eq!(start.elapsed(), ms(100));
        // A wait beyond all time is no limit.
        drop(bucket.acquire(Ask::ONE.within(Duration::MAX)).await.unwrap());
        assert_eq!(start.elapsed(), ms(200));
    });
}

// -------------------------------------------------------------------------------------------------------- the line

#[test]
fn a_full_line_refuses_with_the_time() {
    let clock = ManualClock::new();
    let quota = Quota::per_second(10).burst(10).initial(0);
    let bucket =
        TokenBucket::builder(quota).queue(Queue::new().limit(3)).clock(clock.clone()).build().unwrap();
    let too_large = refusal(poll(&mut bucket.acquire(4)));
    assert_eq!(too_large, Denied::new(Reason::QueueFull).after(Some(ms(400))), "larger than the whole line");
    let (mut two, mut one) = (bucket.acquire(2), bucket.acquire(1));
    assert!(poll(&mut two).is_pending());
    let full = refusal(poll(&mut bucket.acquire(2)));
    assert_eq!(full, Denied::new(Reason::QueueFull).after(Some(ms(400))), "units are counted, not asks");
    assert!(poll(&mut one).is_pending());
    let full = refusal(poll(&mut bucket.acquire(1)));
    assert_eq!(full, Denied::new(Reason::QueueFull).after(Some(ms(400))));
    assert_eq!((bucket.snapshot().waiting, bucket.snapshot().waiting_units), (2, 3));
    drop(two);
    assert!(poll(&mut bucket.acquire(2)).is_pending(), "who leaves makes room");
    clock.advance(ms(100));
    drop(granted(poll(&mut one)));
    assert!(poll(&mut bucket.acquire(3)).is_pending());
}

#[test]
fn a_line_of_nobody() {
    let clock = ManualClock::new();
    let quota = Quota::per_second(10).burst(1);
    let bucket =
        TokenBucket::builder(quota).queue(Queue::new().limit(0)).clock(clock.clone()).build().unwrap();
    drop(granted(poll(&mut bucket.acquire(1))));
    let full = refusal(poll(&mut bucket.acquire(1)));
    assert_eq!(full, Denied::new(Reason::QueueFull).after(Some(ms(100))));
    clock.advance(ms(100));
    drop(granted(poll(&mut bucket.acquire(1))));
}

#[test]
fn newest_first_serves_the_newest_and_evicts_the_oldest() {
    let clock = ManualClock::new();
    let quota = Quota::per_second(10).burst(10).initial(0);
    let queue = Queue::new().limit(3).order(Order::NewestFirst);
    let bucket = TokenBucket::builder(quota).queue(queue).clock(clock.clone()).build().unwrap();
    let (wakes, waker) = Count::new();
    let (mut a, mut b, mut c) = (bucket.acquire(1), bucket.acquire(1), bucket.acquire(1));
    assert!(poll_with(&mut a, &waker).is_pending());
    assert!(poll_with(&mut b, &waker).is_pending());
    assert!(poll(&mut c).is_pending());

    assert_eq!(refusal(poll(&mut bucket.acquire(4))).reason(), Reason::QueueFull);
    assert_eq!((bucket.snapshot().waiting, wakes.get()), (3, 0), "an ask larger than the line evicts nobody");

    let mut d = bucket.acquire(1);
    assert!(poll(&mut d).is_pending());
    assert_eq!(wakes.get(), 1);
    assert_eq!(refusal(poll(&mut a)), Denied::new(Reason::Evicted));
    let mut e = bucket.acquire(2);
    assert!(poll(&mut e).is_pending());
    assert_eq!(refusal(poll(&mut b)), Denied::new(Reason::Evicted));
    assert_eq!(refusal(poll(&mut c)), Denied::new(Reason::Evicted));
    assert_eq!(bucket.snapshot().waiting_units, 3);

    clock.advance(ms(100));
    assert!(poll(&mut d).is_pending(), "the newest waits for two units, and nobody passes it");
    clock.advance(ms(100));
    drop(granted(poll(&mut e)));
    assert!(poll(&mut d).is_pending());
    clock.advance(ms(100));
    drop(granted(poll(&mut d)));
}

// ----------------------------------------------------------------------------------------------- close, pause, change

#[test]
fn closing_answers_those_who_wait_and_all_who_come() {
    let (bucket, _clock) = bucket(Quota::per_second(10).burst(10));
    let permit = bucket.try_acquire(10).unwrap();
    let (wakes, waker) = Count::new();
    let mut waiters = [bucket.acquire(1), bucket.acquire(Ask::cost(2).within(ms(900)))];
    waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    bucket.close();
    assert_eq!(wakes.get(), 2);
    let closed = Denied::new(Reason::Closed);
    waiters.iter_mut().for_each(|waiter| assert_eq!(refusal(poll(waiter)), closed));
    permit.refund();
    assert_eq!(bucket.snapshot().remaining, 10, "permits out stay valid");
    for cost in [0, 1] {
        assert_eq!(bucket.check(cost).unwrap_err(), closed);
        assert_eq!(bucket.try_acquire(cost).unwrap_err(), closed);
        assert_eq!(bucket.ready_in(cost).unwrap_err(), closed);
        assert_eq!(refusal(poll(&mut bucket.acquire(cost))), closed);
        assert_eq!(bucket.acquire_blocking(cost).unwrap_err(), closed);
    }
    bucket.resume();
    assert_eq!(bucket.check(1).unwrap_err(), closed, "for good");

    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let mut waiter = slots.acquire(1);
    assert!(poll(&mut waiter).is_pending());
    slots.close();
    drop(held);
    assert_eq!(refusal(poll(&mut waiter)), closed);
    assert_eq!(slots.try_acquire(1).unwrap_err(), closed);
}

#[test]
fn a_pause_lets_nobody_in() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(2).initial(1));
    bucket.pause();
    assert_eq!(bucket.check(1).unwrap_err(), Denied::new(Reason::Paused));
    assert_eq!(bucket.ready_in(1).unwrap_err(), Denied::new(Reason::Paused));
    assert_eq!(
        refusal(poll(&mut bucket.acquire(Ask::ONE.within(Duration::ZERO)))),
        Denied::new(Reason::Paused)
    );
    let (mut first, mut by_150) = (bucket.acquire(1), bucket.acquire(Ask::ONE.within(ms(150))));
    let (mut by_350, mut by_450) = (bucket.acquire(Ask::cost(2).within(ms(350))), bucket.acquire(Ask::ONE));
    for waiter in [&mut first, &mut by_150, &mut by_350, &mut by_450] {
        assert!(poll(waiter).is_pending());
    }
    clock.advance(ms(150));
    assert_eq!(refusal(poll(&mut by_150)), Denied::new(Reason::Paused));
    clock.advance(ms(150));
    assert!(poll(&mut first).is_pending());
    // Two are there: one for the first; the next needs another 100 ms and has 50.
    bucket.resume();
    drop(granted(poll(&mut first)));
    assert_eq!(refusal(poll(&mut by_350)).reason(), Reason::Exhausted);
    drop(granted(poll(&mut by_450)));
    assert!(bucket.check(1).is_err());
    clock.advance(ms(100));
    assert!(bucket.check(1).is_ok());
}

#[test]
fn a_higher_quota_speeds_up_those_who_wait() {
    let (bucket, clock) = one_each_100_ms();
    let (wakes, waker) = Count::new();
    let mut waiters: Vec<_> = (0..4).map(|_| bucket.acquire(1)).collect();
    waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    clock.advance(ms(50));
    bucket.set_quota(Quota::per_second(100).burst(1)).unwrap();
    assert_eq!(wakes.get(), 0, "half of a unit has been accrued");
    for (done, step) in [(1, 5), (2, 10), (3, 10), (4, 10)] {
        clock.advance(ms(step) - NS);
        assert_eq!(wakes.get(), done - 1);
        clock.advance(NS);
        assert_eq!(wakes.get(), done);
        drop(granted(poll(&mut waiters[done - 1])));
    }
}

#[test]
fn a_higher_burst_wakes_those_who_wait_at_once() {
    let (bucket, _clock) = one_each_100_ms();
    let (wakes, waker) = Count::new();
    let mut waiters: Vec<_> = (0..3).map(|_| bucket.acquire(1)).collect();
    waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    bucket.set_quota(Quota::every(NS).burst(1)).unwrap();
    assert_eq!(wakes.get(), 0, "no time has passed");
    drop(waiters);
    let quota = Quota::per_second(10);
    let slow = SlidingWindow::builder(quota).clock(ManualClock::new()).build().unwrap();
    assert!(slow.check(10).is_ok());
    let mut waiters: Vec<_> = (0..3).map(|_| slow.acquire(1)).collect();
    waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    slow.set_quota(Quota::per_second(12)).unwrap();
    assert_eq!(wakes.get(), 2);
}

#[test]
fn a_lower_quota_refuses_those_it_would_keep_for_too_long() {
    let (bucket, clock) = one_each_100_ms();
    let mut in_time = bucket.acquire(Ask::ONE.within(ms(200)));
    let mut too_late = bucket.acquire(Ask::ONE.within(ms(399)));
    let (mut exactly, mut patient) = (bucket.acquire(Ask::ONE.within(ms(400))), bucket.acquire(1));
    for waiter in [&mut in_time, &mut too_late, &mut exactly, &mut patient] {
        assert!(poll(waiter).is_pending());
    }
    bucket.set_quota(Quota::per_second(5).burst(1)).unwrap();
    assert_eq!(refusal(poll(&mut too_late)).reason(), Reason::Exhausted, "at once");
    for waiter in [&mut in_time, &mut exactly, &mut patient] {
        assert!(poll(waiter).is_pending());
        clock.advance(ms(200));
        drop(granted(poll(waiter)));
    }
    assert_eq!(bucket.set_quota(Quota::per_second(0)), Err(tollgate::QuotaError::ZeroCount));
}

/// Wherever it stands in line, and whether it would wait for ever or not.
#[test]
fn a_lower_burst_refuses_those_above_it() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(10).initial(0));
    let (wakes, waker) = Count::new();
    let (mut head, mut large) = (bucket.acquire(6), bucket.acquire(1));
    let mut middle = bucket.acquire(5);
    let mut by_time = bucket.acquire(Ask::cost(4).within(Duration::from_secs(60)));
    let mut fits = bucket.acquire(3);
    for waiter in [&mut head, &mut middle, &mut by_time] {
        assert!(poll_with(waiter, &waker).is_pending());
    }
    for waiter in [&mut large, &mut fits] {
        assert!(poll(waiter).is_pending());
    }
    bucket.set_quota(Quota::per_second(10).burst(3)).unwrap();
    for waiter in [&mut head, &mut by_time, &mut middle] {
        assert_eq!(refusal(poll(waiter)), Denied::new(Reason::ExceedsCapacity));
    }
    assert_eq!(wakes.get(), 3);
    clock.advance(ms(100));
    drop(granted(poll(&mut large)));
    clock.advance(ms(300));
    drop(granted(poll(&mut fits)));
}

// ------------------------------------------------------------------------------------------------ settle and refund

#[test]
fn those_who_wait_feel_a_debt() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(1));
    let permit = bucket.try_acquire(1).unwrap();
    let (mut by_300, mut by_399) =
        (bucket.acquire(Ask::ONE.within(ms(300))), bucket.acquire(Ask::ONE.within(ms(399))));
    assert!(poll(&mut by_300).is_pending());
    assert!(poll(&mut by_399).is_pending());
    permit.settle(Cost::new(3));
    assert_eq!((bucket.snapshot().remaining, bucket.snapshot().debt), (0, 2));
    assert_eq!(refusal(poll(&mut by_399)).reason(), Reason::Exhausted, "it would go after 400 ms");
    assert_eq!(bucket.ready_in(1).unwrap(), ms(400));
    clock.advance(ms(300) - NS);
    assert!(poll(&mut by_300).is_pending());
    clock.advance(NS);
    drop(granted(poll(&mut by_300)));
}

#[test]
fn a_refund_lets_those_who_wait_go_earlier() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(5));
    let permit = bucket.try_acquire(5).unwrap();
    let (wakes, waker) = Count::new();
    let (mut first, mut second) = (bucket.acquire(2), bucket.acquire(3));
    assert!(poll_with(&mut first, &waker).is_pending());
    assert!(poll_with(&mut second, &waker).is_pending());
    permit.settle(Cost::new(2));
    assert_eq!(wakes.get(), 1, "three came back");
    drop(granted(poll(&mut first)));
    clock.advance(ms(200));
    drop(granted(poll(&mut second)));
}

// ------------------------------------------------------------------------------------------------- without a runtime

#[test]
fn outside_a_runtime_there_is_no_timer() {
    let bucket = TokenBucket::new(Quota::per_hour(10).burst(1)).unwrap();
    drop(bucket.try_acquire(1).unwrap());
    let denied = bucket.check(1).unwrap_err();
    assert_eq!(denied.reason(), Reason::Exhausted);
    assert!(denied.retry_after().is_some());
    let panics = panics_in(|| {
        let denied = refusal(poll(&mut bucket.acquire(1)));
        assert_eq!(denied.reason(), Reason::NoTimer);
        assert!(denied.retry_after().is_some());
        assert_eq!(refusal(poll(&mut bucket.acquire(Ask::ONE.within(ms(10))))).reason(), Reason::Exhausted);
    });
    assert_eq!((panics, bucket.snapshot().waiting), (0, 0));
    let full = TokenBucket::new(Quota::per_hour(10)).unwrap();
    drop(granted(poll(&mut full.acquire(10))));

    // Slots come back by themselves: only a longest wait needs a timer.
    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let (mut waiter, mut timed) = (slots.acquire(1), slots.acquire(Ask::ONE.within(ms(10))));
    assert!(poll(&mut waiter).is_pending());
    assert_eq!(refusal(poll(&mut timed)).reason(), Reason::NoTimer);
    drop(held);
    drop(granted(poll(&mut waiter)));
}

#[test]
fn a_runtime_without_timers_has_no_timer() {
    let bucket = TokenBucket::new(Quota::per_hour(10).burst(1).initial(0)).unwrap();
    let untimed = Builder::new_current_thread().build().unwrap();
    let Err(Error::Denied(denied)) = untimed.block_on(bucket.acquire(1)) else { panic!("granted") };
    assert_eq!(denied.reason(), Reason::NoTimer);
    assert_eq!(bucket.snapshot().waiting, 0);
}

/// Real time. Threads that came one after the other: none goes before its turn.
#[test]
fn threads_wait_in_line() {
    const THREADS: usize = 20;
    in_time(|| {
        let bucket = TokenBucket::new(Quota::per_second(200).burst(1)).unwrap();
        bucket.pause();
        let threads: Vec<_> = (0..THREADS)
            .map(|index| {
                let threaded = bucket.clone();
                let thread = thread::spawn(move || {
                    drop(threaded.acquire_blocking(1).unwrap());
                    Instant::now()
                });
                while bucket.snapshot().waiting <= index {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        let resumed = Instant::now();
        bucket.resume();
        for (index, thread) in threads.into_iter().enumerate() {
            let wait = thread.join().unwrap() - resumed;
            assert!(wait >= ms(5 * index as u64), "number {index} went after {wait:?}");
        }
        assert!(resumed.elapsed() < Duration::from_secs(5), "took {:?}", resumed.elapsed());
        let spent = TokenBucket::new(Quota::per_day(1)).unwrap();
        spent.check(1).unwrap();
        let refused = spent.acquire_blocking(Ask::ONE.within(Duration::from_micros(1))).unwrap_err();
        assert_eq!(refused.reason(), Reason::Exhausted);
    });
}

#[test]
fn threads_wait_in_line_for_a_clock_that_is_moved() {
    const THREADS: usize = 8;
    in_time(|| {
        let (bucket, clock) = one_each_100_ms();
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..THREADS)
            .map(|index| {
                let (threaded, order) = (bucket.clone(), Arc::clone(&order));
                let thread = thread::spawn(move || {
                    // The last of them would not wait any longer, and need not.
                    let longest = ms(100 * THREADS as u64);
                    let ask = if index + 1 == THREADS { Ask::ONE.within(longest) } else { Ask::ONE };
                    drop(threaded.acquire_blocking(ask).unwrap());
                    order.lock().unwrap().push(index);
                });
                while bucket.snapshot().waiting <= index {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        for done in 1..=THREADS {
            clock.advance(ms(100) - NS);
            assert_eq!(order.lock().unwrap().len(), done - 1);
            clock.advance(NS);
            while order.lock().unwrap().len() < done {
                thread::yield_now();
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*order.lock().unwrap(), Vec::from_iter(0..THREADS));
    });
}

#[test]
fn a_thread_that_waits_is_told_of_changes() {
    for change in ["quota", "close", "refund", "deadline"] {
        in_time(move || {
            let (bucket, clock) = bucket(Quota::per_hour(1));
            let permit = bucket.try_acquire(1).unwrap();
            let threaded = bucket.clone();
            let ask =
                if change == "deadline" { Ask::ONE.within(Duration::from_secs(3_600)) } else { Ask::ONE };
            let thread = thread::spawn(move || threaded.acquire_blocking(ask).map(|permit| permit.cost()));
            while bucket.snapshot().waiting == 0 {
                thread::yield_now();
            }
            match change {
                "quota" => {
                    bucket.set_quota(Quota::per_second(1)).unwrap();
                    clock.advance(Duration::from_secs(1));
                }
                "close" => bucket.close(),
                "refund" => permit.refund(),
                _ => permit.settle(Cost::new(2)),
            }
            let reason = thread.join().unwrap().map_err(|denied| denied.reason());
            let expected = match change {
                "close" => Err(Reason::Closed),
                "deadline" => Err(Reason::Exhausted),
                _ => Ok(Cost::ONE),
            };
            assert_eq!(reason, expected, "{change}");
        });
    }
}

// ------------------------------------------------------------------------------------------------ several runtimes

/// One unit each 10 ms, and a waiter at the head of the line in a runtime that nobody runs any more.
fn stalled() -> (TokenBucket, Runtime, tokio::task::JoinHandle<Result<(), Error>>) {
    let bucket = TokenBucket::new(Quota::per_hour(1).burst(1).initial(0)).unwrap();
    let runtime = runtime();
    let acquire = bucket.acquire(1);
    let task = runtime.spawn(async { acquire.await.map(|_| ()) });
    runtime.block_on(until(|| bucket.snapshot().waiting > 0));
    bucket.set_quota(Quota::per_second(100).burst(1)).unwrap();
    (bucket, runtime, task)
}

fn three_go_elsewhere(bucket: &TokenBucket) {
    let bucket = bucket.clone();
    in_time(move || {
        runtime().block_on(async {
            for _ in 0..3 {
                drop(bucket.acquire(1).await.unwrap());
            }
        });
    });
}

#[test]
fn a_stalled_runtime_holds_up_nobody_elsewhere() {
    let (bucket, stalled, task) = stalled();
    three_go_elsewhere(&bucket);
    assert_eq!(bucket.snapshot().waiting, 0);
    stalled.block_on(task).unwrap().unwrap();
}

#[test]
fn a_stalled_runtime_holds_up_no_thread() {
    let (bucket, stalled, task) = stalled();
    let threaded = bucket.clone();
    in_time(move || drop(threaded.acquire_blocking(1).unwrap()));
    stalled.block_on(task).unwrap().unwrap();
}

#[test]
fn a_dropped_runtime_holds_up_nobody_elsewhere() {
    let (bucket, dropped, task) = stalled();
    let panics = panics_in(|| drop(dropped));
    assert_eq!((panics, bucket.snapshot().waiting), (0, 0));
    three_go_elsewhere(&bucket);
    drop(task);
}

/// The waiter of a runtime that is gone is still at the head: it has been left behind, and costs its own grant.
#[test]
fn a_waiter_that_outlives_its_runtime_holds_up_nobody() {
    for per_second in [20, 1_000] {
        let bucket = TokenBucket::new(Quota::per_second(per_second).burst(1).initial(0)).unwrap();
        let gone = runtime();
        let mut left_behind = bucket.acquire(1);
        gone.block_on(async { assert!(poll(&mut left_behind).is_pending()) });
        let others = bucket.clone();
        // Joined while the first runtime is there, served when it is gone.
        let other = thread::spawn(move || three_go_elsewhere(&others));
        while bucket.snapshot().waiting == 1 {
            thread::yield_now();
        }
        drop(gone);
        other.join().unwrap();
        three_go_elsewhere(&bucket);
        drop(granted(poll(&mut left_behind)));
    }
}

#[test]
fn a_waiter_moves_to_another_runtime() {
    let bucket = TokenBucket::new(Quota::per_second(20).burst(1).initial(0)).unwrap();
    let (gone, stalled) = (runtime(), runtime());
    let (mut first, mut second) = (bucket.acquire(1), bucket.acquire(1));
    gone.block_on(async { assert!(poll(&mut first).is_pending()) });
    stalled.block_on(async { assert!(poll(&mut second).is_pending()) });
    drop(gone);
    in_time(|| {
        runtime().block_on(async {
            drop(first.await.unwrap());
            drop(second.await.unwrap());
        });
    });
    drop(stalled);
}

/// As for a rate: a longest wait ends where the waiter is now.
#[test]
fn a_longest_wait_for_a_slot_moves_to_another_runtime() {
    let slots = Concurrency::new(1);
    let _held = slots.try_acquire(1).unwrap();
    let stalled = runtime();
    let mut waiter = slots.acquire(Ask::ONE.within(ms(20)));
    stalled.block_on(async { assert!(poll(&mut waiter).is_pending()) });
    let denied = in_time(|| {
        runtime().block_on(async {
            match waiter.await {
                Err(Error::Denied(denied)) => denied,
                Ok(_) => panic!("granted"),
            }
        })
    });
    assert_eq!(denied.reason(), Reason::Exhausted);
}

#[test]
fn a_runtime_shut_down_with_waiters_does_not_panic() {
    for per_hour in [1, 3_600 * 2_000] {
        let bucket = TokenBucket::new(Quota::per_hour(per_hour).burst(1).initial(0)).unwrap();
        let slots = Concurrency::new(1);
        let _held = slots.try_acquire(1).unwrap();
        // Outlives the runtime, in line; the others are dropped with it.
        let mut outlives = bucket.acquire(1);
        let panics = panics_in(|| {
            let runtime = runtime();
            runtime.block_on(async {
                assert!(poll(&mut outlives).is_pending());
                for ask in [Ask::ONE, Ask::ONE.within(Duration::from_secs(3_600 * 24))] {
                    let (of_rate, of_slots) = (bucket.acquire(ask), slots.acquire(ask));
                    tokio::spawn(async move { drop(of_rate.await) });
                    tokio::spawn(async move { drop(of_slots.await) });
                }
                tokio::task::yield_now().await;
            });
            drop(runtime);
        });
        // A timer that is due while its runtime shuts down may have tokio panic, and is caught.
        assert!(panics == 0 || per_hour > 1);
        assert!(bucket.snapshot().waiting <= 1);
        assert_eq!(slots.snapshot().waiting, 0);
    }
    let bucket = TokenBucket::new(Quota::per_second(100).burst(1).initial(0)).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for _ in 0..100 {
        let bucket = bucket.clone();
        runtime.spawn(async move { drop(bucket.acquire(1).await) });
    }
    in_time(move || runtime.shutdown_timeout(Duration::from_secs(5)));
    assert_eq!(bucket.snapshot().waiting, 0);
}

// ----------------------------------------------------------------------------------------------- foreign code inside

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::panic_any("the waker panics");
    }
}

#[test]
fn a_panicking_waker_does_not_wedge_the_line() {
    let (bucket, clock) = one_each_100_ms();
    let mut panics = bucket.acquire(1);
    assert!(poll_with(&mut panics, &Waker::from(Arc::new(Panics))).is_pending());
    let (wakes, waker) = Count::new();
    let mut others: Vec<_> = (0..3).map(|_| bucket.acquire(1)).collect();
    others.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    let _ = catch_unwind(AssertUnwindSafe(|| clock.advance(ms(100))));
    for (turn, waiter) in others.iter_mut().enumerate() {
        clock.advance(ms(100));
        assert_eq!(wakes.get(), turn + 1);
        drop(granted(poll(waiter)));
    }
    drop(granted(poll(&mut panics)));
}

/// Those admitted in the same turn, more than one hold of the lock admits, are told all the same.
#[test]
fn a_panicking_waker_costs_nobody_the_news() {
    const OTHERS: usize = 300;
    let (bucket, clock) = bucket(Quota::per_second(1_000).burst(1_000));
    let permit = bucket.try_acquire(1_000).unwrap();
    let mut panics = bucket.acquire(1);
    assert!(poll_with(&mut panics, &Waker::from(Arc::new(Panics))).is_pending());
    let (wakes, waker) = Count::new();
    let mut others: Vec<_> = (0..OTHERS).map(|_| bucket.acquire(1)).collect();
    others.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    let _ = catch_unwind(AssertUnwindSafe(|| permit.refund()));
    assert_eq!(wakes.get(), OTHERS);
    others.iter_mut().for_each(|waiter| drop(granted(poll(waiter))));
    clock.advance(Duration::from_secs(1));
    assert!(bucket.check(1_000).is_ok());
}

#[test]
fn a_panicking_waker_costs_nobody_the_news_of_the_end() {
    let (bucket, _clock) = one_each_100_ms();
    let mut panics = bucket.acquire(1);
    assert!(poll_with(&mut panics, &Waker::from(Arc::new(Panics))).is_pending());
    let (wakes, waker) = Count::new();
    let mut others: Vec<_> = (0..3).map(|_| bucket.acquire(1)).collect();
    others.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    let _ = catch_unwind(AssertUnwindSafe(|| bucket.close()));
    assert_eq!(wakes.get(), 3);
}

/// Uses the limiter when woken, and when dropped.
struct Nosy {
    bucket: TokenBucket<ManualClock>,
    looks: Arc<AtomicUsize>,
}

impl Nosy {
    fn waker(bucket: &TokenBucket<ManualClock>) -> (Arc<AtomicUsize>, Waker) {
        let looks = Arc::new(AtomicUsize::new(0));
        let nosy = Self { bucket: bucket.clone(), looks: Arc::clone(&looks) };
        (looks, Waker::from(Arc::new(nosy)))
    }

    fn look(&self) {
        let _ = self.bucket.snapshot();
        let _ = self.bucket.try_acquire(1);
        let mut passer = self.bucket.acquire(1);
        let _ = poll(&mut passer);
        drop(passer);
        self.bucket.pause();
        self.bucket.resume();
        self.looks.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

#[test]
fn a_waker_may_use_the_limiter_when_woken() {
    in_time(|| {
        let (bucket, clock) = one_each_100_ms();
        let (looks, waker) = Nosy::waker(&bucket);
        let mut waiters: Vec<_> = (0..3).map(|_| bucket.acquire(1)).collect();
        waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
        drop(waker);
        clock.advance(ms(200));
        assert_eq!(looks.load(Ordering::SeqCst), 2);
        bucket.close();
        assert_eq!(looks.load(Ordering::SeqCst), 4, "woken the third time, and dropped");
    });
}

#[test]
fn a_waker_may_use_the_limiter_when_dropped_with_its_waiter() {
    in_time(|| {
        let (bucket, _clock) = one_each_100_ms();
        let (looks, waker) = Nosy::waker(&bucket);
        let mut waiter = bucket.acquire(1);
        assert!(poll_with(&mut waiter, &waker).is_pending());
        drop(waker);
        drop(waiter);
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_waker_may_use_the_limiter_when_another_takes_its_place() {
    in_time(|| {
        let (bucket, _clock) = one_each_100_ms();
        let (looks, waker) = Nosy::waker(&bucket);
        let mut waiter = bucket.acquire(1);
        assert!(poll_with(&mut waiter, &waker).is_pending());
        drop(waker);
        assert!(poll(&mut waiter).is_pending());
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    });
}

// ----------------------------------------------------------------------------------------------------------- slots

#[test]
fn more_slots_wake_those_who_wait() {
    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let (wakes, waker) = Count::new();
    let mut waiters = [slots.acquire(1), slots.acquire(2), slots.acquire(1)];
    assert!(refusal(poll(&mut waiters[1])) == Denied::new(Reason::ExceedsCapacity));
    waiters[1] = slots.acquire(1);
    waiters.iter_mut().for_each(|waiter| assert!(poll_with(waiter, &waker).is_pending()));
    slots.resize(3);
    assert_eq!(wakes.get(), 2);
    let _first = granted(poll(&mut waiters[0]));
    let _second = granted(poll(&mut waiters[1]));
    assert!(poll(&mut waiters[2]).is_pending());
    drop(held);
    let _third = granted(poll(&mut waiters[2]));
}

#[test]
fn fewer_slots_take_effect_as_slots_come_back() {
    let slots = Concurrency::new(3);
    let mut held: Vec<_> = (0..3).map(|_| slots.try_acquire(1).unwrap()).collect();
    let mut waiter = slots.acquire(1);
    assert!(poll(&mut waiter).is_pending());
    slots.resize(1);
    assert_eq!((slots.snapshot().capacity, slots.snapshot().remaining, slots.snapshot().debt), (1, 0, 2));
    for _ in 0..2 {
        drop(held.pop());
        assert!(poll(&mut waiter).is_pending());
    }
    drop(held.pop());
    let slot = granted(poll(&mut waiter));
    assert!(slots.try_acquire(1).is_err());
    drop(slot);
    assert_eq!((slots.snapshot().remaining, slots.snapshot().debt), (1, 0));
    // Without anybody in line.
    let held = slots.try_acquire(1).unwrap();
    slots.resize(0);
    drop(held);
    assert_eq!(slots.try_acquire(1).unwrap_err(), Denied::new(Reason::ExceedsCapacity));
    slots.resize(2);
    assert!(slots.try_acquire(2).is_ok());
}

/// Wherever they stand in line.
#[test]
fn fewer_slots_refuse_those_who_ask_for_more() {
    let slots = Concurrency::new(3);
    let held = slots.try_acquire(3).unwrap();
    let (wakes, waker) = Count::new();
    let (mut one, mut three, mut two) = (slots.acquire(1), slots.acquire(3), slots.acquire(2));
    assert!(poll(&mut one).is_pending());
    assert!(poll_with(&mut three, &waker).is_pending());
    assert!(poll(&mut two).is_pending());
    slots.resize(2);
    assert_eq!(wakes.get(), 1);
    assert_eq!(refusal(poll(&mut three)), Denied::new(Reason::ExceedsCapacity));
    drop(held);
    drop(granted(poll(&mut one)));
    drop(granted(poll(&mut two)));
}

#[test]
fn a_longest_wait_for_a_slot_ends_exactly() {
    on_paused_time(async {
        let slots = Concurrency::builder(1).name("workers").build().unwrap();
        let held = slots.try_acquire(1).unwrap();
        let start = tokio::time::Instant::now();
        let Err(Error::Denied(denied)) = slots.acquire(Ask::ONE.within(ms(70))).await else {
            panic!("granted")
        };
        assert_eq!(start.elapsed(), ms(70));
        assert_eq!((denied.reason(), denied.retry_after()), (Reason::Exhausted, None));
        assert_eq!(denied.limit().unwrap().as_str(), "workers");
        let Err(Error::Denied(denied)) = slots.acquire(Ask::ONE.within(Duration::ZERO)).await else {
            panic!("granted")
        };
        assert_eq!((denied.reason(), start.elapsed()), (Reason::Exhausted, ms(70)));
        // A slot that comes back in time serves the one who waits behind one that gave up.
        let mut gives_up = slots.acquire(Ask::ONE.within(ms(10)));
        assert!(poll(&mut gives_up).is_pending());
        let waiter = tokio::spawn(slots.acquire(Ask::ONE.within(ms(30))));
        tokio::time::sleep(ms(20)).await;
        drop(held);
        drop(waiter.await.unwrap().unwrap());
        assert_eq!(start.elapsed(), ms(90));
        assert_eq!(refusal(poll(&mut gives_up)).reason(), Reason::Exhausted);
    });
}

#[test]
fn slots_are_weighted_and_first_come_first_served() {
    let slots = Concurrency::new(4);
    let (one, three) = (slots.try_acquire(1).unwrap(), slots.try_acquire(3).unwrap());
    let (mut large, mut small) = (slots.acquire(4), slots.acquire(1));
    assert!(poll(&mut large).is_pending());
    assert!(poll(&mut small).is_pending());
    drop(three);
    assert!(poll(&mut large).is_pending());
    assert!(poll(&mut small).is_pending(), "three are free, but the large one is first");
    assert!(slots.try_acquire(1).is_err());
    drop(one);
    let large = granted(poll(&mut large));
    assert!(poll(&mut small).is_pending());
    drop(large);
    drop(granted(poll(&mut small)));
}

// ------------------------------------------------------------------------------------------------------------ keys

#[test]
fn keys_are_limited_one_by_one() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(1));
    let keyed = bucket.keyed::<String>();
    assert!(keyed.check("ann", 1).is_ok());
    assert_eq!(keyed.check("ann", 1).unwrap_err(), Denied::new(Reason::Exhausted).after(Some(ms(100))));
    assert!(keyed.check("bob", 1).is_ok());
    assert!(bucket.check(1).is_ok(), "the limiter the keys were made from is another");
    let (mut ann, mut bob) = (keyed.acquire("ann", 1), keyed.acquire("bob", 1));
    assert!(poll(&mut ann).is_pending());
    clock.advance(ms(50));
    assert!(keyed.check("cat", 1).is_ok());
    assert!(poll(&mut bob).is_pending());
    clock.advance(ms(50));
    drop(granted(poll(&mut ann)));
    drop(granted(poll(&mut bob)));
    assert_eq!(keyed.len(), 3);
    keyed.set_quota(Quota::per_second(100).burst(1)).unwrap();
    clock.advance(ms(10));
    for key in ["ann", "bob", "cat", "dan"] {
        assert!(keyed.check(key, 1).is_ok(), "{key}");
        assert_eq!(keyed.check(key, 1).unwrap_err().retry_after(), Some(ms(10)), "{key}");
    }
}

#[test]
fn too_many_keys_refuse_newcomers_and_forget_nobody() {
    let clock = ManualClock::new();
    let quota = Quota::per_second(10).burst(2);
    let keyed = TokenBucket::builder(quota).name("per user").clock(clock.clone());
    let keyed = keyed.keyed::<String>().max_keys(2).build().unwrap();
    assert!(keyed.check("ann", 2).is_ok());
    assert!(keyed.check("bob", 2).is_ok());
    let too_many = Denied::new(Reason::TooManyKeys).by(Some(tollgate::Name::new("per user").unwrap()));
    for newcomer in 0..100 {
        let newcomer = format!("newcomer {newcomer}");
        assert_eq!(keyed.check(&newcomer, 1).unwrap_err(), too_many);
        assert_eq!(keyed.try_acquire(&newcomer, 1).unwrap_err(), too_many);
        assert_eq!(refusal(poll(&mut keyed.acquire(&newcomer, 1))), too_many);
        assert!(keyed.get(&newcomer).is_err());
    }
    assert_eq!(keyed.len(), 2);
    assert_eq!(keyed.check("ann", 1).unwrap_err().reason(), Reason::Exhausted);
    clock.advance(ms(200) - NS);
    assert_eq!(keyed.check("cat", 1).unwrap_err(), too_many, "a nanosecond before they are as new");
    clock.advance(NS);
    assert!(keyed.check("cat", 1).is_ok(), "idle keys make room");
    assert!(keyed.len() <= 2);
}

#[test]
fn a_key_in_use_is_not_forgotten() {
    let clock = ManualClock::new();
    let keyed = TokenBucket::builder(Quota::per_second(10).burst(2)).clock(clock.clone());
    let keyed = keyed.keyed::<String>().max_keys(1).build().unwrap();
    let permit = keyed.try_acquire("ann", 1).unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(keyed.check("bob", 1).unwrap_err().reason(), Reason::TooManyKeys, "a permit of hers is out");
    permit.settle(Cost::new(3));
    assert_eq!(keyed.check("bob", 1).unwrap_err().reason(), Reason::TooManyKeys, "she owes");
    let mut ann = keyed.acquire("ann", 2);
    assert!(poll(&mut ann).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(keyed.check("bob", 1).unwrap_err().reason(), Reason::TooManyKeys, "a grant of hers is out");
    drop(granted(poll(&mut ann)));
    drop(ann);
    assert!(keyed.check("bob", 1).is_ok());
    assert_eq!(keyed.len(), 1);
}

// ------------------------------------------------------------------------------------------------------------- and

#[test]
fn both_or_neither() {
    let clock = ManualClock::new();
    let build =
        |quota, name: &str| TokenBucket::builder(quota).clock(clock.clone()).name(name).build().unwrap();
    let fast = build(Quota::per_second(10).burst(1), "fast");
    let slow = build(Quota::per_second(2).burst(1), "slow");
    for both in [fast.clone().and(slow.clone()), slow.clone().and(fast.clone())] {
        assert_eq!(both.try_acquire(1).unwrap().cost(), Cost::ONE);
        assert_eq!((fast.snapshot().remaining, slow.snapshot().remaining), (0, 0));
        let expected = Denied::new(Reason::Exhausted)
            .after(Some(ms(500)))
            .by(Some(tollgate::Name::new("slow").unwrap()));
        let before = (fast.snapshot(), slow.snapshot());
        assert_eq!(both.try_acquire(1).unwrap_err(), expected, "the later of both");
        for longest in [Duration::ZERO, ms(100), ms(500) - NS] {
            let Poll::Ready(Err(Error::Denied(denied))) = poll(&mut both.acquire(Ask::ONE.within(longest)))
            else {
                panic!("not refused at once")
            };
            assert_eq!(denied, expected);
        }
        assert_eq!((fast.snapshot(), slow.snapshot()), before);

        let mut waits = both.acquire(Ask::ONE.within(ms(500)));
        assert!(poll(&mut waits).is_pending());
        clock.advance(ms(500) - NS);
        assert!(poll(&mut waits).is_pending());
        let left = fast.snapshot().remaining;
        assert_eq!(left, 1, "nothing is taken before both can grant");
        clock.advance(NS);
        let Poll::Ready(Ok(permit)) = poll(&mut waits) else { panic!("not granted in time") };
        permit.refund();
        assert_eq!((fast.snapshot().remaining, slow.snapshot().remaining), (1, 1));
    }
}

#[test]
fn a_refusal_by_one_spends_nothing_of_the_other() {
    let (fast, _clock) = bucket(Quota::per_second(10));
    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let either =
        [fast.clone().and(slots.clone()).boxed::<()>(), slots.clone().and(fast.clone()).boxed::<()>()];
    for both in &either {
        let Poll::Ready(Err(Error::Denied(denied))) =
            poll(&mut both.acquire(&(), Ask::ONE.within(Duration::ZERO)))
        else {
            panic!("not refused at once")
        };
        assert_eq!(denied, Denied::new(Reason::Exhausted), "no time is known for a slot");
        assert_eq!(fast.snapshot().remaining, 10);
    }
    drop(held);
    assert!(fast.check(10).is_ok());
    assert_eq!(slots.clone().and(fast.clone()).try_acquire(1).unwrap_err().retry_after(), Some(ms(100)));
    assert_eq!(slots.snapshot().remaining, 1);
}

#[test]
fn an_ask_that_waits_for_a_rate_holds_no_slot() {
    fn waits<L: Limiter<Acquire: Unpin>>(
        both: &L,
        fast: &TokenBucket<ManualClock>,
        slots: &Concurrency,
        clock: &ManualClock,
    ) {
        let mut waits = both.acquire(&(), Ask::ONE);
        assert!(poll(&mut waits).is_pending());
        assert_eq!((fast.snapshot().waiting, slots.snapshot().remaining), (1, 1));
        assert!(slots.try_acquire(1).is_ok());
        clock.advance(ms(100));
        let Poll::Ready(Ok(permit)) = poll(&mut waits) else { panic!("not granted") };
        assert_eq!(slots.snapshot().remaining, 0);
        drop(permit);
        assert_eq!(slots.snapshot().remaining, 1);
    }
    let (fast, clock) = one_each_100_ms();
    let (slow, slots) = (bucket(Quota::per_hour(1).burst(10)).0, Concurrency::new(1));
    waits(&fast.clone().and(slots.clone()), &fast, &slots, &clock);
    waits(&slots.clone().and(fast.clone()), &fast, &slots, &clock);
    waits(&slots.clone().and(slow.clone()).and(fast.clone()), &fast, &slots, &clock);
    waits(&fast.clone().and(slow.clone().and(slots.clone())), &fast, &slots, &clock);
    waits(&slots.clone().and(fast.clone()).boxed(), &fast, &slots, &clock);
}

#[test]
fn a_waiting_ask_for_both_gives_back_when_dropped() {
    let (fast, clock) = bucket(Quota::per_second(10).burst(1));
    let slots = Concurrency::new(1);
    let held = slots.try_acquire(1).unwrap();
    let both = slots.clone().and(fast.clone());
    let mut waits = both.acquire(Ask::ONE);
    assert!(poll(&mut waits).is_pending());
    assert_eq!(
        (fast.snapshot().remaining, slots.snapshot().waiting),
        (1, 1),
        "nothing is taken while it waits for the slot"
    );
    drop(waits);
    assert_eq!((fast.snapshot().remaining, slots.snapshot().waiting), (1, 0));

    // Granted the slot, and not told.
    let mut waits = both.acquire(Ask::ONE);
    assert!(poll(&mut waits).is_pending());
    drop(held);
    assert_eq!(slots.snapshot().remaining, 0);
    drop(waits);
    assert_eq!((fast.snapshot().remaining, slots.snapshot().remaining), (1, 1));

    // Too late for the slot: nothing was taken of the rate.
    let held = slots.try_acquire(1).unwrap();
    on_paused_time(async {
        let mut waits = both.acquire(Ask::ONE.within(ms(50)));
        assert!(poll(&mut waits).is_pending());
        clock.advance(ms(50));
        tokio::time::sleep(ms(50)).await;
        let Poll::Ready(Err(Error::Denied(denied))) = poll(&mut waits) else { panic!("not refused in time") };
        assert_eq!(denied.reason(), Reason::Exhausted);
    });
    assert_eq!(fast.snapshot().remaining, 1);
    drop(held);
}

// ---------------------------------------------------------------------------------------------------- made of others

#[test]
fn limiters_of_any_kind_behind_one_type() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(1));
    let slots = Concurrency::new(1);
    let function = {
        let bucket = bucket.clone();
        limiter_fn(move |(): &(), ask: Ask| {
            let bucket = bucket.clone();
            async move { bucket.acquire(ask).await }
        })
    };
    let all: [BoxLimiter; 3] = [bucket.clone().boxed(), slots.clone().boxed(), function.boxed()];
    for limiter in &all {
        let permit = granted(poll(&mut limiter.acquire(&(), Ask::ONE)));
        assert_eq!(permit.cost(), Cost::ONE);
        let mut second = limiter.acquire(&(), Ask::ONE);
        assert!(poll(&mut second).is_pending());
        permit.refund();
        granted(poll(&mut second)).refund();
        assert_eq!((bucket.snapshot().remaining, slots.snapshot().remaining), (1, 1));
    }
    // Settling reaches through the box.
    granted(poll(&mut all[0].acquire(&(), Ask::ONE))).settle(Cost::new(3));
    assert_eq!(bucket.snapshot().debt, 2);
    clock.advance(ms(300));
    drop(granted(poll(&mut all[2].acquire(&(), Ask::ONE))));
}

#[test]
fn a_function_as_a_limiter_of_keys() {
    let (bucket, clock) = bucket(Quota::per_second(10).burst(10));
    let inner = bucket.clone();
    // Twice the price for long names.
    let by_length = limiter_fn(move |name: &str, ask: Ask| {
        let (inner, price) = (inner.clone(), if name.len() > 8 { 2 } else { 1 });
        let ask = ask.max_wait().into_iter().fold(Ask::cost(price * ask.units().units()), Ask::within);
        async move { inner.acquire(ask).await }
    });
    let mut short = Box::pin(by_length.acquire("ann", Ask::cost(3)));
    let mut long = Box::pin(by_length.acquire("bartholomew", Ask::cost(3)));
    assert_eq!(bucket.snapshot().remaining, 10, "lazy");
    assert_eq!(granted(poll(&mut short)).cost().units(), 3);
    assert_eq!(granted(poll(&mut long)).cost().units(), 6);
    let mut waits = Box::pin(by_length.acquire("bartholomew", Ask::ONE.within(ms(100))));
    assert!(poll(&mut waits).is_pending());
    clock.advance(ms(100));
    assert_eq!(granted(poll(&mut waits)).cost().units(), 2);
}
