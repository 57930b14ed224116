//! The future of an ask.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::core::Core;
use super::door::Refused;
use super::gate::{Gate, Load};
use super::queue::Ticket;
use crate::clock::Clock;
use crate::decision::Denied;
use crate::units::Timestamp;

/// What an ask holds the limit by. With the grant it goes on to the permit, so that it is counted once for both.
pub(crate) trait Hold: Unpin {
    type Gate: Gate;
    type Clock: Clock;
    fn core(&self) -> &Arc<Core<Self::Gate, Self::Clock>>;
}

impl<G: Gate, C: Clock> Hold for Arc<Core<G, C>> {
    type Gate = G;
    type Clock = C;

    #[inline]
    fn core(&self) -> &Self {
        self
    }
}

type LoadOf<H> = <<H as Hold>::Gate as Gate>::Load;
type GrantOf<H> = <<H as Hold>::Gate as Gate>::Grant;

/// Waits for a grant. Dropped, it leaves the line; a grant it was not told of goes back.
pub(crate) struct Acquire<H: Hold> {
    /// Until it has answered.
    hold: Option<H>,
    load: LoadOf<H>,
    /// Until when it will wait, counted from the call; `None`: for as long as it takes.
    deadline: Option<Timestamp>,
    /// Its place in line, once it stands there.
    ticket: Option<Ticket>,
}

impl<H: Hold> Acquire<H> {
    #[inline]
    pub(crate) fn new(hold: H, load: LoadOf<H>, max_wait: Option<Duration>) -> Self {
        let deadline = hold.core().deadline(max_wait);
        Self::until(hold, load, deadline)
    }

    /// For an ask that was made before, with a deadline counted from then.
    #[inline]
    pub(crate) const fn until(hold: H, load: LoadOf<H>, deadline: Option<Timestamp>) -> Self {
        Self { hold: Some(hold), load, deadline, ticket: None }
    }

    /// Waits as a thread.
    pub(crate) fn block(self) -> Result<(H, GrantOf<H>), Denied> {
        self.block_after(())
    }

    /// Waits as a thread, and drops `joining` as soon as it stands in line, or need not.
    pub(crate) fn block_after<T>(mut self, joining: T) -> Result<(H, GrantOf<H>), Denied> {
        let mut joining = Some(joining);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match self.poll_to(&waker, true, |hold, grant| (hold, grant)) {
                Poll::Ready(heard) => return heard,
                Poll::Pending => {
                    drop(joining.take());
                    if let (Some(hold), Some(ticket)) = (&self.hold, self.ticket) {
                        hold.core().park(ticket);
                    }
                }
            }
        }
    }

    /// Polls it, and makes what is wanted of the grant.
    // Always inlined, so that a permit is made where it is wanted: moving it about takes longer than deciding.
    #[inline(always)]
    pub(crate) fn poll_to<R>(
        &mut self,
        waker: &Waker,
        is_thread: bool,
        granted: impl FnOnce(H, GrantOf<H>) -> R,
    ) -> Poll<Result<R, Denied>> {
        let passed = match (&self.hold, self.ticket) {
            (Some(hold), None) => Some(hold.core().pass(self.load)),
            _ => None,
        };
        let refused = match (passed, self.hold.take()) {
            (Some(Ok(grant)), Some(hold)) => return Poll::Ready(Ok(granted(hold, grant))),
            (passed, hold) => {
                self.hold = hold;
                passed.and_then(Result::err)
            }
        };
        match self.wait(refused, waker, is_thread) {
            Poll::Ready(Ok((hold, grant))) => Poll::Ready(Ok(granted(hold, grant))),
            Poll::Ready(Err(denied)) => Poll::Ready(Err(denied)),
            Poll::Pending => Poll::Pending,
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(
        &mut self,
        refused: Option<Refused>,
        waker: &Waker,
        is_thread: bool,
    ) -> Poll<Result<(H, GrantOf<H>), Denied>> {
        let Some(hold) = &self.hold else { panic!("an acquire was polled after it had given its answer") };
        let heard = match (self.ticket, refused) {
            (Some(ticket), _) => hold.core().hear(ticket, waker),
            (None, Some(refused)) if self.deadline == Some(Timestamp::ZERO) => {
                Some(hold.core().tell(refused, self.load))
            }
            (None, _) => match hold.core().enter(self.load, self.deadline, waker, is_thread) {
                Ok(heard) => Some(heard),
                Err(ticket) => {
                    self.ticket = Some(ticket);
                    None
                }
            },
        };
        let Some(heard) = heard else { return Poll::Pending };
        let Some(hold) = self.hold.take() else { unreachable!("it has heard of it") };
        Poll::Ready(heard.map(|grant| (hold, grant)))
    }
}

impl<H: Hold> Future for Acquire<H> {
    /// The grant, and what its permit holds the limit by.
    type Output = Result<(H, GrantOf<H>), Denied>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_to(cx.waker(), false, |hold, grant| (hold, grant))
    }
}

impl<H: Hold> Drop for Acquire<H> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(hold), Some(ticket)) = (&self.hold, self.ticket) {
            hold.core().leave(ticket);
        }
    }
}

impl<H: Hold> fmt::Debug for Acquire<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("units", &self.load.units()).finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
