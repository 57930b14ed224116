//! How much calls write: estimates that learn.

use std::collections::VecDeque;

/// Calls looked back at.
const KEPT: usize = 256;
/// Below so many the most that a call may write is the estimate.
const ENOUGH: usize = 20;

/// The outputs of the last calls.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    percent: u8,
    latest: VecDeque<u64>,
    sorted: Vec<u64>,
}

impl Outputs {
    pub(super) const fn new(percent: u8) -> Self {
        Self { percent, latest: VecDeque::new(), sorted: Vec::new() }
    }

    pub(super) fn record(&mut self, tokens: u64) {
        if self.latest.len() == KEPT {
            if let Some(oldest) = self.latest.pop_front() {
                let at = self.sorted.partition_point(|one| *one < oldest);
                self.sorted.remove(at);
            }
        }
        self.latest.push_back(tokens);
        let at = self.sorted.partition_point(|one| *one < tokens);
        self.sorted.insert(at, tokens);
    }

    /// What a call that may write up to `most` is expected to write: as much as all but a few have.
    pub(super) fn expect(&self, most: u64) -> u64 {
        let count = self.sorted.len();
        if count < ENOUGH || self.percent >= 100 {
            return most;
        }
        let rank = (count * usize::from(self.percent)).div_ceil(100).clamp(1, count);
        self.sorted[rank - 1].min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_expected_until_enough_is_known() {
        let mut outputs = Outputs::new(95);
        for tokens in 1..ENOUGH as u64 {
            outputs.record(tokens);
        }
        assert_eq!(outputs.expect(1_000), 1_000);
        outputs.record(20);
        assert_eq!(outputs.expect(1_000), 19);
        assert_eq!(outputs.expect(10), 10, "never more than the call may write");
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut outputs = Outputs::new(95);
        (0..1_000).for_each(|_| outputs.record(900));
        (0..KEPT).for_each(|_| outputs.record(10));
        assert_eq!(outputs.expect(1_000), 10);
        assert_eq!(outputs.sorted.len(), KEPT);
    }
}
