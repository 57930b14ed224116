use crate::sync::{AtomicU64, Ordering};

/// One change more, in the upper bits; the lower ones count the changes that are being made.
const CHANGED: u64 = 1 << 16;

/// Which changes of the limit there have been: stock is spent only in the epoch it was drawn in.
///
/// It is read by every decision and written by changes alone, so its line is in every cache.
///
/// | word | meaning |
/// |---|---|
/// | lower 16 bits zero | between changes: stock may be drawn, and what was drawn in this epoch may be spent |
/// | not zero | so many changes are being made: no stock is drawn or spent |
#[derive(Debug)]
pub(super) struct Epoch(AtomicU64);

impl Epoch {
    /// Not zero, which is the epoch of a stripe that never drew.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(CHANGED))
    }

    /// To spend by. Relaxed: nothing else is read by what it says, and whoever knows of a change sees it.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// To draw by. Acquire: the reserve is read after it. Read before the draw, so that stock is never taken for newer
    /// than it is: a draw before a change releases into it, and what was read before the draw was older.
    pub(super) fn to_draw(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) const fn is_between_changes(epoch: u64) -> bool {
        epoch % CHANGED == 0
    }

    /// Ends the epoch. For changes made under the line's lock, which no draw gets past.
    pub(super) fn end(&self) {
        self.0.fetch_add(CHANGED, Ordering::Release);
    }

    /// Holds stock back until it is dropped, which ends the epoch.
    pub(super) fn change(&self) -> Change<'_> {
        // Relaxed: whoever sees the change made, in the line, sees this that came before it.
        self.0.fetch_add(1, Ordering::Relaxed);
        Change(self)
    }
}

/// A change that is being made.
#[must_use = "a change is made while this lives"]
pub(super) struct Change<'a>(&'a Epoch);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(CHANGED - 1, Ordering::Release);
    }
}
