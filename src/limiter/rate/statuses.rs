use std::time::Duration;

use super::state::RateState;
use crate::algorithm::{Algorithm, Balance, When};
use crate::clock::Clock;
use crate::core::Limit;
use crate::core::fast_path::{FastPath, Stored};
use crate::types::{LimitStatus, Policy};
use crate::units::{Name, Timestamp};

/// The statuses of the limits of one state: read first, handed out outside of any lock.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(in crate::limiter) struct Statuses {
    first: Option<One>,
    more: Vec<One>,
}

#[cfg_attr(test, derive(Debug, PartialEq))]
struct One {
    policy: Policy,
    remaining: u64,
    reset_after: Option<Duration>,
}

impl One {
    fn new(policy: Policy, balance: Balance, now: Timestamp) -> Self {
        let reset_after = match balance.full {
            When::At(at) => Some(at.since(now)),
            When::Never => None,
        };
        Self { policy, remaining: balance.remaining, reset_after }
    }
}

impl Statuses {
    /// At `at` where that needs no lock; else now.
    pub(super) fn seen<A: Stored, C: Clock>(limit: &Limit<RateState<A>, C>, at: Timestamp) -> Self {
        match limit.fast().status(at) {
            Some((policy, balance)) => Self { first: Some(One::new(policy, balance, at)), more: Vec::new() },
            None => limit.with_state(RateState::statuses),
        }
    }

    pub(in crate::limiter) fn of<A: Algorithm>(algorithm: &A, state: &mut A::State, now: Timestamp) -> Self {
        let mut all = Self::default();
        algorithm.each(state, now, &mut |policy, balance| {
            let one = One::new(policy, balance, now);
            match all.first {
                None => all.first = Some(one),
                Some(_) => all.more.push(one),
            }
        });
        all
    }

    pub(in crate::limiter) fn tell(&self, name: Option<&Name>, visit: &mut dyn FnMut(&LimitStatus)) {
        for one in self.first.iter().chain(&self.more) {
            visit(&LimitStatus::new(name.cloned(), one.policy, one.remaining, one.reset_after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::limiter::rate::TokenBucket;
    use crate::units::Quota;

    /// Planted: a word that is read without its anchor, and a backlog of which half is forgotten.
    #[test]
    fn what_is_seen_without_the_lock_is_what_the_lock_shows() {
        let quotas = [
            Quota::per_second(3).burst(7),
            Quota::per_second(1_000_000_007).burst(10),
            Quota::per_second(7_000_000_000).burst(70_000_000_000),
            Quota::per_day(1),
            Quota::once(5),
        ];
        for quota in quotas {
            let clock = ManualClock::new();
            let bucket = TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
            for step in 0..300_u64 {
                clock.advance(Duration::from_nanos(step * step * 7_919));
                match step % 7 {
                    0 => bucket.charge(step % 11),
                    _ => drop(bucket.check(1 + step % 3)),
                }
                let now = clock.now();
                assert!(bucket.limit.fast().status(now).is_some(), "nobody waits, and the fast path is open");
                let seen = Statuses::seen(&bucket.limit, now);
                assert_eq!(seen, bucket.limit.with_state(RateState::statuses), "{quota}, step {step}");
            }
        }
    }
}
