use std::time::Duration;

use crate::algorithm::{Algorithm, When};
use crate::decision::{Policy, Standing};
use crate::units::{Name, Timestamp};

/// Where the limits of one state stand: taken under the lock, told outside of it.
#[derive(Default)]
pub(in crate::limiter) struct Standings {
    first: Option<One>,
    more: Vec<One>,
}

struct One {
    policy: Policy,
    remaining: u64,
    reset_after: Option<Duration>,
}

impl Standings {
    pub(in crate::limiter) fn of<A: Algorithm>(algorithm: &A, state: &mut A::State, now: Timestamp) -> Self {
        let mut all = Self::default();
        algorithm.each(state, now, &mut |policy, balance| {
            let reset_after = match balance.full {
                When::At(at) => Some(at.since(now)),
                When::Never => None,
            };
            let one = One { policy, remaining: balance.remaining, reset_after };
            match all.first {
                None => all.first = Some(one),
                Some(_) => all.more.push(one),
            }
        });
        all
    }

    pub(in crate::limiter) fn tell(&self, name: Option<&Name>, visit: &mut dyn FnMut(&Standing)) {
        for one in self.first.iter().chain(&self.more) {
            visit(&Standing::new(name.cloned(), one.policy, one.remaining, one.reset_after));
        }
    }
}
