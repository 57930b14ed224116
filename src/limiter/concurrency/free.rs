use std::slice::from_ref;
use std::sync::Arc;

use super::stripe::{FREE_MAX, Keeper, Stripe};
use crate::limiter::stripes::own;
use crate::sync::{Lasting, LastingOne, Ordering, fence};

/// Free slots, in a few atomic words on lines of their own; all of them held while somebody waits.
///
/// A thread takes from the word it calls its own, so that threads do not meet, and puts back where it took; where there
/// are too few it takes from another's. Where the words hold too few together, they may say so; where no look at them
/// is certain, the lock tells, under which all words are held.
///
/// The words last as long as the process: a permit needs none of the counting that would keep them. The slots that are
/// out tell when the last one is back, and then another limit gets the words.
#[derive(Debug, Clone)]
pub(crate) struct FreeSlots(Lasting<Stripe>);

/// What a look at the words says.
pub(super) enum Take {
    /// Taken, here.
    Taken(LastingOne<Stripe>),
    /// Too few are free.
    Short,
    /// Only the lock can tell.
    Shut,
}

impl Take {
    #[inline]
    const fn short_if(is_certain: bool) -> Self {
        if is_certain { Self::Short } else { Self::Shut }
    }
}

impl FreeSlots {
    /// So many words, a power of two, all held.
    pub(super) fn held(stripes: usize) -> Self {
        Self(pool::get(stripes).unwrap_or_else(|| Lasting::new((0..stripes).map(|_| Stripe::held()))))
    }

    /// Takes from the word that this thread calls its own, or else from another.
    #[inline]
    pub(super) fn take(&self, units: u64) -> Take {
        // None is for the lock, too: whether the limit is closed is asked then.
        if units.wrapping_sub(1) >= FREE_MAX {
            return Take::Shut;
        }
        let own = own(&self.0);
        let stripe = &self.0[own];
        if stripe.take(units) {
            Take::Taken(self.0.one(own))
        } else if self.0.len() > 1 {
            self.take_elsewhere(own, units)
        } else {
            Take::short_if(are_short(from_ref(stripe), units))
        }
    }

    #[inline(never)]
    fn take_elsewhere(&self, own: usize, units: u64) -> Take {
        for next in 1..self.0.len() {
            let index = (own + next) & (self.0.len() - 1);
            if self.0[index].take(units) {
                return Take::Taken(self.0.one(index));
            }
        }
        Take::short_if(are_short(&self.0, units))
    }

    /// One for what was taken under the lock.
    #[inline]
    pub(super) fn own(&self) -> LastingOne<Stripe> {
        self.0.one(own(&self.0))
    }

    /// Takes all words behind the lock, and what is free with them.
    pub(super) fn hold(&self) -> u64 {
        self.0.iter().map(Stripe::hold).sum()
    }

    /// Spreads what is free, of so many slots, over the words. Returns what does not go there.
    pub(super) fn open(&self, free: u64, slots: u64) -> u64 {
        let words = self.0.len() as u64;
        let most = if slots <= FREE_MAX * words { slots } else { 0 };
        let mut rest = free;
        for (nth, stripe) in (0..).zip(self.0.iter()) {
            let free = (free / words + u64::from(nth < free % words)).min(FREE_MAX);
            rest -= free;
            stripe.open(free, most);
        }
        rest
    }

    pub(super) fn keep(&self, keeper: &Arc<dyn Keeper>) {
        self.0.iter().for_each(|stripe| stripe.keep(Some(Arc::clone(keeper))));
    }

    /// Lets go of the limit, and gives the words to the next one: all of them are held, and no slot is out.
    pub(super) fn let_go(&self) {
        self.0.iter().for_each(|stripe| stripe.keep(None));
        pool::put(self.0.clone());
    }
}

/// Whether there has been a moment, in this call, at which fewer than `units` were free in all, nobody waited, and as many
/// could have been had.
///
/// That is the moment between two looks at all words, if none has had a turn from the one look to the other: then each had
/// as many as the first look saw, or fewer.
#[inline]
fn are_short(stripes: &[Stripe], units: u64) -> bool {
    let (mut free, mut turns) = (0, 0);
    for stripe in stripes {
        let Some((free_here, turn)) = stripe.look() else { return false };
        free += free_here;
        turns += turn;
    }
    let most = stripes[0].most();
    // Acquire: if that was a later value than the words were opened with, the look below sees them held.
    fence(Ordering::Acquire);
    // No turn goes back, so their sum tells of each.
    let turns_now: u64 = stripes.iter().map(Stripe::turn).sum();
    free < units && units <= most && turns == turns_now
}

/// Words that no limit uses: as many as were in use at once, at most.
#[cfg(not(tollgate_loom))]
mod pool {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::{Lasting, Stripe};

    fn unused(stripes: usize) -> MutexGuard<'static, Vec<Lasting<Stripe>>> {
        /// By the power of two.
        static UNUSED: [Mutex<Vec<Lasting<Stripe>>>; usize::BITS as usize] =
            [const { Mutex::new(Vec::new()) }; usize::BITS as usize];
        UNUSED[stripes.trailing_zeros() as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(stripes: usize) -> Option<Lasting<Stripe>> {
        unused(stripes).pop()
    }

    pub(super) fn put(stripes: Lasting<Stripe>) {
        unused(stripes.len()).push(stripes);
    }
}

#[cfg(tollgate_loom)]
mod pool {
    use super::{Lasting, Stripe};

    pub(super) fn get(_stripes: usize) -> Option<Lasting<Stripe>> {
        None
    }

    pub(super) fn put(_stripes: Lasting<Stripe>) {}
}
