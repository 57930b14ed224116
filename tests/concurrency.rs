//! Slots that are spread over stripes are slots all the same.

use proptest::prelude::*;
use tollgate::{Concurrency, Permit};

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
