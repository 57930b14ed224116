//! What needs no place in line: it goes at once, or need not be told at once.

use super::core::{Core, Glimpse};
use super::gate::Gate;
use crate::clock::Clock;
use crate::decision::Denied;

/// A look through the door that took nothing.
#[derive(Clone, Copy)]
pub(crate) struct Refused(Glimpse);

impl<G: Gate, C: Clock> Core<G, C> {
    /// Takes `load` through the door. As [`take`](Self::take), for who makes nothing of the answer but one of two ways:
    /// the refusal, which is large, is made only where it is wanted.
    #[inline(always)]
    pub(crate) fn pass(&self, load: G::Load) -> Result<G::Grant, Refused> {
        match self.glance(load) {
            Glimpse::Go(now) => Ok(G::grant_at_door(now, load)),
            glimpse => Err(Refused(glimpse)),
        }
    }

    /// What is said of a look: where only the lock could tell, it may yet be a grant.
    #[inline(never)]
    pub(crate) fn tell(&self, refused: Refused, load: G::Load) -> Result<G::Grant, Denied> {
        Err(match refused.0 {
            Glimpse::Go(now) => return Ok(G::grant_at_door(now, load)),
            Glimpse::For(wait_ns) => Denied::exhausted_for(wait_ns, self.name().cloned()),
            Glimpse::Until(at) => Denied::exhausted_until(at, C::HORIZON.now, self.name().cloned()),
            Glimpse::Shut => return self.take_locked(load),
        })
    }
}
