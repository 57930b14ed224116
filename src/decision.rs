//! What is asked of a limiter, and what it answers.

mod standing;

pub use standing::{Policy, Snapshot, Standing};

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::units::{Cost, Name, Timestamp};

/// What a caller asks for: a cost, and the longest it will wait.
///
/// A plain integer converts into an ask of that cost that waits as long as it takes.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Ask;
/// let ask = Ask::cost(3).within(Duration::from_millis(200));
/// assert_eq!(ask.max_wait(), Some(Duration::from_millis(200)));
/// assert_eq!(Ask::from(3).max_wait(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Ask {
    cost: Cost,
    max_wait: Option<Duration>,
}

impl Ask {
    /// One unit, however long it takes.
    pub const ONE: Self = Self { cost: Cost::ONE, max_wait: None };

    /// `units` units, however long it takes.
    pub const fn cost(units: u64) -> Self {
        Self { cost: Cost::new(units), max_wait: None }
    }

    /// Waits at most `longest`, inclusive. An ask that cannot be met by then is refused at once.
    /// Zero never waits.
    pub const fn within(mut self, longest: Duration) -> Self {
        self.max_wait = Some(longest);
        self
    }

    /// The units asked for.
    #[must_use]
    pub const fn units(&self) -> Cost {
        self.cost
    }

    /// The longest wait, or `None` for as long as it takes.
    #[must_use]
    pub const fn max_wait(&self) -> Option<Duration> {
        self.max_wait
    }
}

impl From<u64> for Ask {
    fn from(units: u64) -> Self {
        Self::cost(units)
    }
}

impl From<Cost> for Ask {
    fn from(cost: Cost) -> Self {
        Self::cost(cost.units())
    }
}

/// Why a limit said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too little is left now, and the caller would not wait (long enough).
    Exhausted,
    /// Waiting in line would help, but the line is full.
    LineFull,
    /// The cost is above what can ever go at once: no wait helps.
    ExceedsCapacity,
    /// The limiter was closed.
    Closed,
    /// The limiter is paused, and the caller would not wait.
    Paused,
    /// A newer ask took the place in a full line that serves the newest first.
    Evicted,
    /// The limiter keeps as many keys as it may, and this one is new.
    TooManyKeys,
    /// The caller would have to wait and there is no timer: no runtime is running here.
    NoTimer,
    /// The request lacks what the limit is kept per.
    NoKey,
    /// The server does not tell who is at the other end of the connection.
    NoPeer,
    /// The upstream asks for a longer wait than its guard allows it to ask for.
    AskedTooLong,
}

impl Reason {
    const fn text(self) -> &'static str {
        match self {
            Self::Exhausted => "limit reached",
            Self::LineFull => "the line is full",
            Self::ExceedsCapacity => "the cost is above the capacity, no wait helps",
            Self::Closed => "the limiter is closed",
            Self::Paused => "the limiter is paused",
            Self::Evicted => "a newer ask took the place in the line",
            Self::TooManyKeys => "the limiter keeps as many keys as it may",
            Self::NoTimer => "waiting needs a timer: wait inside a tokio runtime, or use acquire_blocking",
            Self::NoKey => "the request lacks what the limit is kept per",
            Self::AskedTooLong => "the upstream asks for a longer wait than is allowed",
            Self::NoPeer => {
                "the server does not tell its peers: serve with connect info, or put in a PeerAddr"
            }
        }
    }
}

/// A limit said no. Nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    reason: Reason,
    wait: Wait,
    by: Option<Name>,
}

/// How long to wait: known, or known once somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    None,
    For(Duration),
    Until(Due),
}

/// A time, and how to read now on the clock that it is a time of.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Timestamp,
    now: fn() -> Timestamp,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl Denied {
    /// A refusal for `reason`, with no wait that would help.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, wait: Wait::None, by: None }
    }

    /// Says after how long the same ask would pass.
    #[must_use]
    pub const fn after(mut self, wait: Option<Duration>) -> Self {
        self.wait = match wait {
            Some(wait) => Wait::For(wait),
            None => Wait::None,
        };
        self
    }

    /// Too little is left until `at`, by a clock that is read when somebody wants to know how far off that is.
    // Made in one piece: a refusal that is decided in a few nanoseconds must not be moved about for as long.
    #[inline]
    pub(crate) const fn exhausted_until(at: Timestamp, now: fn() -> Timestamp, by: Option<Name>) -> Self {
        Self { reason: Reason::Exhausted, wait: Wait::Until(Due { at, now }), by }
    }

    /// Too little is left, and no time tells when that will change.
    #[inline]
    pub(crate) const fn exhausted(by: Option<Name>) -> Self {
        Self { reason: Reason::Exhausted, wait: Wait::None, by }
    }

    /// Too little is left for `wait_ns` from now on.
    #[inline]
    pub(crate) const fn exhausted_for(wait_ns: u64, by: Option<Name>) -> Self {
        Self { reason: Reason::Exhausted, wait: Wait::For(Duration::from_nanos(wait_ns)), by }
    }

    /// Says which limit refused.
    #[must_use]
    pub fn by(mut self, name: Option<Name>) -> Self {
        self.by = name;
        self
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The smallest wait after which the same ask would pass if nobody else came, rounded up to a nanosecond.
    ///
    /// `None` when no wait is known to help: the cost is above the capacity, the limiter is closed, or it waits for
    /// other callers to finish rather than for time to pass.
    ///
    /// Counted from the refusal, or from this call if the refusal was certain without an exact reading of the clock
    /// (see [`SystemClock`](crate::SystemClock)).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.wait {
            Wait::None => None,
            Wait::For(wait) => Some(wait),
            Wait::Until(due) => Some(due.at.since((due.now)())),
        }
    }

    /// The name of the limit that refused, if it was given one.
    #[must_use]
    pub fn limit(&self) -> Option<&Name> {
        self.by.as_ref()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.by {
            write!(f, "{name}: ")?;
        }
        f.write_str(self.reason.text())?;
        if let Some(wait) = self.retry_after() {
            write!(f, ", retry after {wait:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Denied {}

/// Why an acquire gave no permit: the limit said no, or the limiter could not decide.
///
/// In process `F` is [`Infallible`], so that `let Error::Denied(denied) = error;` is all there is to match.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a limiter says no or cannot say: there is no third answer")]
pub enum Error<F = Infallible> {
    /// The limit said no.
    Denied(Denied),
    /// The limiter could not decide: its store is down.
    Fault(F),
}

impl<F> Error<F> {
    /// The refusal, unless the limiter failed.
    #[must_use]
    pub const fn denied(&self) -> Option<&Denied> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::Fault(_) => None,
        }
    }
}

impl<F> From<Denied> for Error<F> {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl<F: fmt::Display> fmt::Display for Error<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Fault(fault) => write!(f, "the limiter could not decide: {fault}"),
        }
    }
}

impl<F: std::error::Error + 'static> std::error::Error for Error<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::Fault(fault) => Some(fault),
        }
    }
}
