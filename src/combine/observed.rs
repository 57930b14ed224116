//! What a limit does, as metrics and events.

#[cfg(feature = "tracing")]
mod events;
#[cfg(feature = "metrics")]
mod meters;
mod sample;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use crate::clock::{Clock, DefaultClock};
use crate::core::Members;
use crate::limiter::{Compose, Limiter, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, KeyStats, LimitStatus};
use crate::units::{Cost, Name, Timestamp};
use sample::Sample;

/// A limit that is watched. Made by [`observed`](crate::LimiterExt::observed).
///
/// With the feature `metrics` it counts through the [`metrics`](https://docs.rs/metrics) facade, each by the label
/// `limit`, never by key:
///
/// | name | kind | what |
/// |---|---|---|
/// | `tollgate_admitted_total` | counter | asks that were admitted |
/// | `tollgate_near_total` | counter | of these, the ones that left at most a fifth of the limit |
/// | `tollgate_refused_total` | counter | asks that were refused, by the label `reason` |
/// | `tollgate_shadow_refused_total` | counter | asks that a limit on trial would have refused |
/// | `tollgate_faults_total` | counter | asks about which the limiter could not decide |
/// | `tollgate_wait_seconds` | histogram | how long those waited that did and were admitted |
/// | `tollgate_keys` | gauge | keys with a state, once a second |
/// | `tollgate_keys_evicted_total` | counter | keys dropped because their state was as new, once a second |
/// | `tollgate_keys_refused_total` | counter | newcomers that found no room, once a second |
///
/// It counts decisions. Around one member of a [composition](crate::And) it counts what that member granted, and not
/// what the composition waited for; around the composition it counts asks.
///
/// With the feature `tracing` refusals are events of level `DEBUG` and faults of level `WARN`, under the target
/// `tollgate`: at most one each second of each kind and limit, which says how many there were since the one before.
#[derive(Debug)]
pub struct Observed<L> {
    limiter: L,
    watch: Arc<Watch>,
}

impl<L: Clone> Clone for Observed<L> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), watch: Arc::clone(&self.watch) }
    }
}

impl<L> Observed<L> {
    pub(super) fn new(limiter: L, name: Name) -> Self {
        Self { limiter, watch: Arc::new(Watch::new(name)) }
    }

    /// The limiter within.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

/// What is remembered of a limit between two decisions.
#[derive(Debug)]
#[cfg_attr(
    not(all(feature = "metrics", feature = "tracing")),
    allow(dead_code, reason = "each of the two features reads its part")
)]
pub(crate) struct Watch {
    name: Name,
    clock: DefaultClock,
    refusals: Sample,
    faults: Sample,
    keys: Sample,
}

/// How a decision ended.
#[cfg_attr(
    not(all(feature = "metrics", feature = "tracing")),
    allow(dead_code, reason = "each of the two features reads its part")
)]
pub(crate) enum Outcome<'a> {
    Admitted { near: bool, waited: Option<Duration>, shadowed: Option<&'a Denied> },
    Refused(&'a Denied),
    Fault,
}

impl Watch {
    pub(crate) fn new(name: Name) -> Self {
        let (refusals, faults, keys) = (Sample::default(), Sample::default(), Sample::default());
        Self { name, clock: DefaultClock::default(), refusals, faults, keys }
    }

    pub(crate) fn record(&self, outcome: &Outcome<'_>) {
        #[cfg(feature = "metrics")]
        meters::count(&self.name, outcome);
        #[cfg(feature = "tracing")]
        match outcome {
            Outcome::Refused(denied) => {
                if let Some(more) = self.refusals.due(self.clock.now()) {
                    events::refused(&self.name, denied, more);
                }
            }
            Outcome::Fault => {
                if let Some(more) = self.faults.due(self.clock.now()) {
                    events::fault(&self.name, more);
                }
            }
            Outcome::Admitted { .. } => {}
        }
    }

    /// Once a second, the numbers of keys.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "only meters count keys"))]
    pub(crate) fn count_keys(&self, stats: impl FnOnce() -> Option<KeyStats>) {
        #[cfg(feature = "metrics")]
        if self.keys.due(self.clock.now()).is_some() {
            if let Some(stats) = stats() {
                meters::keys(&self.name, stats);
            }
        }
    }
}

impl<L> Observed<L> {
    /// Tells if `cost` would leave at most a fifth of any limit. Asked before the decision, while the key is at hand.
    fn is_near<K: ?Sized>(&self, key: &K, cost: Cost) -> bool
    where
        L: Limiter<K>,
    {
        let (mut near, mut keys) = (false, None::<KeyStats>);
        if cfg!(feature = "metrics") {
            self.limiter.status(key, &mut |status| {
                let left = status.remaining.saturating_sub(cost.units());
                near |= left <= status.policy.limit / 5;
                keys = keys.or(status.keys);
            });
            self.watch.count_keys(|| keys);
        }
        near
    }
}

impl Watch {
    fn record_try<P: Permit>(&self, answer: &Result<P, Denied>, near: bool) {
        self.record(&match answer {
            Ok(permit) => Outcome::Admitted { near, waited: None, shadowed: permit.shadowed() },
            Err(denied) => Outcome::Refused(denied),
        });
    }
}

impl<K: ?Sized, L: Limiter<K>> Limiter<K> for Observed<L> {
    type Permit = L::Permit;
    type Fault = L::Fault;
    type Acquire = AcquireObserved<L::Acquire>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        let near = self.is_near(key, ask.units());
        let acquire = self.limiter.acquire(key, ask);
        AcquireObserved { acquire, watch: Arc::clone(&self.watch), near, since: None }
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        let near = self.is_near(key, cost);
        let answer = self.limiter.try_acquire(key, cost);
        self.watch.record_try(&answer, near);
        answer
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.limiter.status(key, visit);
    }
}

impl<K: ?Sized, L: Compose<K>> Compose<K> for Observed<L> {
    type Part = ObservedPart<L::Part>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        let near = self.is_near(key, cost);
        ObservedPart { part: self.limiter.part(key, cost), watch: Arc::clone(&self.watch), near }
    }
}

/// An ask to an [`Observed`] limit.
#[derive(Debug)]
pub struct ObservedPart<P> {
    part: P,
    watch: Arc<Watch>,
    near: bool,
}

impl<P: Part> Part for ObservedPart<P> {
    type Permit = P::Permit;
    type Fault = P::Fault;

    fn stage(&self) -> PartStage {
        self.part.stage()
    }

    fn now(&self) -> Option<Timestamp> {
        self.part.now()
    }

    fn peek(&self) -> Result<(), Denied> {
        self.part.peek()
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        self.part.peek_rest()
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<P::Permit, Error<P::Fault>>> {
        let answer = ready!(self.part.poll_take(cx));
        self.watch.record(&Outcome::of(&answer, self.near, None));
        Poll::Ready(answer)
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.part.enlist(members)
    }
}

impl<'a> Outcome<'a> {
    fn of<P: Permit, F>(answer: &'a Result<P, Error<F>>, near: bool, waited: Option<Duration>) -> Self {
        match answer {
            Ok(permit) => Self::Admitted { near, waited, shadowed: permit.shadowed() },
            Err(Error::Denied(denied)) => Self::Refused(denied),
            Err(Error::Fault(_)) => Self::Fault,
        }
    }
}

/// The wait for a permit of an [`Observed`] limit. Cancel-safe as the limiter within is; a wait that is given up counts
/// as nothing.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireObserved<A> {
    #[pin]
    acquire: A,
    watch: Arc<Watch>,
    near: bool,
    /// When it had to wait first.
    since: Option<Timestamp>,
}

impl<A, P, F> Future for AcquireObserved<A>
where
    A: Future<Output = Result<P, Error<F>>>,
    P: Permit,
{
    type Output = Result<P, Error<F>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.acquire.poll(cx);
        if polled.is_pending() && this.since.is_none() {
            *this.since = Some(this.watch.clock.now());
        }
        let answer = ready!(polled);
        let waited = this.since.map(|since| this.watch.clock.now().since(since));
        this.watch.record(&Outcome::of(&answer, *this.near || waited.is_some(), waited));
        Poll::Ready(answer)
    }
}

impl<A> fmt::Debug for AcquireObserved<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireObserved").field("limit", &self.watch.name).finish_non_exhaustive()
    }
}
