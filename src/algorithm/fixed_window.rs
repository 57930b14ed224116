//! Fixed window: units come back all at once, at the edges of windows.

use std::time::Duration;

use super::{Algorithm, Balance, FromQuota, Grant, When};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Where the edges of the windows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Anchor {
    /// Whole windows after the limiter was made.
    #[default]
    Start,
    /// Whole windows after the Unix epoch: on the minute, on the hour, at midnight UTC.
    ///
    /// The calendar is read when the limiter is made and when it is [reset](crate::RateLimiter::reset), and for a key
    /// when the key is made. From then on the edges are one window apart on the limiter's clock. When the calendar is
    /// stepped (by NTP, by hand, or because the machine slept), limiters that exist keep their edges, which are then off
    /// by the step, until they are reset; limiters and keys made later have the new edges.
    Epoch,
}

/// Fixed window: at each edge the count of one period comes back, up to the burst.
///
/// **Guarantee.** From edge to edge at most the burst is admitted. Across an edge two windows' units can meet: in a
/// span of one window length at most *burst + count*, which is twice the limit where no burst is set.
///
/// With [`burst`](Quota::burst) above or below the count this is the bucket that is refilled in whole intervals. A
/// debt is carried over edges until it is paid.
///
/// **Refund.** Worth what was taken, less what has come back at edges since the grant.
///
/// **Change of quota.** What was spent stays: the new burst less the units spent remains. Units that were missing at
/// the start count as spent, and units spent beyond the new burst become a debt. A window of another length starts at
/// the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    capacity: u64,
    refill: u64,
    window_ns: u64,
    used_at_start: u64,
    anchor: Anchor,
}

/// Units used, and the next edge.
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
pub struct State {
    edge_ns: u64,
    used: u64,
    before: Option<Before>,
}

/// What is left of grants from before the last change, taken together as one grant made at the change: their refunds
/// can be worth no more than that.
#[derive(Debug, Clone, Copy)]
struct Before {
    changed_at: Timestamp,
    epoch: u32,
    /// Where the window began that the change fell into: of an older grant nothing is known to be left.
    began_ns: u64,
    units: u64,
}

impl FixedWindow {
    /// Puts the edges of the windows where `anchor` says.
    #[must_use]
    pub const fn anchored(mut self, anchor: Anchor) -> Self {
        self.anchor = anchor;
        self
    }

    /// Edges passed between two times, the first of them after `state.edge_ns - window`.
    fn edges(&self, edge_ns: u64, now: Timestamp) -> u64 {
        match now.as_ns().checked_sub(edge_ns) {
            Some(past) => past / self.window_ns + 1,
            None => 0,
        }
    }

    fn roll(&self, state: &mut State, now: Timestamp) {
        let edges = self.edges(state.edge_ns, now);
        if edges > 0 {
            state.used = state.used.saturating_sub(self.refill.saturating_mul(edges));
            state.edge_ns = state.edge_ns.saturating_add(edges.saturating_mul(self.window_ns));
        }
    }

    /// When `units` more than now have come back.
    fn edge_after(&self, state: &State, now: Timestamp, units: u128) -> Timestamp {
        if units == 0 {
            return now;
        }
        let more_edges = units.div_ceil(u128::from(self.refill)) - 1;
        let at = u128::from(state.edge_ns) + more_edges * u128::from(self.window_ns);
        Timestamp::from_ns(u64::try_from(at).unwrap_or(u64::MAX))
    }
}

impl FromQuota for FixedWindow {
    fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
        quota.check()?;
        let capacity = quota.capacity();
        match quota.period_ns() {
            0 => Err(QuotaError::WindowWithoutPeriod),
            window_ns => Ok(Self {
                capacity,
                refill: quota.count(),
                window_ns,
                used_at_start: capacity - quota.initial_units(),
                anchor: Anchor::Start,
            }),
        }
    }

    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
        Self::from_quota(quota).map(|next| next.anchored(self.anchor))
    }
}

impl Algorithm for FixedWindow {
    type State = State;

    fn start(&self, now: Timestamp, unix_ns: u64) -> State {
        let into_window = match self.anchor {
            Anchor::Start => 0,
            Anchor::Epoch => unix_ns % self.window_ns,
        };
        let edge_ns = now.as_ns().saturating_add(self.window_ns - into_window);
        State { edge_ns, used: self.used_at_start, before: None }
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
        self.roll(state, now);
        if cost > self.capacity {
            return When::Never;
        }
        let over = (u128::from(state.used) + u128::from(cost)).saturating_sub(u128::from(self.capacity));
        When::At(self.edge_after(state, now, over))
    }

    fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
        self.roll(state, now);
        state.used = state.used.saturating_add(cost);
    }

    fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
        self.roll(state, now);
        // What came back at the edges between a time and the current window.
        let back_since = |at: Timestamp, edge_ns: u64| {
            self.refill.saturating_mul(edge_ns.saturating_sub(1).saturating_sub(at.as_ns()) / self.window_ns)
        };
        let units = units.min(grant.units);
        let credit =
            match state.before.as_mut().filter(|before| grant.is_before(before.changed_at, before.epoch)) {
                Some(before) if grant.at.as_ns() < before.began_ns => 0,
                Some(before) => {
                    let back = back_since(before.changed_at, state.edge_ns);
                    let kept = grant.units.saturating_sub(back);
                    let credit = units.min(kept).min(before.units.saturating_sub(back));
                    before.units -= credit;
                    credit
                }
                None => units.min(grant.units.saturating_sub(back_since(grant.at, state.edge_ns))),
            };
        state.used = state.used.saturating_sub(credit);
    }

    fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
        self.roll(state, now);
        let full = self.edge_after(state, now, u128::from(state.used));
        let debt = state.used.saturating_sub(self.capacity);
        Balance::new(self.capacity.saturating_sub(state.used), debt, When::At(full))
    }

    fn policy(&self) -> Policy {
        let windows = self.capacity.div_ceil(self.refill);
        Policy::new(self.capacity, Some(Duration::from_nanos(self.window_ns.saturating_mul(windows))))
    }

    fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
        self.roll(state, now);
        let began_ns = state.edge_ns.saturating_sub(self.window_ns);
        let epoch = state.before.map_or(0, |before| before.epoch).wrapping_add(1);
        state.before = Some(Before { changed_at: now, epoch, began_ns, units: state.used });
        if next.window_ns != self.window_ns {
            state.edge_ns = now.as_ns().saturating_add(next.window_ns);
        }
        *self = next;
    }
}
