//! What the server has told of its budgets, kept up to date by our own calls between its answers.

use std::sync::Arc;
use std::time::Duration;

use crate::client::signal::{Budget, Signals, Unit};
use crate::client::usage::Usage;
use crate::units::Timestamp;

/// How long an exhausted budget that has no reset is left alone before one call asks again.
const PROBE: Duration = Duration::from_secs(1);
/// How far apart the resets of one window may be told: they are given in whole seconds.
const SLACK: Duration = Duration::from_secs(2);
/// Budgets kept: a server that tells of more is telling stories.
const MOST: usize = 16;

/// The answer that told of budgets: where its call stood among ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// The number of the call, in the order in which calls were sent.
    pub(super) sent: u64,
    /// What was granted and may not have been counted by the server when it decided: calls that have no answer yet.
    pub(super) undecided: Usage,
    /// Calls sent after this one that ended without an answer.
    pub(super) silent: Usage,
    pub(super) now: Timestamp,
}

/// How much of one of the server's budgets may be spent, and until when that is true.
#[derive(Debug, Clone)]
struct Allowance {
    unit: Unit,
    name: Option<Arc<str>>,
    limit: Option<u64>,
    /// Below zero: more is under way than the server told to be left.
    left: i64,
    /// When the window ends and there is a new one; without it, when one call may ask again.
    ends_at: Timestamp,
    resets: bool,
    /// The end of the window that was told of, whatever has been made of it since.
    told_until: Timestamp,
    /// The window, as far as it was told or seen.
    window: Duration,
    /// The call whose answer told this.
    sent: u64,
}

/// All that the server has told of.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowances {
    all: Vec<Allowance>,
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// What a call takes of a budget in `unit`: at least one, because a call whose tokens nobody told of takes some.
fn cost(unit: Unit, usage: Usage) -> u64 {
    usage.of(unit).max(1)
}

impl Allowance {
    fn cost(&self, usage: Usage) -> i64 {
        let cost = cost(self.unit, usage);
        // More than all of it goes when all of it is there.
        signed(self.limit.map_or(cost, |limit| cost.min(limit.max(1))))
    }

    /// Whether it is still known to bind after its window has ended: what of the next window is told by the limit.
    fn roll(&mut self, now: Timestamp, undecided: Usage) -> bool {
        if !self.resets || now < self.ends_at {
            return true;
        }
        let Some(limit) = self.limit.filter(|_| self.window > Duration::ZERO) else { return false };
        let past = now.since(self.ends_at).as_nanos() / self.window.as_nanos();
        let windows = u32::try_from(past + 1).unwrap_or(u32::MAX);
        self.ends_at = self.ends_at.after(self.window.saturating_mul(windows));
        self.left = signed(limit).saturating_sub(signed(undecided.of(self.unit)));
        true
    }

    fn ready_at(&self, now: Timestamp, usage: Usage) -> Timestamp {
        if self.left >= self.cost(usage) { now } else { self.ends_at.max(now) }
    }

    fn spend(&mut self, now: Timestamp, usage: Usage) {
        self.left = self.left.saturating_sub(self.cost(usage));
        if !self.resets {
            self.left = self.left.max(0);
            self.ends_at = now.after(PROBE);
        }
    }

    /// What the answer of one of our calls says.
    ///
    /// The server counted some of the calls under way before it decided, and others not yet. Of what it says is left, all
    /// that may not have been counted is taken off, so that what remains is safe to spend; each later answer is nearer to
    /// the truth. An answer that was overtaken by that of a later call may only tighten: of its window no more can be
    /// left than it says.
    fn hear(&mut self, told: &Budget, remaining: u64, heard: Heard) {
        let ends_at = told.reset_after.map(|wait| heard.now.after(wait));
        if heard.sent < self.sent {
            let apart = |at: Timestamp| at.since(self.ends_at).max(self.ends_at.since(at));
            if ends_at.is_none_or(|at| self.resets && apart(at) <= SLACK) {
                self.left = self.left.min(signed(remaining));
            }
            return;
        }
        let uncounted = heard.undecided.plus(heard.silent).of(self.unit);
        self.left = signed(remaining).saturating_sub(signed(uncounted));
        self.limit = told.limit.or(self.limit);
        self.resets = ends_at.is_some();
        self.ends_at = ends_at.unwrap_or_else(|| heard.now.after(PROBE));
        self.told_until = self.ends_at;
        self.window = match (told.window, told.reset_after) {
            (Some(window), _) => window,
            (None, Some(reset)) => self.window.max(reset),
            (None, None) => self.window,
        };
        self.sent = heard.sent;
    }
}

impl Allowances {
    /// Whether a budget in this unit is one that our calls are known to spend.
    const fn is_ours(unit: Unit) -> bool {
        matches!(unit, Unit::Requests | Unit::Tokens | Unit::InputTokens | Unit::OutputTokens)
    }

    pub(super) fn hear(&mut self, signals: &Signals, heard: Heard) {
        for told in &signals.budgets {
            let Some(remaining) = told.remaining else { continue };
            let has_room = self.all.len() < MOST;
            let known = self
                .all
                .iter_mut()
                .find(|one| one.unit == told.unit && one.name.as_deref() == told.name.as_deref());
            // What a call takes of bytes or points is not known: such a budget binds once it is exhausted. How much is in
            // progress is no budget at all.
            if told.unit == Unit::Concurrent || (!Self::is_ours(told.unit) && remaining > 0) {
                if let Some(known) = known.filter(|one| heard.sent >= one.sent) {
                    known.left = i64::MAX;
                }
                continue;
            }
            match known {
                Some(known) => known.hear(told, remaining, heard),
                None if has_room => {
                    let mut new = Allowance {
                        unit: told.unit,
                        name: told.name.as_deref().map(Arc::from),
                        limit: told.limit,
                        left: i64::MAX,
                        ends_at: heard.now,
                        resets: true,
                        told_until: heard.now,
                        window: Duration::ZERO,
                        sent: 0,
                    };
                    new.hear(told, remaining, heard);
                    self.all.push(new);
                }
                None => {}
            }
        }
    }

    /// The earliest time at which `usage` may go, as far as is known now.
    pub(super) fn ready_at(&mut self, now: Timestamp, usage: Usage, undecided: Usage) -> Timestamp {
        self.all.retain_mut(|one| one.roll(now, undecided));
        self.all.iter().map(|one| one.ready_at(now, usage)).max().unwrap_or(now).max(now)
    }

    pub(super) fn spend(&mut self, now: Timestamp, usage: Usage) {
        self.all.iter_mut().for_each(|one| one.spend(now, usage));
    }

    /// What was granted and not sent.
    pub(super) fn give_back(&mut self, usage: Usage) {
        for one in &mut self.all {
            one.left = one.left.saturating_add(one.cost(usage));
        }
    }

    /// Whether all windows that were told of have ended.
    pub(super) fn are_over(&self, now: Timestamp) -> bool {
        self.all.iter().all(|one| one.told_until <= now)
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}
