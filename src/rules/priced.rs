//! A rule's own price and patience, in place of the layer's.

use std::time::Duration;

use crate::decision::{Ask, Standing};
use crate::limiter::{Census, Limiter};
use crate::units::Cost;

/// Asks for `cost` units where one is asked for, and waits for at most `wait`.
pub(super) struct Priced<L> {
    limiter: L,
    cost: Cost,
    wait: Duration,
}

impl<L> Priced<L> {
    pub(super) const fn new(limiter: L, cost: Cost, wait: Duration) -> Self {
        Self { limiter, cost, wait }
    }
}

impl<K: ?Sized, L: Limiter<K>> Limiter<K> for Priced<L> {
    type Permit = L::Permit;
    type Fault = L::Fault;
    type Acquire = L::Acquire;

    fn acquire(&self, key: &K, ask: Ask) -> L::Acquire {
        let units = ask.units().units().saturating_mul(self.cost.units());
        let wait = ask.max_wait().map_or(self.wait, |wait| wait.min(self.wait));
        self.limiter.acquire(key, Ask::cost(units).within(wait))
    }

    fn holds(&self) -> bool {
        self.limiter.holds()
    }

    fn report(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        self.limiter.report(key, visit);
    }

    fn census(&self) -> Option<Census> {
        self.limiter.census()
    }
}
