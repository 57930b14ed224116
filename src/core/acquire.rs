//! The future of an ask to one limit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::limit::Limit;
use super::queue::{Answer, Rank, next_rank};
use super::state::{LimitState, Load, Outcome};
use super::waiting::Entry;
use super::wake::in_drop;
use crate::clock::Clock;
use crate::types::Denied;
use crate::units::Timestamp;

/// A grant, and the limit that the permit holds on to.
type Granted<S, C> = (Arc<Limit<S, C>>, <S as LimitState>::Grant);

/// Waits for a grant. Dropped, it leaves the queue; a grant it did not hear of goes back.
pub(crate) struct Acquire<S: LimitState, C: Clock> {
    /// Taken with the answer: it goes on to the permit, so that one count serves both.
    limit: Option<Arc<Limit<S, C>>>,
    load: S::Load,
    /// Counted from the call. `None`: it waits for as long as it takes.
    deadline: Option<Timestamp>,
    /// Set while it stands in the queue.
    rank: Option<Rank>,
}

impl<S: LimitState, C: Clock> Acquire<S, C> {
    #[inline]
    pub(crate) fn new(limit: Arc<Limit<S, C>>, load: S::Load, max_wait: Option<Duration>) -> Self {
        let deadline = limit.deadline(max_wait);
        Self::until(limit, load, deadline)
    }

    /// An ask that was made earlier, with a deadline counted from then.
    #[inline]
    pub(crate) const fn until(limit: Arc<Limit<S, C>>, load: S::Load, deadline: Option<Timestamp>) -> Self {
        Self { limit: Some(limit), load, deadline, rank: None }
    }

    /// Waits as a thread.
    pub(crate) fn block(self) -> Result<Granted<S, C>, Denied> {
        self.block_after(())
    }

    /// Waits as a thread, and drops `joining` as soon as it stands in the queue, or need not.
    pub(crate) fn block_after<T>(mut self, joining: T) -> Result<Granted<S, C>, Denied> {
        let mut joining = Some(joining);
        let waker = thread_waker();
        loop {
            match self.poll_with(&waker, true, |limit, grant| (limit, grant)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => {
                    drop(joining.take());
                    if let (Some(limit), Some(rank)) = (&self.limit, self.rank) {
                        limit.park(rank);
                    }
                }
            }
        }
    }

    /// Polls it, and makes a permit of the grant.
    // Always inlined for the reason given at `Limit::take`.
    #[inline(always)]
    pub(crate) fn poll_with<R>(
        &mut self,
        waker: &Waker,
        is_thread: bool,
        permit: impl FnOnce(Arc<Limit<S, C>>, S::Grant) -> R,
    ) -> Poll<Result<R, Denied>> {
        if let (Some(limit), None) = (&self.limit, self.rank) {
            if let (now, Outcome::Taken) = limit.try_fast(self.load, true) {
                let limit = self.limit.take().expect("it was there");
                return Poll::Ready(Ok(permit(limit, S::fast_grant(now, self.load))));
            }
        }
        self.poll_in_queue(waker, is_thread).map_ok(|(limit, grant)| permit(limit, grant))
    }

    #[cold]
    #[inline(never)]
    fn poll_in_queue(&mut self, waker: &Waker, is_thread: bool) -> Poll<Result<Granted<S, C>, Denied>> {
        let limit = self.limit.as_ref().expect("an acquire was polled after it had given its answer");
        let answer = match self.rank {
            Some(rank) => limit.hear(rank, waker),
            None if self.deadline == Some(Timestamp::ZERO) => {
                Some(match limit.take(self.load, |grant| grant) {
                    Ok(grant) => Answer::Granted(grant, self.load),
                    Err(denied) => Answer::Denied(denied),
                })
            }
            None => {
                let rank = next_rank();
                match limit.enter(rank, self.load, self.deadline, waker, is_thread) {
                    Entry::Granted(grant) => Some(Answer::Granted(grant, self.load)),
                    Entry::Denied(denied) => Some(Answer::Denied(denied)),
                    Entry::Queued { must_serve } => {
                        // Noted before foreign code runs: if that panics, the drop leaves the queue.
                        self.rank = Some(rank);
                        if must_serve {
                            limit.drive();
                        }
                        None
                    }
                }
            }
        };
        let Some(answer) = answer else { return Poll::Pending };
        self.rank = None;
        let limit = self.limit.take().expect("it is taken with the answer");
        Poll::Ready(match answer {
            Answer::Granted(grant, _) => Ok((limit, grant)),
            Answer::Denied(denied) => Err(denied),
        })
    }
}

impl<S: LimitState, C: Clock> Future for Acquire<S, C> {
    type Output = Result<Granted<S, C>, Denied>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx.waker(), false, |limit, grant| (limit, grant))
    }
}

impl<S: LimitState, C: Clock> Drop for Acquire<S, C> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(limit), Some(rank)) = (&self.limit, self.rank) {
            in_drop(|| limit.leave(rank));
        }
    }
}

impl<S: LimitState, C: Clock> fmt::Debug for Acquire<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("units", &self.load.units()).finish_non_exhaustive()
    }
}

/// A waker that unparks this thread.
pub(crate) fn thread_waker() -> Waker {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}
