//! No limit, where a limiter is called for.

use std::convert::Infallible;
use std::future::{Ready, ready};

use super::{Limiter, Now, Permit, TryLimiter};
use crate::decision::{Ask, Denied, Error};
use crate::units::Cost;

/// Admits everything at once: what stands where a limiter is called for and none is meant.
///
/// ```
/// use tollgate::{TryLimiter, Unlimited};
/// assert!(Unlimited.try_acquire(&"anybody", 1_000_000.into()).is_ok());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to add to no limit")]
pub struct Unlimited;

impl<K: ?Sized> Limiter<K> for Unlimited {
    type Permit = Free;
    type Fault = Infallible;
    type Acquire = Ready<Result<Free, Error>>;

    fn acquire(&self, _key: &K, ask: Ask) -> Self::Acquire {
        ready(Ok(Free { cost: ask.units() }))
    }

    #[inline]
    fn answers_now(&self) -> bool {
        true
    }

    #[inline]
    fn acquire_now(&self, _key: &K, cost: Cost, use_permit: bool) -> Now<Free> {
        Some(Ok(use_permit.then_some(Free { cost })))
    }
}

impl<K: ?Sized> TryLimiter<K> for Unlimited {
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Free, Denied> {
        Ok(Free { cost })
    }
}

/// A permit of [`Unlimited`]: nothing was taken for it, and nothing can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct Free {
    cost: Cost,
}

impl Permit for Free {
    fn cost(&self) -> Cost {
        self.cost
    }

    fn settle(self, _actual: Cost) {}
}
