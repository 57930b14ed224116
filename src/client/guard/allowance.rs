//! What the server has told of its budgets, kept up to date by our own calls between its answers.
//!
//! A call may overtake another on the way there, and an answer on the way back, so the order in which answers come says
//! little about what the server had counted when it said what was left. What is known for certain:
//!
//! * in one window what is left only falls, so of all that was said of a window the least is the latest;
//! * a call that was sent after an answer had come was decided after the call of that answer;
//! * a call under way may not have been counted by any answer so far: it is taken off.
//!
//! Each answer brings one call less under way, so what is spent nears what is left, and never passes it.

use std::sync::Arc;
use std::time::Duration;

use crate::client::signal::{Budget, Signals, Unit};
use crate::client::usage::Usage;
use crate::units::Timestamp;

/// How long an exhausted budget that has no reset is left alone before one call asks again.
const PROBE: Duration = Duration::from_secs(1);
/// How far apart the resets of one window may be told, unless that is more than half of it: they come in whole seconds.
const SLACK: Duration = Duration::from_secs(2);
/// Budgets kept: a server that tells of more is telling stories.
const MOST: usize = 16;

/// The answer that told of budgets: where its call stood among ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// The number of the call, in the order in which calls were sent; `None` for what was told outside of any.
    pub(super) sent: Option<u64>,
    /// The number of the call sent last.
    pub(super) last_sent: u64,
    /// What the call took, if this is its first answer.
    pub(super) usage: Usage,
    pub(super) now: Timestamp,
}

/// How much of one of the server's budgets may be spent, and until when that is true.
#[derive(Debug, Clone)]
struct Allowance {
    unit: Unit,
    name: Option<Arc<str>>,
    limit: Option<u64>,
    /// What was left by the latest that is known.
    left: u64,
    /// Calls up to this one may have been decided before the one whose answer told that.
    mark: u64,
    /// What calls took whose answers did not tell of this budget, and the call that was sent last when one of them ended.
    silent: (u64, u64),
    /// When the window ends and there is a new one; without it, when one call may ask again.
    ends_at: Timestamp,
    resets: bool,
    /// The end of the window that was told of, whatever has been made of it since.
    told_until: Timestamp,
    /// The window, as far as it was told or seen.
    window: Duration,
}

/// All that the server has told of.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowances {
    all: Vec<Allowance>,
}

impl Allowance {
    /// What a call takes: at least one, because a call whose tokens nobody told of takes some. More than all of the budget
    /// goes when all of it is there.
    fn cost(&self, usage: Usage) -> u64 {
        let cost = usage.of(self.unit).max(1);
        self.limit.map_or(cost, |limit| cost.min(limit.max(1)))
    }

    /// `true` if it is still known to bind after its window has ended: what of the next window is told by the limit.
    fn roll(&mut self, now: Timestamp, last_sent: u64) -> bool {
        if !self.resets || now < self.ends_at {
            return true;
        }
        let Some(limit) = self.limit.filter(|_| self.window > Duration::ZERO) else { return false };
        let past = now.since(self.ends_at).as_nanos() / self.window.as_nanos();
        let windows = u32::try_from(past + 1).unwrap_or(u32::MAX);
        self.ends_at = self.ends_at.after(self.window.saturating_mul(windows));
        // One may always ask whether a limit of nothing still stands.
        self.left = limit.max(1);
        self.mark = last_sent;
        self.silent = (0, 0);
        true
    }

    fn ready_at(&self, now: Timestamp, usage: Usage, undecided: Usage) -> Timestamp {
        let taken = undecided.of(self.unit).saturating_add(self.silent.0);
        if self.left.saturating_sub(taken) >= self.cost(usage) { now } else { self.ends_at.max(now) }
    }

    /// One call was sent after a budget without a reset was exhausted: the next in a while.
    fn spend(&mut self, now: Timestamp) {
        if !self.resets {
            self.ends_at = now.after(PROBE);
        }
    }

    fn hear(&mut self, told: &Budget, remaining: u64, heard: Heard) {
        let resets = told.reset_after.is_some();
        let ends_at = heard.now.after(told.reset_after.unwrap_or(PROBE));
        let slack = if self.window > Duration::ZERO { SLACK.min(self.window / 2) } else { SLACK };
        // Of what was told outside of calls nobody knows when it was true. Where there is no window whose end would tell,
        // it is taken to be new.
        let is_surely_later = heard.sent.map_or(!self.resets, |sent| sent > self.mark);
        let is_next_window = self.resets && resets && ends_at.since(self.ends_at) > slack;
        let is_last_window = self.resets && resets && self.ends_at.since(ends_at) > slack;
        if heard.sent.is_some_and(|sent| sent > self.silent.1) {
            self.silent = (0, 0);
        }
        if is_surely_later || is_next_window || (remaining < self.left && !is_last_window) {
            self.left = remaining;
            self.mark = heard.last_sent;
            self.ends_at = ends_at;
            self.told_until = ends_at;
            self.resets = resets;
        }
        self.limit = told.limit.or(self.limit);
        self.window = match (told.window, told.reset_after) {
            (Some(window), _) => window,
            (None, Some(reset)) => self.window.max(reset),
            (None, None) => self.window,
        };
    }

    fn hear_nothing(&mut self, usage: Usage, last_sent: u64) {
        self.silent = (self.silent.0.saturating_add(usage.of(self.unit)), last_sent);
    }
}

impl Allowances {
    /// `true` if a budget in this unit is one that our calls are known to spend.
    const fn is_ours(unit: Unit) -> bool {
        matches!(unit, Unit::Requests | Unit::Tokens | Unit::InputTokens | Unit::OutputTokens)
    }

    pub(super) fn hear(&mut self, signals: &Signals, heard: Heard) {
        let mut spoken_of = [false; MOST];
        for told in &signals.budgets {
            // How much is in progress is no budget.
            let Some(remaining) = told.remaining.filter(|_| told.unit != Unit::Concurrent) else { continue };
            // What a call takes of bytes or points is not known: such a budget binds once it is exhausted.
            let remaining = if Self::is_ours(told.unit) || remaining == 0 { remaining } else { u64::MAX };
            let same = |one: &Allowance| one.unit == told.unit && one.name.as_deref() == told.name.as_deref();
            let index = match self.all.iter().position(same) {
                Some(index) => index,
                None if self.all.len() < MOST => {
                    self.all.push(Allowance {
                        unit: told.unit,
                        name: told.name.as_deref().map(Arc::from),
                        limit: told.limit,
                        left: u64::MAX,
                        mark: 0,
                        silent: (0, 0),
                        ends_at: heard.now,
                        resets: true,
                        told_until: heard.now,
                        window: Duration::ZERO,
                    });
                    self.all.len() - 1
                }
                None => continue,
            };
            // What binds most comes first: of one that is told twice it counts.
            if !std::mem::replace(&mut spoken_of[index], true) {
                self.all[index].hear(told, remaining, heard);
            }
        }
        for (one, _) in self.all.iter_mut().zip(spoken_of).filter(|(_, spoken_of)| !spoken_of) {
            one.hear_nothing(heard.usage, heard.last_sent);
        }
    }

    /// A call ended without an answer.
    pub(super) fn hear_nothing(&mut self, usage: Usage, last_sent: u64) {
        self.all.iter_mut().for_each(|one| one.hear_nothing(usage, last_sent));
    }

    /// The earliest time at which `usage` may go, as far as is known now.
    pub(super) fn ready_at(
        &mut self,
        now: Timestamp,
        usage: Usage,
        undecided: Usage,
        last_sent: u64,
    ) -> Timestamp {
        self.all.retain_mut(|one| one.roll(now, last_sent));
        self.all.iter().map(|one| one.ready_at(now, usage, undecided)).max().unwrap_or(now).max(now)
    }

    /// `true` if what was granted may still be sent, with so much on the way. A budget without a reset has let it ask.
    pub(super) fn permit(&mut self, now: Timestamp, usage: Usage, on_the_way: Usage, last_sent: u64) -> bool {
        self.all.retain_mut(|one| one.roll(now, last_sent));
        self.all.iter().all(|one| !one.resets || one.ready_at(now, usage, on_the_way) <= now)
    }

    pub(super) fn spend(&mut self, now: Timestamp) {
        self.all.iter_mut().for_each(|one| one.spend(now));
    }

    /// What is under way will have been counted, all of it in this window.
    pub(super) fn count(&mut self, under_way: Usage) {
        self.all.iter_mut().for_each(|one| one.left = one.left.saturating_sub(under_way.of(one.unit)));
    }

    /// `usage` will go at `at`, and will have been counted soon after.
    pub(super) fn foresee(&mut self, at: Timestamp, usage: Usage, last_sent: u64) {
        self.all.retain_mut(|one| one.roll(at, last_sent));
        self.all.iter_mut().for_each(|one| one.left = one.left.saturating_sub(one.cost(usage)));
    }

    /// `true` if all windows that were told of have ended.
    pub(super) fn are_over(&self, now: Timestamp) -> bool {
        self.all.iter().all(|one| one.told_until <= now)
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}
