//~ `Mine` cannot be a member of a composition about `()`
//~ wrap a limiter of your own in `Awaited::new(limiter)`
use std::convert::Infallible;
use std::future::{Ready, ready};
use tollgate::{
    Ask, Compose, Cost, Denied, Error, Free, LimitStatus, Limiter, LimiterExt, Quota, TokenBucket, Unlimited,
};
struct Mine;
impl LimiterExt for Mine {}
impl Limiter for Mine {
    type Permit = Free;
    type Fault = Infallible;
    type Acquire = Ready<Result<Free, Error>>;
    fn acquire(&self, _: &(), ask: Ask) -> Self::Acquire {
        ready(Limiter::<()>::try_acquire(&Unlimited, &(), ask.units()).map_err(Error::Denied))
    }
    fn try_acquire(&self, _: &(), cost: Cost) -> Result<Free, Denied> {
        Limiter::<()>::try_acquire(&Unlimited, &(), cost)
    }
    fn status(&self, _: &(), _: &mut dyn FnMut(&LimitStatus)) {}
}
fn composes<L: Compose>(_: L) {}
fn main() {
    composes(TokenBucket::new(Quota::per_second(5)).unwrap().and(Mine));
}
