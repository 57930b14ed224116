//! A learned rate: calls evenly spaced, the space changing with what is learnt.

use std::time::Duration;

use crate::units::Timestamp;

/// How late a call may be without the next one being later for it: timers count in milliseconds.
const LATE: Duration = Duration::from_millis(5);
/// After a throttle the rate starts at this share of what the server was seen to serve, ...
const BACK: f64 = 0.96;
/// ... is there again after this time, and goes on to probe beyond it, slowly first.
const PLATEAU: Duration = Duration::from_secs(20);
/// While nothing has spoken against it, a rate that was guessed doubles in this time.
const DOUBLING: Duration = Duration::from_secs(10);
/// Longest space between calls: a guard that learnt from a silent hour must be able to unlearn.
const INTERVAL_MAX: f64 = 60.0;
/// A rate that was not used for so long tells nothing.
const OLD: Duration = Duration::from_secs(600);
const RATE_MAX: f64 = 1e9;

/// How the rate grows while it is used to the full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// Exponentially: no throttle has been seen.
    Guessed,
    /// As a cubic about what was seen to be served (CUBIC, RFC 9438, in rates).
    Seen,
}

/// Calls evenly spaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Requests a second where the growth starts.
    base: f64,
    growth: Growth,
    /// For how long it has been what held calls back: the growth's time.
    used: Duration,
    /// When the next call may go.
    next_at: Timestamp,
    last_at: Timestamp,
}

impl Pace {
    /// What is believed of the server, until it throttles.
    pub(super) fn guessed(rate: f64, now: Timestamp) -> Self {
        Self::new(rate, Growth::Guessed, now)
    }

    /// What the server was seen to serve.
    pub(super) fn seen(rate: f64, now: Timestamp) -> Self {
        Self::new(rate, Growth::Seen, now)
    }

    fn new(rate: f64, growth: Growth, now: Timestamp) -> Self {
        let base = rate.clamp(1.0 / INTERVAL_MAX, RATE_MAX);
        Self { base, growth, used: Duration::ZERO, next_at: now, last_at: now }
    }

    /// Requests a second at this moment.
    pub(super) fn rate(&self) -> f64 {
        let rate = match self.growth {
            Growth::Guessed => self.base * (self.used.as_secs_f64() / DOUBLING.as_secs_f64()).exp2(),
            Growth::Seen => {
                let plateau = PLATEAU.as_secs_f64();
                let x = (self.used.as_secs_f64() - plateau) / plateau;
                self.base * (1.0 + (1.0 - BACK) * x.powi(3))
            }
        };
        rate.min(RATE_MAX)
    }

    /// `true` if it is so long ago that it was used that it may as well be learnt anew.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        now.since(self.last_at) > OLD
    }

    pub(super) fn ready_at(&self, now: Timestamp) -> Timestamp {
        self.next_at.max(now)
    }

    pub(super) fn spend(&mut self, now: Timestamp, requests: u64) {
        // Late by no more than a timer may be: it was the pace that held the call back, so the pace may grow.
        if now.since(self.next_at) <= LATE {
            self.used = self.used.saturating_add(now.since(self.last_at));
        }
        self.last_at = now;
        let late = Timestamp::from_ns(now.as_ns().saturating_sub(LATE.as_nanos() as u64));
        let space = Duration::try_from_secs_f64(requests as f64 / self.rate()).unwrap_or(Duration::MAX);
        self.next_at = self.next_at.max(late).after(space);
    }

    /// What was granted and not sent.
    pub(super) fn give_back(&mut self, requests: u64) {
        let space = requests as f64 / self.rate() * 1e9;
        self.next_at = Timestamp::from_ns(self.next_at.as_ns().saturating_sub(space as u64));
    }
}
