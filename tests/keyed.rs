//! Keyed limits: quotas that differ by key, the cap, what an administrator does, and how much memory a key takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::algorithm::{Algorithm, AllOf, Any, FromQuota, When};
use tollgate::{
    Cost, KeyStats, Keyed, KeyedBuilder, LimitStatus, Limiter, LimiterExt, ManualClock, Permit, Policy,
    Quota, QuotaError, RateLimiter, Reason, SlidingWindow, Tier, Timestamp, TokenBucket,
};

/// Counts what is allocated, to tell what a key costs.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator as it came; the counter touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests that count memory and tests that use it stay out of each other's way.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Windows = Keyed<u64, tollgate::algorithm::SlidingWindow, ManualClock>;

type WindowsBuilder = KeyedBuilder<u64, tollgate::algorithm::SlidingWindow, ManualClock>;

fn builder(quota: Quota) -> (WindowsBuilder, ManualClock) {
    let clock = ManualClock::new();
    (SlidingWindow::builder(quota).name("keyed").clock(clock.clone()).keyed(), clock)
}

fn windows(quota: Quota) -> (Windows, ManualClock) {
    let (builder, clock) = builder(quota);
    (builder.build().unwrap(), clock)
}

fn spend(keyed: &Windows, key: u64) -> usize {
    (0..1_000).take_while(|_| keyed.check(&key, 1).is_ok()).count()
}

fn standing<K, L: Limiter<K>>(limiter: &L, key: &K) -> Vec<LimitStatus> {
    let mut all = Vec::new();
    limiter.status(key, &mut |standing| all.push(standing.clone()));
    all
}

#[test]
fn a_key_that_changes_its_tier_goes_on_with_what_it_has_spent() {
    let _alone = alone();
    const PAID: Tier = Tier::new(1);
    let (keyed, clock) = builder(Quota::per_hour(10));
    let payers = Arc::new(Mutex::new(HashSet::from([1])));
    let tier = {
        let payers = Arc::clone(&payers);
        move |key: &u64| if payers.lock().unwrap().contains(key) { PAID } else { Tier::DEFAULT }
    };
    let keyed = keyed.tier(PAID, Quota::per_hour(100)).tier_by(tier).build().unwrap();
    assert_eq!(spend(&keyed, 1), 100);
    assert_eq!(spend(&keyed, 2), 10);
    payers.lock().unwrap().insert(2);
    assert_eq!(spend(&keyed, 2), 90, "ten are spent");
    payers.lock().unwrap().clear();
    assert_eq!(spend(&keyed, 1), 0);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(spend(&keyed, 1), 10);

    keyed.set_tier(PAID, Quota::per_hour(50)).unwrap();
    payers.lock().unwrap().insert(3);
    assert_eq!(spend(&keyed, 3), 50);
    keyed.set_tier(PAID, Quota::per_hour(60)).unwrap();
    assert_eq!(spend(&keyed, 3), 10);
    keyed.set_quota(Quota::per_hour(11)).unwrap();
    assert_eq!(spend(&keyed, 1), 1);
    assert_eq!(spend(&keyed, 3), 0, "the default tier is not its");
    assert!(keyed.set_tier(PAID, Quota::per_hour(0)).is_err());
}

#[test]
fn a_change_of_tier_reaches_those_who_wait() {
    let _alone = alone();
    let (keyed, clock) = windows(Quota::per_hour(1));
    assert_eq!(spend(&keyed, 1), 1);
    let mut wait = pin!(keyed.acquire(&1, 1));
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    keyed.set_quota_of(&1, Quota::per_second(1)).unwrap();
    clock.advance(Duration::from_secs(1));
    assert!(wait.as_mut().poll(&mut context).is_ready());
}

#[test]
fn single_keys_have_quotas_of_their_own_and_lose_them_with_what_they_spent() {
    let _alone = alone();
    let (keyed, _clock) = windows(Quota::per_hour(5));
    assert_eq!(spend(&keyed, 1), 5);
    keyed.set_quota_of(&1, Quota::per_hour(8)).unwrap();
    keyed.set_quota_of(&2, Quota::per_hour(8)).unwrap();
    assert_eq!(spend(&keyed, 1), 3);
    assert_eq!(spend(&keyed, 2), 8);
    keyed.set_quota_of(&2, Quota::per_hour(9)).unwrap();
    assert_eq!(spend(&keyed, 2), 1);
    keyed.set_quota(Quota::per_hour(100)).unwrap();
    assert_eq!(spend(&keyed, 2), 0, "its own stays its own");
    keyed.exempt(&2);
    assert_eq!(spend(&keyed, 2), 1_000);
    assert!(keyed.get(&2).unwrap().is_none());
    assert_eq!(keyed.try_acquire(&2, 1).unwrap().cost(), Cost::ZERO);
    assert!(standing(&keyed, &2).is_empty());
    keyed.forget_quota_of(&2);
    keyed.forget_quota_of(&1);
    assert_eq!(spend(&keyed, 1), 92);
    assert_eq!(spend(&keyed, 2), 91, "the nine it had spent of its own quota");
    assert!(keyed.set_quota_of(&3, Quota::per_hour(0)).is_err());
}

#[test]
fn at_the_cap_newcomers_share_the_overflow_and_are_told_so() {
    let _alone = alone();
    let (keyed, clock) = builder(Quota::per_hour(5));
    let shared =
        SlidingWindow::builder(Quota::per_hour(3)).name("overflow").clock(clock.clone()).build().unwrap();
    let keyed = keyed.max_keys(2).overflow(shared).build().unwrap();
    assert_eq!((spend(&keyed, 1), spend(&keyed, 2)), (5, 5));
    assert_eq!(keyed.check(&3, 2), Ok(()));
    assert_eq!(keyed.check(&4, 1), Ok(()));
    assert_eq!(keyed.check(&5, 1).unwrap_err().limit().unwrap().as_str(), "overflow");
    let told = standing(&keyed, &5);
    assert_eq!(told[0].limit.as_ref().unwrap().as_str(), "overflow");
    assert_eq!(told[0].remaining, 0);
    assert_eq!(keyed.stats().keys, 2);
    assert!(keyed.stats().refused >= 3);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(spend(&keyed, 6), 5, "there is room again");
}

#[test]
fn a_handle_survives_the_eviction_of_its_key() {
    let _alone = alone();
    let (keyed, clock) = builder(Quota::per_second(1));
    let keyed = keyed.max_keys(1).build().unwrap();
    assert_eq!(spend(&keyed, 1), 1);
    let handle = keyed.get(&1).unwrap().unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(keyed.check(&2, 1).unwrap_err().reason(), Reason::TooManyKeys, "the handle keeps its key");
    let weak_copy = handle.clone();
    drop(handle);
    assert!(keyed.check(&2, 1).is_err());
    drop(weak_copy);
    assert_eq!(keyed.check(&2, 1), Ok(()));
    assert!(keyed.snapshot(&1).is_none());
    assert_eq!(keyed.stats().evicted, 1);
}

#[test]
fn an_administrator_looks_forgives_and_fines() {
    let _alone = alone();
    let (keyed, clock) = windows(Quota::per_hour(5));
    assert!(keyed.snapshot(&1).is_none());
    assert_eq!(standing(&keyed, &1)[0].remaining, 5);
    assert!(keyed.is_empty(), "to look at a key makes none");
    keyed.reset(&1);
    assert!(keyed.is_empty());

    let permit = keyed.try_acquire(&1, 4).unwrap();
    assert_eq!(keyed.snapshot(&1).unwrap().remaining, 1);
    keyed.charge(&1, 6).unwrap();
    assert_eq!(keyed.snapshot(&1).unwrap().debt, 5);
    clock.advance(Duration::from_secs(1));
    keyed.reset(&1);
    assert_eq!(keyed.snapshot(&1).unwrap().remaining, 5);
    assert_eq!(keyed.check(&1, 3), Ok(()));
    permit.refund();
    assert_eq!(keyed.snapshot(&1).unwrap().remaining, 2, "what was taken before the reset is not given back");
    keyed.charge(&2, 1).unwrap();
    assert_eq!(keyed.snapshot(&2).unwrap().remaining, 4, "a key may be fined that was never seen");
}

#[test]
fn a_reset_wakes_those_who_wait_and_ignores_refunds_of_the_same_instant() {
    let _alone = alone();
    let (keyed, _clock) = windows(Quota::per_hour(2));
    let before = keyed.try_acquire(&1, 2).unwrap();
    let mut wait = pin!(keyed.acquire(&1, 2));
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    keyed.reset(&1);
    let Poll::Ready(Ok(after)) = wait.as_mut().poll(&mut context) else { panic!("two are there again") };
    before.refund();
    assert_eq!(keyed.snapshot(&1).unwrap().remaining, 0);
    after.refund();
    assert_eq!(keyed.snapshot(&1).unwrap().remaining, 2);
}

#[test]
fn keys_with_several_windows_go_on_by_their_windows() {
    let _alone = alone();
    let clock = ManualClock::new();
    let joint = |quotas: &[Quota]| {
        AllOf::of(quotas.iter().map(|quota| tollgate::algorithm::SlidingWindow::from_quota(*quota).unwrap()))
            .unwrap()
    };
    let (minute, hour) = (Quota::per_minute(10), Quota::per_hour(15));
    let keyed =
        RateLimiter::over(joint(&[minute, hour])).clock(clock.clone()).build().unwrap().keyed::<u64>();
    assert_eq!(keyed.check(&1, 10), Ok(()));
    let left = |keyed: &Keyed<u64, _, ManualClock>| -> Vec<u64> {
        standing(keyed, &1).iter().map(|standing| standing.remaining).collect()
    };
    assert_eq!(left(&keyed), [0, 5]);
    keyed.change_tier(Tier::DEFAULT, &joint(&[hour]));
    assert_eq!(left(&keyed), [5], "the hour stays the hour");
    keyed.change_tier(Tier::DEFAULT, &joint(&[minute, hour]));
    assert_eq!(left(&keyed), [10, 5], "the minute is new");
    keyed.change_tier(Tier::DEFAULT, &joint(&[Quota::per_hour(20), Quota::per_day(30)]));
    assert_eq!(left(&keyed), [10, 30], "the other takes over from the minute, of which nothing was spent");
    keyed.change_of(&1, joint(&[Quota::per_hour(12)]));
    assert_eq!(left(&keyed), [2]);
}

#[test]
fn refunds_of_grants_from_before_a_new_window_are_worth_nothing_in_it() {
    let _alone = alone();
    let clock = ManualClock::new();
    let limit = TokenBucket::all([Quota::per_second(1_000)]).clock(clock.clone()).build().unwrap();
    let old: Vec<_> = (0..10).map(|_| limit.try_acquire(1).unwrap()).collect();
    clock.advance(Duration::from_millis(1));
    limit.change(AllOf::new([Quota::per_second(1_000), Quota::per_minute(10)]).unwrap());
    clock.advance(Duration::from_millis(1));
    assert!(limit.check(10).is_ok());
    old.into_iter().for_each(Permit::refund);
    assert_eq!(limit.snapshot().remaining, 0, "ten a minute, since the change");
    // The same instant as a later change: what was taken after it is worth what was taken.
    clock.advance(Duration::from_secs(60));
    limit.change(AllOf::new([Quota::per_second(1_000), Quota::per_minute(20)]).unwrap());
    let before = limit.snapshot().remaining;
    let permit = limit.try_acquire(5).unwrap();
    permit.refund();
    assert_eq!(limit.snapshot().remaining, before);
}

#[test]
fn refunds_of_grants_from_before_another_algorithm_are_worth_nothing_in_it() {
    let _alone = alone();
    let clock = ManualClock::new();
    let quota = Quota::per_minute(10);
    let bucket = Any::TokenBucket(FromQuota::from_quota(quota).unwrap());
    let limit = RateLimiter::over(bucket).clock(clock.clone()).build().unwrap();
    let old: Vec<_> = (0..10).map(|_| limit.try_acquire(1).unwrap()).collect();
    clock.advance(Duration::from_millis(1));
    limit.change(Any::FixedWindow(FromQuota::from_quota(quota).unwrap()));
    clock.advance(Duration::from_millis(1));
    assert!(limit.check(10).is_ok());
    old.into_iter().for_each(Permit::refund);
    assert_eq!(limit.snapshot().remaining, 0);
}

#[test]
fn a_refund_in_the_instant_of_a_reset_is_worth_what_was_taken() {
    let _alone = alone();
    let clock = ManualClock::new();
    let limit = TokenBucket::builder(Quota::per_minute(10)).clock(clock).build().unwrap();
    for _ in 0..3 {
        let before = limit.try_acquire(4).unwrap();
        limit.reset();
        limit.try_acquire(5).unwrap().refund();
        assert_eq!(limit.snapshot().remaining, 10);
        before.refund();
        limit.set_quota(Quota::per_minute(10)).unwrap();
        limit.try_acquire(3).unwrap().refund();
        assert_eq!(limit.snapshot().remaining, 10);
    }
}

#[test]
fn changes_of_quota_from_several_threads_leave_all_keys_alike() {
    let _alone = alone();
    let keyed = TokenBucket::new(Quota::per_hour(5)).unwrap().keyed::<u64>();
    keyed.check(&0, 1).unwrap();
    let barrier = std::sync::Barrier::new(2);
    let run = |first: u64| {
        for round in 0..2_000 {
            barrier.wait();
            keyed.set_quota(Quota::per_hour(10 + 2 * (round % 1_000) + first)).unwrap();
            barrier.wait();
            let capacity = |key| keyed.get(&key).unwrap().unwrap().snapshot().capacity;
            assert_eq!(capacity(0), capacity(round * 2 + first + 1), "in round {round}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(0));
        run(1);
    });
}

#[test]
fn a_key_is_dropped_when_it_is_as_new_under_the_quota_there_is_now() {
    let _alone = alone();
    let clock = ManualClock::new();
    let bucket =
        |quota| TokenBucket::builder(quota).clock(clock.clone()).keyed::<u64>().max_keys(2).build().unwrap();
    let half_full = bucket(Quota::per_minute(10).initial(5));
    assert!(half_full.check(&1, 1).is_ok() && half_full.check(&2, 1).is_ok());
    half_full.set_quota(Quota::per_minute(10)).unwrap();
    let full = bucket(Quota::per_minute(10));
    assert!(full.check(&1, 1).is_ok() && full.check(&2, 1).is_ok());
    full.set_quota(Quota::per_minute(10).initial(0)).unwrap();
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(half_full.check(&3, 1), Ok(()));
    assert!(full.check(&3, 1).is_err(), "the full ones would come back empty");
    assert_eq!(full.check(&1, 10), Ok(()));
}

#[test]
fn tiers_without_a_quota_are_the_default_one() {
    let _alone = alone();
    let (keyed, _clock) = builder(Quota::per_hour(100));
    let keyed = keyed.tier(Tier::new(1), Quota::per_hour(7)).tier_by(|_| Tier::new(2)).build().unwrap();
    assert_eq!(keyed.check(&1, 1), Ok(()));
    keyed.set_quota(Quota::per_hour(5)).unwrap();
    assert_eq!((spend(&keyed, 1), spend(&keyed, 2)), (4, 5));
}

#[test]
fn who_shares_the_overflow_is_not_fined_at_the_cost_of_others() {
    let _alone = alone();
    let (keyed, clock) = builder(Quota::per_hour(5));
    let shared = SlidingWindow::builder(Quota::per_hour(3)).clock(clock).build().unwrap();
    let keyed = keyed.max_keys(1).overflow(shared).build().unwrap();
    assert_eq!(spend(&keyed, 1), 5);
    assert_eq!(keyed.charge(&2, 3).unwrap_err().reason(), Reason::TooManyKeys);
    assert_eq!(keyed.check(&3, 3), Ok(()));
}

#[test]
fn an_ask_that_is_never_polled_makes_no_key() {
    let _alone = alone();
    let (keyed, _clock) = builder(Quota::per_hour(5));
    let keyed = keyed.max_keys(1).build().unwrap();
    let unpolled = keyed.acquire(&1, 1);
    assert_eq!(keyed.check(&2, 1), Ok(()));
    drop(unpolled);
    let mut context = Context::from_waker(Waker::noop());
    let mut refused = pin!(keyed.acquire(&3, 1));
    assert!(matches!(refused.as_mut().poll(&mut context), Poll::Ready(Err(_))));
    assert_eq!(keyed.stats().refused, 1);
}

#[test]
fn what_a_pair_of_permits_cost_is_told_by_the_one_that_was_needed() {
    let _alone = alone();
    let spent = TokenBucket::new(Quota::per_hour(1)).unwrap();
    spent.check(1).unwrap();
    let both = spent.shadow().and(TokenBucket::new(Quota::per_hour(5)).unwrap());
    assert_eq!(both.try_acquire(3).unwrap().cost().units(), 3);
}

#[test]
fn an_algorithm_chosen_late_decides_as_one_chosen_early() {
    let _alone = alone();
    let quota = Quota::per_second(3);
    let all = [
        Any::TokenBucket(FromQuota::from_quota(quota).unwrap()),
        Any::SlidingWindow(FromQuota::from_quota(quota).unwrap()),
        Any::SlidingCounter(FromQuota::from_quota(quota).unwrap()),
        Any::FixedWindow(FromQuota::from_quota(quota).unwrap()),
    ];
    fn play<A: Algorithm>(algorithm: &A) -> (Vec<When>, Policy) {
        let mut state = algorithm.start(Timestamp::ZERO, 0);
        let times = (0..40).map(|step| Timestamp::from_ns(step * 130_000_000));
        let answers = times.map(|now| {
            let when = algorithm.ready_at(&mut state, now, 2);
            if when == When::At(now) {
                algorithm.force(&mut state, now, 2);
            }
            when
        });
        (answers.collect(), algorithm.policy())
    }
    let early = [
        play(&tollgate::algorithm::TokenBucket::from_quota(quota).unwrap()),
        play(&tollgate::algorithm::SlidingWindow::from_quota(quota).unwrap()),
        play(&tollgate::algorithm::SlidingCounter::from_quota(quota).unwrap()),
        play(&tollgate::algorithm::FixedWindow::from_quota(quota).unwrap()),
    ];
    for (late, early) in all.iter().zip(early) {
        assert_eq!(play(late), early, "{late:?}");
    }
    let kinds: HashSet<String> = all.iter().map(|late| format!("{:?}", play(late))).collect();
    assert_eq!(kinds.len(), 4, "the four can be told apart by this play");
}

#[test]
fn policies_are_what_clients_can_hold_to() {
    let _alone = alone();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let policy = |quota: Quota| tollgate::algorithm::TokenBucket::from_quota(quota).unwrap().policy();
    assert_eq!(policy(Quota::per_minute(100)), Policy::new(100, seconds(60)));
    assert_eq!(policy(Quota::per_second(50).burst(100)), Policy::new(100, seconds(2)));
    assert_eq!(policy(Quota::once(7)), Policy::new(7, None));
    let window = SlidingWindow::new(Quota::per_hour(9)).unwrap();
    assert_eq!(standing(&window, &())[0].policy, Policy::new(9, seconds(3600)));
}

#[test]
fn a_key_takes_what_is_documented_and_a_flood_takes_no_more() {
    let _alone = alone();
    const KEYS: u64 = 20_000;
    let clock = ManualClock::new();
    let bucket = TokenBucket::builder(Quota::per_hour(10)).clock(clock.clone());
    let keyed = bucket.keyed().max_keys(KEYS as usize).build().unwrap();
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    for key in 0..KEYS {
        assert_eq!(keyed.check(&key, 10), Ok(()));
    }
    let full = LIVE_BYTES.load(Ordering::Relaxed) - before;
    println!("{} bytes a key", full / KEYS as usize);
    // Beside the slots, the 64 parts that the keys are in.
    assert!(full <= 16 * KEYS as usize + 40_000, "{full} bytes for {KEYS} keys");
    // A few in a million share the state of another: that is exhausted, and so are they.
    let refused = (KEYS..KEYS + 500_000).filter(|key| {
        let denied = keyed.check(key, 1).unwrap_err();
        assert!(matches!(denied.reason(), Reason::TooManyKeys | Reason::Exhausted));
        denied.reason() == Reason::TooManyKeys
    });
    assert!(refused.count() >= 500_000 - 20);
    // The test harness allocates a little beside this; half a million newcomers would not be a little.
    let flooded = LIVE_BYTES.load(Ordering::Relaxed) - before;
    assert!(flooded < full + 100_000, "refused newcomers leave nothing behind");
    assert!((0..KEYS).all(|key| keyed.check(&key, 1).is_err()), "no exhausted key has been freed");
    // What idles goes, and what comes takes its place: all of the keys change, the memory does not.
    clock.advance(Duration::from_secs(3600));
    let mut admitted = 0;
    for key in 1_000_000..1_200_000 {
        admitted += u64::from(keyed.check(&key, 1).is_ok());
    }
    assert!(admitted >= KEYS, "{admitted}");
    let KeyStats { keys, .. } = keyed.stats();
    assert!(keys as u64 <= KEYS);
    let now = LIVE_BYTES.load(Ordering::Relaxed) - before;
    assert!(now <= full + full / 20, "{now} bytes where {full} were enough");
}

#[test]
fn options_that_admit_nobody_do_not_build() {
    let builder = || TokenBucket::builder(Quota::per_second(1)).keyed::<u64>();
    assert_eq!(builder().max_keys(0).build().unwrap_err(), QuotaError::ZeroKeys);
    let paid = Tier::new(7);
    assert_eq!(builder().tier(paid, Quota::per_second(2)).build().unwrap_err(), QuotaError::UnusableTier);
    let exempt = builder().tier(Tier::EXEMPT, Quota::per_second(2)).tier_by(|_| Tier::EXEMPT);
    assert_eq!(exempt.build().unwrap_err(), QuotaError::UnusableTier);
    let zero = builder().tier(paid, Quota::per_second(0)).tier_by(move |_| paid);
    assert_eq!(zero.build().unwrap_err(), QuotaError::ZeroCount);
    let default = builder().tier(Tier::DEFAULT, Quota::per_second(3)).build().unwrap();
    assert!(default.check(&1, 3).is_ok() && default.check(&1, 1).is_err());
}

#[test]
fn clones_share_what_the_builder_made() {
    let _alone = alone();
    let (keyed, _clock) = builder(Quota::per_hour(5));
    let keyed = keyed.max_keys(1).build().unwrap();
    let clone = keyed.clone();
    assert_eq!(spend(&clone, 1), 5);
    assert_eq!(spend(&keyed, 1), 0);
    assert_eq!(keyed.check(&2, 1).unwrap_err().reason(), Reason::TooManyKeys);
}

#[test]
fn threads_wait_for_a_key() {
    let keyed = TokenBucket::new(Quota::every(Duration::from_millis(20))).unwrap().keyed::<u64>();
    let started = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(keyed.acquire_blocking(&1, 1).unwrap().cost(), Cost::new(1));
    }
    assert!(started.elapsed() >= Duration::from_millis(40));
    let short = tollgate::Ask::from(1).within(Duration::from_millis(1));
    assert_eq!(keyed.acquire_blocking(&1, short).unwrap_err().reason(), Reason::Exhausted);
    assert!(keyed.acquire_blocking(&2, short).is_ok(), "another key does not wait");
    assert_eq!(keyed.acquire_blocking(&3, 2).unwrap_err().reason(), Reason::ExceedsCapacity);
}
