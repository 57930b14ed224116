//! What a limit is asked to do.

use std::time::Duration;

use tollgate::Quota;

/// A limit of one unit a day refuses for the rest of any run.
pub const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Admits all: the rate is so high that no request is ever refused.
    Grant,
    /// Refuses all.
    Refuse,
    /// More requests come than the million a second that the limit admits.
    AtLimit,
}

impl Load {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Refuse => "refuse",
            Self::AtLimit => "at the limit",
        }
    }

    pub const fn quota(self) -> Quota {
        match self {
            Self::Grant => Quota::per_second(1_000_000_000),
            Self::Refuse => Quota::per(1, DAY),
            Self::AtLimit => Quota::per_second(1_000_000).burst(10_000),
        }
    }

    /// Checks an answer, so that no row measures another load than it says. At the limit both answers occur.
    #[inline]
    #[track_caller]
    pub fn expect(self, admitted: bool) {
        match self {
            Self::Grant => assert!(admitted, "a refusal among grants"),
            Self::Refuse => assert!(!admitted, "a grant among refusals"),
            Self::AtLimit => {}
        }
    }

    /// Spends what a limiter that is to refuse still admits.
    pub fn prepare<L>(self, limiter: L, admits: impl Fn(&L) -> bool) -> L {
        if self == Self::Refuse {
            while admits(&limiter) {}
        }
        limiter
    }
}
