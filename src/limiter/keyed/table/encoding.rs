//! The arithmetic of a slot: a token bucket's theoretical arrival time on a small circle.

use crate::algorithm::{Pace, TokenBucket};
use crate::units::Timestamp;

/// Times run on a circle of so many ticks.
pub(super) const CIRCLE: u64 = 1 << 42;
/// A bucket of slots that was rebased longer ago than this is rebased before its times are read.
const DUE: u64 = CIRCLE / 16;
/// The most that a time may be behind the base of its bucket: its writer read the clock just before the rebase.
const SLACK: u64 = CIRCLE / 64;
const _: () = assert!(DUE + SLACK < CIRCLE - AHEAD_MAX && CIRCLE - AHEAD_MAX < CIRCLE / 4);
/// The most that a time may be ahead of now. With the two above it is less than the circle: no time reads as another.
pub(super) const AHEAD_MAX: u64 = CIRCLE / 16 * 14;
/// The most ticks in a nanosecond. Bounds how often buckets of slots are rebased: each 17 s at the most.
const TICKS_PER_NS_MAX: u64 = 16;

/// Where ticks are not exact, the fewest of a unit for each tick that is added to it: the rate is lower by at most one
/// part in 2·10⁹, which is what [`TokenBucket`] promises itself.
const UNIT_MIN: u128 = 1 << 31;

/// The ticks of a quota, as slots count them: what a decision needs.
///
/// **Exact** where a nanosecond and a unit both are a whole number of ticks, and the burst fits the circle. Each decision
/// is then that of the [`TokenBucket`].
///
/// **Coarse** otherwise: a tick is 2ˢ ns, now is rounded down, and a unit takes one tick more than its ticks rounded up.
/// Never early: in *d* ns less than *d*/2ˢ + 1 ticks pass, and *j* units beyond the burst need *j* times the ticks of a
/// unit and *j* more, so *d* is at least the time of *j* units. The burst is made of the same units, so all of it is
/// granted at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// A time is `ns · mul >> shift` ticks; one of the two is trivial. Zero: time brings nothing back.
    pub(super) mul: u64,
    pub(super) shift: u64,
    /// Ticks of a unit.
    pub(super) unit: u64,
    /// Ticks of the burst.
    pub(super) burst: u64,
}

/// The quota of the slots: a token bucket and its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotQuota {
    pub(super) bucket: TokenBucket,
    pub(super) encoding: Encoding,
}

/// The decision of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limiter::keyed) enum Decision {
    /// Granted; the time is then so far ahead of now.
    Grant(u64),
    /// Too little is left for so many nanoseconds. `None`: time brings nothing back.
    Wait(Option<u64>),
    /// More than the burst.
    TooLarge,
}

impl Encoding {
    fn new(mul: u64, shift: u64, unit: u64, units: u64) -> Option<Self> {
        let burst = unit.checked_mul(units).filter(|burst| *burst <= AHEAD_MAX)?;
        Some(Self { mul, shift, unit, burst })
    }

    /// The encoding of the finest ticks that fit, if they are fine enough.
    fn of(bucket: &TokenBucket) -> Option<Self> {
        let (burst, _, Pace { ticks_per_ns, ticks_per_unit, .. }) = bucket.parts();
        if ticks_per_ns <= TICKS_PER_NS_MAX {
            let exact = Self::new(ticks_per_ns, 0, ticks_per_unit, burst);
            if exact.is_some() || ticks_per_ns == 0 {
                return exact;
            }
        }
        let (per_ns, per_unit) = (u128::from(ticks_per_ns), u128::from(ticks_per_unit));
        let finer = (0..=TICKS_PER_NS_MAX.ilog2()).rev().map(|fine| (1 << fine, 0));
        finer.chain((1..22).map(|shift| (1, shift))).find_map(|(mul, shift)| {
            let (ticks, ns) = (per_unit * u128::from(mul), per_ns << shift);
            let added = 1 + u128::from(ticks % ns > 0);
            let encoding = Self::new(mul, shift, u64::try_from(ticks.div_ceil(ns) + 1).ok()?, burst)?;
            Some(Some(encoding).filter(|_| ticks / ns >= added * UNIT_MIN))
        })?
    }

    #[inline]
    const fn ticks(self, ns: u64) -> u64 {
        ns.wrapping_mul(self.mul) >> self.shift
    }

    /// The ticks in a span, or more than any that counts.
    #[inline]
    const fn span(self, ns: u64) -> u64 {
        ns.saturating_mul(self.mul) >> self.shift
    }

    #[inline]
    pub(super) const fn is_due(self, rebased_ns: u64, now_ns: u64) -> bool {
        self.span(now_ns.saturating_sub(rebased_ns)) > DUE
    }

    /// How far a time is ahead of now, in a bucket of slots that is not due. A clock that went back stands still at the
    /// base.
    #[inline]
    pub(super) const fn ahead(self, rebased_ns: u64, time: u64, now_ns: u64) -> u64 {
        let ahead = time.wrapping_sub(self.ticks_at(rebased_ns, now_ns)) & (CIRCLE - 1);
        // Further than anybody writes: it is behind. What is left of the circle is more than a time is ever behind.
        if ahead > AHEAD_MAX { 0 } else { ahead }
    }

    /// The same for a bucket of slots that may be due.
    pub(super) fn ahead_of_old(self, rebased_ns: u64, time: u64, now_ns: u64) -> u64 {
        let base = self.ticks(rebased_ns).wrapping_sub(SLACK);
        let since = self.ticks_at(rebased_ns, now_ns).wrapping_sub(base);
        let ahead = (time.wrapping_sub(base) & (CIRCLE - 1)).saturating_sub(since);
        if self.has_wrapped(rebased_ns, now_ns) || ahead > AHEAD_MAX { 0 } else { ahead }
    }

    #[inline]
    const fn ticks_at(self, rebased_ns: u64, now_ns: u64) -> u64 {
        self.ticks(if now_ns > rebased_ns { now_ns } else { rebased_ns })
    }

    /// The time that is so far ahead of now.
    #[inline]
    pub(super) const fn time(self, rebased_ns: u64, ahead: u64, now_ns: u64) -> u64 {
        self.ticks_at(rebased_ns, now_ns).wrapping_add(ahead)
    }

    /// The time of an expired slot, as early as it may be: it stays expired for a clock that is read a little behind.
    pub(super) const fn expired(self, rebased_ns: u64) -> u64 {
        self.ticks(rebased_ns)
    }

    /// The circle has gone round since.
    fn has_wrapped(self, then_ns: u64, now_ns: u64) -> bool {
        self.span(now_ns.saturating_sub(then_ns)) >= CIRCLE
    }

    #[inline]
    pub(super) fn decide(self, ahead: u64, now_ns: u64, units: u64) -> Decision {
        let charge = match units.checked_mul(self.unit) {
            Some(charge) if charge <= self.burst => charge,
            _ => return Decision::TooLarge,
        };
        let after = ahead + charge;
        if after <= self.burst {
            Decision::Grant(after)
        } else {
            Decision::Wait(self.wait_ns(after - self.burst, now_ns))
        }
    }

    /// The smallest wait after which so many ticks have passed.
    #[inline]
    fn wait_ns(self, ticks: u64, now_ns: u64) -> Option<u64> {
        match self.mul {
            0 => None,
            // Most rates have ticks of a nanosecond, and a division is a good part of what a denial costs.
            1 if self.shift == 0 => Some(ticks),
            1 => Some(((self.ticks(now_ns) + ticks) << self.shift) - now_ns),
            mul => Some(ticks.div_ceil(mul)),
        }
    }
}

impl SlotQuota {
    /// The quota of a bucket, if slots can say its states.
    pub(super) fn of(bucket: &TokenBucket) -> Option<Self> {
        Encoding::of(bucket).map(|encoding| Self { bucket: *bucket, encoding })
    }

    /// The ticks that a new key starts behind by.
    pub(super) const fn late(&self) -> u64 {
        self.bucket.late_units() * self.encoding.unit
    }

    /// The backlog, in the bucket's own ticks, of what is ahead: as many units, rounded up.
    pub(super) fn backlog(&self, ahead: u64) -> u64 {
        rescaled(ahead, self.encoding.unit, self.bucket.pace.ticks_per_unit)
    }

    /// What is ahead, of a backlog. `None` for a debt.
    pub(super) fn ahead_of(&self, backlog: u64) -> Option<u64> {
        let ahead = rescaled(backlog, self.bucket.pace.ticks_per_unit, self.encoding.unit);
        (backlog <= self.bucket.pace.burst_ticks).then(|| ahead.min(self.encoding.burst))
    }

    /// What is ahead now under this quota, of what was ahead under `before` at the time of the change.
    pub(super) fn carried(&self, before: &Self, ahead: u64, changed: Timestamp, now_ns: u64) -> u64 {
        let state = before.bucket.resume(changed, before.backlog(ahead));
        let backlog = before.bucket.carry(self.bucket, state, changed);
        // A change makes no debt of a state that owes nothing.
        let ahead = self.ahead_of(backlog).unwrap_or(self.encoding.burst);
        let (now, then) =
            (self.encoding.ticks(now_ns.max(changed.as_ns())), self.encoding.ticks(changed.as_ns()));
        let has_wrapped = self.encoding.has_wrapped(changed.as_ns(), now_ns);
        if has_wrapped { 0 } else { ahead.saturating_sub(now.wrapping_sub(then)) }
    }
}

fn rescaled(ticks: u64, from: u64, to: u64) -> u64 {
    if from == to {
        return ticks;
    }
    let scaled = (u128::from(ticks) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
