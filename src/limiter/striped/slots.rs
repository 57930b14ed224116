//! The slots of a thread: which stripe of which limit it has claimed. A small table, so that one load finds the stripe;
//! a thread that ends leaves its stripes here as well.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::atomic::AtomicU64;

use crate::sync::{Ordering, thread_local_const};

/// The number of striped limits a thread may have a slot for. Those beyond are served by their shared buckets.
const SLOTS: usize = 16;

/// No stripe.
pub(super) const NONE: usize = usize::MAX;

/// A stripe, to be left when the thread ends.
pub(super) trait Leave: Send + Sync {
    fn leave(&self);
}

#[derive(Clone, Copy)]
struct Slot {
    /// Zero: none.
    limit: u64,
    stripe: usize,
}

const FREE: Slot = Slot { limit: 0, stripe: NONE };

/// Without a destructor, so that a read of it is one of memory: nobody checks if it has been made.
struct Table([Cell<Slot>; SLOTS]);

impl Table {
    /// Limits are numbered one after the other, so the first sixteen never share a slot.
    #[inline]
    const fn home(limit: u64) -> usize {
        limit as usize % SLOTS
    }

    #[cold]
    fn find_elsewhere(&self, limit: u64) -> usize {
        self.0.iter().map(Cell::get).find(|slot| slot.limit == limit).map_or(NONE, |slot| slot.stripe)
    }
}

/// The stripes of the slots, to be left with the thread.
struct Claims(RefCell<[Option<Weak<dyn Leave>>; SLOTS]>);

impl Drop for Claims {
    fn drop(&mut self) {
        for (index, claim) in self.0.get_mut().iter_mut().enumerate() {
            // First the slot: whatever runs below may ask the same limit.
            let _ = TABLE.try_with(|table| table.0[index].set(FREE));
            if let Some(stripe) = claim.take().and_then(|claim| claim.upgrade()) {
                // What goes back may wake others, and a waker that panics here would end the process.
                let _ = catch_unwind(AssertUnwindSafe(|| stripe.leave()));
            }
        }
    }
}

thread_local_const! { static TABLE: Table = Table([const { Cell::new(FREE) }; SLOTS]); }
thread_local_const! { static CLAIMS: Claims = Claims(RefCell::new([const { None }; SLOTS])); }

/// A number for a limit: never zero, never used again.
pub(super) fn next_id() -> u64 {
    // Not loom's: it outlives the models, and orders nothing.
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// The stripe of `limit` that this thread has claimed, or `NONE`.
#[inline]
pub(super) fn find(limit: u64) -> usize {
    TABLE.with(|table| {
        let slot = table.0[Table::home(limit)].get();
        if slot.limit == limit { slot.stripe } else { table.find_elsewhere(limit) }
    })
}

/// Gives this thread a slot for the stripe that `claim` finds, if one is free.
pub(super) fn fill(limit: u64, claim: impl FnOnce() -> Option<(usize, Weak<dyn Leave>)>) -> Option<usize> {
    // No stripe is claimed at the end of a thread, when nothing would leave it.
    CLAIMS
        .try_with(|claims| {
            let mut claims = claims.0.try_borrow_mut().ok()?;
            let is_free = |claim: &Option<Weak<dyn Leave>>| {
                claim.as_ref().is_none_or(|claim| claim.strong_count() == 0)
            };
            let home = Table::home(limit);
            let index = Some(home).filter(|home| is_free(&claims[*home]));
            let index = index.or_else(|| claims.iter().position(is_free))?;
            let (stripe, leave) = claim()?;
            claims[index] = Some(leave);
            TABLE.with(|table| table.0[index].set(Slot { limit, stripe }));
            Some(stripe)
        })
        .ok()
        .flatten()
}
