//! What the limits promise, in exact rationals over plain numbers. Nothing here comes from the crate under test.

use num_bigint::BigInt;
use num_rational::Ratio;
use num_traits::{One, Signed, ToPrimitive, Zero};

pub(crate) type Rational = Ratio<BigInt>;

pub(crate) fn whole(n: u64) -> Rational {
    Rational::from_integer(BigInt::from(n))
}

fn fraction(over: u64, under: u64) -> Rational {
    Rational::new(BigInt::from(over), BigInt::from(under))
}

fn up(value: &Rational) -> u64 {
    value.ceil().to_integer().to_u64().unwrap_or(u64::MAX)
}

fn down(value: &Rational) -> u64 {
    value.floor().to_integer().to_u64().unwrap_or(u64::MAX)
}

/// `count` units each `period_ns` (zero: never again), at most `burst` at once, `initial` of them at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) count: u64,
    pub(crate) period_ns: u64,
    pub(crate) burst: u64,
    pub(crate) initial: u64,
}

impl Terms {
    /// Units in a nanosecond.
    pub(crate) fn rate(&self) -> Rational {
        if self.period_ns == 0 { Rational::zero() } else { fraction(self.count, self.period_ns) }
    }

    /// The rate, slowed by the one part in 2·10⁹ that a bucket may be slowed by.
    pub(crate) fn slowed(&self) -> Rational {
        self.rate() * fraction(2_000_000_000, 2_000_000_001)
    }

    /// Whether time can surely be counted in ticks of which a nanosecond and a unit both hold a whole number.
    pub(crate) fn is_exact(&self) -> bool {
        let lowest = fraction(self.count, self.period_ns.max(1));
        self.period_ns == 0
            || (*lowest.numer() <= BigInt::one() << 40 && lowest.denom() * self.burst <= BigInt::one() << 62)
    }
}

/// When the ask can be met, or `None`: at no time.
pub(crate) type Ready = Option<u64>;

/// What is left at one instant: whole units, whole units owed, and when nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) remaining: u64,
    pub(crate) debt: u64,
    pub(crate) full: Ready,
}

/// A reference: decides as slowly and as plainly as can be. Times never decrease.
pub(crate) trait Oracle: Clone {
    fn capacity(&self) -> u64;
    fn ready(&mut self, now: u64, cost: u64) -> Ready;
    fn take(&mut self, now: u64, cost: u64);
    /// Gives back `units` of what was granted at `at`.
    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64);
    fn left(&mut self, now: u64) -> Left;
    fn change(&mut self, now: u64, next: Terms);
    /// How long it takes until a spent limit is whole again.
    fn span(&self) -> u64;
    /// How long one unit takes.
    fn unit_ns(&self) -> u64;
    /// The largest debt that is surely remembered, under these terms or others.
    fn most_debt(&self, _terms: Option<Terms>) -> u64 {
        self.capacity().saturating_mul(3)
    }
}

/// Which end of what is allowed: `Floor` admits at least as early as any bucket that keeps the law may, `Ceiling` as
/// late as one may that wastes nothing. The two are the same where arithmetic is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Floor,
    Ceiling,
}

/// The textbook bucket: a level that drains at the rate and never below zero.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    side: Side,
    terms: Terms,
    drain: Rational,
    /// At which rate a grant loses what a refund of it is worth.
    fade: Rational,
    level: Rational,
    at: u64,
}

impl Bucket {
    pub(crate) fn new(terms: Terms, side: Side, now: u64) -> Self {
        let (drain, fade) = Self::rates(terms, side);
        Self { side, terms, drain, fade, level: whole(terms.burst - terms.initial), at: now }
    }

    fn rates(terms: Terms, side: Side) -> (Rational, Rational) {
        match side {
            _ if terms.is_exact() => (terms.rate(), terms.rate()),
            Side::Floor => (terms.rate(), terms.slowed()),
            Side::Ceiling => (terms.slowed(), terms.rate()),
        }
    }

    fn drain_to(&mut self, now: u64) {
        assert!(now >= self.at, "the oracle is asked about the past");
        self.level = (&self.level - &self.drain * whole(now - self.at)).max(Rational::zero());
        self.at = now;
    }

    fn in_time(&self, units: &Rational) -> Ready {
        if !units.is_positive() {
            Some(self.at)
        } else if self.drain.is_zero() {
            None
        } else {
            Some(self.at.saturating_add(up(&(units / &self.drain))))
        }
    }
}

impl Oracle for Bucket {
    fn capacity(&self) -> u64 {
        self.terms.burst
    }

    fn ready(&mut self, now: u64, cost: u64) -> Ready {
        self.drain_to(now);
        if cost > self.terms.burst {
            return None;
        }
        self.in_time(&(&self.level + whole(cost) - whole(self.terms.burst)))
    }

    fn take(&mut self, now: u64, cost: u64) {
        self.drain_to(now);
        self.level += whole(cost);
    }

    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64) {
        self.drain_to(now);
        let kept = whole(granted) - &self.fade * whole(now - at);
        let credit = whole(units).min(kept).max(Rational::zero());
        self.level = (&self.level - credit).max(Rational::zero());
    }

    fn left(&mut self, now: u64) -> Left {
        self.drain_to(now);
        let free = whole(self.terms.burst) - &self.level;
        let none = Rational::zero();
        Left {
            remaining: down(&free.clone().max(none.clone())),
            debt: up(&(-free).max(none)),
            full: self.in_time(&self.level),
        }
    }

    fn change(&mut self, now: u64, next: Terms) {
        self.drain_to(now);
        // The change may round a part of a unit up, by less than a nanosecond's worth.
        if self.side == Side::Ceiling && !self.level.is_integer() {
            self.level += if next.period_ns == 0 { Rational::one() } else { next.rate() };
        }
        self.level = (&self.level + whole(next.burst) - whole(self.terms.burst)).max(Rational::zero());
        (self.drain, self.fade) = Self::rates(next, self.side);
        self.terms = next;
    }

    fn span(&self) -> u64 {
        if self.drain.is_zero() { 1_000_000_000 } else { up(&(whole(self.terms.burst) / &self.drain)) }
    }

    fn unit_ns(&self) -> u64 {
        if self.drain.is_zero() { 1_000_000_000 } else { up(&(Rational::one() / &self.drain)) }
    }

    fn most_debt(&self, terms: Option<Terms>) -> u64 {
        let terms = terms.unwrap_or(self.terms);
        let lowest = fraction(terms.period_ns, terms.count);
        let most = match terms.period_ns {
            0 => 1 << 60,
            _ if terms.is_exact() => {
                (BigInt::from(1_u64 << 61) / lowest.numer()).to_u64().unwrap_or(u64::MAX)
            }
            _ => terms.burst / 6,
        };
        most.min(1 << 62)
    }
}

/// Several buckets: all of them take, or none.
impl Oracle for Vec<Bucket> {
    fn capacity(&self) -> u64 {
        self.iter().map(Bucket::capacity).min().unwrap_or(0)
    }

    fn ready(&mut self, now: u64, cost: u64) -> Ready {
        self.iter_mut().try_fold(now, |latest, one| Some(latest.max(one.ready(now, cost)?)))
    }

    fn take(&mut self, now: u64, cost: u64) {
        self.iter_mut().for_each(|one| one.take(now, cost));
    }

    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64) {
        self.iter_mut().for_each(|one| one.give_back(now, at, granted, units));
    }

    fn left(&mut self, now: u64) -> Left {
        let whole = Left { remaining: u64::MAX, debt: 0, full: Some(now) };
        self.iter_mut().map(|one| one.left(now)).fold(whole, |all, one| Left {
            remaining: all.remaining.min(one.remaining),
            debt: all.debt.max(one.debt),
            full: all.full.zip(one.full).map(|(a, b)| a.max(b)),
        })
    }

    fn change(&mut self, _now: u64, _next: Terms) {
        panic!("joint limits are not changed here")
    }

    fn span(&self) -> u64 {
        self.iter().map(Bucket::span).max().unwrap_or(0)
    }

    fn unit_ns(&self) -> u64 {
        self.iter().map(Bucket::unit_ns).max().unwrap_or(0)
    }

    fn most_debt(&self, terms: Option<Terms>) -> u64 {
        self.iter().map(|one| one.most_debt(terms)).min().unwrap_or(0)
    }
}

/// The log of a window: a unit counts from its instant until one window later.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    terms: Terms,
    /// How much longer than the window a unit counts: none at the floor, one segment at the ceiling.
    longer_ns: u64,
    segments: Option<u64>,
    log: Vec<(u64, u64)>,
}

impl Window {
    pub(crate) fn new(terms: Terms, segments: Option<u64>, side: Side, now: u64) -> Self {
        let segments = segments.filter(|_| side == Side::Ceiling);
        let longer_ns = segments.map_or(0, |segments| terms.period_ns.div_ceil(segments));
        Self { terms, longer_ns, segments, log: vec![(now, terms.burst - terms.initial)] }
    }

    fn gone(&self, at: u64) -> u64 {
        at.saturating_add(self.terms.period_ns).saturating_add(self.longer_ns)
    }

    fn used(&self, now: u64) -> u128 {
        self.log.iter().filter(|(at, _)| self.gone(*at) > now).map(|(_, units)| u128::from(*units)).sum()
    }
}

impl Oracle for Window {
    fn capacity(&self) -> u64 {
        self.terms.count
    }

    fn ready(&mut self, now: u64, cost: u64) -> Ready {
        if cost > self.terms.count {
            return None;
        }
        let mut times: Vec<u64> =
            self.log.iter().map(|(at, _)| self.gone(*at)).filter(|at| *at > now).collect();
        times.push(now);
        times.sort_unstable();
        times.into_iter().find(|at| self.used(*at) + u128::from(cost) <= u128::from(self.terms.count))
    }

    fn take(&mut self, now: u64, cost: u64) {
        self.log.push((now, cost));
    }

    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64) {
        if self.gone(at) <= now {
            return;
        }
        let mut units = units.min(granted);
        for (_, there) in self.log.iter_mut().filter(|(granted_at, _)| *granted_at == at) {
            let back = units.min(*there);
            *there -= back;
            units -= back;
        }
        self.log.retain(|(_, units)| *units > 0);
    }

    fn left(&mut self, now: u64) -> Left {
        let used = u64::try_from(self.used(now)).unwrap_or(u64::MAX);
        let last = self.log.iter().filter(|(_, units)| *units > 0).map(|(at, _)| self.gone(*at)).max();
        Left {
            remaining: self.terms.count.saturating_sub(used),
            debt: used.saturating_sub(self.terms.count),
            full: Some(last.unwrap_or(now).max(now)),
        }
    }

    fn change(&mut self, now: u64, next: Terms) {
        let kept = self.log.iter().copied().filter(|(at, _)| self.gone(*at) > now).collect();
        self.log = kept;
        self.terms = next;
        // A segment of before keeps its length: the longer of the two bounds both.
        self.longer_ns =
            self.segments.map_or(0, |segments| next.period_ns.div_ceil(segments).max(self.longer_ns));
    }

    fn span(&self) -> u64 {
        self.terms.period_ns
    }

    fn unit_ns(&self) -> u64 {
        self.terms.period_ns / self.terms.count
    }
}

/// Two windows of a grid, the elder weighted by the part of it still in view.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    terms: Terms,
    started: u64,
    previous: u64,
    current: u64,
}

impl Counter {
    pub(crate) fn new(terms: Terms, now: u64) -> Self {
        Self { terms, started: now, previous: 0, current: terms.burst - terms.initial }
    }

    fn roll(&mut self, now: u64) {
        while now - self.started >= self.terms.period_ns {
            if self.previous == 0 && self.current == 0 {
                self.started = now - (now - self.started) % self.terms.period_ns;
                return;
            }
            (self.previous, self.current) = (self.current, 0);
            self.started += self.terms.period_ns;
        }
    }

    fn estimate(&self, into_ns: u64) -> Rational {
        whole(self.previous) * fraction(self.terms.period_ns - into_ns, self.terms.period_ns)
            + whole(self.current)
    }
}

impl Oracle for Counter {
    fn capacity(&self) -> u64 {
        self.terms.count
    }

    fn ready(&mut self, now: u64, cost: u64) -> Ready {
        self.roll(now);
        if cost > self.terms.count {
            return None;
        }
        let room = whole(self.terms.count) - whole(cost);
        let (mut later, mut now) = (self.clone(), now);
        for _ in 0..3 {
            later.roll(now);
            let into = now - later.started;
            if later.estimate(into) <= room {
                return Some(now);
            }
            // previous · (window − into) / window + current = room
            if later.previous > 0 {
                let free = &room - whole(later.current);
                let into = whole(later.terms.period_ns) * (Rational::one() - free / whole(later.previous));
                if into < whole(later.terms.period_ns) {
                    return Some(later.started.saturating_add(up(&into)));
                }
            }
            now = later.started.saturating_add(later.terms.period_ns);
        }
        panic!("a counter is empty after two windows");
    }

    fn take(&mut self, now: u64, cost: u64) {
        self.roll(now);
        self.current += cost;
    }

    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64) {
        self.roll(now);
        let units = units.min(granted);
        if at >= self.started {
            self.current = self.current.saturating_sub(units);
        } else if self.started - at <= self.terms.period_ns {
            self.previous = self.previous.saturating_sub(units);
        }
    }

    fn left(&mut self, now: u64) -> Left {
        self.roll(now);
        let free = whole(self.terms.count) - self.estimate(now - self.started);
        let none = Rational::zero();
        let windows = if self.current > 0 { 2 } else { u64::from(self.previous > 0) };
        let full = if windows == 0 { now } else { self.started + windows * self.terms.period_ns };
        Left {
            remaining: down(&free.clone().max(none.clone())),
            debt: up(&(-free).max(none)),
            full: Some(full),
        }
    }

    fn change(&mut self, now: u64, next: Terms) {
        self.roll(now);
        if next.period_ns != self.terms.period_ns {
            let current = up(&self.estimate(now - self.started));
            (self.previous, self.current, self.started) = (0, current, now);
        }
        self.terms = next;
    }

    fn span(&self) -> u64 {
        self.terms.period_ns
    }

    fn unit_ns(&self) -> u64 {
        self.terms.period_ns / self.terms.count
    }
}

/// Units come back at edges.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    terms: Terms,
    /// The edge at or before now.
    edge: i128,
    used: u64,
}

impl Fixed {
    /// The grid has an edge at `origin`.
    pub(crate) fn new(terms: Terms, origin: u64, now: u64) -> Self {
        let into = (now - origin) % terms.period_ns;
        Self { terms, edge: i128::from(now - into), used: terms.burst - terms.initial }
    }

    fn edges(&self, from: i128, to: i128) -> u64 {
        u64::try_from((to - from).div_euclid(i128::from(self.terms.period_ns))).unwrap_or(0)
    }

    fn roll(&mut self, now: u64) {
        let edges = self.edges(self.edge, i128::from(now));
        let back = u128::from(self.terms.count) * u128::from(edges);
        self.used = u64::try_from(u128::from(self.used).saturating_sub(back)).unwrap_or(u64::MAX);
        self.edge += i128::from(edges) * i128::from(self.terms.period_ns);
    }

    fn when_less(&self, now: u64, units: u64) -> u64 {
        if units == 0 {
            return now;
        }
        let edges = i128::from(units.div_ceil(self.terms.count));
        u64::try_from(self.edge + edges * i128::from(self.terms.period_ns)).unwrap_or(u64::MAX)
    }
}

impl Oracle for Fixed {
    fn capacity(&self) -> u64 {
        self.terms.burst
    }

    fn ready(&mut self, now: u64, cost: u64) -> Ready {
        self.roll(now);
        let over = (self.used.saturating_add(cost)).saturating_sub(self.terms.burst);
        (cost <= self.terms.burst).then(|| self.when_less(now, over))
    }

    fn take(&mut self, now: u64, cost: u64) {
        self.roll(now);
        self.used += cost;
    }

    fn give_back(&mut self, now: u64, at: u64, granted: u64, units: u64) {
        self.roll(now);
        // Edges after the grant: from the edge at or before it to the one at or before now.
        let behind = self.edge - i128::from(at);
        let edges = if behind <= 0 { 0 } else { (behind + i128::from(self.terms.period_ns) - 1) as u128 }
            / u128::from(self.terms.period_ns);
        let kept = u128::from(granted).saturating_sub(edges * u128::from(self.terms.count)) as u64;
        self.used = self.used.saturating_sub(units.min(kept));
    }

    fn left(&mut self, now: u64) -> Left {
        self.roll(now);
        Left {
            remaining: self.terms.burst.saturating_sub(self.used),
            debt: self.used.saturating_sub(self.terms.burst),
            full: Some(self.when_less(now, self.used)),
        }
    }

    fn change(&mut self, now: u64, next: Terms) {
        self.roll(now);
        if next.period_ns != self.terms.period_ns {
            self.edge = i128::from(now);
        }
        self.terms = next;
    }

    fn span(&self) -> u64 {
        self.terms.period_ns.saturating_mul(self.terms.burst.div_ceil(self.terms.count))
    }

    fn unit_ns(&self) -> u64 {
        self.terms.period_ns
    }
}

/// Which promise a log of events is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// At most burst + rate · d in every interval.
    Bucket,
    /// At most the count in every half-open window.
    Window,
    /// At most twice the count in every half-open window, and the count in each window of the grid.
    Counter,
    /// At most burst + count · edges between any two instants.
    Edges,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    at: u64,
    net: u64,
    /// A debt made after the fact, or what was missing at the start: counts, but is no admission.
    extra: bool,
}

#[derive(Debug, Clone, Copy)]
struct Epoch {
    terms: Terms,
    first: usize,
    from: u64,
    grid: u64,
}

/// What went, when, and under which terms. Every admission is held against the promise with the net costs known then.
#[derive(Debug, Clone)]
pub(crate) struct Law {
    promise: Promise,
    events: Vec<Event>,
    epochs: Vec<Epoch>,
}

impl Law {
    /// The grid of windows has an edge at `grid`.
    pub(crate) fn new(promise: Promise, terms: Terms, now: u64, grid: u64) -> Self {
        let missing = Event { at: now, net: terms.burst - terms.initial, extra: true };
        Self { promise, events: vec![missing], epochs: vec![Epoch { terms, first: 0, from: now, grid }] }
    }

    pub(crate) fn change(&mut self, now: u64, terms: Terms) {
        let last = self.epochs[self.epochs.len() - 1];
        let grid = if last.terms.period_ns == terms.period_ns { last.grid } else { now };
        self.epochs.push(Epoch { terms, first: self.events.len(), from: now, grid });
    }

    /// An event to refer to later.
    pub(crate) fn admitted(&mut self, at: u64, cost: u64) -> usize {
        self.events.push(Event { at, net: cost, extra: false });
        // Nothing may always go, debt or no debt.
        if cost > 0 {
            self.check();
        }
        self.events.len() - 1
    }

    pub(crate) fn charged(&mut self, at: u64, cost: u64) {
        self.events.push(Event { at, net: cost, extra: true });
    }

    pub(crate) fn settled(&mut self, event: usize, net: u64) {
        self.events[event].net = net;
    }

    /// Every interval that ends with the last admission.
    fn check(&self) {
        let last = self.events[self.events.len() - 1];
        let epoch = self.epochs[self.epochs.len() - 1];
        match self.promise {
            Promise::Bucket => self.check_bucket(last),
            Promise::Window => {
                let sum = self.sum(epoch, |event| last.at - event.at < epoch.terms.period_ns);
                assert!(sum <= whole(epoch.terms.count), "{sum} in the window to {}: {self:?}", last.at);
            }
            Promise::Counter => {
                let grid = |at: u64| (at - epoch.grid) / epoch.terms.period_ns;
                let sum = self.sum(epoch, |event| !event.extra && last.at - event.at < epoch.terms.period_ns);
                assert!(
                    sum <= whole(epoch.terms.count) * whole(2),
                    "{sum} in the window to {}: {self:?}",
                    last.at
                );
                let sum = self.sum(epoch, |event| grid(event.at) == grid(last.at));
                assert!(
                    sum <= whole(epoch.terms.count),
                    "{sum} in the grid's window at {}: {self:?}",
                    last.at
                );
            }
            Promise::Edges => {
                let mut sum = Rational::zero();
                for event in self.events[epoch.first..].iter().rev() {
                    sum += whole(event.net);
                    let edge = |at: u64| (at - epoch.grid) / epoch.terms.period_ns;
                    let most = whole(epoch.terms.burst)
                        + whole(epoch.terms.count) * whole(edge(last.at) - edge(event.at));
                    assert!(sum <= most, "{sum} from {} to {}: {self:?}", event.at, last.at);
                }
            }
        }
    }

    fn sum(&self, epoch: Epoch, counts: impl Fn(&Event) -> bool) -> Rational {
        self.events[epoch.first..].iter().filter(|event| counts(event)).map(|event| whole(event.net)).sum()
    }

    fn check_bucket(&self, last: Event) {
        let (mut sum, mut refilled) = (Rational::zero(), Rational::zero());
        let (mut number, mut to) = (self.epochs.len() - 1, last.at);
        for (index, event) in self.events.iter().enumerate().rev() {
            // A change takes nothing away from the tokens there are, and adds none.
            while index < self.epochs[number].first {
                refilled += self.epochs[number].terms.rate() * whole(to - self.epochs[number].from);
                to = self.epochs[number].from;
                number -= 1;
            }
            let terms = self.epochs[number].terms;
            refilled += terms.rate() * whole(to - event.at);
            to = event.at;
            sum += whole(event.net);
            assert!(
                sum <= whole(terms.burst) + &refilled,
                "{sum} units from {} to {}, at most {} + {refilled}: {self:?}",
                event.at,
                last.at,
                terms.burst,
            );
        }
    }
}
