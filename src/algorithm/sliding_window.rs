//! Sliding window: a log of what was admitted, exact or in segments.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Algorithm, Balance, FromQuota, Grant, When, window_of};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// Sliding window: no half-open window of its length ever holds more than the limit.
///
/// **Guarantee.** Exact by default: a unit admitted at *t* counts until *t + window*, when it is gone. One entry of
/// 24 bytes is kept for each distinct nanosecond in which something was admitted, at most one for each unit. A limiter of
/// at most 16,384 units keeps eight bytes for each unit of its limit instead and decides without a lock: from the start,
/// or once it is busy if it is one of a keyed limiter's.
///
/// **Segments.** [`segments(k)`](SlidingWindow::segments) bounds that memory to *k + 2* entries: what is admitted
/// within *window / k* is kept as one entry that leaves with its youngest unit. It stays strict, and admits less: a
/// unit may count for up to *window / k* longer than the window.
///
/// **Refund.** Takes the units out of the log, if they are still in it.
///
/// **Change of quota.** What was spent stays in the log: the new limit less the units of the log remains, and units
/// beyond the new limit are a debt. A longer window counts what the shorter one still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    limit: u64,
    window_ns: u64,
    used_at_start: u64,
    segments: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    opened_ns: u64,
    last_ns: u64,
    units: u64,
}

/// What was admitted within the window, oldest first.
#[derive(Debug, Clone)]
#[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
pub struct State {
    entries: VecDeque<Entry>,
    used: u64,
}

impl SlidingWindow {
    /// Counts in `segments` segments of the window in place of exactly.
    ///
    /// # Errors
    /// [`QuotaError::Segments`] for none, or more than the window has nanoseconds.
    pub const fn segments(mut self, segments: u64) -> Result<Self, QuotaError> {
        if segments == 0 || segments > self.window_ns {
            return Err(QuotaError::Segments { segments, most: self.window_ns });
        }
        self.segments = Some(segments);
        Ok(self)
    }

    const fn grain_ns(&self) -> u64 {
        match self.segments {
            Some(segments) => self.window_ns.div_ceil(segments),
            None => 1,
        }
    }

    /// Window and limit, if every unit is counted by its own time.
    pub(crate) fn exact(&self) -> Option<(u64, u64)> {
        self.segments.is_none().then_some((self.window_ns, self.limit))
    }

    const fn gone_ns(&self, entry: &Entry) -> u64 {
        entry.last_ns.saturating_add(self.window_ns)
    }

    fn expire(&self, state: &mut State, now: Timestamp) {
        while let Some(entry) = state.entries.front().filter(|entry| self.gone_ns(entry) <= now.as_ns()) {
            state.used -= entry.units;
            state.entries.pop_front();
        }
    }
}

impl State {
    /// The number of units in the log.
    pub(crate) const fn used(&self) -> u64 {
        self.used
    }

    /// When the last of them came.
    pub(crate) fn newest_ns(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.last_ns)
    }

    /// Takes the log out: a time for each unit, oldest first. Its room stays.
    pub(crate) fn take_times(&mut self) -> impl Iterator<Item = u64> {
        self.used = 0;
        self.entries.drain(..).flat_map(|entry| (0..entry.units).map(move |_| entry.last_ns))
    }

    /// Makes these times the log: nearly in order, a time for each unit.
    pub(crate) fn put_times(&mut self, times: impl Iterator<Item = u64>) {
        self.entries.clear();
        self.used = 0;
        for at_ns in times {
            self.used += 1;
            let index = match self.entries.back() {
                Some(entry) if entry.last_ns >= at_ns => {
                    self.entries.partition_point(|entry| entry.last_ns < at_ns)
                }
                _ => self.entries.len(),
            };
            match self.entries.get_mut(index).filter(|entry| entry.last_ns == at_ns) {
                Some(entry) => entry.units += 1,
                None => self.entries.insert(index, Entry { opened_ns: at_ns, last_ns: at_ns, units: 1 }),
            }
        }
    }
}

impl FromQuota for SlidingWindow {
    fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
        let (limit, window_ns, used_at_start) = window_of(quota)?;
        Ok(Self { limit, window_ns, used_at_start, segments: None })
    }

    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
        let next = Self::from_quota(quota)?;
        match self.segments {
            Some(segments) => next.segments(segments),
            None => Ok(next),
        }
    }
}

impl Algorithm for SlidingWindow {
    type State = State;

    fn start(&self, now: Timestamp, _unix_ns: u64) -> State {
        let mut state = State { entries: VecDeque::new(), used: 0 };
        self.force(&mut state, now, self.used_at_start);
        state
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
        self.expire(state, now);
        if cost > self.limit {
            return When::Never;
        }
        let mut over = (u128::from(state.used) + u128::from(cost)).saturating_sub(u128::from(self.limit));
        let mut at = now;
        for entry in &state.entries {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(u128::from(entry.units));
            at = Timestamp::from_ns(self.gone_ns(entry));
        }
        When::At(at)
    }

    fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
        self.expire(state, now);
        let now_ns = now.as_ns();
        let units = cost.min(u64::MAX - state.used);
        if units == 0 {
            return;
        }
        state.used += units;
        match state.entries.back_mut() {
            Some(entry) if now_ns.saturating_sub(entry.opened_ns) < self.grain_ns() => {
                entry.last_ns = now_ns.max(entry.last_ns);
                entry.units += units;
            }
            _ => state.entries.push_back(Entry { opened_ns: now_ns, last_ns: now_ns, units }),
        }
    }

    fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
        self.expire(state, now);
        let at_ns = grant.at.as_ns();
        let index = state.entries.partition_point(|entry| entry.last_ns < at_ns);
        let Some(entry) = state.entries.get_mut(index).filter(|entry| entry.opened_ns <= at_ns) else {
            return;
        };
        let back = units.min(grant.units).min(entry.units);
        entry.units -= back;
        state.used -= back;
        if entry.units == 0 {
            state.entries.remove(index);
        }
    }

    fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
        self.expire(state, now);
        let full = state.entries.back().map_or(now, |entry| Timestamp::from_ns(self.gone_ns(entry)));
        let debt = state.used.saturating_sub(self.limit);
        Balance::new(self.limit.saturating_sub(state.used), debt, When::At(full))
    }

    fn policy(&self) -> Policy {
        Policy::new(self.limit, Some(Duration::from_nanos(self.window_ns)))
    }

    fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
        self.expire(state, now);
        *self = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_times_is_the_same_log() {
        let window =
            SlidingWindow::from_quota(Quota::per(20, Duration::from_nanos(100)).initial(19)).unwrap();
        assert_eq!(window.exact(), Some((100, 20)));
        assert_eq!(window.segments(2).unwrap().exact(), None);
        let mut state = window.start(Timestamp::from_ns(3), 0);
        assert_eq!((state.used(), state.newest_ns()), (1, 3));
        window.force(&mut state, Timestamp::from_ns(5), 2);
        window.force(&mut state, Timestamp::from_ns(9), 1);
        assert_eq!((state.used(), state.newest_ns()), (4, 9));
        let times: Vec<u64> = state.take_times().collect();
        assert_eq!(times, [3, 5, 5, 9]);
        assert_eq!((state.used(), state.newest_ns()), (0, 0));
        // Nearly in order.
        state.put_times([5, 3, 9, 5, 9, 4].into_iter());
        let entries: Vec<_> =
            state.entries.iter().map(|entry| (entry.opened_ns, entry.last_ns, entry.units)).collect();
        assert_eq!(entries, [(3, 3, 1), (4, 4, 1), (5, 5, 2), (9, 9, 2)]);
        assert_eq!(state.used(), 6);
        state.put_times([7].into_iter());
        assert_eq!((state.used(), state.newest_ns()), (1, 7));
    }
}
