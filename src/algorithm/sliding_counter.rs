//! Sliding counter: two windows, the elder weighted by how much of it is still in view.

use std::time::Duration;

use super::{Algorithm, Balance, FromQuota, Grant, When, window_of};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Sliding counter: the estimate *previous · (window − elapsed) / window + current* never exceeds the limit.
///
/// **Guarantee.** Approximate, in three words of state. The estimate is an exact rational, never rounded. It takes the
/// previous window's units as spread evenly over it, so it errs both ways: in any span of one window length at most
/// twice the limit is admitted, and at most the limit in each window counted from the start; units from the end of
/// the previous window can also keep an ask waiting that an exact window would admit, never for longer than to the
/// end of the window after it.
///
/// **Refund.** Counts down the window the units were granted in, if it is the current or the previous one.
///
/// **Change of quota.** What was spent stays: the new limit less the estimate remains, and an estimate above the new
/// limit is a debt. A window of another length starts at the change, with the estimate, rounded up, as its first units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingCounter {
    limit: u64,
    window_ns: u64,
    used_at_start: u64,
}

/// Units of the current and of the previous window.
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
pub struct State {
    started_ns: u64,
    previous: u64,
    current: u64,
}

impl SlidingCounter {
    /// Moves on to the window `now` is in, and says how far into it.
    fn roll(&self, state: &mut State, now: Timestamp) -> u64 {
        let elapsed = now.as_ns().saturating_sub(state.started_ns);
        let windows = elapsed / self.window_ns;
        if windows > 0 {
            state.previous = if windows == 1 { state.current } else { 0 };
            state.current = 0;
            state.started_ns += windows * self.window_ns;
        }
        elapsed % self.window_ns
    }

    /// Units of the previous window that are still in view, rounded up.
    fn in_view(&self, state: &State, elapsed_ns: u64) -> u64 {
        let remaining_ns = u128::from(self.window_ns - elapsed_ns);
        // At most `previous`, because `remaining_ns` is at most the window.
        (u128::from(state.previous) * remaining_ns).div_ceil(u128::from(self.window_ns)) as u64
    }

    /// How far into a window `previous` units before it leave room for `room`, both in units.
    fn elapsed_for(&self, previous: u64, room: u64) -> u64 {
        match previous {
            0 => 0,
            _ => {
                let in_view = u128::from(room) * u128::from(self.window_ns) / u128::from(previous);
                self.window_ns - (in_view.min(u128::from(self.window_ns)) as u64)
            }
        }
    }
}

impl FromQuota for SlidingCounter {
    fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
        let (limit, window_ns, used_at_start) = window_of(quota)?;
        Ok(Self { limit, window_ns, used_at_start })
    }

    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
        Self::from_quota(quota)
    }
}

impl Algorithm for SlidingCounter {
    type State = State;

    fn start(&self, now: Timestamp, _unix_ns: u64) -> State {
        State { started_ns: now.as_ns(), previous: 0, current: self.used_at_start }
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
        self.roll(state, now);
        if cost > self.limit {
            return When::Never;
        }
        let offset_ns = match (self.limit - cost).checked_sub(state.current) {
            Some(room) => self.elapsed_for(state.previous, room),
            // Not in this window, however much of the previous one goes out of view.
            None => self.window_ns.saturating_add(self.elapsed_for(state.current, self.limit - cost)),
        };
        When::At(now.max(Timestamp::from_ns(state.started_ns.saturating_add(offset_ns))))
    }

    fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
        self.roll(state, now);
        state.current = state.current.saturating_add(cost);
    }

    fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
        self.roll(state, now);
        let units = units.min(grant.units);
        if grant.at.as_ns() >= state.started_ns {
            state.current = state.current.saturating_sub(units);
        } else if grant.at.as_ns().saturating_add(self.window_ns) >= state.started_ns {
            state.previous = state.previous.saturating_sub(units);
        }
    }

    fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
        let elapsed = self.roll(state, now);
        // Limit and current units are whole, so rounding the units in view up rounds what remains down and a debt up.
        // The products of a limit and a window near 2⁶⁴ would add up to more than 128 bits.
        let used = u128::from(state.current) + u128::from(self.in_view(state, elapsed));
        let limit = u128::from(self.limit);
        let windows = if state.current > 0 { 2 } else { u64::from(state.previous > 0) };
        let gone_ns = state.started_ns.saturating_add(self.window_ns.saturating_mul(windows));
        let full = if windows == 0 { now } else { Timestamp::from_ns(gone_ns) };
        let debt = u64::try_from(used.saturating_sub(limit)).unwrap_or(u64::MAX);
        Balance::new(limit.saturating_sub(used) as u64, debt, When::At(full))
    }

    fn policy(&self) -> Policy {
        Policy::new(self.limit, Some(Duration::from_nanos(self.window_ns)))
    }

    fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
        let elapsed = self.roll(state, now);
        if next.window_ns != self.window_ns {
            let current = state.current.saturating_add(self.in_view(state, elapsed));
            *state = State { started_ns: now.as_ns(), previous: 0, current };
        }
        *self = next;
    }
}
