//! All that bounds the calls to an upstream, as one pure question: when may this go?

use super::allowance::Allowances;
use super::pace::Pace;
use crate::algorithm::{Algorithm, Grant, TokenBucket, When};
use crate::client::signal::Unit;
use crate::client::usage::Usage;
use crate::units::Timestamp;

/// The hold, the server's budgets, the configured quotas and the learned pace.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstream {
    pub(super) held_until: Timestamp,
    pub(super) allowances: Allowances,
    pub(super) quotas: Vec<UnitQuota>,
    pub(super) pace: Option<Pace>,
    /// Granted, and no answer heard yet.
    pub(super) undecided: Usage,
    /// The number of the call sent last.
    pub(super) last_sent: u64,
}

/// A configured quota of one kind of unit.
#[derive(Debug, Clone)]
pub(super) struct UnitQuota {
    unit: Unit,
    bucket: TokenBucket,
    state: <TokenBucket as Algorithm>::State,
}

impl UnitQuota {
    pub(super) fn new(unit: Unit, bucket: TokenBucket, now: Timestamp) -> Self {
        Self { unit, bucket, state: bucket.start(now, now.as_ns()) }
    }

    fn settle(&mut self, now: Timestamp, granted_at: Timestamp, reserved: Usage, actual: Usage) {
        let (reserved, actual) = (reserved.of(self.unit), actual.of(self.unit));
        match actual.checked_sub(reserved) {
            Some(more) => self.bucket.force(&mut self.state, now, more),
            None => {
                let grant = Grant::new(granted_at, reserved);
                self.bucket.give_back(&mut self.state, now, grant, reserved - actual);
            }
        }
    }
}

impl Upstream {
    /// When what the server has asked for is over: its hold, and what it has told of its budgets.
    pub(super) fn server_ready_at(&mut self, now: Timestamp, usage: Usage) -> Timestamp {
        let held = self.held_until.max(now);
        self.allowances.ready_at(now, usage, self.undecided, self.last_sent).max(held)
    }

    pub(super) fn ready_at(&mut self, now: Timestamp, usage: Usage) -> When {
        let mut ready = When::At(self.server_ready_at(now, usage));
        for quota in &mut self.quotas {
            ready = ready.max(quota.bucket.ready_at(&mut quota.state, now, usage.of(quota.unit)));
        }
        match &self.pace {
            Some(pace) if usage.requests > 0 => ready.max(When::At(pace.ready_at(now))),
            _ => ready,
        }
    }

    pub(super) fn spend(&mut self, now: Timestamp, usage: Usage) {
        self.undecided = self.undecided.plus(usage);
        self.charge(now, usage);
    }

    /// What is known, for a look ahead.
    pub(super) fn ahead(&self) -> Self {
        let mut ahead = self.clone();
        ahead.allowances.count(std::mem::take(&mut ahead.undecided));
        ahead
    }

    /// What will be once `usage` has gone and was answered: it does not count as under way for ever.
    pub(super) fn foresee(&mut self, at: Timestamp, usage: Usage) {
        self.allowances.foresee(at, usage, self.last_sent);
        self.charge(at, usage);
    }

    fn charge(&mut self, now: Timestamp, usage: Usage) {
        self.allowances.spend(now);
        for quota in &mut self.quotas {
            quota.bucket.force(&mut quota.state, now, usage.of(quota.unit));
        }
        if let Some(pace) = &mut self.pace {
            pace.spend(now, usage.requests);
        }
    }

    /// What was granted at `granted_at` and not sent.
    pub(super) fn give_back(&mut self, now: Timestamp, granted_at: Timestamp, usage: Usage) {
        self.settle(now, granted_at, usage, Usage::ZERO);
        if let Some(pace) = &mut self.pace {
            pace.give_back(usage.requests);
        }
    }

    /// What a call took, in place of what was reserved for it.
    pub(super) fn settle(&mut self, now: Timestamp, granted_at: Timestamp, reserved: Usage, actual: Usage) {
        self.quotas.iter_mut().for_each(|quota| quota.settle(now, granted_at, reserved, actual));
    }

    /// `true` if nothing of what was told and learnt and spent still matters.
    pub(super) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.held_until <= now
            && self.allowances.are_over(now)
            && self.pace.as_ref().is_none_or(|pace| pace.is_old(now))
            && self
                .quotas
                .iter_mut()
                .all(|quota| quota.bucket.balance(&mut quota.state, now).full == When::At(now))
    }

    /// `true` if a configured quota can never let `usage` go.
    pub(super) fn exceeds(&self, usage: Usage) -> bool {
        self.quotas.iter().any(|quota| usage.of(quota.unit) > quota.bucket.capacity())
    }

    /// `usage` with no more output than can ever go.
    pub(super) fn clip_output(&self, mut usage: Usage) -> Usage {
        for quota in &self.quotas {
            let room = match quota.unit {
                Unit::OutputTokens => quota.bucket.capacity(),
                Unit::Tokens => quota.bucket.capacity().saturating_sub(usage.input_tokens),
                _ => continue,
            };
            usage.output_tokens = usage.output_tokens.min(room);
        }
        usage
    }
}
