//! The calls that were granted: those that were not sent yet, and those that are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::usage::Usage;
use crate::core::Load;
use crate::units::Timestamp;

/// A call that was sent and has no answer for so long is no longer counted as under way: one whose permit is leaked must
/// not take from the budgets for ever.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A call that was granted.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Pass {
    number: u64,
    pub(super) granted_at: Timestamp,
    /// Its place among the calls sent; zero until it is.
    pub(super) sent: u64,
    usage: Usage,
}

impl Pass {
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }
}

/// Calls without a unit are not among them.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Granted and not sent: whoever waited has not been polled yet.
    granted: BTreeSet<u64>,
    last_granted: u64,
    /// Sent, and neither answered nor over.
    under_way: BTreeMap<u64, Call>,
    /// What those took together.
    on_the_way: Usage,
}

#[derive(Debug)]
struct Call {
    usage: Usage,
    sent_at: Timestamp,
}

impl Calls {
    pub(super) fn grant(&mut self, now: Timestamp, usage: Usage) -> Pass {
        self.last_granted += 1;
        if usage.units() > 0 {
            self.granted.insert(self.last_granted);
        }
        Pass { number: self.last_granted, granted_at: now, sent: 0, usage }
    }

    /// A call goes, as this one of those sent.
    pub(super) fn send(&mut self, now: Timestamp, pass: &mut Pass, sent: u64) {
        pass.sent = sent;
        if self.granted.remove(&pass.number) {
            self.under_way.insert(sent, Call { usage: pass.usage, sent_at: now });
            self.on_the_way = self.on_the_way.plus(pass.usage);
        }
    }

    /// What is under way.
    pub(super) const fn on_the_way(&self) -> Usage {
        self.on_the_way
    }

    /// A call counts no longer as granted or under way. Whether it did until now.
    pub(super) fn end(&mut self, pass: &Pass) -> bool {
        if self.under_way.remove(&pass.sent).is_some() {
            self.on_the_way = self.on_the_way.minus(pass.usage);
            return true;
        }
        self.granted.remove(&pass.number)
    }

    /// One that is forgotten counts no longer as under way: what it took.
    pub(super) fn forget(&mut self, now: Timestamp) -> Option<Usage> {
        let oldest = self.under_way.first_entry()?;
        if now.since(oldest.get().sent_at) < FORGOTTEN {
            return None;
        }
        let usage = oldest.remove().usage;
        self.on_the_way = self.on_the_way.minus(usage);
        Some(usage)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.granted.is_empty() && self.under_way.is_empty()
    }
}
