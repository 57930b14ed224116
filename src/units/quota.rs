use std::fmt;
use std::time::Duration;

use super::NameError;

const SECOND_NS: u64 = 1_000_000_000;

/// How much may go, and how fast: a rate (units per period) and a burst (most units at one instant).
///
/// `Quota::per_second(50)` is fifty each second. Until [`burst`](Quota::burst) says otherwise the burst is the
/// count of one period, so fifty here. A quota is a plain description: it is checked when a limiter is built from
/// it, or by [`checked`](Quota::checked) in `const` code, where a bad one does not compile.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Quota;
///
/// const API: Quota = Quota::per_second(50).burst(100).checked();
/// assert_eq!(API.to_string(), "50/s burst 100");
/// assert_eq!("5 per 30s".parse::<Quota>()?, Quota::per(5, Duration::from_secs(30)));
/// assert!(Quota::per_second(0).check().is_err());
/// # Ok::<(), tollgate::QuotaTextError>(())
/// ```
///
/// ```compile_fail
/// const NONE: tollgate::Quota = tollgate::Quota::per_second(0).checked();
/// # fn main() { println!("{NONE}"); }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct Quota {
    count: u64,
    /// `None`: never refilled.
    period: Option<Duration>,
    burst: Option<u64>,
    initial: Option<u64>,
}

impl Quota {
    /// `count` units each second.
    pub const fn per_second(count: u64) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// `count` units each minute.
    pub const fn per_minute(count: u64) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// `count` units each hour.
    pub const fn per_hour(count: u64) -> Self {
        Self::per(count, Duration::from_secs(3_600))
    }

    /// `count` units each day of 24 hours.
    pub const fn per_day(count: u64) -> Self {
        Self::per(count, Duration::from_secs(86_400))
    }

    /// One unit each `interval`.
    pub const fn every(interval: Duration) -> Self {
        Self::per(1, interval)
    }

    /// `count` units each `period`.
    pub const fn per(count: u64, period: Duration) -> Self {
        Self { count, period: Some(period), burst: None, initial: None }
    }

    /// `count` units in all, never refilled: a trial budget. What has been spent comes back by refunds only.
    pub const fn once(count: u64) -> Self {
        Self { count, period: None, burst: None, initial: None }
    }

    /// At most `units` at one instant, in place of the count of one period.
    pub const fn burst(mut self, units: u64) -> Self {
        self.burst = Some(units);
        self
    }

    /// Starts with `units` to spend in place of all of the burst. Zero starts empty.
    ///
    /// In the first period after a start with `initial` units at most `initial` + count can go.
    pub const fn initial(mut self, units: u64) -> Self {
        self.initial = Some(units);
        self
    }

    /// Units in one period.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The period, or `None` for a quota that is never refilled.
    #[must_use]
    pub const fn period(&self) -> Option<Duration> {
        self.period
    }

    /// Most units at one instant.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match self.burst {
            Some(units) => units,
            None => self.count,
        }
    }

    /// Units there are to spend at the start.
    #[must_use]
    pub const fn initial_units(&self) -> u64 {
        match self.initial {
            Some(units) => units,
            None => self.capacity(),
        }
    }

    /// Tells if a limiter can be built from it.
    ///
    /// # Errors
    /// A zero count, burst or period; a period beyond 584 years; more units at the start than fit.
    pub const fn check(&self) -> Result<(), QuotaError> {
        if self.count == 0 {
            return Err(QuotaError::ZeroCount);
        }
        if self.capacity() == 0 {
            return Err(QuotaError::ZeroBurst);
        }
        if self.initial_units() > self.capacity() {
            return Err(QuotaError::InitialAboveBurst {
                initial: self.initial_units(),
                burst: self.capacity(),
            });
        }
        match self.period {
            Some(period) if period.as_nanos() == 0 => Err(QuotaError::ZeroPeriod),
            Some(period) if period.as_nanos() > u64::MAX as u128 => Err(QuotaError::PeriodTooLong),
            _ => Ok(()),
        }
    }

    /// The same quota, known to be good: for `const` items, where a bad one becomes a compile error.
    ///
    /// # Panics
    /// When [`check`](Quota::check) fails. At run time use `check`, or let the limiter's constructor return the error.
    pub const fn checked(self) -> Self {
        match self.check() {
            Ok(()) => self,
            Err(QuotaError::ZeroCount) => {
                panic!("a quota of zero units admits nothing: ask for at least one")
            }
            Err(QuotaError::ZeroBurst) => {
                panic!("a burst of zero units admits nothing: ask for at least one")
            }
            Err(QuotaError::ZeroPeriod) => panic!("the period of a quota must be at least one nanosecond"),
            Err(QuotaError::PeriodTooLong) => panic!("the period of a quota must be at most 584 years"),
            Err(_) => panic!("a quota cannot start with more units than its burst"),
        }
    }

    pub(crate) const fn sets_burst(&self) -> bool {
        self.burst.is_some()
    }

    /// Period in nanoseconds, zero for a quota that is never refilled.
    pub(crate) const fn period_ns(&self) -> u64 {
        match self.period {
            Some(period) => period.as_nanos() as u64,
            None => 0,
        }
    }
}

/// `50/s`, `100/min burst 20`, `5 per 30s`, `20 once`: what [`Quota`] parses from.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period.map(|period| period.as_nanos()) {
            None => write!(f, "{} once", self.count)?,
            Some(ns) => match super::text::unit_of(ns) {
                Some(unit) => write!(f, "{}/{unit}", self.count)?,
                None => {
                    write!(f, "{} per ", self.count)?;
                    super::text::write_span(f, ns)?;
                }
            },
        }
        if let Some(burst) = self.burst {
            write!(f, " burst {burst}")?;
        }
        if let Some(initial) = self.initial {
            write!(f, " initial {initial}")?;
        }
        Ok(())
    }
}

/// Why no limiter can be built from a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaError {
    /// Zero units a period.
    ZeroCount,
    /// Zero units at one instant.
    ZeroBurst,
    /// An empty period or window.
    ZeroPeriod,
    /// A period beyond 2⁶⁴ − 1 ns.
    PeriodTooLong,
    /// More units at the start than fit.
    InitialAboveBurst {
        /// Units asked for at the start.
        initial: u64,
        /// Units that fit.
        burst: u64,
    },
    /// The burst is too large to be counted exactly at this rate.
    BurstTooLarge {
        /// Units asked for.
        burst: u64,
        /// The largest burst this rate can have.
        most: u64,
    },
    /// A window was given a burst of its own: all of its limit may go at one instant anyway.
    BurstOnWindow {
        /// The limit of the window.
        limit: u64,
        /// The burst asked for.
        burst: u64,
    },
    /// A window that is never refilled: a window needs a length.
    WindowWithoutPeriod,
    /// A window cut into no segments, or into more than its nanoseconds.
    Segments {
        /// Segments asked for.
        segments: u64,
        /// Most segments this window can have.
        most: u64,
    },
    /// What is set aside for threads leaves nothing of the burst.
    ReserveTooLarge {
        /// Units set aside.
        reserve: u64,
        /// The burst they are taken out of.
        burst: u64,
    },
    /// A joint limit over no quotas at all.
    NoQuota,
    /// A keyed limit without room for a key.
    ZeroKeys,
    /// A tier that no key can have: nothing says which keys belong to it, or they are exempt.
    UnusableTier,
    /// The name given to the limit cannot be one.
    Name(NameError),
    /// A change from a number of joint quotas to another number.
    QuotaCount {
        /// Quotas the limiter was built with.
        built: usize,
        /// Quotas given now.
        given: usize,
    },
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCount => f.write_str("a quota of zero units admits nothing: ask for at least one"),
            Self::ZeroBurst => f.write_str("a burst of zero units admits nothing: ask for at least one"),
            Self::ZeroPeriod => f.write_str("a period must be at least one nanosecond"),
            Self::PeriodTooLong => {
                f.write_str("a period must be at most 18446744073709551615 ns (584 years)")
            }
            Self::InitialAboveBurst { initial, burst } => {
                write!(
                    f,
                    "a start with {initial} units is more than the burst of {burst}: ask for at most {burst}"
                )
            }
            Self::BurstTooLarge { burst, most } => {
                write!(f, "a burst of {burst} cannot be counted exactly at this rate: ask for at most {most}")
            }
            Self::BurstOnWindow { limit, burst } => {
                write!(
                    f,
                    "a window admits its limit of {limit} at one instant: leave out the burst of {burst}"
                )
            }
            Self::WindowWithoutPeriod => {
                f.write_str("a window needs a length: use a period, or a token bucket for a quota spent once")
            }
            Self::Segments { segments, most } => {
                write!(f, "{segments} segments do not fit the window: ask for 1 to {most}")
            }
            Self::ReserveTooLarge { reserve, burst } => {
                write!(
                    f,
                    "a reserve of {reserve} leaves nothing of a burst of {burst}: ask for less than that"
                )
            }
            Self::Name(error) => error.fmt(f),
            Self::NoQuota => f.write_str("a joint limit needs at least one quota"),
            Self::ZeroKeys => {
                f.write_str("a keyed limit without room for a key admits nobody: keep at least one")
            }
            Self::UnusableTier => f.write_str(
                "a tier has a quota and no keys: set `tier_by`, and give no quota to keys that are exempt",
            ),
            Self::QuotaCount { built, given } => {
                write!(
                    f,
                    "the limiter was built from {built} quotas and cannot change to {given}: give {built}"
                )
            }
        }
    }
}

impl std::error::Error for QuotaError {}

/// Units and nanoseconds of a period reduced to lowest terms.
pub(crate) const fn reduced(count: u64, period_ns: u64) -> (u64, u64) {
    let (mut a, mut b) = (count, period_ns);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (count / a, period_ns / a)
}

pub(super) const fn second_ns() -> u64 {
    SECOND_NS
}
