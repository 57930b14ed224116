//! Governor's limiters, as they are: `Arc<governor::RateLimiter>`, direct (a limiter of `()`) and keyed.
//!
//! They wait by the [`DefaultClock`](crate::DefaultClock)'s timers and decide by their own clock. Governor keeps no line:
//! an ask that waits looks again when governor says it may pass, so order is not kept and large costs can wait long.
//! Its permits settle nothing, because governor cannot take back or owe. To put a direct one in front of requests,
//! `.by(|_: &Request| ())`.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::RateLimitingMiddleware;
use governor::state::keyed::KeyedStateStore;
use governor::state::{DirectStateStore, NotKeyed};
use governor::{NotUntil, RateLimiter};

use super::{Compose, Limiter, Part, PartStage, Permit};
use crate::clock::{Clock, DefaultClock, Sleep};
use crate::core::Members;
use crate::types::{Ask, Denied, Error, LimitStatus, Reason};
use crate::units::{Cost, Timestamp};

/// Looks at governor's limiter: the wait, if it refuses, or `None` when no wait would help.
type Look = dyn Fn() -> Result<(), Option<Duration>> + Send + Sync;

/// The wait for a [`GovernorPermit`]. Cancel-safe: nothing is taken before it answers.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireGovernor {
    look: Box<Look>,
    units: Cost,
    deadline: Option<Timestamp>,
    sleep: Option<Sleep>,
}

/// Proof that governor let one act. Its charge stands whatever is done with it.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it"]
pub struct GovernorPermit {
    units: Cost,
}

impl Permit for GovernorPermit {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        self.units
    }

    fn settle(self, _actual: Cost) {}
}

impl fmt::Debug for AcquireGovernor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireGovernor").field("units", &self.units).finish_non_exhaustive()
    }
}

impl AcquireGovernor {
    fn new(ask: Ask, look: Box<Look>) -> Self {
        let deadline = ask.max_wait().map(|wait| DefaultClock::default().now().after(wait));
        Self { look, units: ask.units(), deadline, sleep: None }
    }
}

impl Future for AcquireGovernor {
    type Output = Result<GovernorPermit, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let wait = match (self.look)() {
                Ok(()) => return Poll::Ready(Ok(GovernorPermit { units: self.units })),
                Err(Some(wait)) => wait,
                Err(None) => return Poll::Ready(Err(Denied::new(Reason::ExceedsCapacity).into())),
            };
            let at = DefaultClock::default().now().after(wait);
            if self.deadline.is_some_and(|deadline| at > deadline) {
                return Poll::Ready(Err(Denied::new(Reason::Exhausted).after(Some(wait)).into()));
            }
            // Governor's clock decides: it is asked at each poll, and the sleep only wakes the task.
            let sleep = self.sleep.get_or_insert_with(|| Sleep::new(DefaultClock::default(), wait));
            sleep.reset(wait);
            if !ready!(sleep.poll(cx.waker(), false)) {
                return Poll::Ready(Err(Denied::new(Reason::NoTimer).into()));
            }
        }
    }
}

/// Units as governor counts them; `None` for none, which governor does not know.
fn cells(cost: Cost) -> Result<Option<NonZeroU32>, Option<Duration>> {
    u32::try_from(cost.units()).map(NonZeroU32::new).map_err(|_| None)
}

fn said<P: governor::clock::Reference, G, E>(
    answer: Result<Result<G, NotUntil<P>>, E>,
    now: P,
) -> Result<(), Option<Duration>> {
    match answer {
        Ok(Ok(_)) => Ok(()),
        // At least a nanosecond: governor says when, and that is never now.
        Ok(Err(not_until)) => Err(Some(not_until.wait_time_from(now).max(Duration::from_nanos(1)))),
        Err(_) => Err(None),
    }
}

fn refusal(wait: Option<Duration>) -> Denied {
    let reason = if wait.is_some() { Reason::Exhausted } else { Reason::ExceedsCapacity };
    Denied::new(reason).after(wait)
}

fn look_direct<S, C, MW>(
    limiter: &RateLimiter<NotKeyed, S, C, MW>,
    cost: Cost,
) -> Result<(), Option<Duration>>
where
    S: DirectStateStore,
    C: GovernorClock,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>>,
{
    match cells(cost)? {
        Some(cells) => said(limiter.check_n(cells), limiter.clock().now()),
        None => Ok(()),
    }
}

fn look_keyed<K, S, C, MW>(
    limiter: &RateLimiter<K, S, C, MW>,
    key: &K,
    cost: Cost,
) -> Result<(), Option<Duration>>
where
    K: std::hash::Hash + Eq + Clone,
    S: KeyedStateStore<K>,
    C: GovernorClock,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>>,
{
    match cells(cost)? {
        Some(cells) => said(limiter.check_key_n(key, cells), limiter.clock().now()),
        None => Ok(()),
    }
}

impl<S, C, MW> Limiter for Arc<RateLimiter<NotKeyed, S, C, MW>>
where
    S: DirectStateStore + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    type Permit = GovernorPermit;
    type Fault = Infallible;
    type Acquire = AcquireGovernor;

    fn acquire(&self, _key: &(), ask: Ask) -> AcquireGovernor {
        let limiter = Self::clone(self);
        AcquireGovernor::new(ask, Box::new(move || look_direct(&limiter, ask.units())))
    }

    fn try_acquire(&self, _key: &(), cost: Cost) -> Result<GovernorPermit, Denied> {
        look_direct(self, cost).map(|()| GovernorPermit { units: cost }).map_err(refusal)
    }

    fn status(&self, _key: &(), _visit: &mut dyn FnMut(&LimitStatus)) {}
}

impl<S, C, MW> Compose for Arc<RateLimiter<NotKeyed, S, C, MW>>
where
    S: DirectStateStore + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    type Part = GovernorPart;

    fn part(&self, _key: &(), cost: Cost) -> GovernorPart {
        let limiter = Self::clone(self);
        GovernorPart { look: Box::new(move || look_direct(&limiter, cost)), cost }
    }
}

impl<K, S, C, MW> Limiter<K> for Arc<RateLimiter<K, S, C, MW>>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    S: KeyedStateStore<K> + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    type Permit = GovernorPermit;
    type Fault = Infallible;
    type Acquire = AcquireGovernor;

    fn acquire(&self, key: &K, ask: Ask) -> AcquireGovernor {
        let (limiter, key) = (Self::clone(self), key.clone());
        AcquireGovernor::new(ask, Box::new(move || look_keyed(&limiter, &key, ask.units())))
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<GovernorPermit, Denied> {
        look_keyed(self, key, cost).map(|()| GovernorPermit { units: cost }).map_err(refusal)
    }

    fn status(&self, _key: &K, _visit: &mut dyn FnMut(&LimitStatus)) {}
}

impl<K, S, C, MW> Compose<K> for Arc<RateLimiter<K, S, C, MW>>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    S: KeyedStateStore<K> + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    type Part = GovernorPart;

    fn part(&self, key: &K, cost: Cost) -> GovernorPart {
        let (limiter, key) = (Self::clone(self), key.clone());
        GovernorPart { look: Box::new(move || look_keyed(&limiter, &key, cost)), cost }
    }
}

/// An ask to one of governor's limiters: taken last, because governor gives nothing back.
pub struct GovernorPart {
    look: Box<Look>,
    cost: Cost,
}

impl Part for GovernorPart {
    type Permit = GovernorPermit;
    type Fault = Infallible;

    fn stage(&self) -> PartStage {
        PartStage::Last
    }

    fn now(&self) -> Option<Timestamp> {
        Some(DefaultClock::default().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        Ok(())
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<GovernorPermit, Error>> {
        let taken = (self.look)().map(|()| GovernorPermit { units: self.cost });
        Poll::Ready(taken.map_err(|wait| refusal(wait).into()))
    }

    fn enlist(&mut self, _members: &mut Members) -> Result<(), Denied> {
        Ok(())
    }
}

impl fmt::Debug for GovernorPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GovernorPart").field("cost", &self.cost).finish_non_exhaustive()
    }
}
