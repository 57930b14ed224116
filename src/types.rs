//! What is asked of a limiter, and what it answers.

mod status;

pub use status::{KeyStats, LimitStatus, Policy, Snapshot};

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::units::{Cost, Name};

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
    /// Waiting would help, but the queue is full.
    QueueFull,
    /// The limiter cannot decide now: its decision has to be awaited.
    MustAwait,
    /// The cost is above what can ever go at once: no wait helps.
    ExceedsCapacity,
    /// The limiter was closed.
    Closed,
    /// The limiter is paused, and the caller would not wait.
    Paused,
    /// A newer ask took the position in a full queue that serves the newest first.
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
            Self::QueueFull => "the queue is full",
            Self::MustAwait => "the limiter cannot decide at once: await `acquire`",
            Self::ExceedsCapacity => "the cost is above the capacity, no wait helps",
            Self::Closed => "the limiter is closed",
            Self::Paused => "the limiter is paused",
            Self::Evicted => "a newer ask took the position in the queue",
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
    /// Nanoseconds: a refusal is made more often than its wait is read.
    wait_ns: Option<u64>,
    by: Option<Name>,
}

impl Denied {
    /// A refusal for `reason`, with no wait that would help.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, wait_ns: None, by: None }
    }

    /// Sets the wait after which the same ask would pass. A wait above 584 years counts as 584 years.
    #[must_use]
    pub const fn after(mut self, wait: Option<Duration>) -> Self {
        self.wait_ns = match wait {
            Some(wait) if wait.as_nanos() > u64::MAX as u128 => Some(u64::MAX),
            Some(wait) => Some(wait.as_nanos() as u64),
            None => None,
        };
        self
    }

    /// A refusal by a limit that has too little left: for `wait_ns` from now, or until a release.
    // One constructor with all fields: a refusal is decided in a few nanoseconds and must not be copied for as long.
    #[inline]
    pub(crate) const fn exhausted(wait_ns: Option<u64>, by: Option<Name>) -> Self {
        Self { reason: Reason::Exhausted, wait_ns, by }
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
    /// The wait counts from the refusal.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.wait_ns {
            Some(wait_ns) => Some(Duration::from_nanos(wait_ns)),
            None => None,
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

impl<F> Error<F> {
    /// The same with another kind of fault.
    pub fn map_fault<G>(self, change: impl FnOnce(F) -> G) -> Error<G> {
        match self {
            Self::Denied(denied) => Error::Denied(denied),
            Self::Fault(fault) => Error::Fault(change(fault)),
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
