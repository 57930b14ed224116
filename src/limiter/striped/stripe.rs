//! A stripe: the units that one thread has drawn and not spent, and how it draws, spends and gives them back.

use std::sync::Arc;

use super::bucket::{SharedBucket, SharedWord};
use super::slots::{self, Leave, NONE};
use crate::algorithm::Grant;
use crate::clock::Clock;
#[cfg(not(tollgate_loom))]
use crate::clock::SystemClock;
use crate::core::Acquire;
use crate::limiter::RateLimiter;
use crate::limiter::rate::RateState;
use crate::sync::{AtomicU64, Ordering};
use crate::types::{Denied, Reason};
use crate::units::Timestamp;

/// What one thread holds of a limit, and a handle to the rest of it.
///
/// Only the thread that has claimed the stripe writes `stock`, so all accesses are plain reads and writes on cache lines
/// of its own. Others read it to tell what is left, and hold the stripe for the sake of the limit.
#[repr(align(128))]
pub(super) struct Stripe<C: Clock> {
    pub(super) limiter: RateLimiter<SharedBucket, C>,
    /// The number of the limit.
    limit: u64,
    /// Which one it is. `NONE`: the one that holds nothing, for threads that have claimed none.
    index: usize,
    stock: Stock,
}

/// With the counts before it, which are this thread's as well: two pairs of cache lines.
#[cfg(not(tollgate_loom))]
const _: () = assert!(size_of::<Stripe<SystemClock>>() == 128);

#[derive(Debug)]
struct Stock {
    is_claimed: AtomicU64,
    units: AtomicU64,
    /// The revision that the units were drawn in. Zero: never drawn.
    revision: AtomicU64,
    /// The last draw: how many there have been, when it was granted, and how often the bucket had changed.
    draws: AtomicU64,
    drawn_at_ns: AtomicU64,
    drawn_epoch: AtomicU64,
    /// How many units to have after the next draw: twice as many as after the last, and zero after a refusal. So a thread
    /// that asks once holds nothing, and one that asks often draws whole portions.
    next: AtomicU64,
}

/// Units of one draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    number: u64,
    at: Timestamp,
    epoch: u32,
}

/// The units of a permit: some from stock, the rest from the shared bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    stock: u64,
    draw: Draw,
    grant: Grant,
}

impl Taken {
    pub(super) const fn granted(grant: Grant) -> Self {
        Self { stock: 0, draw: Draw { number: 0, at: Timestamp::ZERO, epoch: 0 }, grant }
    }

    pub(super) const fn units(&self) -> u64 {
        self.stock + self.grant.units
    }
}

impl<C: Clock> Stripe<C> {
    pub(super) fn new(limiter: RateLimiter<SharedBucket, C>, limit: u64, index: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let stock = Stock {
            is_claimed: zero(),
            units: zero(),
            revision: zero(),
            draws: zero(),
            drawn_at_ns: zero(),
            drawn_epoch: zero(),
            next: zero(),
        };
        Self { limiter, limit, index, stock }
    }

    /// What all stripes draw and spend by.
    #[inline]
    pub(super) fn shared(&self) -> &SharedWord {
        self.limiter.limit.fast()
    }

    /// Claims the stripe, unless another thread has.
    pub(super) fn claim(&self) -> bool {
        // Acquire: what the thread before has written comes first. It left nothing.
        let claimed = self.stock.is_claimed.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_ok() {
            self.shared().claimed.0.fetch_add(1, Ordering::Relaxed);
        }
        claimed.is_ok()
    }

    #[inline]
    fn is_mine(&self) -> bool {
        self.index != NONE && slots::find(self.limit) == self.index
    }

    /// What is held may be spent. Relaxed: nothing else is read by the revision, and a thread that knows of a change sees
    /// it.
    #[inline]
    fn is_current(&self) -> bool {
        self.stock.revision.load(Ordering::Relaxed) == self.shared().revision.load(Ordering::Relaxed)
    }

    /// The units that may be spent here.
    pub(super) fn held(&self) -> u64 {
        if self.is_current() { self.stock.units.load(Ordering::Relaxed) } else { 0 }
    }

    /// The units that the shared bucket must have for an ask of so many by this thread.
    pub(super) fn missing(&self, units: u64) -> u64 {
        if units > self.shared().capacity.load(Ordering::Relaxed) || !self.is_mine() {
            units
        } else {
            units.saturating_sub(self.held())
        }
    }

    /// Spends from stock. By the thread that has claimed the stripe.
    #[inline]
    pub(super) fn spend(&self, units: u64) -> bool {
        if !self.is_current() {
            return false;
        }
        match self.stock.units.load(Ordering::Relaxed).checked_sub(units) {
            Some(left) => {
                self.stock.units.store(left, Ordering::Relaxed);
                true
            }
            None => false,
        }
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

    /// Nothing is held, and the last ask was refused or nothing may be held: the next one takes its units alone, from the
    /// shared bucket.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        self.stock.next.load(Ordering::Relaxed) == 0 && self.stock.units.load(Ordering::Relaxed) == 0
    }

    /// An ask of so many units was granted after a refusal: the next draw may be of more.
    #[inline]
    pub(super) fn grow(&self, units: u64) {
        let next = units.saturating_mul(2).min(self.shared().portion_of(self.index));
        self.stock.next.store(next, Ordering::Relaxed);
    }

    /// Takes from stock if this thread has claimed the stripe, and else from the shared bucket.
    #[inline]
    pub(super) fn take_here(&self, units: u64) -> Result<Taken, Denied> {
        if !self.is_mine() {
            self.limiter.limit.take(units, |grant| grant).map(Taken::granted)
        } else if self.spend(units) {
            Ok(self.spent(units))
        } else {
            self.take(units)
        }
    }

    /// Takes what there is of stock and the rest from the shared bucket, and draws a portion with it. By the thread that
    /// has claimed the stripe, or at the one that holds nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn take(&self, units: u64) -> Result<Taken, Denied> {
        let (stock, shared, limit) = (&self.stock, self.shared(), &*self.limiter.limit);
        if self.index == NONE {
            return limit.take(units, |grant| grant).map(Taken::granted);
        }
        loop {
            self.wait_for_lock();
            // Acquire: the word and the reserve that are read behind it are of this revision or a later one, so a draw
            // never counts as one of a revision later than its own.
            let revision = shared.revision.load(Ordering::Acquire);
            if stock.revision.load(Ordering::Relaxed) != revision {
                self.return_stock();
            }
            if revision % 2 == 1 || units > shared.capacity.load(Ordering::Relaxed) {
                return self.noted(limit.take(units, |grant| grant)).map(Taken::granted);
            }
            let had = stock.units.load(Ordering::Relaxed);
            let Some(missing) = units.checked_sub(had).filter(|missing| *missing > 0) else {
                stock.units.store(had - units, Ordering::Relaxed);
                return Ok(self.spent(units));
            };
            let portion = shared.portion_of(self.index);
            let parks = units <= portion;
            let next = stock.next.load(Ordering::Relaxed).min(portion).max(units);
            let more = next.saturating_sub(had);
            let ample = if parks && more > missing { limit.take(more, |grant| grant).ok() } else { None };
            let grant = match ample {
                Some(grant) => grant,
                None => self.noted(limit.take(missing, |grant| grant))?,
            };
            // The units in stock are spent now: they must still be good. The grant alone is, and the next ask checks
            // what is left of it.
            if had > 0 && shared.revision.load(Ordering::Acquire) != revision {
                self.limiter.limit.settle(grant, 0);
                continue;
            }
            let before = self.last_draw();
            if !parks {
                stock.units.store(0, Ordering::Relaxed);
                return Ok(Taken { stock: had, draw: before, grant });
            }
            let number = before.number + 1;
            stock.revision.store(revision, Ordering::Relaxed);
            stock.draws.store(number, Ordering::Relaxed);
            stock.drawn_at_ns.store(grant.at.as_ns(), Ordering::Relaxed);
            stock.drawn_epoch.store(grant.epoch.into(), Ordering::Relaxed);
            stock.units.store(had + grant.units - units, Ordering::Relaxed);
            stock.next.store((had + grant.units).saturating_mul(2), Ordering::Relaxed);
            // The older units are spent first, all of them; a refund is worth what is left at their age.
            let draw = if had > 0 {
                Draw { number, ..before }
            } else {
                Draw { number, at: grant.at, epoch: grant.epoch }
            };
            return Ok(Taken { stock: units, draw, grant: Grant { units: 0, ..grant } });
        }
    }

    /// A refusal: the next draw is for what is asked for alone.
    fn noted<T>(&self, answer: Result<T, Denied>) -> Result<T, Denied> {
        if answer.is_err() {
            self.stock.next.store(0, Ordering::Relaxed);
        }
        answer
    }

    /// Waits for the thread that holds the lock, if that is all that may keep this one from spending its stock: a moment
    /// costs less than to give the stock back.
    fn wait_for_lock(&self) {
        let stock = &self.stock;
        let revision = stock.revision.load(Ordering::Relaxed);
        if stock.units.load(Ordering::Relaxed) > 0
            && self.shared().revision.load(Ordering::Relaxed) == revision + 1
        {
            self.limiter.limit.with_state(|_, _| ());
        }
    }

    /// Gives the stock back. By the thread that has claimed the stripe.
    fn return_stock(&self) {
        let units = self.stock.units.load(Ordering::Relaxed);
        if units > 0 {
            // First it is gone from here: a waker that runs may ask this limit again.
            self.stock.units.store(0, Ordering::Relaxed);
            self.stock.next.store(0, Ordering::Relaxed);
            self.give_back(self.last_draw(), units);
        }
    }

    /// Gives units of a draw back to the shared bucket: worth what has not been refilled since the draw.
    fn give_back(&self, draw: Draw, units: u64) {
        self.limiter.limit.settle(Grant { epoch: draw.epoch, ..Grant::new(draw.at, units) }, 0);
    }

    /// Replaces what was taken by what it cost.
    pub(super) fn settle(&self, taken: Taken, actual: u64) {
        let Some(back) = taken.units().checked_sub(actual) else {
            return self.limiter.charge(actual - taken.units());
        };
        let to_stock = back.min(taken.stock);
        if to_stock > 0 {
            self.put_back(taken.draw, to_stock);
        }
        self.limiter.limit.settle(taken.grant, taken.grant.units - (back - to_stock));
    }

    /// Takes units of a draw back: into stock if that is of the same draw and may be spent, so that it is never more than
    /// was drawn, and else into the shared bucket.
    fn put_back(&self, draw: Draw, units: u64) {
        let stock = &self.stock;
        let is_last =
            self.is_mine() && stock.draws.load(Ordering::Relaxed) == draw.number && self.is_current();
        if is_last {
            stock.units.store(stock.units.load(Ordering::Relaxed) + units, Ordering::Relaxed);
        } else {
            self.give_back(draw, units);
        }
    }

    /// An ask that was denied so waits, if it may until then.
    pub(super) fn would_wait(&self, deadline: Option<Timestamp>, denied: &Denied) -> bool {
        let helps = matches!(denied.reason(), Reason::Exhausted | Reason::Paused);
        helps
            && deadline.is_none_or(|deadline| match denied.retry_after() {
                Some(wait) => self.limiter.limit.clock().now().after(wait) <= deadline,
                None => deadline > Timestamp::ZERO,
            })
    }

    /// The wait in the queue of the shared bucket, in which no stock is spent: what this thread holds goes back.
    pub(super) fn enqueue(
        &self,
        units: u64,
        deadline: Option<Timestamp>,
    ) -> Acquire<RateState<SharedBucket>, C> {
        self.return_mine();
        Acquire::until(Arc::clone(&self.limiter.limit), units, deadline)
    }

    /// Gives the stock back if this thread has claimed the stripe.
    pub(super) fn return_mine(&self) {
        if self.is_mine() {
            self.return_stock();
        }
    }
}

impl<C: Clock> Leave for Stripe<C> {
    fn leave(&self) {
        self.return_stock();
        self.stock.next.store(0, Ordering::Relaxed);
        self.shared().claimed.0.fetch_sub(1, Ordering::Relaxed);
        // Release: last, when nothing is held here any more.
        self.stock.is_claimed.store(0, Ordering::Release);
    }
}
