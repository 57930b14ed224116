//! Two limits as one, all or nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};

use super::{Census, Limiter, Now, Permit, TryLimiter};
use crate::decision::{Ask, Denied, Error, Standing};
use crate::units::Cost;

/// Both limits, all or nothing. Made by [`and`](super::LimiterExt::and).
///
/// **At the limit** a refusal by either leaves both unspent, names the one that binds longest, and says when both would
/// admit. An ask that waits first asks both on the spot. If one refuses, the joint wait is held against its longest
/// wait and refused at once if it is longer; otherwise the asks wait one after the other, first for what time brings,
/// the longer wait before the shorter, and last for what others must release: no slot is held by an ask that waits for
/// a rate.
///
/// An ask of a pair is two asks of each side, and so on down: put a handful of limits together so, and several windows
/// of one subject by [`RateLimiter::all`](crate::RateLimiter::all).
///
/// Two concurrency limits that several compositions share must stand in the same order in all of them: as with locks,
/// opposite orders can wait for each other.
///
/// ```
/// use tollgate::{Concurrency, LimiterExt, Quota, TokenBucket};
/// let rate = TokenBucket::new(Quota::per_second(100))?;
/// let both = rate.clone().and(Concurrency::new(1));
/// let permit = both.try_acquire(1).expect("both are fresh");
/// assert!(both.try_acquire(1).is_err());
/// assert_eq!(rate.snapshot().remaining, 99); // the refusal spent nothing
/// # drop(permit);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A, B> And<A, B> {
    pub(super) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

/// Limits that look at no key are asked as each alone is. For limits of keys there is [`Limiter`].
impl<A: Limiter, B: Limiter> And<A, B> {
    /// Waits for a permit from both.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the line it stands in; what one of the two
    /// has granted goes back.
    ///
    /// # Errors
    /// As each of the two; or one of them could not decide.
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    pub fn acquire(&self, ask: impl Into<Ask>) -> <Self as Limiter>::Acquire {
        Limiter::acquire(self, &(), ask.into())
    }

    /// Takes a permit from both if they may be had now. Needs no runtime.
    ///
    /// # Errors
    /// The refusal of the one that binds longest.
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<<Self as Limiter>::Permit, Denied>
    where
        A: TryLimiter,
        B: TryLimiter,
    {
        TryLimiter::try_acquire(self, &(), cost.into())
    }
}

/// One of the two could not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there are two")]
pub enum EitherFault<F, G> {
    /// The first could not.
    First(F),
    /// The second could not.
    Second(G),
}

impl<F: fmt::Display, G: fmt::Display> fmt::Display for EitherFault<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(fault) => fault.fmt(f),
            Self::Second(fault) => fault.fmt(f),
        }
    }
}

impl<F: std::error::Error, G: std::error::Error> std::error::Error for EitherFault<F, G> {}

impl<K: ?Sized, A: Limiter<K>, B: Limiter<K>> Limiter<K> for And<A, B> {
    type Permit = BothPermits<A::Permit, B::Permit>;
    type Fault = EitherFault<A::Fault, B::Fault>;
    type Acquire = AcquireBoth<A::Acquire, B::Acquire, A::Permit, B::Permit>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        let try_ask = ask.within(Duration::ZERO);
        AcquireBoth {
            ask,
            holds: (self.first.holds(), self.second.holds()),
            try_first: self.first.acquire(key, try_ask),
            try_second: self.second.acquire(key, try_ask),
            wait_first: self.first.acquire(key, ask),
            wait_second: self.second.acquire(key, ask),
            held: (None, None),
            refused: None,
            stage: Stage::TryFirst,
        }
    }

    #[inline]
    fn answers_now(&self) -> bool {
        self.first.answers_now() && self.second.answers_now()
    }

    fn acquire_now(&self, key: &K, cost: Cost, _use_permit: bool) -> Now<Self::Permit> {
        // Of one that must be awaited the other must not have been asked before.
        if !(self.first.answers_now() && self.second.answers_now()) {
            return None;
        }
        // With permits in any case: what one grants goes back when the other refuses.
        let first = self.first.acquire_now(key, cost, true)?;
        let second = self.second.acquire_now(key, cost, true)?;
        Some(match (first, second) {
            (Ok(first), Ok(second)) => {
                Ok(first.zip(second).map(|(first, second)| BothPermits { first, second }))
            }
            (Ok(granted), Err(denied)) => {
                give_back(&mut (granted, None::<B::Permit>));
                Err(denied)
            }
            (Err(denied), Ok(granted)) => {
                give_back(&mut (None::<A::Permit>, granted));
                Err(denied)
            }
            (Err(one), Err(other)) => Err(later_of(one, other)),
        })
    }

    fn holds(&self) -> bool {
        self.first.holds() || self.second.holds()
    }

    fn report(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        self.first.report(key, visit);
        self.second.report(key, visit);
    }

    fn census(&self) -> Option<Census> {
        match (self.first.census(), self.second.census()) {
            (Some(first), Some(second)) => Some(first.plus(second)),
            (first, second) => first.or(second),
        }
    }
}

impl<K: ?Sized, A: TryLimiter<K>, B: TryLimiter<K>> TryLimiter<K> for And<A, B> {
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        match (self.first.try_acquire(key, cost), self.second.try_acquire(key, cost)) {
            (Ok(first), Ok(second)) => Ok(BothPermits { first, second }),
            (Ok(first), Err(denied)) => {
                first.refund();
                Err(denied)
            }
            (Err(denied), Ok(second)) => {
                second.refund();
                Err(denied)
            }
            (Err(one), Err(other)) => Err(later_of(one, other)),
        }
    }
}

/// The refusal that binds longest; one without a time binds longest of all.
fn later_of(one: Denied, other: Denied) -> Denied {
    match (one.retry_after(), other.retry_after()) {
        (Some(a), Some(b)) if b > a => other,
        (Some(_), None) => other,
        _ => one,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    TryFirst,
    TrySecond,
    /// Waiting: which of the two is next, and whether the other has been had.
    WaitFirst {
        last: bool,
    },
    WaitSecond {
        last: bool,
    },
    Done,
}

/// The wait for both permits. Dropped, whatever it holds goes back.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireBoth<A, B, P: Permit, Q: Permit> {
    ask: Ask,
    holds: (bool, bool),
    #[pin]
    try_first: A,
    #[pin]
    try_second: B,
    #[pin]
    wait_first: A,
    #[pin]
    wait_second: B,
    held: (Option<P>, Option<Q>),
    /// The refusal that binds longest, and whether it is the first limiter's.
    refused: Option<(Denied, bool)>,
    stage: Stage,
}

#[pinned_drop]
impl<A, B, P: Permit, Q: Permit> PinnedDrop for AcquireBoth<A, B, P, Q> {
    fn drop(self: Pin<&mut Self>) {
        give_back(self.project().held);
    }
}

fn give_back<P: Permit, Q: Permit>(held: &mut (Option<P>, Option<Q>)) {
    if let Some(permit) = held.0.take() {
        permit.refund();
    }
    if let Some(permit) = held.1.take() {
        permit.refund();
    }
}

impl<A, B, P, Q, F, G> Future for AcquireBoth<A, B, P, Q>
where
    A: Future<Output = Result<P, Error<F>>>,
    B: Future<Output = Result<Q, Error<G>>>,
    P: Permit,
    Q: Permit,
{
    type Output = Result<BothPermits<P, Q>, Error<EitherFault<F, G>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (answer, next) = match *this.stage {
                Stage::TryFirst => {
                    let answer = ready!(this.try_first.as_mut().poll(cx));
                    (keep(answer, &mut this.held.0, EitherFault::First), Stage::TrySecond)
                }
                Stage::TrySecond => {
                    let answer = ready!(this.try_second.as_mut().poll(cx));
                    (keep(answer, &mut this.held.1, EitherFault::Second), Stage::Done)
                }
                Stage::WaitFirst { last } => {
                    let answer = ready!(this.wait_first.as_mut().poll(cx));
                    let next = if last { Stage::Done } else { Stage::WaitSecond { last: true } };
                    (keep(answer, &mut this.held.0, EitherFault::First), next)
                }
                Stage::WaitSecond { last } => {
                    let answer = ready!(this.wait_second.as_mut().poll(cx));
                    let next = if last { Stage::Done } else { Stage::WaitFirst { last: true } };
                    (keep(answer, &mut this.held.1, EitherFault::Second), next)
                }
                Stage::Done => panic!("an acquire was polled after it had given its answer"),
            };
            let stage = std::mem::replace(this.stage, next);
            let trying = matches!(stage, Stage::TryFirst | Stage::TrySecond);
            match answer {
                Ok(()) => {}
                // Each was asked once whichever refused: the joint wait needs both answers.
                Err(Error::Denied(denied)) if trying => {
                    *this.refused = Some(match this.refused.take() {
                        Some((other, _)) if later_of(other.clone(), denied.clone()) == other => (other, true),
                        _ => (denied, stage == Stage::TryFirst),
                    });
                }
                Err(error) => {
                    *this.stage = Stage::Done;
                    give_back(this.held);
                    return Poll::Ready(Err(error));
                }
            }
            if *this.stage != Stage::Done {
                continue;
            }
            if let Some((denied, first_binds)) = this.refused.take() {
                give_back(this.held);
                if !worth_waiting(*this.ask, &denied) {
                    return Poll::Ready(Err(Error::Denied(denied)));
                }
                let first_leads = match *this.holds {
                    (first_holds, second_holds) if first_holds != second_holds => second_holds,
                    _ => first_binds,
                };
                *this.stage = if first_leads {
                    Stage::WaitFirst { last: false }
                } else {
                    Stage::WaitSecond { last: false }
                };
                continue;
            }
            if let (Some(first), Some(second)) = (this.held.0.take(), this.held.1.take()) {
                return Poll::Ready(Ok(BothPermits { first, second }));
            }
        }
    }
}

/// Whether the refusal is one that waiting may end in time.
fn worth_waiting(ask: Ask, denied: &Denied) -> bool {
    use crate::decision::Reason;
    let in_time = match (ask.max_wait(), denied.retry_after()) {
        (None, _) => true,
        (Some(longest), Some(wait)) => wait <= longest,
        (Some(longest), None) => longest > Duration::ZERO,
    };
    in_time && matches!(denied.reason(), Reason::Exhausted | Reason::Paused)
}

fn keep<P, F, H>(
    answer: Result<P, Error<F>>,
    held: &mut Option<P>,
    fault: impl FnOnce(F) -> H,
) -> Result<(), Error<H>> {
    match answer {
        Ok(permit) => {
            *held = Some(permit);
            Ok(())
        }
        Err(Error::Denied(denied)) => Err(Error::Denied(denied)),
        Err(Error::Fault(failed)) => Err(Error::Fault(fault(failed))),
    }
}

impl<A, B, P: Permit, Q: Permit> fmt::Debug for AcquireBoth<A, B, P, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireBoth")
            .field("ask", &self.ask)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// The permits of both. Settles and refunds both.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
#[non_exhaustive]
pub struct BothPermits<P, Q> {
    /// The first limiter's.
    pub first: P,
    /// The second limiter's.
    pub second: Q,
}

impl<P: Permit, Q: Permit> Permit for BothPermits<P, Q> {
    fn cost(&self) -> Cost {
        // One of them may have needed no permit, and then has none to tell of.
        self.first.cost().max(self.second.cost())
    }

    fn settle(self, actual: Cost) {
        self.first.settle(actual);
        self.second.settle(actual);
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.first.shadowed().or_else(|| self.second.shadowed())
    }

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        self.first.report(visit);
        self.second.report(visit);
    }
}
