//! A rate limiter as the limiter of a key.

use super::store::KeyLimiter;
use super::table::Spent;
use crate::algorithm::{Grant, TokenBucket};
use crate::clock::Clock;
use crate::core::fast_path::{Flattened, Sealed};
use crate::limiter::rate::Template;
use crate::limiter::{Compose, Limiter, Part, RateLimiter, RatePermit, Stored};
use crate::types::{Denied, LimitStatus, Snapshot};
use crate::units::{Cost, Name};

impl<A: Stored, C: Clock> KeyLimiter for RateLimiter<A, C> {
    type Clock = C;
    type Template = Template<A, C>;
    type Quota = A;
    type Permit = RatePermit<A, C>;

    fn new(template: &Template<A, C>, algorithm: &A) -> Self {
        Self::from_template(&template.with(algorithm.clone()))
    }

    fn clock(template: &Template<A, C>) -> &C {
        &template.options.clock
    }

    fn name(template: &Template<A, C>) -> Option<&Name> {
        template.options.name.as_ref()
    }

    fn take(&self, units: u64) -> Result<RatePermit<A, C>, Denied> {
        self.try_acquire(units)
    }

    fn peek(&self, units: u64) -> Result<(), Denied> {
        Compose::<()>::part(self, &(), Cost::new(units)).peek()
    }

    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        Limiter::<()>::status(self, &(), visit);
    }

    fn charge(&self, units: u64) {
        Self::charge(self, units);
    }

    fn is_fresh(&self) -> bool {
        Self::is_fresh(self)
    }

    fn change(&self, number: u64, algorithm: A) {
        self.change_numbered(number, algorithm);
    }

    fn bucket(template: &Template<A, C>, algorithm: &A) -> Option<TokenBucket> {
        // A slot has no debts to lend.
        A::flat(Sealed(()), algorithm).filter(|_| !template.lends).map(|flat| flat.bucket)
    }

    fn resume(template: &Template<A, C>, algorithm: &A, spent: &Spent) -> Self {
        match A::flat(Sealed(()), algorithm) {
            Some(Flattened { restore, .. }) => {
                let (algorithm, state) = restore(spent.bucket, spent.state());
                Self::resumed(&template.with(algorithm), state, spent.now)
            }
            None => <Self as KeyLimiter>::new(template, algorithm),
        }
    }

    fn give_back(&self, grant: Grant, units: u64) {
        self.limit.give_back(grant, units);
    }
}
