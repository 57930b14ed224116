//! Several limits as one, all or nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::clock::{DefaultClock, Sleep};
use crate::core::{Joint, Members, Rank, thread_waker};
use crate::limiter::{Compose, Limiter, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus, Reason};
use crate::units::{Cost, Timestamp};

/// Several limits, all or nothing: a pair made by [`and`](crate::LimiterExt::and), or a list made by [`And::all`].
///
/// **At the limit** an ask takes nothing until all members can grant at one instant; then it takes them all at that
/// instant. So no member hands out more than it promises, and a charge is dated when the whole ask is granted. A denial
/// leaves all members unspent, names the one that binds longest, and says when all would grant.
///
/// **Waiting.** Asks to the same limits (the same key where a member is keyed) are served first come, first served. An
/// ask that one member holds up delays nobody at another member. One that was overtaken four times at members that
/// others keep busy holds the head of their queues, in one global order, until all can grant: no composition starves,
/// and compositions of concurrency limits do not deadlock, in whatever order they name their members.
///
/// A limit that a composition contains twice is charged twice. Members that must be awaited ([`Awaited`](crate::Awaited))
/// are asked when all others could grant, and refunded if another denies meanwhile: such an ask has no position in
/// their order.
///
/// ```
/// use tollgate::{Concurrency, LimiterExt, Quota, TokenBucket};
/// let rate = TokenBucket::new(Quota::per_second(100))?;
/// let both = rate.clone().and(Concurrency::new(1));
/// let permit = both.try_acquire(1).expect("both are fresh");
/// assert!(both.try_acquire(1).is_err());
/// assert_eq!(rate.snapshot().remaining, 99); // the denial spent nothing
/// # drop(permit);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct And<M> {
    members: M,
}

impl<A, B> And<(A, B)> {
    pub(super) const fn pair(first: A, second: B) -> Self {
        Self { members: (first, second) }
    }
}

impl<L> And<Vec<L>> {
    /// All limits of a list. None of them grants everything.
    ///
    /// ```
    /// use tollgate::{And, Concurrency};
    /// let slots: Vec<_> = (1..4).map(Concurrency::new).collect();
    /// let all = And::all(slots.clone());
    /// let permit = all.try_acquire(1)?;
    /// assert!(all.try_acquire(1).is_err()); // the first has one slot
    /// assert!(slots.iter().all(|slots| slots.snapshot().remaining == slots.snapshot().capacity - 1));
    /// # drop(permit);
    /// # Ok::<(), tollgate::Denied>(())
    /// ```
    pub fn all(members: impl IntoIterator<Item = L>) -> Self {
        Self { members: members.into_iter().collect() }
    }
}

impl<M> And<M> {
    /// The members.
    #[must_use]
    pub const fn members(&self) -> &M {
        &self.members
    }
}

/// For members that look at no key. For limits of keys there is [`Limiter`].
impl<M> And<M>
where
    Self: Compose,
{
    /// Waits for a permit from all members.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the queues; a grant that was not
    /// delivered goes back to all members.
    ///
    /// # Errors
    /// As each member; or one of them could not decide.
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireAll<<Self as Compose>::Part> {
        let ask = ask.into();
        AcquireAll::new(self.part(&(), ask.units()), ask.max_wait())
    }

    /// Waits as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](And::acquire).
    pub fn acquire_blocking(
        &self,
        ask: impl Into<Ask>,
    ) -> Result<<Self as Limiter>::Permit, Error<<Self as Limiter>::Fault>> {
        let ask = ask.into();
        AcquireAll::new(self.part(&(), ask.units()), ask.max_wait()).block()
    }

    /// Takes a permit from all members if they can grant now. Needs no runtime.
    ///
    /// # Errors
    /// The denial of the member that binds longest.
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<<Self as Limiter>::Permit, Denied> {
        Limiter::try_acquire(self, &(), cost.into())
    }
}

/// Takes now, or tells that the part must be awaited.
pub(crate) fn take_now<P: Part>(mut part: P) -> Result<P::Permit, Denied> {
    if part.peek_rest().is_err() {
        part.peek()?;
    }
    match part.poll_take(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(permit)) => Ok(permit),
        // Of all members, not only of the first that denied.
        Poll::Ready(Err(Error::Denied(denied))) => Err(part.peek().err().unwrap_or(denied)),
        Poll::Ready(Err(Error::Fault(_))) | Poll::Pending => Err(Denied::new(Reason::MustAwait)),
    }
}

impl<K, A, B> Limiter<K> for And<(A, B)>
where
    K: ?Sized,
    A: Compose<K>,
    B: Compose<K>,
    B::Fault: Into<A::Fault>,
{
    type Permit = AndPermit<(A::Permit, B::Permit)>;
    type Fault = A::Fault;
    type Acquire = AcquireAll<PairPart<A::Part, B::Part>>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        AcquireAll::new(self.part(key, ask.units()), ask.max_wait())
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        take_now(self.part(key, cost))
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.members.0.status(key, visit);
        self.members.1.status(key, visit);
    }
}

impl<K, A, B> Compose<K> for And<(A, B)>
where
    K: ?Sized,
    A: Compose<K>,
    B: Compose<K>,
    B::Fault: Into<A::Fault>,
{
    type Part = PairPart<A::Part, B::Part>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        let (first, second) = &self.members;
        PairPart { first: first.part(key, cost), second: second.part(key, cost), held: (None, None) }
    }
}

impl<K: ?Sized, L: Compose<K>> Limiter<K> for And<Vec<L>> {
    type Permit = AndPermit<Vec<L::Permit>>;
    type Fault = L::Fault;
    type Acquire = AcquireAll<ListPart<L::Part>>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        AcquireAll::new(self.part(key, ask.units()), ask.max_wait())
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        take_now(self.part(key, cost))
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.members.iter().for_each(|member| member.status(key, visit));
    }
}

impl<K: ?Sized, L: Compose<K>> Compose<K> for And<Vec<L>> {
    type Part = ListPart<L::Part>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        ListPart::new(self.members.iter().map(|member| member.part(key, cost)))
    }
}

/// The denial that binds longest; one without a time binds longest of all.
fn later_of(one: Denied, other: Denied) -> Denied {
    match (one.retry_after(), other.retry_after()) {
        (Some(a), Some(b)) if b > a => other,
        (Some(_), None) => other,
        _ => one,
    }
}

/// An ask to both members of a pair.
pub struct PairPart<A: Part, B: Part> {
    first: A,
    second: B,
    /// Of members that must be awaited: held while the others are taken.
    held: (Option<A::Permit>, Option<B::Permit>),
}

impl<A: Part, B: Part> PairPart<A, B> {
    fn poll_stage(&mut self, stage: PartStage, cx: &mut Context<'_>) -> Poll<Result<(), Error<A::Fault>>>
    where
        B::Fault: Into<A::Fault>,
    {
        if self.held.0.is_none() && self.first.stage() == stage {
            self.held.0 = Some(ready!(self.first.poll_take(cx))?);
        }
        if self.held.1.is_none() && self.second.stage() == stage {
            let taken = ready!(self.second.poll_take(cx));
            self.held.1 = Some(taken.map_err(|error| error.map_fault(Into::into))?);
        }
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self) {
        if let Some(permit) = self.held.0.take() {
            permit.refund();
        }
        if let Some(permit) = self.held.1.take() {
            permit.refund();
        }
    }
}

impl<A: Part, B: Part> Unpin for PairPart<A, B> {}

impl<A: Part, B: Part> Drop for PairPart<A, B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<A: Part, B: Part> Part for PairPart<A, B>
where
    B::Fault: Into<A::Fault>,
{
    type Permit = AndPermit<(A::Permit, B::Permit)>;
    type Fault = A::Fault;

    fn stage(&self) -> PartStage {
        self.first.stage().min(self.second.stage())
    }

    fn now(&self) -> Option<Timestamp> {
        self.first.now().or_else(|| self.second.now())
    }

    fn peek(&self) -> Result<(), Denied> {
        match (self.first.peek(), self.second.peek()) {
            (Err(one), Err(other)) => Err(later_of(one, other)),
            (first, second) => first.and(second),
        }
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        self.first.peek_rest()?;
        self.second.peek()
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<Self::Fault>>> {
        for stage in [PartStage::Remote, PartStage::Local, PartStage::Last] {
            if let Err(error) = ready!(self.poll_stage(stage, cx)) {
                self.give_back();
                return Poll::Ready(Err(error));
            }
        }
        let (Some(first), Some(second)) = (self.held.0.take(), self.held.1.take()) else {
            unreachable!("each member is taken in one of the stages")
        };
        Poll::Ready(Ok(AndPermit((first, second))))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.first.enlist(members)?;
        self.second.enlist(members)
    }
}

/// An ask to all members of a list.
pub struct ListPart<P: Part> {
    parts: Vec<(P, Option<P::Permit>)>,
}

impl<P: Part> ListPart<P> {
    pub(crate) fn new(parts: impl IntoIterator<Item = P>) -> Self {
        Self { parts: parts.into_iter().map(|part| (part, None)).collect() }
    }

    fn give_back(&mut self) {
        for permit in self.parts.iter_mut().filter_map(|(_, held)| held.take()) {
            permit.refund();
        }
    }
}

impl<P: Part> Unpin for ListPart<P> {}

impl<P: Part> Drop for ListPart<P> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<P: Part> Part for ListPart<P> {
    type Permit = AndPermit<Vec<P::Permit>>;
    type Fault = P::Fault;

    fn stage(&self) -> PartStage {
        self.parts.iter().map(|(part, _)| part.stage()).min().unwrap_or(PartStage::Local)
    }

    fn now(&self) -> Option<Timestamp> {
        self.parts.iter().find_map(|(part, _)| part.now())
    }

    fn peek(&self) -> Result<(), Denied> {
        let denials = self.parts.iter().filter_map(|(part, _)| part.peek().err());
        denials.reduce(later_of).map_or(Ok(()), Err)
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        self.parts.iter().skip(1).try_for_each(|(part, _)| part.peek())
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<Self::Fault>>> {
        for stage in [PartStage::Remote, PartStage::Local, PartStage::Last] {
            for (part, held) in &mut self.parts {
                if held.is_none() && part.stage() == stage {
                    match ready!(part.poll_take(cx)) {
                        Ok(permit) => *held = Some(permit),
                        Err(error) => {
                            self.give_back();
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
        Poll::Ready(Ok(AndPermit(self.parts.iter_mut().filter_map(|(_, held)| held.take()).collect())))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.parts.iter_mut().try_for_each(|(part, _)| part.enlist(members))
    }
}

/// The wait for all permits of a composition. Dropped, it leaves the queues, and what was granted goes back.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireAll<P: Part> {
    part: P,
    max_wait: Option<Duration>,
    /// By the clock of the first member, counted from the call.
    deadline: Option<Timestamp>,
    /// Of an ask that was granted once and could not be claimed: it keeps its position.
    rank: Option<Rank>,
    stage: Stage,
}

enum Stage {
    /// Nobody has been asked.
    Fresh,
    /// The members are taken now, or claimed.
    Takes,
    Waits(Arc<Joint>),
    /// Until a member that has no queue here may grant.
    Sleeps(Sleep),
    Done,
}

impl<P: Part> AcquireAll<P> {
    pub(crate) fn new(part: P, max_wait: Option<Duration>) -> Self {
        let deadline = match max_wait {
            None | Some(Duration::ZERO) => None,
            Some(longest) => part.now().map(|now| now.after(longest)),
        };
        Self { part, max_wait, deadline, rank: None, stage: Stage::Fresh }
    }

    /// The rest of the longest wait.
    fn left(&self) -> Option<Duration> {
        let longest = self.max_wait?;
        Some(match (self.deadline, self.part.now()) {
            (Some(deadline), Some(now)) => deadline.since(now),
            _ => longest,
        })
    }

    pub(crate) fn block(mut self) -> Result<P::Permit, Error<P::Fault>> {
        let waker = thread_waker();
        loop {
            if let Poll::Ready(answer) = self.poll_with(&mut Context::from_waker(&waker), true) {
                return answer;
            }
            match &self.stage {
                Stage::Waits(joint) => joint.park(),
                Stage::Sleeps(sleep) => sleep.park(),
                _ => std::thread::park(),
            }
        }
    }

    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        is_thread: bool,
    ) -> Poll<Result<P::Permit, Error<P::Fault>>> {
        loop {
            match &mut self.stage {
                Stage::Fresh => match self.part.peek_rest().or_else(|_| self.part.peek()) {
                    Ok(()) => self.stage = Stage::Takes,
                    Err(denied) => self.wait_for(denied, cx, is_thread)?,
                },
                Stage::Takes => match ready!(self.part.poll_take(cx)) {
                    Err(Error::Denied(denied)) => {
                        // Of all members, not only of the first that denied.
                        let denied = self.part.peek().err().unwrap_or(denied);
                        self.wait_for(denied, cx, is_thread)?;
                    }
                    answer => {
                        self.stage = Stage::Done;
                        return Poll::Ready(answer);
                    }
                },
                Stage::Waits(joint) => {
                    let answer = ready!(joint.poll(cx));
                    self.rank = Some(joint.rank());
                    self.stage = Stage::Takes;
                    if let Err(denied) = answer {
                        self.stage = Stage::Done;
                        return Poll::Ready(Err(denied.into()));
                    }
                }
                Stage::Sleeps(sleep) => match ready!(sleep.poll(cx.waker(), is_thread)) {
                    true => self.stage = Stage::Fresh,
                    false => {
                        self.stage = Stage::Done;
                        return Poll::Ready(Err(Denied::new(Reason::NoTimer).into()));
                    }
                },
                Stage::Done => panic!("an acquire was polled after it had given its answer"),
            }
        }
    }

    /// Begins to wait after `denied`, unless that does not help.
    fn wait_for(
        &mut self,
        denied: Denied,
        cx: &mut Context<'_>,
        is_thread: bool,
    ) -> Result<(), Error<P::Fault>> {
        let left = self.left();
        self.stage = Stage::Done;
        let helps = matches!(denied.reason(), Reason::Exhausted | Reason::Paused);
        if !helps || left == Some(Duration::ZERO) {
            return Err(denied.into());
        }
        let mut members = Members::new();
        self.part.enlist(&mut members)?;
        // A member without a queue here said no: it says when it may grant.
        if members.is_empty() || (self.part.stage() != PartStage::Local && self.part.peek().is_ok()) {
            return match denied.retry_after() {
                Some(wait) if left.is_none_or(|left| wait <= left) => {
                    self.stage = Stage::Sleeps(Sleep::new(DefaultClock::default(), wait));
                    Ok(())
                }
                _ => Err(denied.into()),
            };
        }
        let joint = Joint::enter(members, left, cx.waker(), is_thread, self.rank)?;
        // Noted before foreign code runs: if that panics, the drop leaves the queues.
        self.stage = Stage::Waits(Arc::clone(&joint));
        joint.begin();
        Ok(())
    }
}

impl<P: Part> Future for AcquireAll<P> {
    type Output = Result<P::Permit, Error<P::Fault>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx, false)
    }
}

impl<P: Part> Drop for AcquireAll<P> {
    fn drop(&mut self) {
        if let Stage::Waits(joint) = &self.stage {
            joint.cancel();
        }
    }
}

impl<P: Part> fmt::Debug for AcquireAll<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireAll").field("max_wait", &self.max_wait).finish_non_exhaustive()
    }
}

impl<A: Part, B: Part> fmt::Debug for PairPart<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairPart").finish_non_exhaustive()
    }
}

impl<P: Part> fmt::Debug for ListPart<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListPart").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

/// The permits of all members: a pair or a list. Settles and refunds all of them.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
#[allow(clippy::exhaustive_structs, reason = "the permits of the members are all there is")]
pub struct AndPermit<P>(pub P);

impl<P: Permit, Q: Permit> Permit for AndPermit<(P, Q)> {
    const IS_HELD: bool = P::IS_HELD || Q::IS_HELD;

    fn cost(&self) -> Cost {
        // A member that needed no permit has no cost.
        self.0.0.cost().max(self.0.1.cost())
    }

    fn settle(self, actual: Cost) {
        self.0.0.settle(actual);
        self.0.1.settle(actual);
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.0.0.shadowed().or_else(|| self.0.1.shadowed())
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        self.0.0.status(visit);
        self.0.1.status(visit);
    }
}

impl<P: Permit> Permit for AndPermit<Vec<P>> {
    const IS_HELD: bool = P::IS_HELD;

    fn cost(&self) -> Cost {
        self.0.iter().map(P::cost).max().unwrap_or(Cost::ZERO)
    }

    fn settle(self, actual: Cost) {
        self.0.into_iter().for_each(|permit| permit.settle(actual));
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.0.iter().find_map(P::shadowed)
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        self.0.iter().for_each(|permit| permit.status(visit));
    }
}
