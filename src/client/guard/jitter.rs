//! A part of a wait that is added to it.

use std::time::Duration;

/// Sees to it that those who were told the same do not come back at once.
#[derive(Debug)]
pub(super) struct Jitter {
    state: u64,
    percent: u32,
}

impl Jitter {
    pub(super) const fn new(seed: u64, percent: u32) -> Self {
        Self { state: seed, percent }
    }

    /// Upward only: nobody comes back before the time that was asked for.
    pub(super) fn stretch(&mut self, wait: Duration) -> Duration {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let most = wait.min(Duration::from_secs(3_600)).as_nanos() as u64 / 100 * u64::from(self.percent);
        wait.saturating_add(Duration::from_nanos((mixed ^ (mixed >> 31)) % most.max(1)))
    }
}
