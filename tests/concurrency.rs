//! Slots that are spread over stripes are slots all the same.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use proptest::prelude::*;
use tollgate::clock::ManualTimer;
use tollgate::{Clock, Concurrency, ManualClock, Permit, Reason, Timestamp};

#[derive(Debug, Clone, Copy)]
enum Step {
    Take(u64),
    /// The nth of those held.
    Drop(usize),
    Resize(u64),
    /// On another thread, which calls another stripe its own.
    TakeElsewhere(u64),
    DropElsewhere(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u64).prop_map(Step::Take),
        3 => any::<usize>().prop_map(Step::Drop),
        1 => (0..12_u64).prop_map(Step::Resize),
        1 => (0..5_u64).prop_map(Step::TakeElsewhere),
        1 => any::<usize>().prop_map(Step::DropElsewhere),
    ]
}

fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Planted: slots that are put back twice; a stripe that is left out when all are held; a debt that is spread.
    #[test]
    fn what_is_admitted_does_not_depend_on_the_stripes(
        slots in 0..12_u64,
        stripes in 1..6_usize,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let limit = Concurrency::builder(slots).stripes(stripes).build().unwrap();
        let (mut all, mut out) = (slots, 0);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Take(units) | Step::TakeElsewhere(units) => {
                    let fits = units == 0 || (units <= all && out + units <= all);
                    let heard = match step {
                        Step::Take(_) => limit.try_acquire(units),
                        _ => elsewhere(|| limit.try_acquire(units)),
                    };
                    prop_assert_eq!(heard.is_ok(), fits, "{} of {} out, {} asked", out, all, units);
                    out += if fits { units } else { 0 };
                    held.extend(heard);
                }
                Step::Drop(nth) | Step::DropElsewhere(nth) if !held.is_empty() => {
                    let permit = held.swap_remove(nth % held.len());
                    out -= permit.cost().units();
                    match step {
                        Step::Drop(_) => drop(permit),
                        _ => elsewhere(|| drop(permit)),
                    }
                }
                Step::Resize(slots) => {
                    limit.resize(slots);
                    all = slots;
                }
                Step::Drop(_) | Step::DropElsewhere(_) => {}
            }
            let snapshot = limit.snapshot();
            prop_assert_eq!(snapshot.remaining, all.saturating_sub(out));
            prop_assert_eq!(snapshot.debt, out.saturating_sub(all));
        }
    }
}

/// A clock that tells whether a limit still has it.
#[derive(Clone, Default)]
struct Lent {
    clock: ManualClock,
    to: Arc<()>,
}

impl Clock for Lent {
    type Timer = ManualTimer;

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn timer(&self) -> Option<ManualTimer> {
        self.clock.timer()
    }
}

/// All that keeps a limit: a handle, an ask that was never polled, one that waits. A permit does not.
fn all_that_keeps(clock: &Lent, stripes: usize) -> (Vec<Box<dyn Any>>, [tollgate::Slots<Lent>; 2]) {
    let limit = Concurrency::builder(3).stripes(stripes).clock(clock.clone()).build().unwrap();
    let permits = [1, 0].map(|units| limit.try_acquire(units).unwrap());
    let (fresh, mut waiting) = (limit.acquire(1), limit.acquire(3));
    assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    (vec![Box::new(limit), Box::new(fresh), Box::new(waiting)], permits)
}

#[test]
fn a_limit_goes_with_the_last_handle_or_ask_in_whatever_order() {
    for stripes in [1, 4] {
        for order in 0..6 {
            let clock = Lent::default();
            let ((mut kept, permits), mut order) = (all_that_keeps(&clock, stripes), order);
            while !kept.is_empty() {
                assert!(Arc::strong_count(&clock.to) > 1);
                let next = order % kept.len();
                order /= kept.len();
                drop(kept.remove(next));
            }
            assert_eq!(Arc::strong_count(&clock.to), 1);
            drop(permits);
        }
    }
}

#[test]
fn a_permit_tells_the_status_of_its_limit_while_there_is_a_handle() {
    let limit = Concurrency::builder(5).stripes(2).name("first").build().unwrap();
    let permits = [limit.try_acquire(2).unwrap(), limit.try_acquire(0).unwrap()];
    let told = || {
        let mut told = Vec::new();
        permits.iter().for_each(|permit| permit.status(&mut |status| told.push(status.clone())));
        told.into_iter().map(|status| (status.limit.unwrap().as_str().to_owned(), status.remaining))
    };
    assert!(told().eq([("first".to_owned(), 3), ("first".to_owned(), 3)]));
    drop(limit);
    assert_eq!(told().count(), 0);
    drop(permits);
}

#[test]
fn more_slots_than_the_words_hold_are_had_all_the_same() {
    const PART: u64 = 1 << 23;
    for stripes in [1, 2] {
        let limit = Concurrency::builder(9 * PART).stripes(stripes).build().unwrap();
        let mut held: Vec<_> = (0..9).map(|_| limit.try_acquire(PART).unwrap()).collect();
        assert_eq!(limit.try_acquire(1).unwrap_err().reason(), Reason::Exhausted);
        assert_eq!(limit.try_acquire(9 * PART + 1).unwrap_err().reason(), Reason::ExceedsCapacity);
        held.truncate(4);
        let large = limit.try_acquire(5 * PART).unwrap();
        assert_eq!(limit.snapshot().remaining, 0);
        drop((held, large));
        assert_eq!(limit.snapshot().remaining, 9 * PART);
    }
}

#[test]
fn what_could_never_go_is_told_so_however_the_limit_has_changed() {
    for stripes in [1, 2] {
        let limit = Concurrency::builder(4).stripes(stripes).build().unwrap();
        let held = limit.try_acquire(3).unwrap();
        let reason = |units: u64| limit.try_acquire(units).unwrap_err().reason();
        assert_eq!((reason(2), reason(5)), (Reason::Exhausted, Reason::ExceedsCapacity));
        limit.resize(6);
        assert_eq!((reason(5), reason(7)), (Reason::Exhausted, Reason::ExceedsCapacity));
        limit.resize(3);
        assert_eq!((reason(3), reason(4)), (Reason::Exhausted, Reason::ExceedsCapacity));
        limit.pause();
        assert_eq!(reason(1), Reason::Paused);
        limit.resume();
        limit.close();
        assert_eq!((reason(1), limit.try_acquire(0).unwrap_err().reason()), (Reason::Closed, Reason::Closed));
        drop(held);
    }
}
