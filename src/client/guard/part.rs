//! An ask to a guard: the guard itself and its limits, granted at one instant.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::calls::Pass;
use super::state::GuardState;
use super::{Guarded, Told};
use crate::client::usage::Usage;
use crate::clock::{Clock, DefaultClock};
use crate::combine::Members;
use crate::core::{Limit, Ticket};
use crate::limiter::{Part, PartStage, Permit};
use crate::types::{Denied, Error, Reason};
use crate::units::Timestamp;

/// An ask to a [`Guard`](crate::client::Guard), as a member of a composition.
pub struct GuardPart<P: Part, C: Clock = DefaultClock> {
    limit: Arc<Limit<GuardState, C>>,
    told: Arc<Told>,
    usage: Usage,
    limits: P,
    ticket: Option<Ticket<GuardState, C>>,
    /// Granted by the guard, while limits that must be awaited are asked.
    pass: Option<Pass>,
}

impl<P: Part, C: Clock> GuardPart<P, C> {
    pub(super) const fn new(
        limit: Arc<Limit<GuardState, C>>,
        told: Arc<Told>,
        usage: Usage,
        limits: P,
    ) -> Self {
        Self { limit, told, usage, limits, ticket: None, pass: None }
    }

    fn give_back(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.limit.give_back(pass, self.usage);
        }
    }

    /// Takes from the guard, unless it has granted already.
    fn take(&mut self) -> Result<(), Denied> {
        if self.pass.is_none() {
            let claimed = self.ticket.take().and_then(|ticket| ticket.claim());
            self.pass = Some(claimed.map_or_else(|| self.limit.take(self.usage, |pass| pass), Ok)?);
        }
        Ok(())
    }
}

impl<P: Part, C: Clock> Unpin for GuardPart<P, C> {}

impl<P: Part, C: Clock> Drop for GuardPart<P, C> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<P: Part, C: Clock> Part for GuardPart<P, C> {
    type Permit = Guarded<P::Permit, C>;
    type Fault = P::Fault;

    fn stage(&self) -> PartStage {
        self.limits.stage().min(PartStage::Local)
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.limit.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        self.limit.peek(self.usage)?;
        self.limits.peek()
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        self.limits.peek()
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<P::Fault>>> {
        self.take()?;
        let permit = match ready!(self.limits.poll_take(cx)) {
            Ok(permit) => permit,
            Err(error) => {
                self.give_back();
                return Poll::Ready(Err(error));
            }
        };
        let Some(mut pass) = self.pass.take() else { unreachable!("the guard has granted it") };
        // A hold may have begun between the grant and this poll: then nothing is sent.
        if self.limit.with_state(|state, now| state.send(now, &mut pass)) {
            let guarded = Guarded::new(Arc::clone(&self.limit), Arc::clone(&self.told), pass, permit);
            return Poll::Ready(Ok(guarded));
        }
        permit.refund();
        self.limit.give_back(pass, self.usage);
        let wait = self.limit.ready_in(self.usage)?;
        let denied = Denied::new(Reason::Exhausted).after(Some(wait)).by(self.limit.name().cloned());
        Poll::Ready(Err(denied.into()))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.ticket = Some(members.add(&self.limit, self.usage));
        self.limits.enlist(members)
    }
}

impl<P: Part, C: Clock> fmt::Debug for GuardPart<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardPart").field("usage", &self.usage).finish_non_exhaustive()
    }
}
