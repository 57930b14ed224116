//! Token bucket by virtual scheduling (GCRA): the whole state is one word.

use std::time::Duration;

use super::{Algorithm, Balance, FromQuota, Grant, When};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

/// The state word runs on a circle of 2⁶⁴ ticks, and is ahead of now by at most this: what a backlog is cut at.
const AHEAD_MAX: u64 = 3 << 62;
/// Largest burst in ticks: leaves room for debt below [`AHEAD_MAX`], and admits one unit in 300 years.
const BURST_TICKS_MAX: u64 = 5 << 61;
/// How far the clock may run past the anchor before the word must be brought up to now: what the circle has left.
const BEHIND_MAX: u64 = (1 << 62) - 1;
/// Most ticks in a nanosecond. Bounds how often the anchor moves: each quarter millisecond at the very finest.
const TICKS_PER_NS_MAX: u64 = 1 << 44;
/// A rate that has no exact ticks is slowed by at most one part in this.
const RATE_PARTS: u128 = 2_000_000_000;

/// Token bucket: at most `burst` at one instant, refilled continuously at the rate.
///
/// **Guarantee.** In every interval of length *d* at most *burst + rate · d* units are admitted, exactly: time is
/// counted in ticks of which a nanosecond and a unit both hold a whole number. Where no such tick fits (large prime
/// rates with large bursts) the rate is slowed by at most one part in 2·10⁹.
///
/// **Pacing.** A grant happens at a whole nanosecond. Where a unit takes a fraction of one and the cost is all of the
/// burst, the bucket is full until then and the fraction is lost: less than a nanosecond a grant, and none with room for
/// one unit more.
///
/// **Refund.** A refund is worth what was taken less what has been refilled since the grant.
///
/// **Change of quota.** The balance stays, clipped to the new burst: a larger burst adds no units at once, it fills at
/// the new rate. A debt stays a debt of as many units. The windows differ here: they keep what was spent.
///
/// **Debt** is kept up to at least 2⁶¹ ticks (73 years of refill for rates of a whole number of nanoseconds per
/// unit); more is cut there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    burst: u64,
    initial: u64,
    pub(crate) pace: Pace,
}

/// What a decision needs: all of it fits one cache line beside the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Zero: never refilled.
    pub(crate) ticks_per_ns: u64,
    pub(crate) ticks_per_unit: u64,
    pub(crate) burst_ticks: u64,
}

/// Where on the circle a time stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at_ns: u64,
    pub(crate) ticks: u64,
}

/// Theoretical arrival time on the circle, and the anchor that relates the circle to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
pub struct State {
    pub(crate) word: u64,
    pub(crate) anchor: Place,
    before: Option<Before>,
}

/// What is left of grants from before the last change of quota, taken together as one grant made at the change: their
/// refunds can be worth no more than that, however the change has clipped them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Before {
    changed_at: Timestamp,
    epoch: u32,
    ticks: u64,
    /// The fastest of the quotas there have been: how much may have drained of a grant that old.
    fastest: Pace,
}

/// What one look at the word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// May go; the word becomes this.
    Go(u64),
    /// May go after so many ticks.
    After(u64),
    Never,
    /// The clock has run too far past the anchor: [`Pace::freshen`] first.
    Stale,
}

impl Pace {
    fn new(count: u64, period_ns: u64, burst: u64) -> Result<Self, QuotaError> {
        if period_ns == 0 {
            let most = BURST_TICKS_MAX;
            let pace = Self { ticks_per_ns: 0, ticks_per_unit: 1, burst_ticks: burst };
            return if burst > most { Err(QuotaError::BurstTooLarge { burst, most }) } else { Ok(pace) };
        }
        let (count, period_ns) = crate::units::reduced(count, period_ns);
        if count <= TICKS_PER_NS_MAX {
            if let Some(burst_ticks) = burst.checked_mul(period_ns).filter(|ticks| *ticks <= BURST_TICKS_MAX)
            {
                return Ok(Self { ticks_per_ns: count, ticks_per_unit: period_ns, burst_ticks });
            }
        }
        // The finest tick for which the burst still fits the circle; the unit rounds up, so the rate rounds down.
        let (count, period) = (u128::from(count), u128::from(period_ns));
        let unit_max = u128::from(BURST_TICKS_MAX / burst);
        let ticks_per_ns = (unit_max * count / period).min(u128::from(TICKS_PER_NS_MAX));
        let ticks_per_unit = (period * ticks_per_ns).div_ceil(count);
        let slowed = ticks_per_unit * count - period * ticks_per_ns;
        if ticks_per_ns == 0 || slowed.saturating_mul(RATE_PARTS) > period * ticks_per_ns {
            let enough = (RATE_PARTS * count).div_ceil(period).max(1);
            let most = u128::from(BURST_TICKS_MAX) / (period * enough).div_ceil(count);
            return Err(QuotaError::BurstTooLarge { burst, most: u64::try_from(most).unwrap_or(u64::MAX) });
        }
        let (ticks_per_ns, ticks_per_unit) = (ticks_per_ns as u64, ticks_per_unit as u64);
        Ok(Self { ticks_per_ns, ticks_per_unit, burst_ticks: burst * ticks_per_unit })
    }

    /// Ticks from the anchor to `now`, unless they are too many.
    #[inline]
    fn elapsed(self, anchor: Place, now: Timestamp) -> Option<u64> {
        let ns = now.as_ns().saturating_sub(anchor.at_ns);
        ns.checked_mul(self.ticks_per_ns).filter(|ticks| *ticks <= BEHIND_MAX)
    }

    /// The decision. Pure arithmetic on values that may be torn when read without the lock: it must not panic.
    #[inline]
    pub(crate) fn step(self, anchor: Place, word: u64, now: Timestamp, cost: u64) -> Step {
        let Some(elapsed) = self.elapsed(anchor, now) else { return Step::Stale };
        // Both counted from the anchor, which neither is ever behind: the circle cannot be mistaken, not even by a clock
        // that went back.
        let backlog = word.wrapping_sub(anchor.ticks).saturating_sub(elapsed);
        self.step_from(anchor.ticks.wrapping_add(elapsed), backlog, cost)
    }

    /// The decision for a bucket that is at `here` on the circle and has this backlog.
    #[inline]
    fn step_from(self, here: u64, backlog: u64, cost: u64) -> Step {
        let charge = match cost.checked_mul(self.ticks_per_unit) {
            Some(charge) if charge <= self.burst_ticks => charge,
            _ => return Step::Never,
        };
        let room = self.burst_ticks - charge;
        if backlog <= room {
            Step::Go(here.wrapping_add(backlog).wrapping_add(charge))
        } else if self.ticks_per_ns == 0 {
            Step::Never
        } else {
            Step::After(backlog - room)
        }
    }

    /// What drains in `ns` nanoseconds at most, in ticks of which a unit has `unit`.
    fn drained(self, ns: u128, unit: u128) -> u128 {
        let (own, per_ns) = (u128::from(self.ticks_per_unit), u128::from(self.ticks_per_ns));
        if own == unit {
            ns.saturating_mul(per_ns)
        } else {
            ns.saturating_mul(per_ns).saturating_mul(unit).div_ceil(own)
        }
    }

    const fn faster_of(self, other: Self) -> Self {
        let (one, two) = (self.ticks_per_ns as u128, other.ticks_per_ns as u128);
        let faster = one * other.ticks_per_unit as u128 >= two * self.ticks_per_unit as u128;
        if faster { self } else { other }
    }

    /// The time at which `ticks` have drained after `now`.
    #[inline]
    pub(crate) fn after(self, now: Timestamp, ticks: u64) -> Timestamp {
        // Most rates have ticks of a nanosecond, and a division is half of what a refusal costs.
        let ns = if self.ticks_per_ns <= 1 { ticks } else { ticks.div_ceil(self.ticks_per_ns) };
        Timestamp::from_ns(now.as_ns().saturating_add(ns))
    }

    /// What a bucket of this pace promises.
    fn policy(self) -> Policy {
        let full = self.after(Timestamp::ZERO, self.burst_ticks).as_ns();
        Policy::new(
            self.burst_ticks / self.ticks_per_unit,
            (self.ticks_per_ns > 0).then(|| Duration::from_nanos(full)),
        )
    }

    fn balance(self, now: Timestamp, backlog: u64) -> Balance {
        let remaining = self.burst_ticks.saturating_sub(backlog) / self.ticks_per_unit;
        let debt = backlog.saturating_sub(self.burst_ticks).div_ceil(self.ticks_per_unit);
        let is_never = self.ticks_per_ns == 0 && backlog > 0;
        Balance::new(remaining, debt, if is_never { When::Never } else { When::At(self.after(now, backlog)) })
    }

    /// What a bucket promises and what is left of it, whose word and anchor are these.
    pub(crate) fn status(self, anchor: Place, word: u64, now: Timestamp) -> (Policy, Balance) {
        let backlog = self.freshen(&mut State { word, anchor, before: None }, now);
        (self.policy(), self.balance(now, backlog))
    }

    /// Brings the word up to now and the anchor with it, and says how far the word is ahead.
    fn freshen(self, state: &mut State, now: Timestamp) -> u64 {
        let elapsed =
            u128::from(now.as_ns().saturating_sub(state.anchor.at_ns)) * u128::from(self.ticks_per_ns);
        // The word is never behind the anchor, and ahead of it by at most what the anchor may be behind now and a
        // backlog may be long: less than the circle, so this distance is the true one.
        let ahead = u128::from(state.word.wrapping_sub(state.anchor.ticks));
        let backlog = ahead.saturating_sub(elapsed) as u64;
        let here = state.anchor.ticks.wrapping_add(elapsed as u64);
        state.anchor = Place { at_ns: now.as_ns().max(state.anchor.at_ns), ticks: here };
        state.word = here.wrapping_add(backlog);
        backlog
    }
}

impl State {
    /// `true` if time has passed since the last change of quota, so that a time tells which grants are older.
    pub(crate) fn tells_by_time(&self) -> bool {
        self.before.is_none_or(|before| before.changed_at.as_ns() < self.anchor.at_ns)
    }
}

/// For stores that keep a state shorter than [`State`] is.
impl TokenBucket {
    pub(crate) const fn of_parts(burst: u64, initial: u64, pace: Pace) -> Self {
        Self { burst, initial, pace }
    }

    pub(crate) const fn parts(&self) -> (u64, u64, Pace) {
        (self.burst, self.initial, self.pace)
    }

    /// Units that are missing at the start.
    pub(crate) const fn late_units(&self) -> u64 {
        self.burst - self.initial
    }

    /// The state that has this backlog now, and no past.
    pub(crate) const fn resume(&self, now: Timestamp, backlog: u64) -> State {
        let word = if backlog > AHEAD_MAX { AHEAD_MAX } else { backlog };
        State { word, anchor: Place { at_ns: now.as_ns(), ticks: 0 }, before: None }
    }

    pub(crate) fn backlog(&self, state: &State, now: Timestamp) -> u64 {
        let mut state = *state;
        self.pace.freshen(&mut state, now)
    }

    /// What a state that came under `next` at that time has of backlog then.
    pub(crate) fn carry(mut self, next: Self, mut state: State, at: Timestamp) -> u64 {
        self.change(next, &mut state, at);
        next.pace.freshen(&mut state, at)
    }
}

impl TokenBucket {
    /// The same rate with so many units less of a burst.
    pub(crate) fn less(mut self, units: u64) -> Self {
        self.burst -= units;
        self.initial = self.initial.min(self.burst);
        self.pace.burst_ticks = self.burst * self.pace.ticks_per_unit;
        self
    }

    fn set_backlog(state: &mut State, backlog: u128) {
        state.word = state.anchor.ticks.wrapping_add(backlog.min(u128::from(AHEAD_MAX)) as u64);
    }
}

impl FromQuota for TokenBucket {
    fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
        quota.check()?;
        let burst = quota.capacity();
        let pace = Pace::new(quota.count(), quota.period_ns(), burst)?;
        Ok(Self { burst, initial: quota.initial_units(), pace })
    }

    fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
        Self::from_quota(quota)
    }
}

impl Algorithm for TokenBucket {
    type State = State;

    fn start(&self, now: Timestamp, _unix_ns: u64) -> State {
        let anchor = Place { at_ns: now.as_ns(), ticks: 0 };
        State { word: (self.burst - self.initial) * self.pace.ticks_per_unit, anchor, before: None }
    }

    fn capacity(&self) -> u64 {
        self.burst
    }

    fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
        let backlog = self.pace.freshen(state, now);
        match self.pace.step_from(0, backlog, cost) {
            Step::Go(_) => When::At(now),
            Step::After(ticks) => When::At(self.pace.after(now, ticks)),
            Step::Never | Step::Stale => When::Never,
        }
    }

    fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
        let backlog = self.pace.freshen(state, now);
        Self::set_backlog(
            state,
            u128::from(backlog) + u128::from(cost) * u128::from(self.pace.ticks_per_unit),
        );
    }

    /// Worth at most what the grant still holds of the backlog: a tick that has drained since cannot be given back,
    /// because the next idle moment may have discarded it already.
    fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
        let backlog = self.pace.freshen(state, now);
        let unit = u128::from(self.pace.ticks_per_unit);
        let since = |at: Timestamp| u128::from(now.as_ns().saturating_sub(at.as_ns()));
        let undrained =
            |pace: Pace| (u128::from(grant.units) * unit).saturating_sub(pace.drained(since(grant.at), unit));
        let mut credit = u128::from(units) * unit;
        match state.before.as_mut().filter(|before| grant.is_before(before.changed_at, before.epoch)) {
            Some(before) => {
                let drained = self.pace.drained(since(before.changed_at), unit);
                let left = u128::from(before.ticks).saturating_sub(drained);
                credit = credit.min(undrained(before.fastest)).min(left);
                before.ticks -= credit as u64;
            }
            None => credit = credit.min(undrained(self.pace)),
        }
        Self::set_backlog(state, u128::from(backlog).saturating_sub(credit));
    }

    fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
        let backlog = self.pace.freshen(state, now);
        self.pace.balance(now, backlog)
    }

    fn policy(&self) -> Policy {
        self.pace.policy()
    }

    fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
        let backlog = self.pace.freshen(state, now);
        // In ticks of the new quota: what was missing from the old burst, plus what the new one adds; rounded up.
        let (old, new) = (u128::from(self.pace.ticks_per_unit), u128::from(next.pace.ticks_per_unit));
        // Split so that no product leaves 128 bits: backlog and ticks are below 2⁶⁴.
        let missing = (u128::from(backlog) * new).div_ceil(old);
        let missing = missing + u128::from(next.burst) * new;
        let backlog = missing.saturating_sub(u128::from(self.burst) * new);
        // The circle never turns back over a change: a word of the old quota must not be met again under the new.
        let ticks = state.word.wrapping_add(1);
        state.anchor = Place { at_ns: state.anchor.at_ns, ticks };
        let (fastest, epoch) = state.before.map_or((self.pace, 0), |before| (before.fastest, before.epoch));
        *self = next;
        Self::set_backlog(state, backlog);
        let ticks = state.word.wrapping_sub(ticks);
        state.before = Some(Before {
            changed_at: now,
            epoch: epoch.wrapping_add(1),
            ticks,
            fastest: fastest.faster_of(next.pace),
        });
    }

    fn ready_behind(&self, state: &State, now: Timestamp, ahead: u64, cost: u64) -> Option<When> {
        // Without this check the product below could leave 128 bits.
        if cost > self.burst {
            return Some(When::Never);
        }
        let mut state = *state;
        let backlog = self.pace.freshen(&mut state, now);
        // In 128 bits, unlike `step_from`: the units ahead may be many times the burst.
        let charge = (u128::from(ahead) + u128::from(cost)) * u128::from(self.pace.ticks_per_unit);
        let over = (u128::from(backlog) + charge).saturating_sub(u128::from(self.pace.burst_ticks));
        Some(match (over, self.pace.ticks_per_ns) {
            (0, _) => When::At(now),
            (_, 0) => When::Never,
            (over, ticks_per_ns) => {
                let wait_ns = u64::try_from(over.div_ceil(u128::from(ticks_per_ns))).unwrap_or(u64::MAX);
                When::At(Timestamp::from_ns(now.as_ns().saturating_add(wait_ns)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(count: u64, period_ns: u64, burst: u64) -> TokenBucket {
        let quota = Quota::per(count, Duration::from_nanos(period_ns)).burst(burst);
        TokenBucket::from_quota(quota).unwrap()
    }

    fn at(ns: u64) -> Timestamp {
        Timestamp::from_ns(ns)
    }

    #[test]
    fn a_step_on_the_word_decides_as_the_algorithm() {
        for (bucket, units) in [(bucket(2, 7, 5), 6), (bucket(1, 3, 4), 5), (bucket(9, 2, 3), 4)] {
            let mut state = bucket.start(at(10), 0);
            for step in 0..400_u64 {
                let now = at(10 + step);
                let cost = step * 7 % (units + 1);
                let seen = bucket.pace.step(state.anchor, state.word, now, cost);
                let backlog = bucket.backlog(&state, now);
                let (policy, balance) = bucket.pace.status(state.anchor, state.word, now);
                assert_eq!((policy, balance), (bucket.policy(), bucket.balance(&mut state.clone(), now)));
                match (bucket.ready_at(&mut state.clone(), now, cost), seen) {
                    (When::At(ready), Step::Go(word)) => {
                        assert_eq!(ready, now);
                        state.word = word;
                        let charge = cost * bucket.pace.ticks_per_unit;
                        assert_eq!(bucket.backlog(&state, now), backlog + charge);
                    }
                    (When::At(ready), Step::After(ticks)) => {
                        assert_eq!(ready, bucket.pace.after(now, ticks));
                        assert!(ready > now);
                    }
                    (When::Never, Step::Never) => assert!(cost > bucket.burst),
                    other => panic!("{cost} at {now:?}: {other:?}"),
                }
            }
        }
        let once = TokenBucket::from_quota(Quota::once(3)).unwrap();
        let state = once.start(at(0), 0);
        let Step::Go(word) = once.pace.step(state.anchor, state.word, at(0), 2) else {
            panic!("two of three")
        };
        assert_eq!(once.pace.step(state.anchor, word, at(9), 2), Step::Never);
        assert!(matches!(once.pace.step(state.anchor, word, at(9), 1), Step::Go(_)));
        assert_eq!(once.pace.step(state.anchor, word, at(9), u64::MAX), Step::Never);
    }

    #[test]
    fn a_word_is_stale_once_the_circle_could_be_mistaken() {
        assert_eq!(AHEAD_MAX.checked_add(BEHIND_MAX), Some(u64::MAX), "all of the circle, and no more");
        let bucket = bucket(1, 1, 1);
        let state = bucket.start(at(5), 0);
        let step = |now: u64| bucket.pace.step(state.anchor, state.word, at(now), 1);
        assert_eq!(step(5 + BEHIND_MAX), Step::Go(BEHIND_MAX + 1));
        assert_eq!(step(6 + BEHIND_MAX), Step::Stale);
        assert_eq!(step(0), Step::Go(1), "a clock that went back");
    }

    #[test]
    fn a_pace_that_needs_no_exact_ticks_is_slowed_by_less_than_a_part_in_two_billion() {
        // A large prime rate with the largest burst there is for it.
        let quota = |burst| Quota::per(999_999_937, Duration::from_secs(86_400)).burst(burst);
        let Err(QuotaError::BurstTooLarge { burst: u64::MAX, most }) =
            TokenBucket::from_quota(quota(u64::MAX))
        else {
            panic!("too large")
        };
        let pace = TokenBucket::from_quota(quota(most)).unwrap().pace;
        let (count, period_ns) = (999_999_937_u128, 86_400_000_000_000_u128);
        let exact = period_ns * u128::from(pace.ticks_per_ns);
        let slowed = u128::from(pace.ticks_per_unit) * count;
        assert!(slowed >= exact && (slowed - exact) * RATE_PARTS <= exact, "{pace:?}");
        assert!(pace.burst_ticks <= BURST_TICKS_MAX);
        assert_eq!(u128::from(pace.burst_ticks), u128::from(most) * u128::from(pace.ticks_per_unit));
        // In lowest terms where they fit.
        let pace = bucket(6, 4, 5).pace;
        assert_eq!((pace.ticks_per_ns, pace.ticks_per_unit, pace.burst_ticks), (3, 2, 10));
        let once = |burst| TokenBucket::from_quota(Quota::once(burst));
        assert!(once(BURST_TICKS_MAX).is_ok());
        let error = QuotaError::BurstTooLarge { burst: BURST_TICKS_MAX + 1, most: BURST_TICKS_MAX };
        assert_eq!(once(BURST_TICKS_MAX + 1), Err(error));
        let unit = bucket(1, BURST_TICKS_MAX, 1).pace;
        assert_eq!((unit.ticks_per_ns, unit.burst_ticks), (1, BURST_TICKS_MAX), "one unit in 300 years");
        let fast = bucket(TICKS_PER_NS_MAX, 1, 1).pace;
        assert_eq!((fast.ticks_per_ns, fast.ticks_per_unit), (TICKS_PER_NS_MAX, 1));
    }

    #[test]
    fn the_faster_of_two_paces_is_that_of_more_units_in_a_time() {
        let pace = |count, period_ns| bucket(count, period_ns, 1).pace;
        for (slow, fast) in [((1, 10), (1, 9)), ((2, 7), (3, 7)), ((2, 7), (3, 10)), ((5, 1), (51, 10))] {
            let (slow, fast) = (pace(slow.0, slow.1), pace(fast.0, fast.1));
            assert_eq!((slow.faster_of(fast), fast.faster_of(slow)), (fast, fast));
        }
    }

    #[test]
    fn what_drains_is_told_in_ticks_of_another_length_and_rounded_up() {
        let pace = bucket(2, 7, 1).pace;
        assert_eq!(pace.drained(5, 7), 10);
        assert_eq!(pace.drained(5, 3), 5, "30 sevenths");
        assert_eq!(pace.drained(7, 3), 6);
    }

    #[test]
    fn a_short_state_holds_all_that_counts_of_a_plain_one() {
        let bucket = bucket(1, 10, 8);
        let (burst, initial, pace) = bucket.parts();
        assert_eq!((burst, initial, pace), (8, 8, bucket.pace));
        assert_eq!(TokenBucket::of_parts(burst, initial, pace), bucket);
        let late = TokenBucket::from_quota(Quota::per_second(9).initial(2)).unwrap();
        assert_eq!(late.late_units(), 7);
        let state = bucket.resume(at(40), 35);
        assert_eq!((state.word, state.anchor, state.before), (35, Place { at_ns: 40, ticks: 0 }, None));
        assert_eq!((bucket.backlog(&state, at(40)), bucket.backlog(&state, at(50))), (35, 25));
        assert_eq!(bucket.resume(at(40), AHEAD_MAX).word, AHEAD_MAX);
        assert_eq!(bucket.resume(at(40), AHEAD_MAX + 1).word, AHEAD_MAX);
        // Three of eight are missing: so are five more under a burst of thirteen.
        let next = TokenBucket::from_quota(Quota::per(1, Duration::from_nanos(20)).burst(13)).unwrap();
        assert_eq!(bucket.carry(next, bucket.resume(at(40), 30), at(40)), 8 * 20);
        assert_eq!(bucket.carry(next, bucket.resume(at(40), 30), at(50)), 7 * 20);
    }

    #[test]
    fn a_state_tells_grants_by_their_time_once_the_instant_of_a_change_is_over() {
        let mut bucket = bucket(1, 10, 8);
        let mut state = bucket.start(at(0), 0);
        assert!(state.tells_by_time());
        bucket.force(&mut state, at(5), 3);
        bucket.change(bucket, &mut state, at(5));
        assert!(!state.tells_by_time(), "grants of this instant may be older");
        bucket.balance(&mut state, at(6));
        assert!(state.tells_by_time());
    }

    #[test]
    fn a_bucket_with_less_burst_keeps_its_rate() {
        let less = bucket(2, 7, 10).less(4);
        assert_eq!(less, bucket(2, 7, 6));
        let quota = Quota::per(2, Duration::from_nanos(7)).burst(10).initial(3);
        assert_eq!(TokenBucket::from_quota(quota).unwrap().less(4).initial, 3);
    }

    #[test]
    fn a_debt_is_cut_where_the_circle_ends() {
        let bucket = bucket(1, 1, 1);
        let mut state = bucket.start(at(0), 0);
        bucket.force(&mut state, at(0), AHEAD_MAX);
        assert_eq!(bucket.backlog(&state, at(0)), AHEAD_MAX);
        bucket.force(&mut state, at(0), 1);
        assert_eq!(bucket.backlog(&state, at(0)), AHEAD_MAX);
    }
}
