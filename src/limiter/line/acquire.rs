//! The future of an ask.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

#[cfg(feature = "client")]
use super::Order;
use super::core::Core;
use super::door::Refused;
use super::gate::{Gate, Load};
use super::queue::{NEW, Ticket};
use crate::clock::Clock;
use crate::decision::Denied;
use crate::units::Timestamp;

/// A grant, and what its permit holds the limit by.
type Held<G, C> = (Arc<Core<G, C>>, <G as Gate>::Grant);

/// Waits for a grant. Dropped, it leaves the line; a grant it was not told of goes back.
pub(crate) struct Acquire<G: Gate, C: Clock> {
    /// Until it has answered: with the grant it goes on to the permit, so that it is counted once for both.
    core: Option<Arc<Core<G, C>>>,
    load: G::Load,
    /// Until when it will wait, counted from the call; `None`: for as long as it takes.
    deadline: Option<Timestamp>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// It has not joined the line, and will with this rank.
    Outside(u64),
    InLine(Ticket),
}

impl<G: Gate, C: Clock> Acquire<G, C> {
    #[inline]
    pub(crate) fn new(core: Arc<Core<G, C>>, load: G::Load, max_wait: Option<Duration>) -> Self {
        let deadline = core.deadline(max_wait);
        Self::until(core, load, deadline)
    }

    /// For an ask that was made before, with a deadline counted from then.
    #[inline]
    pub(crate) const fn until(core: Arc<Core<G, C>>, load: G::Load, deadline: Option<Timestamp>) -> Self {
        Self { core: Some(core), load, deadline, place: Place::Outside(NEW) }
    }

    /// For one who had been granted it and comes back: at the front, before all of a higher rank. Where the newest is served
    /// first it is as new as any.
    #[cfg(feature = "client")]
    pub(crate) fn again(core: Arc<Core<G, C>>, load: G::Load, max_wait: Option<Duration>, rank: u64) -> Self {
        let rank = if core.line().order == Order::NewestFirst { NEW } else { rank };
        let deadline = core.deadline(max_wait);
        Self { core: Some(core), load, deadline, place: Place::Outside(rank) }
    }

    /// Waits as a thread.
    pub(crate) fn block(self) -> Result<Held<G, C>, Denied> {
        self.block_after(())
    }

    /// Waits as a thread, and drops `joining` as soon as it stands in line, or need not.
    pub(crate) fn block_after<T>(mut self, joining: T) -> Result<Held<G, C>, Denied> {
        let mut joining = Some(joining);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match self.poll_to(&waker, true, |core, grant| (core, grant)) {
                Poll::Ready(heard) => return heard,
                Poll::Pending => {
                    drop(joining.take());
                    if let (Some(core), Place::InLine(ticket)) = (&self.core, self.place) {
                        core.park(ticket);
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
        granted: impl FnOnce(Arc<Core<G, C>>, G::Grant) -> R,
    ) -> Poll<Result<R, Denied>> {
        let passed = match (&self.core, self.place) {
            (Some(core), Place::Outside(_)) => Some(core.pass(self.load)),
            _ => None,
        };
        let refused = match (passed, self.core.take()) {
            (Some(Ok(grant)), Some(core)) => return Poll::Ready(Ok(granted(core, grant))),
            (passed, core) => {
                self.core = core;
                passed.and_then(Result::err)
            }
        };
        match self.wait(refused, waker, is_thread) {
            Poll::Ready(Ok((core, grant))) => Poll::Ready(Ok(granted(core, grant))),
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
    ) -> Poll<Result<Held<G, C>, Denied>> {
        let Some(core) = &self.core else { panic!("an acquire was polled after it had given its answer") };
        let heard = match (self.place, refused) {
            (Place::InLine(ticket), _) => core.hear(ticket, waker),
            (Place::Outside(_), Some(refused)) if self.deadline == Some(Timestamp::ZERO) => {
                Some(core.tell(refused, self.load))
            }
            (Place::Outside(rank), _) => match core.enter(self.load, self.deadline, waker, is_thread, rank) {
                Ok(heard) => Some(heard),
                Err(ticket) => {
                    self.place = Place::InLine(ticket);
                    None
                }
            },
        };
        let Some(heard) = heard else { return Poll::Pending };
        let Some(core) = self.core.take() else { unreachable!("it has heard of it") };
        Poll::Ready(heard.map(|grant| (core, grant)))
    }
}

impl<G: Gate, C: Clock> Future for Acquire<G, C> {
    type Output = Result<Held<G, C>, Denied>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_to(cx.waker(), false, |core, grant| (core, grant))
    }
}

impl<G: Gate, C: Clock> Drop for Acquire<G, C> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(core), Place::InLine(ticket)) = (&self.core, self.place) {
            core.leave(ticket);
        }
    }
}

impl<G: Gate, C: Clock> fmt::Debug for Acquire<G, C> {
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
