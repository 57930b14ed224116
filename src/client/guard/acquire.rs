//! The wait for a call's turn: the upstream's line first, then the limits, and a last look whether a hold has begun.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};

use super::calls::Pass;
use super::gate::GuardGate;
use super::{Guard, Guarded};
use crate::client::usage::Usage;
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Error};
use crate::limiter::gate::Acquire;
use crate::limiter::{Limiter, Permit};
use crate::units::Timestamp;

/// The wait for a [`Guarded`] permit. Cancel-safe: see [`Guard::acquire`].
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireGuarded<L: Limiter, C: Clock = DefaultClock> {
    guard: Guard<L, C>,
    usage: Usage,
    /// Until when it will wait, counted from the call; `None`: for as long as it takes.
    deadline: Option<Timestamp>,
    /// What the upstream has granted while the limits are waited for.
    pass: Option<Pass>,
    #[pin]
    stage: Stage<L::Acquire, C>,
}

#[pin_project(project = StageNow)]
enum Stage<A, C: Clock> {
    Upstream(Acquire<GuardGate, C>),
    Limits(#[pin] A),
    Done,
}

impl<L: Limiter, C: Clock> AcquireGuarded<L, C> {
    pub(super) fn new(guard: Guard<L, C>, usage: Usage, max_wait: Option<Duration>) -> Self {
        let acquire = Acquire::new(Arc::clone(&guard.core), usage, max_wait);
        let deadline = max_wait.map(|wait| guard.core.clock().now().after(wait));
        Self { guard, usage, deadline, pass: None, stage: Stage::Upstream(acquire) }
    }
}

#[pinned_drop]
impl<L: Limiter, C: Clock> PinnedDrop for AcquireGuarded<L, C> {
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let Some(pass) = this.pass.take() {
            this.guard.core.give_back(pass, *this.usage);
        }
    }
}

impl<L: Limiter, C: Clock> Future for AcquireGuarded<L, C> {
    type Output = Result<Guarded<L::Permit, C>, Error<L::Fault>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let core = &this.guard.core;
        // What is left of the longest wait.
        let left = |deadline: Option<Timestamp>| deadline.map(|deadline| deadline.since(core.clock().now()));
        loop {
            match this.stage.as_mut().project() {
                StageNow::Upstream(acquire) => match ready!(Pin::new(acquire).poll(cx)) {
                    Ok((_, pass)) => {
                        *this.pass = Some(pass);
                        let ask = Ask::cost(this.usage.requests);
                        let ask = left(*this.deadline).map_or(ask, |left| ask.within(left));
                        this.stage.set(Stage::Limits(this.guard.limits.acquire(&(), ask)));
                    }
                    Err(denied) => {
                        this.stage.set(Stage::Done);
                        return Poll::Ready(Err(Error::Denied(denied)));
                    }
                },
                StageNow::Limits(acquire) => {
                    let Some(pass) = this.pass.as_mut() else { unreachable!("the upstream has granted it") };
                    let granted = match acquire.poll(cx) {
                        Poll::Ready(Ok(permit)) => {
                            if core.with_gate(|gate, now| gate.send(now, pass)) {
                                let (pass, guard) = (*pass, &*this.guard);
                                *this.pass = None;
                                let guarded = Guarded::new(guard, pass, permit);
                                this.stage.set(Stage::Done);
                                return Poll::Ready(Ok(guarded));
                            }
                            Some(permit)
                        }
                        Poll::Ready(Err(error)) => {
                            let pass = *pass;
                            *this.pass = None;
                            this.stage.set(Stage::Done);
                            core.give_back(pass, *this.usage);
                            return Poll::Ready(Err(error));
                        }
                        Poll::Pending => {
                            // Made and dropped outside the lock, as every waker is.
                            let mut waker = Some(cx.waker().clone());
                            if core.with_gate(|gate, now| gate.watch(now, *pass, &mut waker)) {
                                return Poll::Pending;
                            }
                            None
                        }
                    };
                    // It may not go now: back to the front of the line, with everything given back.
                    let pass = *pass;
                    *this.pass = None;
                    let wait = left(*this.deadline);
                    let acquire = Acquire::again(Arc::clone(core), *this.usage, wait, pass.number());
                    this.stage.set(Stage::Upstream(acquire));
                    core.give_back(pass, *this.usage);
                    if let Some(permit) = granted {
                        permit.refund();
                    }
                }
                StageNow::Done => panic!("an acquire was polled after it had given its answer"),
            }
        }
    }
}

impl<L: Limiter, C: Clock> fmt::Debug for AcquireGuarded<L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireGuarded").field("usage", &self.usage).finish_non_exhaustive()
    }
}
