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
use super::gate::{Gate, Load};
use super::queue::{NEW, Ticket};
use crate::clock::Clock;
use crate::decision::Denied;
use crate::units::Timestamp;

/// Waits for a grant. Dropped, it leaves the line; a grant it was not told of goes back.
pub(crate) struct Acquire<G: Gate, C: Clock> {
    core: Arc<Core<G, C>>,
    load: G::Load,
    /// Until when it will wait, counted from the call; `None`: for as long as it takes.
    deadline: Option<Timestamp>,
    stage: Stage,
}

enum Stage {
    Fresh { rank: u64 },
    Queued(Ticket),
    Done,
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
        Self { core, load, deadline, stage: Stage::Fresh { rank: NEW } }
    }

    /// For one who had been granted it and comes back: at the front, before all of a higher rank. Where the newest is served
    /// first it is as new as any.
    #[cfg(feature = "client")]
    pub(crate) fn again(core: Arc<Core<G, C>>, load: G::Load, max_wait: Option<Duration>, rank: u64) -> Self {
        let rank = if core.line().order == Order::NewestFirst { NEW } else { rank };
        let deadline = core.deadline(max_wait);
        Self { core, load, deadline, stage: Stage::Fresh { rank } }
    }

    pub(crate) const fn core(&self) -> &Arc<Core<G, C>> {
        &self.core
    }

    /// Waits as a thread.
    pub(crate) fn block(self) -> Result<G::Grant, Denied> {
        self.block_after(())
    }

    /// Waits as a thread, and drops `joining` as soon as it stands in line, or need not.
    pub(crate) fn block_after<T>(mut self, joining: T) -> Result<G::Grant, Denied> {
        let mut joining = Some(joining);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match self.step(&waker, true) {
                Poll::Ready(heard) => return heard,
                Poll::Pending => {
                    drop(joining.take());
                    if let Stage::Queued(ticket) = self.stage {
                        self.core.park(ticket);
                    }
                }
            }
        }
    }

    fn step(&mut self, waker: &Waker, is_thread: bool) -> Poll<Result<G::Grant, Denied>> {
        let heard = match self.stage {
            Stage::Fresh { rank } => {
                match self.core.enter(self.load, self.deadline, waker, is_thread, rank) {
                    Ok(heard) => Some(heard),
                    Err(ticket) => {
                        self.stage = Stage::Queued(ticket);
                        None
                    }
                }
            }
            Stage::Queued(ticket) => self.core.hear(ticket, waker),
            Stage::Done => panic!("an acquire was polled after it had given its answer"),
        };
        match heard {
            Some(heard) => {
                self.stage = Stage::Done;
                Poll::Ready(heard)
            }
            None => Poll::Pending,
        }
    }
}

impl<G: Gate, C: Clock> Future for Acquire<G, C> {
    type Output = Result<G::Grant, Denied>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.step(cx.waker(), false)
    }
}

impl<G: Gate, C: Clock> Drop for Acquire<G, C> {
    fn drop(&mut self) {
        if let Stage::Queued(ticket) = self.stage {
            self.core.leave(ticket);
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
