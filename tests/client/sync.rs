//! Budgets told by answers that come late and out of order, of calls that are decided late and out of order: the server
//! never has to refuse.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::client::{Guard, Guarded, Unit};
use tollgate::{Free, Limiter, ManualClock};

use crate::guard::{budget, told};

const WINDOW_MS: u64 = 1_000;

struct Call {
    decided_at: u64,
    answered_at: u64,
    /// What the server said: what was left, and when it said so.
    said: Option<(u64, u64)>,
    permit: Guarded<Free, ManualClock>,
}

/// A strict server of fixed windows, decided after the way there and told after the way back.
fn run(limit: u64, ways: &[(u64, u64)], windows: u64) -> (u64, Vec<u64>) {
    let clock = ManualClock::new();
    let guard = Guard::learning_builder().clock(clock.clone()).jitter_percent(0).build().unwrap();
    let mut ways = ways.iter().cycle();
    let mut calls: Vec<Call> = Vec::new();
    let (mut refused, mut served) = (0, vec![0; windows as usize]);
    for now in 0..windows * WINDOW_MS {
        clock.set(tollgate::Timestamp::from_ns(now * 1_000_000));
        for call in calls.iter_mut().filter(|call| call.decided_at == now) {
            let in_window = &mut served[(now / WINDOW_MS) as usize];
            if *in_window < limit {
                *in_window += 1;
            } else {
                refused += 1;
            }
            call.said = Some((limit - *in_window, now));
        }
        let (answered, under_way): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|call| call.answered_at == now);
        calls = under_way;
        for mut call in answered {
            let (remaining, said_at) = call.said.unwrap();
            let reset = WINDOW_MS - said_at % WINDOW_MS;
            call.permit.observe(&told(budget(
                Unit::Requests,
                limit,
                remaining,
                Duration::from_millis(reset),
            )));
        }
        while let Ok(permit) = Limiter::<()>::try_acquire(&guard, &(), 1.into()) {
            let (there, back) = *ways.next().unwrap();
            let decided_at = now + there;
            calls.push(Call { decided_at, answered_at: decided_at + back, said: None, permit });
        }
    }
    (refused, served)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_server_never_has_to_refuse_and_is_used(
        limit in 3_u64..30,
        ways in prop::collection::vec((1_u64..120, 1_u64..120), 1..40),
    ) {
        let (refused, served) = run(limit, &ways, 8);
        prop_assert_eq!(refused, 0);
        // The first window is that of finding out; what remains of the others is all used.
        for served in &served[1..7] {
            prop_assert_eq!(*served, limit);
        }
    }
}
