use std::fmt;
use std::sync::Arc;

use super::stripe::{Stripe, Taken};
use crate::clock::{Clock, DefaultClock};
use crate::limiter::{Limiter, Permit};
use crate::types::LimitStatus;
use crate::units::Cost;

/// Proof that one may act once. Dropped, its charge stands. See [`Striped`](crate::Striped) for what a refund is worth.
#[must_use = "a permit stands for the work done under it; a charge alone is `check`"]
pub struct StripedPermit<C: Clock = DefaultClock> {
    /// Of the thread it was taken on: its count is on a line that no other thread needs.
    stripe: Arc<Stripe<C>>,
    taken: Taken,
}

impl<C: Clock> StripedPermit<C> {
    #[inline]
    pub(super) const fn new(stripe: Arc<Stripe<C>>, taken: Taken) -> Self {
        Self { stripe, taken }
    }
}

impl<C: Clock> Permit for StripedPermit<C> {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        Cost::new(self.taken.units())
    }

    fn settle(self, actual: Cost) {
        self.stripe.settle(self.taken, actual.units());
    }

    /// What other threads hold is not counted as left.
    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        let held = self.stripe.held();
        Limiter::<()>::status(&self.stripe.shared.central, &(), &mut |standing| {
            let remaining = standing.remaining.saturating_add(held).min(standing.policy.limit);
            visit(&LimitStatus { remaining, ..standing.clone() });
        });
    }
}

impl<C: Clock> fmt::Debug for StripedPermit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripedPermit").field("taken", &self.taken).finish_non_exhaustive()
    }
}
