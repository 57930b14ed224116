//! No limit, where a limiter is called for.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use super::{Compose, Limiter, Part, Permit};
use crate::core::Members;
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// Admits everything at once: what stands where a limiter is called for and none is meant.
///
/// ```
/// use tollgate::{Limiter, Unlimited};
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

    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Free, Denied> {
        Ok(Free { cost })
    }

    fn status(&self, _key: &K, _visit: &mut dyn FnMut(&LimitStatus)) {}
}

impl<K: ?Sized> Compose<K> for Unlimited {
    type Part = Free;

    fn part(&self, _key: &K, cost: Cost) -> Free {
        Free { cost }
    }
}

/// Nothing has to be taken: the ask is the permit.
impl Part for Free {
    type Permit = Self;
    type Fault = Infallible;

    fn now(&self) -> Option<Timestamp> {
        None
    }

    fn peek(&self) -> Result<(), Denied> {
        Ok(())
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Self, Error>> {
        Poll::Ready(Ok(*self))
    }

    fn enlist(&mut self, _members: &mut Members) -> Result<(), Denied> {
        Ok(())
    }
}

/// A permit of [`Unlimited`]: nothing was taken for it, and nothing can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct Free {
    cost: Cost,
}

impl Permit for Free {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        self.cost
    }

    fn settle(self, _actual: Cost) {}
}
