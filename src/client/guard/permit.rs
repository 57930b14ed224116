//! The proof that a call may be made, and what its answer says.

use std::fmt;
use std::sync::Arc;

use super::Told;
use super::calls::Pass;
use super::state::GuardState;
use crate::client::tells::Tells;
use crate::client::usage::Usage;
use crate::clock::{Clock, DefaultClock};
use crate::core::Limit;
use crate::limiter::Permit;
use crate::types::{Denied, LimitStatus};
use crate::units::Cost;

/// Proof that a call may be made now. Hold it until the call is over, and tell it the answer.
///
/// Dropped, the call is over: slots are free, the charge of rates stands. One that is dropped without an answer has
/// taught the guard nothing, and its estimate stands.
#[must_use = "a permit stands for the call made under it: hold it until the call is over, and let it observe the answer"]
pub struct Guarded<P, C: Clock = DefaultClock> {
    limit: Arc<Limit<GuardState, C>>,
    told: Arc<Told>,
    pass: Pass,
    /// Gone once it has been settled.
    permit: Option<P>,
    /// `true` if what was answered so far says that the call failed.
    failed: Option<bool>,
}

impl<P, C: Clock> Guarded<P, C> {
    pub(super) const fn new(
        limit: Arc<Limit<GuardState, C>>,
        told: Arc<Told>,
        pass: Pass,
        permit: P,
    ) -> Self {
        Self { limit, told, pass, permit: Some(permit), failed: None }
    }

    /// What was reserved for the call.
    #[must_use]
    pub const fn reserved(&self) -> Usage {
        self.pass.usage()
    }

    /// Takes in what the answer says: everybody who shares the guard obeys it from now on. Once for each answer; what
    /// comes in two parts, as gRPC's head and trailers, in two.
    pub fn observe<T: Tells + ?Sized>(&mut self, answer: &T) {
        if let Some(signals) = answer.signals(self.told.profile, self.limit.clock().unix_now()) {
            self.failed = Some(self.failed == Some(true) || signals.failed);
            super::answered(&self.limit, &self.told, Some(&self.pass), &signals);
        }
    }

    /// The call is over and took this much, in place of what was reserved: more becomes a debt that later calls wait for,
    /// less is given back. Later estimates go by it. Without this the reservation stands.
    pub fn settle_usage(self, actual: Usage) {
        self.limit.change(|state, now| state.settle(now, &self.pass, actual));
    }
}

impl<P, C: Clock> Drop for Guarded<P, C> {
    fn drop(&mut self) {
        if let (Some(retries), Some(false)) = (&self.told.retries, self.failed) {
            retries.succeeded();
        }
        self.limit.improve(|state, _| state.over(&self.pass));
    }
}

impl<P: Permit, C: Clock> Permit for Guarded<P, C> {
    fn cost(&self) -> Cost {
        Cost::new(self.pass.usage().requests)
    }

    /// Settles what the limits hold, and the guard's own quota of requests; zero means that the call was never made.
    fn settle(mut self, actual: Cost) {
        if actual == Cost::ZERO {
            self.limit.give_back(self.pass, self.pass.usage());
        } else {
            self.limit.change(|state, now| state.settle_requests(now, &self.pass, actual.units()));
        }
        if let Some(permit) = self.permit.take() {
            permit.settle(actual);
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.permit.as_ref().and_then(Permit::shadowed)
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Some(permit) = &self.permit {
            permit.status(visit);
        }
    }
}

impl<P, C: Clock> fmt::Debug for Guarded<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("reserved", &self.pass.usage()).finish_non_exhaustive()
    }
}
