//! Cancel at any point loses nothing, and nobody goes while there is a hold.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use tollgate::client::{AcquireGuarded, Guarded, Unit};
use tollgate::{
    And, AndPermit, Ask, Concurrency, Limiter, LimiterExt, ManualClock, Permit, Quota, RatePermit, Slots,
    TokenBucket, algorithm,
};

use crate::guard::{budget, plain, poll, secs, throttle, told};

#[derive(Debug, Clone)]
enum Step {
    Ask(Option<u64>),
    Poll(prop::sample::Index),
    GiveUp(prop::sample::Index),
    End(prop::sample::Index),
    Refund(prop::sample::Index),
    Told(prop::sample::Index, u64),
    Throttled(prop::sample::Index, u64),
    Hold(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => prop::option::of(0_u64..8_000).prop_map(Ask),
        6 => index().prop_map(Poll),
        2 => index().prop_map(GiveUp),
        3 => index().prop_map(End),
        1 => index().prop_map(Refund),
        1 => (index(), 0_u64..10).prop_map(|(which, left)| Told(which, left)),
        1 => (index(), 1_u64..9_000).prop_map(|(which, ms)| Throttled(which, ms)),
        1 => (0_u64..5_000).prop_map(Hold),
        4 => (1_u64..5_000).prop_map(Pass),
    ]
}

const RATE: u64 = 2;
const BURST: u64 = 5;
const SLOTS: u64 = 3;

type Limits = And<(TokenBucket<ManualClock>, Concurrency<ManualClock>)>;
type Held = AndPermit<(RatePermit<algorithm::TokenBucket, ManualClock>, Slots<ManualClock>)>;

fn remove<T>(from: &mut Vec<T>, which: &prop::sample::Index) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which.index(from.len())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_lost_and_nothing_slips_through(steps in prop::collection::vec(step(), 1..120)) {
        let clock = ManualClock::new();
        let rate = TokenBucket::builder(Quota::per_second(RATE).burst(BURST)).clock(clock.clone()).build().unwrap();
        let slots = Concurrency::builder(SLOTS).clock(clock.clone()).build().unwrap();
        let guard = plain(rate.clone().and(slots.clone()), &clock);
        let mut waiting: Vec<Pin<Box<AcquireGuarded<Limits, ManualClock>>>> = Vec::new();
        let mut held: Vec<Guarded<Held, ManualClock>> = Vec::new();
        for step in steps {
            match step {
                Step::Ask(None) => waiting.push(Box::pin(guard.acquire(1))),
                Step::Ask(Some(ms)) => {
                    waiting.push(Box::pin(guard.acquire(Ask::ONE.within(Duration::from_millis(ms)))));
                }
                Step::Poll(which) if !waiting.is_empty() => {
                    let index = which.index(waiting.len());
                    let held_for = guard.held_for();
                    if let Poll::Ready(answer) = poll(&mut waiting[index]) {
                        drop(waiting.remove(index));
                        if let Ok(permit) = answer {
                            prop_assert_eq!(held_for, Duration::ZERO, "nobody goes in a hold");
                            held.push(permit);
                        }
                    }
                }
                Step::Poll(_) => {}
                Step::GiveUp(which) => drop(remove(&mut waiting, &which)),
                Step::End(which) => drop(remove(&mut held, &which)),
                Step::Refund(which) => {
                    if let Some(permit) = remove(&mut held, &which) {
                        permit.refund();
                    }
                }
                Step::Told(which, left) if !held.is_empty() => {
                    let index = which.index(held.len());
                    held[index].observe(&told(budget(Unit::Requests, 10, left, secs(5))));
                }
                Step::Throttled(which, ms) if !held.is_empty() => {
                    let index = which.index(held.len());
                    held[index].observe(&throttle(Duration::from_millis(ms)));
                }
                Step::Told(..) | Step::Throttled(..) => {}
                Step::Hold(ms) => guard.hold(Duration::from_millis(ms)),
                Step::Pass(ms) => clock.advance(Duration::from_millis(ms)),
            }
            prop_assert!(held.len() as u64 <= SLOTS);
        }
        drop(waiting);
        drop(held);
        prop_assert_eq!(guard.waiting(), 0);
        clock.advance(secs(600));
        prop_assert_eq!((rate.snapshot().remaining, rate.snapshot().waiting), (BURST, 0));
        prop_assert_eq!((slots.snapshot().remaining, slots.snapshot().waiting), (SLOTS, 0));
        // Whatever was told and learnt is long over or lets one go.
        prop_assert!(Limiter::<()>::try_acquire(&guard, &(), 1.into()).is_ok());
    }
}
