//! The guard's gate on the line: what is asked under its lock, the calls under way, and what their answers change.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use super::allowance::Heard;
use super::estimate::Outputs;
use super::learner::Learner;
use super::pace::Pace;
use super::upstream::Upstream;
use crate::algorithm::{Balance, When};
use crate::client::signal::{Scope, Signals};
use crate::client::usage::Usage;
use crate::decision::Reason;
use crate::limiter::{Gate, Glance, Later, Load, Locked, Sealed};
use crate::units::Timestamp;

/// A call without an answer for so long is no longer counted as under way: one whose permit is leaked must not take from
/// the budgets for ever.
const FORGOTTEN: Duration = Duration::from_secs(60);

pub(in crate::client) struct GuardGate {
    pub(super) upstream: Upstream,
    pub(super) learner: Learner,
    pub(super) outputs: Outputs,
    pub(super) ceiling: Duration,
    pub(super) jitter: Jitter,
    /// Granted, and neither answered nor over.
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    /// How often the server has asked for longer than it may.
    barred: u64,
    /// What all who wait will have left when they have gone: see [`Gate::behind`].
    walked: Option<Walk>,
}

struct Call {
    usage: Usage,
    sent_at: Option<Timestamp>,
    /// Who to wake when a hold begins while it waits for its limits.
    waker: Option<Waker>,
}

/// A call that was granted.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Pass {
    number: u64,
    granted_at: Timestamp,
    /// Its place among the calls sent; zero until it is.
    sent: u64,
    usage: Usage,
}

/// A part of a wait that is added to it, so that those who were told the same do not come back at once.
#[derive(Debug)]
pub(super) struct Jitter {
    state: u64,
    percent: u32,
}

pub(in crate::client) struct Walk {
    upstream: Upstream,
    at: Timestamp,
}

impl Load for Usage {
    fn units(self) -> u64 {
        // One that takes tokens only stands in line as well.
        if self.requests == 0 && self.total_tokens() > 0 { 1 } else { self.requests }
    }
}

impl Jitter {
    pub(super) const fn new(seed: u64, percent: u32) -> Self {
        Self { state: seed, percent }
    }

    /// Upward only: nobody comes back before the time that was asked for.
    pub(super) fn stretch(&mut self, wait: Duration) -> Duration {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let most = wait.min(Duration::from_secs(3_600)).as_nanos() as u64 / 100 * u64::from(self.percent);
        wait.saturating_add(Duration::from_nanos((mixed ^ (mixed >> 31)) % most.max(1)))
    }
}

impl GuardGate {
    pub(super) fn new(
        upstream: Upstream,
        learner: Learner,
        outputs: Outputs,
        ceiling: Duration,
        jitter: Jitter,
    ) -> Self {
        Self {
            upstream,
            learner,
            outputs,
            ceiling,
            jitter,
            calls: BTreeMap::new(),
            last_call: 0,
            barred: 0,
            walked: None,
        }
    }

    /// A hold is on its way out: what it taught is put to use, and calls that were forgotten are no longer counted.
    fn freshen(&mut self, now: Timestamp) {
        if now >= self.upstream.held_until {
            if let Some(pace) = self.learner.resume(now, self.upstream.held_until) {
                self.upstream.pace = Some(pace);
                self.walked = None;
            }
        }
        while let Some(oldest) = self.calls.first_entry() {
            if oldest.get().sent_at.is_none_or(|sent_at| now.since(sent_at) < FORGOTTEN) {
                break;
            }
            let call = oldest.remove();
            self.upstream.undecided = self.upstream.undecided.minus(call.usage);
        }
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

    /// Whether a call that has all its permits may be sent now. If a hold has begun since it was granted it may not.
    pub(super) fn send(&mut self, now: Timestamp, pass: &mut Pass) -> bool {
        if self.upstream.held_until > now {
            return false;
        }
        if let Some(call) = self.calls.get_mut(&pass.number) {
            call.sent_at = Some(now);
            call.waker = None;
        }
        self.upstream.last_sent += 1;
        pass.sent = self.upstream.last_sent;
        self.learner.sent(now);
        true
    }

    /// Sees to it that a call that waits for its limits is woken when a hold begins. False if one has.
    pub(super) fn watch(&mut self, now: Timestamp, pass: Pass, waker: &mut Option<Waker>) -> bool {
        if self.upstream.held_until > now {
            return false;
        }
        if let Some(call) = self.calls.get_mut(&pass.number) {
            std::mem::swap(&mut call.waker, waker);
        }
        true
    }

    /// Holds everybody until `wait` from now has passed; in place of a hold that there is if `replaces`, else if that
    /// ends before. Returns who is to be woken.
    pub(super) fn hold(&mut self, now: Timestamp, wait: Duration, replaces: bool) -> Vec<Waker> {
        self.walked = None;
        let until = now.after(wait);
        let before = self.upstream.held_until;
        self.upstream.held_until = if replaces { until } else { until.max(before) };
        self.bar(now);
        if before > now {
            Vec::new()
        } else {
            self.calls.values_mut().filter_map(|call| call.waker.take()).collect()
        }
    }

    /// If the server asks for longer than it may, those who wait are to be told.
    fn bar(&mut self, now: Timestamp) {
        if self.upstream.server_ready_at(now, Usage::requests(1)).since(now) > self.ceiling {
            self.barred += 1;
        }
    }

    /// What the answer of a call says; `None` for what was told outside of any call. Returns who is to be woken.
    pub(super) fn answered(&mut self, now: Timestamp, pass: Option<&Pass>, signals: &Signals) -> Vec<Waker> {
        self.walked = None;
        let last_sent = self.upstream.last_sent;
        let sent = pass.map_or(last_sent, |pass| pass.sent);
        let decided = pass.and_then(|pass| self.calls.remove(&pass.number));
        if let Some(call) = &decided {
            self.upstream.undecided = self.upstream.undecided.minus(call.usage);
        }
        let usage = decided.as_ref().map_or(Usage::ZERO, |call| call.usage);
        self.upstream.allowances.hear(signals, Heard { sent, last_sent, usage, now });
        if !signals.throttled {
            self.bar(now);
            if let Some(call) = decided {
                self.learner.served(sent, call.usage.requests, now);
            }
            return Vec::new();
        }
        // Who is told that a budget is exhausted knows all there is to know; a rate is learnt where nothing was told.
        let explained = signals.budgets.iter().any(|budget| budget.remaining == Some(0));
        let teaches = !explained && signals.scope != Scope::Shared;
        let rate = self.upstream.pace.as_ref().map(Pace::rate);
        self.learner.throttled(sent, last_sent, rate, teaches);
        let wait = signals.hold().unwrap_or_else(|| self.learner.backoff().min(self.ceiling));
        let later = self.jitter.stretch(wait);
        // What the server asks for and may ask for is not made too long by what we add.
        self.hold(now, if wait <= self.ceiling { later.min(self.ceiling) } else { later }, false)
    }

    /// Forgets what the server has told and taught.
    pub(super) fn forget(&mut self) {
        self.walked = None;
        self.upstream.allowances.clear();
        self.upstream.pace = None;
        self.learner.forget();
    }

    /// A call is over, answered or not.
    pub(super) fn over(&mut self, now: Timestamp, pass: &Pass) {
        let Some(call) = self.calls.remove(&pass.number) else { return };
        self.walked = None;
        self.upstream.undecided = self.upstream.undecided.minus(call.usage);
        self.upstream.allowances.hear_nothing(call.usage, self.upstream.last_sent);
        self.learner.served(pass.sent, call.usage.requests, now);
    }

    /// What a call took, in place of what was reserved for it.
    pub(super) fn settle(&mut self, now: Timestamp, pass: &Pass, actual: Usage) {
        self.walked = None;
        self.upstream.settle(now, pass.granted_at, pass.usage, actual);
        self.outputs.record(actual.output_tokens);
    }

    fn walk_on(walk: &mut Walk, now: Timestamp, usage: Usage) -> When {
        let when = walk.upstream.ready_at(walk.at.max(now), usage);
        if let When::At(at) = when {
            walk.at = at;
            walk.upstream.spend(at, usage);
        }
        when
    }
}

impl Pass {
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }
}

impl Gate for GuardGate {
    type Load = Usage;
    type Grant = Pass;
    type Door = Locked;
    type Plan = Walk;
    const TIMED: bool = true;

    fn build_door(&self, _: Sealed) -> Locked {
        Locked
    }

    fn look(_door: &Locked, _now: Timestamp, _usage: Usage) -> Glance {
        Glance::Shut
    }

    fn grant_at_door(_now: Timestamp, _usage: Usage) -> Pass {
        unreachable!("this door is never open")
    }

    fn shut(&mut self, _door: &Locked) {}

    fn open(&mut self, _door: &Locked) -> bool {
        true
    }

    /// Less each time that the server asks for longer than it may, so that those who wait are looked at again.
    fn capacity(&self) -> u64 {
        u64::MAX - self.barred
    }

    fn refuses(&mut self, now: Timestamp, usage: Usage) -> Option<Reason> {
        if self.upstream.exceeds(usage) {
            return Some(Reason::ExceedsCapacity);
        }
        self.freshen(now);
        let asked = self.upstream.server_ready_at(now, usage).since(now);
        (asked > self.ceiling).then_some(Reason::AskedTooLong)
    }

    fn take(&mut self, now: Timestamp, usage: Usage) -> Result<(), Later> {
        match self.ready_at(now, usage) {
            When::At(at) if at <= now => {
                self.walked = None;
                self.upstream.spend(now, usage);
                Ok(())
            }
            When::At(at) => Err(Later::At(at)),
            When::Never => Err(Later::Never),
        }
    }

    fn behind(
        &mut self,
        now: Timestamp,
        ahead: u64,
        each: &mut dyn Iterator<Item = Usage>,
        usage: Usage,
    ) -> Later {
        let when = if ahead == 0 {
            self.ready_at(now, usage)
        } else {
            self.freshen(now);
            let mut walk = self.walked.take().unwrap_or_else(|| {
                let mut walk = Walk { upstream: self.upstream.clone(), at: now };
                each.for_each(|usage| {
                    Self::walk_on(&mut walk, now, usage);
                });
                walk
            });
            let when = walk.upstream.ready_at(walk.at.max(now), usage);
            self.walked = Some(walk);
            when
        };
        match when {
            When::At(at) => Later::At(at),
            When::Never => Later::Never,
        }
    }

    fn grant(&mut self, now: Timestamp, usage: Usage) -> Pass {
        self.last_call += 1;
        if usage.units() > 0 {
            self.calls.insert(self.last_call, Call { usage, sent_at: None, waker: None });
            self.learner.granted(now);
        }
        Pass { number: self.last_call, granted_at: now, sent: 0, usage }
    }

    fn joined(&mut self, now: Timestamp, usage: Usage) {
        if let Some(mut walk) = self.walked.take() {
            Self::walk_on(&mut walk, now, usage);
            self.walked = Some(walk);
        }
    }

    fn left(&mut self) {
        self.walked = None;
    }

    fn give_back(&mut self, now: Timestamp, pass: Pass, usage: Usage) {
        self.walked = None;
        if self.calls.remove(&pass.number).is_some() {
            self.upstream.give_back(now, pass.granted_at, usage);
        }
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        let full = self.ready_at(now, Usage::requests(1));
        let open = full == When::At(now);
        Balance::new(u64::from(open), 0, full)
    }

    fn plan(&self) -> Option<Walk> {
        Some(Walk { upstream: self.upstream.clone(), at: Timestamp::ZERO })
    }

    fn plan_next(
        &self,
        plan: &mut Walk,
        now: Timestamp,
        usage: Usage,
        deadline: Timestamp,
    ) -> Option<Timestamp> {
        match plan.upstream.ready_at(plan.at.max(now), usage) {
            When::At(at) if at <= deadline => {
                plan.at = at;
                plan.upstream.spend(at, usage);
                Some(at)
            }
            _ => None,
        }
    }
}
