use std::sync::Arc;

use super::epoch::{Change, Epoch};
use super::seats::{self, Leave, NOWHERE};
use super::shared::{InQueue, Shared};
use crate::algorithm::Grant;
use crate::clock::Clock;
#[cfg(not(tollgate_loom))]
use crate::clock::SystemClock;
use crate::core::Acquire;
use crate::sync::{AtomicU64, Ordering};
use crate::types::{Ask, Denied};
use crate::units::Timestamp;

/// A place for one thread to hold units at: what it has drawn and not spent.
///
/// Only the thread that sits here writes `stock`, so all of it is plain reads and writes on a line of its own. Others
/// read it to tell what is left, and hold the stripe for the sake of what is shared.
#[repr(align(128))]
pub(super) struct Stripe<C: Clock> {
    pub(super) shared: Arc<Shared<C>>,
    /// Which one it is; `NOWHERE`: the one that holds nothing, for threads that sit nowhere.
    index: usize,
    stock: Stock,
}

/// With the counts before it, which are this thread's as well: two lines, and those that are fetched beside them.
#[cfg(not(tollgate_loom))]
const _: () = assert!(size_of::<Stripe<SystemClock>>() == 128);

#[derive(Debug)]
struct Stock {
    is_taken: AtomicU64,
    /// The epoch it was drawn in. Zero: never.
    epoch: AtomicU64,
    units: AtomicU64,
    /// The last draw: how many there have been, when it was granted, and by how often changed a bucket.
    draws: AtomicU64,
    drawn_at_ns: AtomicU64,
    drawn_epoch: AtomicU64,
    /// How many units to have after the next draw: twice as many as after the last, from what is asked for on. So a
    /// thread that comes once holds nothing, and one that comes often draws whole portions.
    next: AtomicU64,
}

/// Units of one draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    number: u64,
    at: Timestamp,
    epoch: u32,
}

/// What was taken: some from stock, the rest from the shared word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    stock: u64,
    draw: Draw,
    grant: Grant,
}

impl Taken {
    pub(super) fn granted(grant: Grant) -> Self {
        Self { stock: 0, draw: Draw { number: 0, at: Timestamp::ZERO, epoch: 0 }, grant }
    }

    pub(super) const fn units(&self) -> u64 {
        self.stock + self.grant.units
    }
}

impl<C: Clock> Stripe<C> {
    pub(super) fn new(shared: Arc<Shared<C>>, index: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let stock = Stock {
            is_taken: zero(),
            epoch: zero(),
            units: zero(),
            draws: zero(),
            drawn_at_ns: zero(),
            drawn_epoch: zero(),
            next: zero(),
        };
        Self { shared, index, stock }
    }

    /// Sits down here, unless somebody does.
    pub(super) fn claim(&self) -> bool {
        // Acquire: what the one before has written comes first. It left nothing.
        let free = self.stock.is_taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if free {
            self.shared.seated.0.fetch_add(1, Ordering::Relaxed);
        }
        free
    }

    #[inline]
    fn is_mine(&self) -> bool {
        self.index != NOWHERE && seats::find(self.shared.id) == self.index
    }

    /// What may be spent here.
    pub(super) fn held(&self) -> u64 {
        let stock = &self.stock;
        if stock.epoch.load(Ordering::Relaxed) == self.shared.epoch.now() {
            stock.units.load(Ordering::Relaxed)
        } else {
            0
        }
    }

    /// The next draw is for what is asked for alone: this thread was refused. By who sits here.
    #[inline]
    pub(super) fn draw_less(&self) {
        self.stock.next.store(0, Ordering::Relaxed);
    }

    /// Spends from stock. By who sits here.
    #[inline]
    pub(super) fn spend(&self, units: u64) -> bool {
        let stock = &self.stock;
        if stock.epoch.load(Ordering::Relaxed) != self.shared.epoch.now() {
            return false;
        }
        match stock.units.load(Ordering::Relaxed).checked_sub(units) {
            Some(left) => {
                stock.units.store(left, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// Spends from stock if this thread sits here.
    #[inline]
    pub(super) fn spend_here(&self, units: u64) -> bool {
        self.is_mine() && self.spend(units)
    }

    /// What [`spend`](Self::spend) has just taken.
    #[inline]
    pub(super) fn spent(&self, units: u64) -> Taken {
        Taken { stock: units, draw: self.last_draw(), grant: Grant::new(Timestamp::ZERO, 0) }
    }

    #[inline]
    fn last_draw(&self) -> Draw {
        let stock = &self.stock;
        Draw {
            number: stock.draws.load(Ordering::Relaxed),
            at: Timestamp::from_ns(stock.drawn_at_ns.load(Ordering::Relaxed)),
            epoch: stock.drawn_epoch.load(Ordering::Relaxed) as u32,
        }
    }

    /// Takes from stock if this thread sits here, and else from the shared word.
    pub(super) fn take_here(&self, units: u64) -> Result<Taken, Denied> {
        if self.spend_here(units) {
            Ok(self.spent(units))
        } else if self.is_mine() {
            self.take(units)
        } else {
            self.shared.take(units).map(Taken::granted)
        }
    }

    /// Tells if `units` could be taken here. Takes nothing.
    pub(super) fn peek(&self, units: u64) -> Result<(), Denied> {
        let held = if self.is_mine() { self.held() } else { 0 };
        let missing = if units > self.shared.capacity() { units } else { units.saturating_sub(held) };
        if missing == 0 && units > 0 { Ok(()) } else { self.shared.central.limit.peek(missing) }
    }

    /// Ends the epoch for an ask that goes to wait: what threads hold goes back as they come by.
    pub(super) fn stop_spending(&self) {
        let _change = self.shared.epoch.change();
        if self.is_mine() {
            self.return_stock();
        }
    }

    /// Takes what there is of stock and the rest from the shared word, and draws a portion with it. By who sits here,
    /// or at the one that holds nothing.
    pub(super) fn take(&self, units: u64) -> Result<Taken, Denied> {
        let (stock, shared) = (&self.stock, &*self.shared);
        if self.index == NOWHERE {
            return shared.take(units).map(Taken::granted);
        }
        loop {
            let epoch = shared.epoch.to_draw();
            if stock.epoch.load(Ordering::Relaxed) != epoch {
                self.return_stock();
                self.draw_less();
            }
            if !Epoch::is_between_changes(epoch) || units > shared.capacity() {
                return shared.take(units).map(Taken::granted);
            }
            let had = stock.units.load(Ordering::Relaxed);
            let missing = units.saturating_sub(had);
            let portion = shared.portion_of(self.index);
            let parks = units <= portion;
            let next = stock.next.load(Ordering::Relaxed).min(portion).max(units);
            let granted = match next.saturating_sub(had) {
                more if parks && more > missing => shared.take(more).or_else(|_| {
                    self.draw_less();
                    shared.take(missing)
                }),
                _ => shared.take(missing),
            };
            let grant = granted?;
            // What was in stock is spent now: it must still be good. The grant alone needs no look, nor does what is
            // left of it, at which the next one looks.
            if had > 0 && shared.epoch.to_draw() != epoch {
                shared.give_back(grant, grant.units);
                continue;
            }
            let before = self.last_draw();
            if !parks {
                stock.units.store(0, Ordering::Relaxed);
                return Ok(Taken { stock: had, draw: before, grant });
            }
            let number = before.number + 1;
            stock.epoch.store(epoch, Ordering::Relaxed);
            stock.draws.store(number, Ordering::Relaxed);
            stock.drawn_at_ns.store(grant.at.as_ns(), Ordering::Relaxed);
            stock.drawn_epoch.store(grant.epoch.into(), Ordering::Relaxed);
            stock.units.store(had + grant.units - units, Ordering::Relaxed);
            stock.next.store((had + grant.units).saturating_mul(2), Ordering::Relaxed);
            // The older units are spent first, all of them; the permit is reckoned by their age.
            let draw = if had > 0 {
                Draw { number, ..before }
            } else {
                Draw { number, at: grant.at, epoch: grant.epoch }
            };
            return Ok(Taken { stock: units, draw, grant: Grant { units: 0, ..grant } });
        }
    }

    /// Gives the stock back. By who sits here.
    fn return_stock(&self) {
        let units = self.stock.units.load(Ordering::Relaxed);
        if units > 0 {
            // First it is not here any more: whoever is woken by it may come back here.
            self.stock.units.store(0, Ordering::Relaxed);
            self.give_back_drawn(self.last_draw(), units);
        }
    }

    fn give_back_drawn(&self, draw: Draw, units: u64) {
        let grant = Grant { epoch: draw.epoch, ..Grant::new(draw.at, units) };
        self.shared.give_back(grant, units);
    }

    /// The real cost of what was taken.
    pub(super) fn settle(&self, taken: Taken, actual: u64) {
        let Some(back) = taken.units().checked_sub(actual) else {
            return self.shared.charge(actual - taken.units());
        };
        let to_stock = back.min(taken.stock);
        if to_stock > 0 {
            self.put_back(taken.draw, to_stock);
        }
        if back > to_stock {
            self.shared.give_back(taken.grant, back - to_stock);
        }
    }

    /// Units of a draw come back: into the stock while that is of the same draw, so that it is never more than was
    /// drawn, and else to the shared word.
    fn put_back(&self, draw: Draw, units: u64) {
        let stock = &self.stock;
        let is_last = self.is_mine()
            && stock.draws.load(Ordering::Relaxed) == draw.number
            && stock.epoch.load(Ordering::Relaxed) == self.shared.epoch.now();
        if is_last {
            let held = stock.units.load(Ordering::Relaxed);
            stock.units.store(held + units, Ordering::Relaxed);
        } else {
            self.give_back_drawn(draw, units);
        }
    }

    /// Goes to wait in line, where no stock passes: what this thread has here goes back, what others have is good no
    /// more once the change is over.
    pub(super) fn join(&self, ask: Ask, deadline: Option<Timestamp>) -> (InQueue<C>, Change<'_>) {
        let change = self.shared.epoch.change();
        if self.is_mine() {
            self.return_stock();
        }
        (Acquire::until(Arc::clone(&self.shared.central.limit), ask.units().units(), deadline), change)
    }
}

impl<C: Clock> Leave for Stripe<C> {
    fn leave(&self) {
        self.return_stock();
        self.draw_less();
        self.shared.seated.0.fetch_sub(1, Ordering::Relaxed);
        // Release: last, when nothing is held here any more.
        self.stock.is_taken.store(0, Ordering::Release);
    }
}
