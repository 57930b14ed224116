use std::sync::{Arc, Weak};

use super::state::SlotState;
use super::stripe::{FREE_MAX, Stripe};
use crate::clock::Clock;
use crate::core::{Limit, Outcome};
use crate::sync::per_thread::own;
use crate::sync::{Ordering, fence};
use crate::units::Timestamp;

/// Free slots in a few atomic words, each on cache lines of its own; all of them held while somebody waits.
///
/// A thread takes from the word of its own, so that threads do not meet; if that has too few, it takes from another.
/// Words that hold too few together deny, if two looks at them agree; otherwise the lock decides, under which all words
/// are held.
pub(in crate::limiter) struct SlotWords<C: Clock>(Box<[Arc<SharedStripe<C>>]>);

/// A word, and the limit that it belongs to. A permit holds on to this and not to the limit: the count of permits is then
/// on a line that few threads share.
pub(super) struct SharedStripe<C: Clock> {
    pub(super) word: Stripe,
    /// Gone once nobody has a handle and nobody waits: then nobody needs what comes back.
    pub(super) limit: Weak<Limit<SlotState<C>, C>>,
}

impl<C: Clock> SlotWords<C> {
    /// So many words, a power of two, all held.
    pub(super) fn held(stripes: usize, limit: &Weak<Limit<SlotState<C>, C>>) -> Self {
        let stripe = |_| Arc::new(SharedStripe { word: Stripe::held(), limit: Weak::clone(limit) });
        Self((0..stripes).map(stripe).collect())
    }

    /// The word of this thread.
    #[inline]
    pub(super) fn own(&self) -> &Arc<SharedStripe<C>> {
        &self.0[own(&self.0)]
    }

    /// Takes from the word of this thread, or else from another.
    #[inline]
    pub(super) fn take(&self, units: u64) -> Outcome {
        // Zero units take the lock, which tells if the limit is closed.
        if units.wrapping_sub(1) >= FREE_MAX {
            return Outcome::Contended;
        }
        if self.own().word.take(units) { Outcome::Taken } else { self.take_elsewhere(units) }
    }

    #[inline(never)]
    fn take_elsewhere(&self, units: u64) -> Outcome {
        let own = own(&self.0);
        let others = (1..self.0.len()).map(|next| (own + next) & (self.0.len() - 1));
        for index in others {
            if self.0[index].word.take(units) {
                return Outcome::Taken;
            }
        }
        self.short_or_contended(units)
    }

    fn short_or_contended(&self, units: u64) -> Outcome {
        // Others must release slots: no time is known.
        if self.are_short(units) { Outcome::WaitUntil(Timestamp::MAX) } else { Outcome::Contended }
    }

    /// Tells if `units` could be taken from one word, or from none for sure.
    pub(super) fn peek(&self, units: u64) -> Outcome {
        let fits = |stripe: &Arc<SharedStripe<C>>| stripe.word.look().is_some_and(|(free, _)| free >= units);
        if self.0.iter().any(fits) { Outcome::Taken } else { self.short_or_contended(units) }
    }

    /// Takes all words behind the lock, and what is free with them.
    pub(super) fn hold(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.word.hold()).sum()
    }

    /// Spreads `free` of so many slots over the words. Returns the rest that does not fit them.
    pub(super) fn open(&self, free: u64, slots: u64) -> u64 {
        let words = self.0.len() as u64;
        let most = if slots <= FREE_MAX * words { slots } else { 0 };
        let mut rest = free;
        for (nth, stripe) in (0..).zip(self.0.iter()) {
            let free = (free / words + u64::from(nth < free % words)).min(FREE_MAX);
            rest -= free;
            stripe.word.open(free, most);
        }
        rest
    }

    /// There has been a moment in this call at which fewer than `units` were free in all, nobody waited, and as many could
    /// be free.
    ///
    /// Proof. It is the moment between two looks at all words. 1. The turn of a word moves on whenever its count grows and
    /// whenever it is opened. 2. If no turn has moved from the first look to the second, each word had at that moment as
    /// many as the first look saw, or fewer. 3. Turns never go back, so equal sums mean equal turns.
    #[inline]
    fn are_short(&self, units: u64) -> bool {
        let (mut free, mut turns) = (0, 0);
        for stripe in &self.0 {
            let Some((free_here, turn)) = stripe.word.look() else { return false };
            free += free_here;
            turns += turn;
        }
        let most = self.0[0].word.most();
        // Acquire: if that was a later value than the words were opened with, the look below sees them held.
        fence(Ordering::Acquire);
        let turns_now: u64 = self.0.iter().map(|stripe| stripe.word.turn()).sum();
        free < units && units <= most && turns == turns_now
    }
}

impl<C: Clock> std::fmt::Debug for SlotWords<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|stripe| &stripe.word)).finish()
    }
}
