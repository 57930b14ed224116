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
use std::task::{Context, Poll};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::RateLimitingMiddleware;
use governor::state::keyed::KeyedStateStore;
use governor::state::{DirectStateStore, NotKeyed};
use governor::{NotUntil, RateLimiter};

use super::{Limiter, Permit, TryLimiter};
use crate::clock::{Armed, Clock, DefaultClock, Timer};
use crate::decision::{Ask, Denied, Error, Reason};
use crate::units::{Cost, Timestamp};

/// Looks at governor's limiter: the wait, if it refuses, or `None` when no wait would help.
type Look = dyn Fn() -> Result<(), Option<Duration>> + Send + Sync;

/// The wait for a [`GovernorPermit`]. Cancel-safe: nothing is taken before it answers.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireGovernor {
    look: Box<Look>,
    units: Cost,
    deadline: Option<Timestamp>,
    timer: Option<<DefaultClock as Clock>::Timer>,
}

/// Proof that governor let one act. Its charge stands whatever is done with it.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it"]
pub struct GovernorPermit {
    units: Cost,
}

impl Permit for GovernorPermit {
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
        Self { look, units: ask.units(), deadline, timer: None }
    }
}

impl Future for AcquireGovernor {
    type Output = Result<GovernorPermit, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let clock = DefaultClock::default();
        loop {
            let wait = match (self.look)() {
                Ok(()) => return Poll::Ready(Ok(GovernorPermit { units: self.units })),
                Err(Some(wait)) => wait,
                Err(None) => return Poll::Ready(Err(Denied::new(Reason::ExceedsCapacity).into())),
            };
            let denied = |reason| Poll::Ready(Err(Denied::new(reason).after(Some(wait)).into()));
            let at = clock.now().after(wait);
            if self.deadline.is_some_and(|deadline| at > deadline) {
                return denied(Reason::Exhausted);
            }
            let here = self.timer.as_ref().is_some_and(Timer::is_here);
            let Some(mut timer) = self.timer.take().filter(|_| here).or_else(|| clock.timer()) else {
                return denied(Reason::NoTimer);
            };
            match timer.arm(at, cx.waker()) {
                Armed::Set => {
                    self.timer = Some(timer);
                    return Poll::Pending;
                }
                // Gone: made anew in the runtime this is polled in.
                Armed::Due | Armed::Gone => {}
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
}

impl<S, C, MW> TryLimiter for Arc<RateLimiter<NotKeyed, S, C, MW>>
where
    S: DirectStateStore + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    fn try_acquire(&self, _key: &(), cost: Cost) -> Result<GovernorPermit, Denied> {
        look_direct(self, cost).map(|()| GovernorPermit { units: cost }).map_err(refusal)
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
}

impl<K, S, C, MW> TryLimiter<K> for Arc<RateLimiter<K, S, C, MW>>
where
    K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
    S: KeyedStateStore<K> + Send + Sync + 'static,
    C: GovernorClock + Send + Sync + 'static,
    MW: RateLimitingMiddleware<C::Instant, NegativeOutcome = NotUntil<C::Instant>> + Send + Sync + 'static,
{
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<GovernorPermit, Denied> {
        look_keyed(self, key, cost).map(|()| GovernorPermit { units: cost }).map_err(refusal)
    }
}
