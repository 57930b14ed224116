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
    /// Of the thread that asked: its count is on a cache line that no other thread needs.
    pub(super) stripe: Arc<Stripe<C>>,
    pub(super) taken: Taken,
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
        Limiter::<()>::status(&self.stripe.limiter, &(), &mut |status| visit(&with_held(status, held)));
    }
}

/// The status with so many units more left, up to the capacity.
pub(super) fn with_held(status: &LimitStatus, held: u64) -> LimitStatus {
    let remaining = status.remaining.saturating_add(held).min(status.policy.limit);
    LimitStatus { remaining, ..status.clone() }
}

impl<C: Clock> fmt::Debug for StripedPermit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripedPermit").field("taken", &self.taken).finish_non_exhaustive()
    }
}
