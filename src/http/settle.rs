//! What a request turns out to have cost.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::limiter::Permit;
use crate::sync::{AtomicU64, Ordering};
use crate::units::Cost;

/// What a response makes of its request's charge. It takes effect when the body of the response has ended or is
/// dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settle {
    /// The charge stands.
    Keep,
    /// It cost this in place of the estimate; zero gives all of it back.
    Cost(Cost),
    /// One unit for so many bytes of the body, rounded up.
    Bytes {
        /// Bytes for one unit.
        per_unit: NonZeroU64,
    },
}

const UNSET: u64 = u64::MAX;

/// Lets a handler say what its request really cost: in the request's extensions after
/// [`settle_by_handler`](super::HttpLayer::settle_by_handler).
///
/// What is said last before the body of the response has ended counts, in place of what
/// [`settle_with`](super::HttpLayer::settle_with) says.
#[derive(Debug, Clone)]
pub struct Charge(Arc<AtomicU64>);

impl Charge {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(UNSET)))
    }

    /// The request cost this in place of the estimate.
    pub fn settle(&self, actual: impl Into<Cost>) {
        self.0.store(actual.into().units().min(UNSET - 1), Ordering::Relaxed);
    }

    fn settled(&self) -> Option<Cost> {
        match self.0.load(Ordering::Relaxed) {
            UNSET => None,
            units => Some(Cost::new(units)),
        }
    }
}

/// A permit that is settled when it is dropped.
#[derive(Debug)]
pub(super) struct Held<P: Permit> {
    permit: Option<P>,
    pub(super) settle: Settle,
    pub(super) charge: Option<Charge>,
    pub(super) body_bytes: u64,
}

impl<P: Permit> Held<P> {
    pub(super) const fn new(permit: P, charge: Option<Charge>) -> Self {
        Self { permit: Some(permit), settle: Settle::Keep, charge, body_bytes: 0 }
    }
}

impl<P: Permit> Drop for Held<P> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let said = self.charge.as_ref().and_then(Charge::settled);
        let actual = said.or(match self.settle {
            Settle::Keep => None,
            Settle::Cost(cost) => Some(cost),
            Settle::Bytes { per_unit } => Some(Cost::new(self.body_bytes.div_ceil(per_unit.get()))),
        });
        if let Some(actual) = actual {
            permit.settle(actual);
        }
    }
}
