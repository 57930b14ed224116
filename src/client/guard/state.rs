//! The guard's state: what is asked under its lock, the calls under way, and what their answers change.

use std::time::Duration;

use super::allowance::Heard;
use super::calls::{Calls, Pass};
use super::estimate::Outputs;
use super::jitter::Jitter;
use super::learner::Learner;
use super::pace::Pace;
use super::upstream::Upstream;
use crate::algorithm::{Balance, When};
use crate::client::signal::{Scope, Signals};
use crate::client::usage::Usage;
use crate::core::{Later, LimitState, Load, Outcome};
use crate::types::Reason;
use crate::units::Timestamp;

pub(in crate::client) struct GuardState {
    pub(super) upstream: Upstream,
    pub(super) learner: Learner,
    pub(super) outputs: Outputs,
    pub(super) ceiling: Duration,
    pub(super) jitter: Jitter,
    calls: Calls,
    /// The most of each that one has waited for.
    largest: Usage,
    /// What was guessed of the rate before anything was learnt.
    guessed: Option<f64>,
    is_closed: bool,
    /// How often the server has asked for longer than it may.
    barred: u64,
}

/// A copy of what bounds the calls, and the time of the last grant in it.
pub(in crate::client) struct Plan {
    upstream: Upstream,
    at: Timestamp,
}

impl Load for Usage {
    fn units(self) -> u64 {
        // One that takes tokens only waits as well.
        if self.requests == 0 && self.total_tokens() > 0 { 1 } else { self.requests }
    }

    fn plus(self, other: Self) -> Self {
        Self::plus(self, other)
    }
}

impl GuardState {
    pub(super) fn new(
        upstream: Upstream,
        learner: Learner,
        outputs: Outputs,
        ceiling: Duration,
        jitter: Jitter,
    ) -> Self {
        let guessed = upstream.pace.as_ref().map(Pace::rate);
        Self {
            upstream,
            learner,
            outputs,
            ceiling,
            jitter,
            calls: Calls::default(),
            largest: Usage::requests(1),
            guessed,
            is_closed: false,
            barred: 0,
        }
    }

    /// A hold is on its way out: what it taught is put to use, and calls that were forgotten are no longer counted.
    fn freshen(&mut self, now: Timestamp) {
        if now >= self.upstream.held_until {
            if let Some(pace) = self.learner.resume(now, self.upstream.held_until) {
                self.upstream.pace = Some(pace);
            }
        }
        while let Some(usage) = self.calls.forget(now) {
            self.upstream.undecided = self.upstream.undecided.minus(usage);
        }
    }

    /// A call counts no longer as granted or under way. Whether it did until now.
    fn uncount(&mut self, pass: &Pass) -> bool {
        let counted = self.calls.end(pass);
        if counted {
            self.upstream.undecided = self.upstream.undecided.minus(pass.usage());
        }
        counted
    }

    fn ready_at(&mut self, now: Timestamp, usage: Usage) -> When {
        self.freshen(now);
        let alone = self.learner.ready_at(now, self.upstream.undecided.requests, usage.requests);
        self.upstream.ready_at(now, usage).max(When::At(alone))
    }

    pub(super) fn held_for(&self, now: Timestamp) -> Duration {
        self.upstream.held_until.since(now)
    }

    pub(super) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.freshen(now);
        self.calls.is_empty() && self.upstream.is_idle(now)
    }

    /// `true` if a call that was granted may not go on: a hold has begun since, or it was closed.
    fn is_stopped(&self, now: Timestamp, pass: &Pass) -> bool {
        self.is_closed || (self.upstream.held_until > now && pass.usage().units() > 0)
    }

    /// Whether a call that has all its permits may be sent now. It may not if a hold has begun since it was granted, or if
    /// what was left of the server's budgets then has been told to be less.
    pub(super) fn send(&mut self, now: Timestamp, pass: &mut Pass) -> bool {
        if self.is_stopped(now, pass) {
            return false;
        }
        let (allowances, last_sent) = (&mut self.upstream.allowances, self.upstream.last_sent);
        let permitted = allowances.permit(now, pass.usage(), self.calls.on_the_way(), last_sent);
        if !permitted && pass.usage().units() > 0 {
            return false;
        }
        self.upstream.last_sent += 1;
        self.calls.send(now, pass, self.upstream.last_sent);
        self.learner.sent(now);
        true
    }

    /// Holds all calls until `wait` from now has passed. With `replaces` a hold that there is ends; otherwise the later
    /// end counts.
    pub(super) fn hold(&mut self, now: Timestamp, wait: Duration, replaces: bool) {
        let until = now.after(wait);
        let before = self.upstream.held_until;
        self.upstream.held_until = if replaces { until } else { until.max(before) };
        self.bar(now);
    }

    /// Nothing is sent any more.
    pub(super) const fn close(&mut self) {
        self.is_closed = true;
    }

    /// If the server asks for longer than it may, those who wait are to be told.
    fn bar(&mut self, now: Timestamp) {
        if self.upstream.server_ready_at(now, self.largest).since(now) > self.ceiling {
            self.barred += 1;
        }
    }

    /// Applies the answer of a call; `pass` is `None` for what was told outside of any call. Returns the hold that it
    /// begins.
    pub(super) fn answered(&mut self, now: Timestamp, pass: Option<&Pass>, signals: &Signals) -> Duration {
        let last_sent = self.upstream.last_sent;
        let sent = pass.map_or(last_sent, |pass| pass.sent);
        let decided = pass.filter(|pass| self.uncount(pass)).map(Pass::usage);
        let usage = decided.unwrap_or(Usage::ZERO);
        let heard = Heard { sent: pass.map(|pass| pass.sent), last_sent, usage, now };
        self.upstream.allowances.hear(signals, heard);
        if !signals.throttled {
            self.bar(now);
            if let Some(usage) = decided {
                self.learner.served(sent, usage.requests, now);
            }
            return Duration::ZERO;
        }
        // Who is told that a budget is exhausted knows all there is to know; a rate is learnt where nothing was told.
        let explained = signals.budgets.iter().any(|budget| budget.remaining == Some(0));
        let teaches = !explained && signals.scope != Scope::Shared;
        let rate = self.upstream.pace.as_ref().map(Pace::rate);
        self.learner.throttled(sent, last_sent, rate, teaches);
        // To come back at once is no wait: who is refused for it each time would storm.
        let told = signals.hold().filter(|wait| !wait.is_zero());
        let wait = told.unwrap_or_else(|| self.learner.backoff().min(self.ceiling));
        let later = self.jitter.stretch(wait);
        // What the server asks for and may ask for is not made too long by what we add.
        let later = if wait <= self.ceiling { later.min(self.ceiling) } else { later };
        self.hold(now, later, false);
        later
    }

    /// Forgets what the server has told and taught: it begins again as a new one does.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.upstream.allowances.clear();
        self.upstream.pace = self.guessed.map(|rate| Pace::guessed(rate, now));
        self.learner.forget();
    }

    /// A call is over, answered or not.
    pub(super) fn over(&mut self, pass: &Pass) {
        if self.uncount(pass) {
            self.upstream.allowances.hear_nothing(pass.usage(), self.upstream.last_sent);
            self.learner.ended();
        }
    }

    /// The number of requests that a call was, in place of those it was granted for.
    pub(super) fn settle_requests(&mut self, now: Timestamp, pass: &Pass, requests: u64) {
        let actual = Usage { requests, ..pass.usage() };
        self.upstream.settle(now, pass.granted_at, pass.usage(), actual);
    }

    /// What a call took, in place of what was reserved for it.
    pub(super) fn settle(&mut self, now: Timestamp, pass: &Pass, actual: Usage) {
        self.upstream.settle(now, pass.granted_at, pass.usage(), actual);
        self.outputs.record(actual.output_tokens);
    }
}

impl LimitState for GuardState {
    type Load = Usage;
    type Grant = Pass;
    /// Every decision takes the lock.
    type FastPath = ();
    type Plan = Plan;
    const TIMED: bool = true;

    fn fast_path(&self) {}

    fn try_fast(_path: &(), _now: Timestamp, _usage: Usage, _take: bool) -> Outcome {
        Outcome::Contended
    }

    fn fast_grant(_now: Timestamp, _usage: Usage) -> Pass {
        unreachable!("it takes nothing on the fast path")
    }

    fn close(&mut self, _path: &()) {}

    fn open(&mut self, _path: &()) -> bool {
        true
    }

    fn capacity(&self) -> u64 {
        u64::MAX
    }

    /// One more each time that the server asks for longer than it may.
    fn strictness(&self) -> u64 {
        self.barred
    }

    fn refuses(&mut self, now: Timestamp, usage: Usage) -> Option<Reason> {
        self.largest = self.largest.most(usage);
        if self.upstream.exceeds(usage) {
            return Some(Reason::ExceedsCapacity);
        }
        self.freshen(now);
        let asked = self.upstream.server_ready_at(now, usage).since(now);
        (asked > self.ceiling).then_some(Reason::AskedTooLong)
    }

    fn ready(&mut self, now: Timestamp, usage: Usage) -> Later {
        match self.ready_at(now, usage) {
            When::At(at) => Later::At(at),
            When::Never => Later::Never,
        }
    }

    fn take(&mut self, now: Timestamp, usage: Usage) -> Result<Pass, Later> {
        if usage.units() > 0 {
            match self.ready(now, usage) {
                Later::At(at) if at <= now => self.upstream.spend(now, usage),
                later => return Err(later),
            }
            self.learner.granted(now);
        }
        Ok(self.calls.grant(now, usage))
    }

    fn give_back(&mut self, now: Timestamp, pass: Pass, usage: Usage) {
        if self.uncount(&pass) {
            self.upstream.give_back(now, pass.granted_at, usage);
        }
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        let full = self.ready_at(now, Usage::requests(1));
        let open = full == When::At(now);
        Balance::new(u64::from(open), 0, full)
    }

    fn plan(&self, now: Timestamp) -> Option<Plan> {
        Some(Plan { upstream: self.upstream.ahead(), at: now })
    }

    fn plan_ready(&self, plan: &mut Plan, now: Timestamp, usage: Usage) -> Later {
        match plan.upstream.ready_at(plan.at.max(now), usage) {
            When::At(at) => Later::At(at),
            When::Never => Later::Never,
        }
    }

    fn plan_take(&self, plan: &mut Plan, at: Timestamp, usage: Usage) {
        plan.at = at;
        plan.upstream.foresee(at, usage);
    }
}
