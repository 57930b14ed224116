//! How much trying again may add to the traffic.

use std::fmt;
use std::sync::Arc;

use crate::sync::Mutex;

/// A retry budget, as gRPC's (A6): each failure takes a token, each success brings back a part of one, and calls are tried
/// again only while more than half of the tokens are there. A cheap handle: clones share one budget.
///
/// **Guarantee.** Over any time, tries beyond the first are at most *tokens / 2 + ratio · successes*: while an upstream
/// fails, it sees half of the tokens more than there are calls, and not one try above that until it succeeds again.
///
/// ```
/// use tollgate::client::RetryBudget;
/// let budget = RetryBudget::new(10, 0.1)?;
/// let retries = (0..100).filter(|_| budget.failed()).count();
/// assert_eq!(retries, 4); // more than half of ten must be left after the failure
/// # Ok::<(), tollgate::client::RetryBudgetError>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    /// In thousandths, as A6 counts.
    most: u64,
    ratio: u64,
    left: Mutex<u64>,
}

/// Why there can be no such retry budget.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RetryBudgetError {
    /// No tokens, or more than a thousand.
    Tokens(u32),
    /// A ratio that is not above zero and at most one.
    Ratio(f64),
}

impl fmt::Display for RetryBudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(f, "a retry budget has 1 to 1000 tokens, not {tokens}"),
            Self::Ratio(ratio) => {
                write!(f, "a success brings back more than no token and at most one, not {ratio}")
            }
        }
    }
}

impl std::error::Error for RetryBudgetError {}

impl RetryBudget {
    /// A full budget of `tokens`, of which each success brings back `ratio`, counted in thousandths.
    ///
    /// # Errors
    /// Tokens outside of 1 to 1000, or a ratio outside of 0.001 to 1.
    pub fn new(tokens: u32, ratio: f64) -> Result<Self, RetryBudgetError> {
        if !(1..=1_000).contains(&tokens) {
            return Err(RetryBudgetError::Tokens(tokens));
        }
        if !(0.001..=1.0).contains(&ratio) {
            return Err(RetryBudgetError::Ratio(ratio));
        }
        let most = u64::from(tokens) * 1_000;
        let ratio = (ratio * 1_000.0) as u64;
        Ok(Self { shared: Arc::new(Shared { most, ratio, left: Mutex::new(most) }) })
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        let mut left = self.shared.left.lock();
        *left = (*left + self.shared.ratio).min(self.shared.most);
    }

    /// A call failed. Whether it may be tried again.
    #[must_use = "a failure that may not be tried again goes to the caller"]
    pub fn failed(&self) -> bool {
        let mut left = self.shared.left.lock();
        *left = left.saturating_sub(1_000);
        *left > self.shared.most / 2
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("left_thousandths", &*self.shared.left.lock())
            .finish_non_exhaustive()
    }
}

/// Tells if a call does the same when it is made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(clippy::exhaustive_enums, reason = "it may be repeated or not")]
pub enum Repeat {
    /// It must not be made twice: it is never tried again, whatever the server says.
    #[default]
    Never,
    /// It may be.
    Safe,
}
