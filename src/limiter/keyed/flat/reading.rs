//! The arithmetic of a slot: a token bucket's theoretical arrival time on a small circle.

use crate::algorithm::{Pace, TokenBucket};
use crate::units::Timestamp;

/// Times run on a circle of so many ticks.
pub(super) const CIRCLE: u64 = 1 << 42;
/// A bucket whose head is older than this is brought up to now before its times are read.
const DUE: u64 = CIRCLE / 16;
/// How far behind its bucket's head a time may be: whoever read the clock just before the head was written.
const SLACK: u64 = CIRCLE / 64;
const _: () = assert!(DUE + SLACK < CIRCLE - AHEAD_MAX && CIRCLE - AHEAD_MAX < CIRCLE / 4);
/// How far ahead of now a time may be. With the two above it is less than the circle: no time is mistaken for another.
pub(super) const AHEAD_MAX: u64 = CIRCLE / 16 * 14;
/// Most ticks in a nanosecond: bounds how often buckets are due.
const TICKS_PER_NS_MAX: u64 = 16;
/// Where ticks are not exact a unit takes at least so many, and is slowed by at most two of them: by a millionth.
const UNIT_MIN: u64 = 1 << 21;

/// How the words of one generation are read.
///
/// **Exact** where a nanosecond and a unit both hold a whole number of ticks and the burst fits the circle: every
/// decision is then the one of [`TokenBucket`].
///
/// **Coarse** elsewhere: a tick is 2ˢ ns, now is rounded down, and a unit takes one tick more than it should, rounded
/// up. In a span of *d* ns less than *d*/2ˢ + 1 ticks pass; *j* units beyond the burst need *j* times the ticks of a unit
/// and one more each, so *d* is at least *j* units' time: never early. Late by at most two ticks a unit. All of the burst
/// may go in one instant, as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) bucket: TokenBucket,
    pub(super) scale: Scale,
    /// Ticks a newcomer starts behind by: zero, unless it starts with less than the burst.
    pub(super) late: u64,
}

/// What a decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    /// A time is `ns · mul >> shift` ticks; one of the two is trivial. Zero: time brings nothing back.
    pub(super) mul: u64,
    pub(super) shift: u64,
    pub(super) unit: u64,
    pub(super) burst: u64,
    /// `DUE` in nanoseconds.
    pub(super) due_ns: u64,
}

/// What a slot says to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// May go; this far ahead then.
    Go(u64),
    /// Not before this wait; `None`: no wait helps.
    After(Option<u64>),
    /// More than there can ever be.
    Never,
}

impl Scale {
    fn new(mul: u64, shift: u64, unit: u64, units: u64) -> Option<Self> {
        let burst = unit.checked_mul(units).filter(|burst| *burst <= AHEAD_MAX)?;
        let due_ns = (DUE << shift).checked_div(mul).unwrap_or(u64::MAX);
        Some(Self { mul, shift, unit, burst, due_ns })
    }

    #[inline]
    pub(super) const fn ticks(self, ns: u64) -> u64 {
        ns.wrapping_mul(self.mul) >> self.shift
    }

    #[inline]
    pub(super) const fn is_due(self, turned_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(turned_ns) > self.due_ns
    }

    /// How far a time is ahead of now, in a bucket that was turned then and is not due. A clock that went back stands still
    /// at the turn.
    #[inline]
    pub(super) const fn ahead(self, turned_ns: u64, time: u64, now_ns: u64) -> u64 {
        let ahead = time.wrapping_sub(self.ticks_at(turned_ns, now_ns)) & (CIRCLE - 1);
        // Further than anybody writes: it is behind. What is left of the circle is more than a bucket is ever behind.
        if ahead > AHEAD_MAX { 0 } else { ahead }
    }

    /// The same for a bucket that may be due: whatever lies behind the turn by no more than it may.
    pub(super) fn ahead_of_old(self, turned_ns: u64, time: u64, now_ns: u64) -> u64 {
        let base = self.ticks(turned_ns).wrapping_sub(SLACK);
        let since = self.ticks_at(turned_ns, now_ns).wrapping_sub(base);
        let ahead = (time.wrapping_sub(base) & (CIRCLE - 1)).saturating_sub(since);
        if self.is_past(turned_ns, now_ns) || ahead > AHEAD_MAX { 0 } else { ahead }
    }

    #[inline]
    const fn ticks_at(self, turned_ns: u64, now_ns: u64) -> u64 {
        self.ticks(if now_ns > turned_ns { now_ns } else { turned_ns })
    }

    /// The time that is so far ahead of now.
    #[inline]
    pub(super) const fn time(self, turned_ns: u64, ahead: u64, now_ns: u64) -> u64 {
        self.ticks_at(turned_ns, now_ns).wrapping_add(ahead)
    }

    /// What is left now of what was ahead then.
    fn left(self, ahead: u64, then_ns: u64, now_ns: u64) -> u64 {
        let passed = self.ticks(now_ns.max(then_ns)).wrapping_sub(self.ticks(then_ns));
        if self.is_past(then_ns, now_ns) { 0 } else { ahead.saturating_sub(passed) }
    }

    /// Whether the circle has gone round since.
    fn is_past(self, then_ns: u64, now_ns: u64) -> bool {
        let whole_ns = (CIRCLE << self.shift).checked_div(self.mul).unwrap_or(u64::MAX);
        now_ns.saturating_sub(then_ns) >= whole_ns
    }

    #[inline]
    pub(super) fn ask(self, ahead: u64, now_ns: u64, units: u64) -> Says {
        let charge = match units.checked_mul(self.unit) {
            Some(charge) if charge <= self.burst => charge,
            _ => return Says::Never,
        };
        let after = ahead + charge;
        if after <= self.burst {
            Says::Go(after)
        } else {
            Says::After(self.wait_ns(after - self.burst, now_ns))
        }
    }

    /// The smallest wait after which so many ticks have passed.
    fn wait_ns(self, ticks: u64, now_ns: u64) -> Option<u64> {
        match self.mul {
            0 => None,
            1 if self.shift == 0 => Some(ticks),
            1 => Some(((self.ticks(now_ns) + ticks) << self.shift) - now_ns),
            mul => Some(ticks.div_ceil(mul)),
        }
    }
}

impl Reading {
    /// How slots are read for this bucket; `None` if it would be slowed by more than a millionth.
    pub(super) fn of(bucket: &TokenBucket) -> Option<Self> {
        let Pace { ticks_per_ns, ticks_per_unit, .. } = bucket.pace;
        let exact = (ticks_per_ns <= TICKS_PER_NS_MAX)
            .then(|| Scale::new(ticks_per_ns, 0, ticks_per_unit, bucket.parts().0))
            .flatten();
        let scale = exact.or_else(|| Self::coarse(bucket, UNIT_MIN))?;
        Some(Self { bucket: *bucket, scale, late: bucket.late_units() * scale.unit })
    }

    /// For slots that are there already, however much it is slowed. More than 2⁴⁰ units of burst are cut.
    pub(super) fn near(bucket: &TokenBucket) -> Self {
        let (burst, initial, pace) = bucket.parts();
        let most = burst.min(CIRCLE / 4);
        let burst_ticks = pace.ticks_per_unit * most;
        let cut = TokenBucket::of_parts(most, initial.min(most), Pace { burst_ticks, ..pace });
        let coarse = || {
            Self::coarse(&cut, 2).unwrap_or(Scale {
                mul: 0,
                shift: 0,
                unit: 1,
                burst: most,
                due_ns: u64::MAX,
            })
        };
        Self::of(bucket).unwrap_or_else(|| {
            let scale = coarse();
            Self { bucket: cut, scale, late: cut.late_units() * scale.unit }
        })
    }

    /// The finest ticks that fit, of which a unit has at least so many.
    fn coarse(bucket: &TokenBucket, unit_min: u64) -> Option<Scale> {
        let Pace { ticks_per_ns, ticks_per_unit, .. } = bucket.pace;
        if ticks_per_ns == 0 {
            return None;
        }
        let (per_ns, per_unit) = (u128::from(ticks_per_ns), u128::from(ticks_per_unit));
        let finest = TICKS_PER_NS_MAX.trailing_zeros();
        let finer = (0..=finest).rev().map(|fine| (1 << fine, 0));
        let all = finer.chain((1..22).map(|shift| (1, shift)));
        let scale = all.filter_map(|(mul, shift)| {
            let unit = (per_unit * u128::from(mul)).div_ceil(per_ns << shift) + 1;
            Scale::new(mul, shift, u64::try_from(unit).ok()?, bucket.parts().0)
        });
        scale.into_iter().next().filter(|scale| scale.unit >= unit_min)
    }

    /// What is ahead in ticks of the bucket's own: as many units, rounded up.
    pub(super) fn backlog(&self, ahead: u64) -> u64 {
        rescaled(ahead, self.scale.unit, self.bucket.pace.ticks_per_unit)
    }

    /// How far ahead a backlog of the bucket's own is. `None` for a debt: under another quota it may be longer than the
    /// circle, so that it is none of a slot's business.
    pub(super) fn ahead_of(&self, backlog: u64) -> Option<u64> {
        let ahead = rescaled(backlog, self.bucket.pace.ticks_per_unit, self.scale.unit);
        (backlog <= self.bucket.pace.burst_ticks).then(|| ahead.min(self.scale.burst))
    }

    /// What `ahead` under `before` at the time of the change is now, under this.
    pub(super) fn carried(&self, before: &Self, ahead: u64, changed: Timestamp, now_ns: u64) -> u64 {
        let state = before.bucket.resume(changed, before.backlog(ahead));
        let backlog = before.bucket.carry(self.bucket, state, changed);
        let ahead = self.ahead_of(backlog).unwrap_or(self.scale.burst);
        self.scale.left(ahead, changed.as_ns(), now_ns)
    }
}

fn rescaled(ticks: u64, from: u64, to: u64) -> u64 {
    if from == to {
        return ticks;
    }
    let scaled = (u128::from(ticks) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
