//! Values: how much, how often, how long. No clock, no async.

mod name;
mod quota;
mod text;

pub use name::{Name, NameError};
pub(crate) use quota::reduced;
pub use quota::{Quota, QuotaError};
pub use text::QuotaTextError;

use std::fmt;
use std::time::Duration;

/// The number of units one request takes. One unit is usually one request; it may as well be a byte or a token.
///
/// Plain integers convert into it: `limiter.try_acquire(3)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

impl Cost {
    /// Takes nothing: always admitted, changes nothing.
    pub const ZERO: Self = Self(0);
    /// One unit, what a request costs when nothing else is said.
    pub const ONE: Self = Self(1);

    /// A cost of `units`.
    #[must_use]
    pub const fn new(units: u64) -> Self {
        Self(units)
    }

    /// The number of units.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::ONE
    }
}

impl From<u64> for Cost {
    fn from(units: u64) -> Self {
        Self(units)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The span a window looks back over, in whole nanoseconds and never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(u64);

impl Window {
    /// A window of `length`.
    ///
    /// # Errors
    /// [`QuotaError::ZeroPeriod`] when it is empty, [`QuotaError::PeriodTooLong`] beyond 2⁶⁴ − 1 ns (584 years).
    pub const fn new(length: Duration) -> Result<Self, QuotaError> {
        let ns = length.as_nanos();
        if ns == 0 {
            return Err(QuotaError::ZeroPeriod);
        }
        if ns > u64::MAX as u128 {
            return Err(QuotaError::PeriodTooLong);
        }
        Ok(Self(ns as u64))
    }

    /// The length of the window.
    #[must_use]
    pub const fn length(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(crate) const fn as_ns(self) -> u64 {
        self.0
    }
}

/// An instant on a limiter's clock: nanoseconds since that clock's zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);
    /// The last instant there is, 584 years after zero.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `ns` nanoseconds after the clock's zero.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `wait` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        let ns = wait.as_nanos();
        if ns > u64::MAX as u128 { Self::MAX } else { Self(self.0.saturating_add(ns as u64)) }
    }
}
