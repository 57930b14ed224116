use crate::sync::{AtomicU64, Ordering};
use crate::units::Timestamp;

const SECOND_NS: u64 = 1_000_000_000;

/// Lets one through each second, and counts the others: what clients cause must not fill a log.
#[derive(Debug)]
pub(super) struct Sample {
    next_ns: AtomicU64,
    held_back: AtomicU64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { next_ns: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }
}

impl Sample {
    /// How many were held back since the last, if it is time for one.
    pub(super) fn due(&self, now: Timestamp) -> Option<u64> {
        // Relaxed: the two words guard nothing, and a count that is one event late is as good.
        let next_ns = self.next_ns.load(Ordering::Relaxed);
        let after_ns = now.as_ns().saturating_add(SECOND_NS);
        let is_mine = now.as_ns() >= next_ns
            && self.next_ns.compare_exchange(next_ns, after_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_mine {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}
