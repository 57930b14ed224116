//! Where a limit stands: what snapshots, headers and administrators are told.

use std::time::Duration;

use crate::units::Name;

/// What a limiter looks like at one instant. Taking it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Most units at one instant.
    pub capacity: u64,
    /// Whole units that could be spent now, were nobody in line. 100 a minute after 30 asks: 70.
    pub remaining: u64,
    /// Units owed by settlements above their estimate, rounded up. While there is a debt nothing remains.
    pub debt: u64,
    /// How long until all of the capacity is there again if nobody else comes; `None` if time alone will not do it.
    pub reset_after: Option<Duration>,
    /// Asks that wait in line.
    pub waiting: usize,
    /// Units they ask for.
    pub waiting_units: u64,
}

/// What a limit promises, in the two numbers that can be told to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Most units in one window; for a token bucket its burst.
    pub limit: u64,
    /// The window; for a token bucket the time in which an empty one fills. `None`: time alone brings nothing back.
    pub window: Option<Duration>,
    /// `true` if it counts what is in progress rather than what has come.
    pub concurrent: bool,
}

impl Policy {
    /// `limit` units in each `window`.
    #[must_use]
    pub const fn new(limit: u64, window: Option<Duration>) -> Self {
        Self { limit, window, concurrent: false }
    }

    /// At most `limit` units in progress.
    #[must_use]
    pub const fn concurrent(limit: u64) -> Self {
        Self { limit, window: None, concurrent: true }
    }
}

/// Where one limit stands about one key. Taking it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitStatus {
    /// The limit's name, if it was given one.
    pub limit: Option<Name>,
    /// What it promises.
    pub policy: Policy,
    /// Whole units that could be spent now, were nobody in line.
    pub remaining: u64,
    /// How long until all of the limit is there again if nobody else comes; `None` if time alone will not do it.
    pub reset_after: Option<Duration>,
    /// Denials by it are acted upon: it is not in shadow mode.
    pub enforced: bool,
    /// The keys of a limit that keeps keys.
    pub keys: Option<KeyStats>,
}

/// The number of keys of a keyed limit, and what became of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KeyStats {
    /// Keys with a state.
    pub keys: usize,
    /// Keys dropped so far because their state was equal to a fresh one.
    pub evicted: u64,
    /// Times that a new key found no room.
    pub refused: u64,
}

impl KeyStats {
    pub(crate) const fn new(keys: usize, evicted: u64, refused: u64) -> Self {
        Self { keys, evicted, refused }
    }
}

impl LimitStatus {
    /// An enforced limit that stands so.
    #[must_use]
    pub const fn new(
        limit: Option<Name>,
        policy: Policy,
        remaining: u64,
        reset_after: Option<Duration>,
    ) -> Self {
        Self { limit, policy, remaining, reset_after, enforced: true, keys: None }
    }

    /// `true` if at least four fifths of the limit are spent.
    #[must_use]
    pub const fn is_near(&self) -> bool {
        self.remaining <= self.policy.limit / 5
    }
}
