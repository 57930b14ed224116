//! What throttles teach: how many calls may be under way while nothing is known, and which rate the server serves.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::Pace;
use crate::units::Timestamp;

/// Calls under way at first, where nobody has said what the server allows: the answer of one tells more than many.
const FIRST_UNKNOWN: u64 = 1;
/// And where limits were given.
const FIRST_LIMITED: u64 = 4;
/// The number doubles with each round of answers up to this, and then grows by one a round.
const STEADY: u64 = 8;
/// A server that takes its time must not hold back for long those who wait: the number also grows by time, by one in this
/// time where nothing is known, ...
const STEP: Duration = Duration::from_millis(250);
/// ... and doubling in this time where limits were given.
const DOUBLING: Duration = Duration::from_secs(2);
/// Fewer served calls than this tell of no rate.
const TELLING: u64 = 3;
/// How far back answers are counted to tell what is served now.
const RECENT_S: u64 = 10;
/// The first wait after a throttle that has none; it doubles with each further throttle.
const BACKOFF: Duration = Duration::from_secs(1);

/// What is learnt from answers.
#[derive(Debug)]
pub(super) struct Learner {
    /// Calls that may be under way; `None` once there is a pace, or nothing to be careful about.
    window: Option<Window>,
    is_careful: bool,
    is_limited: bool,
    /// Since the end of the last hold.
    cycle: Cycle,
    /// Calls sent up to here belong to the last throttle: they were on their way when it was told.
    throttle_sent: u64,
    /// Throttles since the last answer that was none.
    strikes: u32,
}

#[derive(Debug)]
struct Window {
    calls: u64,
    /// Answers since it last grew.
    answers: u64,
    is_limited: bool,
    started_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Cycle {
    started_at: Option<Timestamp>,
    first_sent: u64,
    served: u64,
    /// Served in each of the last seconds, the latest last.
    recent: VecDeque<(u64, u64)>,
    /// The pace at the throttle that ended it, and whether a rate is to be learnt from it.
    ended: Option<Option<f64>>,
}

impl Learner {
    pub(super) fn new(is_careful: bool, is_limited: bool) -> Self {
        Self {
            window: is_careful.then(|| Window::new(is_limited)),
            is_careful,
            is_limited,
            cycle: Cycle { first_sent: 1, ..Cycle::default() },
            throttle_sent: 0,
            strikes: 0,
        }
    }

    /// When one more may be under way, or that an answer must come first.
    pub(super) fn ready_at(&self, now: Timestamp, under_way: u64, requests: u64) -> Timestamp {
        let Some(window) = &self.window else { return now };
        let Some(started_at) = window.started_at else { return now };
        // One that is larger than the window goes alone.
        let needed = if under_way == 0 { 0 } else { under_way.saturating_add(requests) };
        started_at.after(window.grows_in(needed)).max(now)
    }

    pub(super) fn granted(&mut self, now: Timestamp) {
        if let Some(window) = &mut self.window {
            window.started_at.get_or_insert(now);
        }
    }

    pub(super) fn sent(&mut self, now: Timestamp) {
        self.cycle.started_at.get_or_insert(now);
    }

    /// A call has ended, and nobody told how.
    pub(super) fn ended(&mut self) {
        if let Some(window) = &mut self.window {
            window.ended();
        }
    }

    /// A call was served.
    pub(super) fn served(&mut self, sent: u64, requests: u64, now: Timestamp) {
        self.ended();
        if sent < self.cycle.first_sent {
            return;
        }
        if sent > self.throttle_sent {
            self.strikes = 0;
        }
        self.cycle.served = self.cycle.served.saturating_add(requests);
        let second = now.as_ns() / 1_000_000_000;
        match self.cycle.recent.back_mut().filter(|(at, _)| *at == second) {
            Some((_, served)) => *served = served.saturating_add(requests),
            None => self.cycle.recent.push_back((second, requests)),
        }
        while self.cycle.recent.front().is_some_and(|(at, _)| at + RECENT_S <= second) {
            self.cycle.recent.pop_front();
        }
    }

    /// A call was throttled. `last_sent` is the last call that was sent; `teaches` that a rate is to be learnt.
    pub(super) fn throttled(&mut self, sent: u64, last_sent: u64, rate: Option<f64>, teaches: bool) {
        if sent <= self.throttle_sent {
            return;
        }
        self.throttle_sent = last_sent;
        self.strikes = self.strikes.saturating_add(1);
        if teaches {
            self.cycle.ended = Some(rate);
        }
    }

    /// The wait after a throttle for which the server gave none.
    pub(super) fn backoff(&self) -> Duration {
        BACKOFF.saturating_mul(1 << self.strikes.saturating_sub(1).min(16))
    }

    pub(super) fn forget(&mut self) {
        self.cycle = Cycle { first_sent: self.cycle.first_sent, ..Cycle::default() };
        self.strikes = 0;
        self.window = self.is_careful.then(|| Window::new(self.is_limited));
    }

    /// The hold that ended the cycle is over: the pace to go on with, if one was learnt.
    ///
    /// What was served since the last hold, over that time and the hold, is what the server serves; it is too much by what
    /// the server had saved up before, which the next cycle shows. Where demand came late, the last seconds tell better.
    pub(super) fn resume(&mut self, now: Timestamp, held_until: Timestamp) -> Option<Pace> {
        let rate_before = self.cycle.ended.take()?;
        let over = |served: u64, since: Timestamp| {
            served as f64 / held_until.since(since).max(Duration::from_millis(1)).as_secs_f64()
        };
        let whole = self.cycle.started_at.map_or(0.0, |at| over(self.cycle.served, at));
        let recent = self.cycle.recent.front().map_or(0.0, |(second, _)| {
            let since = Timestamp::from_ns(second * 1_000_000_000);
            over(self.cycle.recent.iter().map(|(_, served)| served).sum(), since)
        });
        let rate = match rate_before {
            // Hardly any were served: half of what was tried.
            Some(rate) if self.cycle.served < TELLING => Some(rate / 2.0),
            Some(rate) => Some(whole.max(recent).min(rate)),
            None if self.cycle.served < TELLING => None,
            None => Some(whole.max(recent)),
        };
        self.cycle = Cycle { started_at: Some(now), first_sent: self.throttle_sent + 1, ..Cycle::default() };
        if let Some(window) = &mut self.window {
            window.restart();
        }
        self.window.take_if(|_| rate.is_some());
        rate.map(|rate| Pace::seen(rate, now))
    }
}

impl Window {
    fn new(is_limited: bool) -> Self {
        let calls = if is_limited { FIRST_LIMITED } else { FIRST_UNKNOWN };
        Self { calls, answers: 0, is_limited, started_at: None }
    }

    fn restart(&mut self) {
        *self = Self::new(self.is_limited);
    }

    /// How long after the start so many may be under way without a further answer.
    fn grows_in(&self, calls: u64) -> Duration {
        match calls.saturating_sub(self.calls) {
            0 => Duration::ZERO,
            _ if self.is_limited => DOUBLING.mul_f64((calls as f64 / self.calls as f64).log2()),
            more => STEP.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX)),
        }
    }

    fn ended(&mut self) {
        self.answers += 1;
        let needed = if self.calls < STEADY { 1 } else { self.calls };
        if self.answers >= needed {
            self.answers = 0;
            self.calls = self.calls.saturating_add(1);
        }
    }
}
