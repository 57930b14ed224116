//! Which stripe of which limit this thread sits at. A small table, so that finding it is a look at one place; what a
//! thread leaves behind when it ends is seen to here as well.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;

use crate::sync::thread_local_const;

/// How many striped limits a thread may have a seat at. Those beyond are served by the one word.
const SEATS: usize = 16;

/// No stripe.
pub(super) const NOWHERE: usize = usize::MAX;

/// A stripe, to be left when the thread ends.
pub(super) trait Leave: Send + Sync {
    fn leave(&self);
}

#[derive(Clone, Copy)]
struct Seat {
    /// Zero: nobody's.
    limit: u64,
    stripe: usize,
}

const FREE: Seat = Seat { limit: 0, stripe: NOWHERE };

/// Without a destructor, so that the look at it is one at memory: whether it has been made need not be asked.
struct Table([Cell<Seat>; SEATS]);

impl Table {
    const fn new() -> Self {
        Self([const { Cell::new(FREE) }; SEATS])
    }

    /// Limits are numbered one after the other, so the first sixteen never meet.
    #[inline]
    const fn home(limit: u64) -> usize {
        limit as usize % SEATS
    }

    #[cold]
    fn find_elsewhere(&self, limit: u64) -> usize {
        self.0.iter().map(Cell::get).find(|seat| seat.limit == limit).map_or(NOWHERE, |seat| seat.stripe)
    }
}

/// What the table stands for, to be given up with the thread.
struct Leases(RefCell<[Option<Weak<dyn Leave>>; SEATS]>);

impl Leases {
    const fn new() -> Self {
        Self(RefCell::new([const { None }; SEATS]))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        for (place, lease) in self.0.get_mut().iter_mut().enumerate() {
            // First the seat: whatever runs below may ask the same limit.
            let _ = TABLE.try_with(|table| table.0[place].set(FREE));
            if let Some(stripe) = lease.take().and_then(|lease| lease.upgrade()) {
                // What goes back may wake others, and a waker that panics here would end the process.
                let _ = catch_unwind(AssertUnwindSafe(|| stripe.leave()));
            }
        }
    }
}

thread_local_const! { static TABLE: Table = Table::new(); }
thread_local_const! { static LEASES: Leases = Leases::new(); }

/// The stripe of `limit` at which this thread sits, or `NOWHERE`.
#[inline]
pub(super) fn find(limit: u64) -> usize {
    TABLE.with(|table| {
        let seat = table.0[Table::home(limit)].get();
        if seat.limit == limit { seat.stripe } else { table.find_elsewhere(limit) }
    })
}

/// Seats this thread at the stripe that `claim` finds, if there is a place in the table.
pub(super) fn sit(limit: u64, claim: impl FnOnce() -> Option<(usize, Weak<dyn Leave>)>) -> Option<usize> {
    // Nobody is seated at the end of a thread, when nothing would see to its leaving.
    LEASES
        .try_with(|leases| {
            let mut leases = leases.0.try_borrow_mut().ok()?;
            let is_free = |lease: &Option<Weak<dyn Leave>>| {
                lease.as_ref().is_none_or(|lease| lease.strong_count() == 0)
            };
            let home = Table::home(limit);
            let place = Some(home).filter(|home| is_free(&leases[*home]));
            let place = place.or_else(|| leases.iter().position(is_free))?;
            let (stripe, lease) = claim()?;
            leases[place] = Some(lease);
            TABLE.with(|table| table.0[place].set(Seat { limit, stripe }));
            Some(stripe)
        })
        .ok()
        .flatten()
}
