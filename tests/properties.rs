//! Properties of the limits, against references in exact rationals.
//!
//! Each test names above it a fault that was planted to see it fail. `PROPTEST_CASES` sets how many cases are tried.

mod oracle;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use oracle::{Bucket, Counter, Fixed, Law, Oracle, Promise, Rational, Side, Terms, Window, whole};
use proptest::prelude::*;
use tollgate::algorithm::{self, Algorithm, AllOf, Anchor, FromQuota, Grant, When};
use tollgate::clock::NoTimer;
use tollgate::{
    AcquireRate, Clock, Compose, Concurrency, Error, FixedWindow, LimiterExt, ManualClock, Permit, Queue,
    Quota, QuotaError, RateBuilder, RateLimiter, RatePermit, Reason, SlidingCounter, SlidingWindow, Snapshot,
    Stored, Timestamp, TokenBucket,
};

fn cases(usually: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    let cases = if asked { config.cases } else { usually };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..config }
}

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
const YEAR: u64 = 365 * DAY;
const LAST: u64 = 1 << 63;

fn quota_of(terms: Terms) -> Quota {
    let quota = match terms.period_ns {
        0 => Quota::once(terms.count),
        period_ns => Quota::per(terms.count, Duration::from_nanos(period_ns)),
    };
    quota.burst(terms.burst).initial(terms.initial)
}

/// For a bucket: the burst cut to what the rate can have, if the error says so.
fn bucket_terms(terms: Terms) -> Option<Terms> {
    match algorithm::TokenBucket::from_quota(quota_of(terms)) {
        Ok(_) => Some(terms),
        Err(QuotaError::BurstTooLarge { burst, most }) => {
            assert_eq!(burst, terms.burst);
            assert!(most < burst, "{terms:?}: asks for at most {most}");
            let terms = Terms { burst: most, initial: terms.initial.min(most), ..terms };
            let built = algorithm::TokenBucket::from_quota(quota_of(terms));
            assert!(most == 0 || built.is_ok(), "{terms:?}: {built:?}");
            (most > 0).then_some(terms)
        }
        Err(error) => panic!("{terms:?}: {error}"),
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What is generated
// ---------------------------------------------------------------------------------------------------------------

/// Spread evenly over orders of magnitude.
fn log_uniform(bits: u32) -> impl Strategy<Value = u64> {
    (0..bits, any::<u64>()).prop_map(|(bits, value)| (1 << bits) | (value & ((1 << bits) - 1)))
}

fn rates() -> impl Strategy<Value = (u64, u64)> {
    let named = prop::sample::select(vec![
        (1, DAY),
        (1, SECOND),
        (50, SECOND),
        (7, 60 * SECOND),
        (1_000_003, SECOND),
        (1_000_003, 3_600 * SECOND),
        (1_000_003, DAY),
        (999_999_937, SECOND),
        (1_000_000_000, SECOND),
        (999_983, 30 * SECOND),
        (2, 3),
        (1, 3),
        (1, 1),
    ]);
    let free =
        (log_uniform(30), log_uniform(56)).prop_map(|(count, period_ns)| (count, period_ns.max(count)));
    prop_oneof![1 => named, 1 => free]
}

fn with_initial(terms: impl Strategy<Value = Terms>) -> impl Strategy<Value = Terms> {
    (terms, 0..8_u64).prop_map(|(terms, eighths)| {
        let missing = if eighths < 4 { terms.burst / 4 * eighths } else { 0 };
        Terms { initial: terms.burst - missing, ..terms }
    })
}

fn buckets() -> impl Strategy<Value = Terms> {
    let bursts = prop_oneof![2 => 1..5_u64, 2 => Just(0), 2 => log_uniform(40), 2 => Just(u64::MAX)];
    let terms = (rates(), bursts).prop_map(|((count, period_ns), burst)| {
        let burst = if burst == 0 { count } else { burst };
        Terms { count, period_ns, burst, initial: burst }
    });
    with_initial(terms).prop_filter_map("a unit in 300 years", bucket_terms)
}

fn budgets() -> impl Strategy<Value = Terms> {
    with_initial(log_uniform(40).prop_map(|count| Terms {
        count,
        period_ns: 0,
        burst: count,
        initial: count,
    }))
}

fn windows() -> impl Strategy<Value = Terms> {
    let rates = prop_oneof![3 => rates(), 2 => (1..9_u64, 1..99_u64), 1 => (1..9_u64, 1..99_u64)];
    with_initial(rates.prop_map(|(count, period_ns)| Terms {
        count,
        period_ns,
        burst: count,
        initial: count,
    }))
}

fn refills() -> impl Strategy<Value = Terms> {
    let bursts = prop_oneof![2 => Just(0), 2 => 1..9_u64, 1 => log_uniform(40)];
    with_initial((windows(), bursts).prop_map(|(terms, burst)| {
        let burst = if burst == 0 { terms.count } else { burst };
        Terms { burst, initial: burst, ..terms }
    }))
}

/// A cost, told by what there is.
#[derive(Debug, Clone, Copy)]
enum Size {
    Units(u64),
    Part(u16),
    Capacity,
    /// All that is left, and so much more.
    Left(u64),
    Above(u64),
}

fn sizes() -> impl Strategy<Value = Size> {
    prop_oneof![
        4 => (0..4_u64).prop_map(Size::Units),
        4 => any::<u16>().prop_map(Size::Part),
        2 => Just(Size::Capacity),
        4 => (0..2_u64).prop_map(Size::Left),
        1 => prop_oneof![Just(1), Just(u64::MAX)].prop_map(Size::Above),
    ]
}

/// How far the clock goes.
#[derive(Debug, Clone, Copy)]
enum Stride {
    Ns(u64),
    Unit(u8),
    Span(u16),
    /// To the time the first in line, or else the last one refused, is ready, and a nanosecond less or more.
    Ready(i8),
    Days(u16),
}

fn strides() -> impl Strategy<Value = Stride> {
    prop_oneof![
        3 => (0..10_u64).prop_map(Stride::Ns),
        3 => any::<u8>().prop_map(Stride::Unit),
        4 => any::<u16>().prop_map(Stride::Span),
        6 => (-1..2_i8).prop_map(Stride::Ready),
        1 => (0..2_000_u16).prop_map(Stride::Days),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Real {
    Refund,
    Less(u16),
    Same,
    More(u16),
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Advance(Stride),
    /// Sets the clock to a time that has passed.
    Back(u64),
    Try(Size),
    Check(Size),
    /// Asks, and looks whether a refusal changed anything.
    TryAndLook(Size),
    Join(Size),
    Poll(usize),
    /// Drops an acquire: waiting, granted and not told, or refused.
    Leave(usize),
    Settle(usize, Real),
    Drop(usize),
    Look,
    Change(Terms),
}

fn ops(changes: impl Strategy<Value = Terms> + 'static) -> impl Strategy<Value = Vec<Op>> {
    let real = prop_oneof![
        3 => Just(Real::Refund),
        3 => any::<u16>().prop_map(Real::Less),
        1 => Just(Real::Same),
        1 => any::<u16>().prop_map(Real::More),
    ];
    let op = prop_oneof![
        20 => strides().prop_map(Op::Advance),
        1 => log_uniform(62).prop_map(Op::Back),
        10 => sizes().prop_map(Op::Try),
        8 => sizes().prop_map(Op::Check),
        4 => sizes().prop_map(Op::TryAndLook),
        10 => sizes().prop_map(Op::Join),
        8 => any::<usize>().prop_map(Op::Poll),
        6 => any::<usize>().prop_map(Op::Leave),
        8 => (any::<usize>(), real).prop_map(|(index, real)| Op::Settle(index, real)),
        2 => any::<usize>().prop_map(Op::Drop),
        3 => Just(Op::Look),
        2 => changes.prop_map(Op::Change),
    ];
    prop::collection::vec(op, 1..48)
}

// ---------------------------------------------------------------------------------------------------------------
// A limiter beside its references
// ---------------------------------------------------------------------------------------------------------------

type Woken = Arc<Mutex<Vec<(usize, u64)>>>;

/// Notes when it was woken. A waiter is woken when it has been answered, so that is the time of its grant.
struct Bell {
    id: usize,
    clock: ManualClock,
    woken: Woken,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push((self.id, self.clock.now().as_ns()));
    }
}

struct Ask<A: Stored> {
    cost: u64,
    future: Pin<Box<AcquireRate<A, ManualClock>>>,
    waker: Waker,
    answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Granted(Spent),
    TooLarge,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    at: u64,
    cost: u64,
    event: usize,
    /// Under which terms, counted.
    epoch: usize,
}

type SetQuota<A> = fn(&RateLimiter<A, ManualClock>, Quota) -> Result<(), QuotaError>;

struct Bench<A: Stored, O> {
    clock: ManualClock,
    limiter: RateLimiter<A, ManualClock>,
    floor: O,
    ceiling: O,
    laws: Vec<Law>,
    set_quota: Option<SetQuota<A>>,
    /// Whether a grant can be settled for less under other terms than it was made under.
    settles_across: bool,
    epoch: usize,
    asks: Vec<Option<Ask<A>>>,
    line: VecDeque<usize>,
    held: Vec<(RatePermit<A, ManualClock>, Spent)>,
    woken: Woken,
    /// The latest time at which something happened.
    seen: u64,
    refused: Option<u64>,
}

fn start_at() -> (ManualClock, u64) {
    let start = 12_345_678_901;
    (ManualClock::at(Timestamp::from_ns(start)), start)
}

impl<A: Stored, O: Oracle + Debug> Bench<A, O> {
    fn new(
        builder: RateBuilder<A, ManualClock>,
        clock: &ManualClock,
        references: (O, O),
        laws: Vec<Law>,
    ) -> Self {
        let limiter = builder.queue(Queue::new().limit(u64::MAX)).build().unwrap();
        Self {
            clock: clock.clone(),
            limiter,
            floor: references.0,
            ceiling: references.1,
            laws,
            set_quota: None,
            settles_across: true,
            epoch: 0,
            asks: Vec::new(),
            line: VecDeque::new(),
            held: Vec::new(),
            woken: Woken::default(),
            seen: clock.now().as_ns(),
            refused: None,
        }
    }

    fn now(&self) -> u64 {
        self.clock.now().as_ns()
    }

    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.turn(*op);
            self.hear();
        }
        self.look();
    }

    fn turn(&mut self, op: Op) {
        let now = self.now();
        match op {
            Op::Advance(stride) => {
                let to = self.target(stride);
                if to < LAST {
                    self.clock.set(Timestamp::from_ns(to));
                    self.hear();
                    self.seen = to;
                }
            }
            Op::Back(by) => {
                self.clock.set(Timestamp::from_ns(now.saturating_sub(by)));
                assert_eq!(self.now(), now, "the clock went back");
            }
            Op::Try(size) => self.ask(size, false, false),
            Op::Check(size) => self.ask(size, true, false),
            Op::TryAndLook(size) => self.ask(size, false, true),
            Op::Join(size) => self.join(size),
            Op::Poll(index) => self.poll(index),
            Op::Leave(index) => self.leave(index),
            Op::Settle(index, real) => self.settle(index, real),
            Op::Drop(index) if !self.held.is_empty() => {
                let index = index % self.held.len();
                drop(self.held.swap_remove(index));
            }
            Op::Drop(_) => {}
            Op::Look => self.look(),
            Op::Change(terms) => self.change(terms),
        }
    }

    fn cost(&mut self, size: Size) -> u64 {
        let now = self.now();
        let capacity = self.floor.capacity();
        match size {
            Size::Units(units) => units,
            Size::Part(part) => (u128::from(capacity) * u128::from(part) / 65_536) as u64,
            Size::Capacity => capacity,
            Size::Left(more) => self.floor.left(now).remaining.saturating_add(more),
            Size::Above(more) => capacity.saturating_add(more),
        }
    }

    fn target(&mut self, stride: Stride) -> u64 {
        let now = self.now();
        let part =
            |span: u64, part: u64, of: u64| (u128::from(span) * u128::from(part) / u128::from(of)) as u64;
        let by = match stride {
            Stride::Ns(ns) => ns,
            Stride::Unit(quarters) => part(self.floor.unit_ns(), u64::from(quarters), 64),
            Stride::Span(share) => part(self.floor.span(), u64::from(share), 40_000),
            Stride::Days(days) => DAY * u64::from(days),
            Stride::Ready(offset) => {
                let cost = match self.line.front() {
                    Some(first) => self.asks[*first].as_ref().map(|ask| ask.cost),
                    None => self.refused,
                };
                let at = cost.and_then(|cost| self.ceiling.ready(now, cost)).unwrap_or(now);
                return at.saturating_add_signed(i64::from(offset)).max(now);
            }
        };
        now.saturating_add(by)
    }

    /// When `cost` could go behind those who wait, by `reference`.
    fn behind(&self, reference: &O, cost: u64) -> Option<u64> {
        let (mut later, mut at) = (reference.clone(), self.now());
        for waiting in &self.line {
            let cost = self.asks[*waiting].as_ref().unwrap().cost;
            if let Some(ready) = later.ready(at, cost) {
                at = ready;
                later.take(at, cost);
            }
        }
        later.ready(at, cost)
    }

    fn spend(&mut self, at: u64, cost: u64) -> Spent {
        self.floor.take(at, cost);
        self.ceiling.take(at, cost);
        let event = self.laws.iter_mut().map(|law| law.admitted(at, cost)).max().unwrap();
        Spent { at, cost, event, epoch: self.epoch }
    }

    /// No sooner than the law allows, and no later than it forces.
    fn assert_timely(
        &self,
        what: &str,
        cost: u64,
        told: Option<u64>,
        floor: Option<u64>,
        ceiling: Option<u64>,
    ) {
        // The wait told behind others is that of exact time; grants happen at whole nanoseconds, and each of those ahead
        // that takes all of the burst can lose the fraction.
        let slack = if what == "retry" { self.limiter.snapshot().waiting as u64 } else { 0 };
        let timely = match (told, floor, ceiling) {
            (Some(told), Some(floor), Some(ceiling)) => {
                floor <= told.saturating_add(slack) && told <= ceiling
            }
            (None, None, None) => true,
            _ => false,
        };
        assert!(
            timely,
            "{what} of {cost}: {told:?}, by the references {floor:?} to {ceiling:?} at {}",
            self.now()
        );
    }

    fn ask(&mut self, size: Size, as_check: bool, looks: bool) {
        let (now, cost) = (self.now(), self.cost(size));
        let before = looks.then(|| self.limiter.snapshot());
        let answer = if as_check {
            self.limiter.check(cost).map(|()| None)
        } else {
            self.limiter.try_acquire(cost).map(Some)
        };
        match answer {
            Ok(permit) => {
                assert!(cost == 0 || self.line.is_empty(), "{cost} passed those who wait");
                assert_eq!(self.floor_ready(now, cost), Some(now), "{cost} went");
                let spent = self.spend(now, cost);
                if let Some(permit) = permit {
                    assert_eq!(permit.cost().units(), cost);
                    self.held.push((permit, spent));
                }
            }
            Err(denied) => {
                assert_ne!(cost, 0, "nothing was refused");
                if let Some(before) = before {
                    assert_eq!(self.limiter.snapshot(), before, "a refusal of {cost} changed something");
                }
                let (floor, ceiling) = (self.behind(&self.floor, cost), self.behind(&self.ceiling, cost));
                let told = denied.retry_after().map(|wait| now + wait.as_nanos() as u64);
                if cost > self.floor.capacity() {
                    assert_eq!((denied.reason(), told), (Reason::ExceedsCapacity, None));
                } else {
                    assert_eq!(denied.reason(), Reason::Exhausted);
                    assert!(
                        !self.line.is_empty() || ceiling != Some(now),
                        "{cost} was refused and was there"
                    );
                    assert!(told != Some(now) || !self.line.is_empty(), "refused {cost}, to be retried now");
                    self.assert_timely("retry", cost, told, floor, ceiling);
                    self.refused = Some(cost);
                }
                if looks {
                    let ready = self.limiter.ready_in(cost);
                    assert_eq!(ready.ok(), denied.retry_after(), "ready_in of {cost}");
                }
            }
        }
    }

    /// As the floor says, except that nothing is always ready.
    fn floor_ready(&mut self, now: u64, cost: u64) -> Option<u64> {
        if cost == 0 { Some(now) } else { self.floor.ready(now, cost) }
    }

    fn join(&mut self, size: Size) {
        if self.line.len() >= 8 {
            return;
        }
        let (now, cost) = (self.now(), self.cost(size));
        let id = self.asks.len();
        let bell = Bell { id, clock: self.clock.clone(), woken: Arc::clone(&self.woken) };
        let waker = Waker::from(Arc::new(bell));
        let mut future = Box::pin(self.limiter.acquire(cost));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(permit)) => {
                assert!(cost == 0 || self.line.is_empty(), "{cost} passed those who wait");
                assert_eq!(self.floor_ready(now, cost), Some(now), "{cost} went");
                let spent = self.spend(now, cost);
                self.held.push((permit, spent));
            }
            Poll::Ready(Err(Error::Denied(denied))) => {
                assert_eq!(denied.retry_after(), None, "it would wait as long as it takes");
                let never = self.behind(&self.ceiling, cost).is_none();
                assert!(cost > self.floor.capacity() || never, "{cost} was refused: {denied}");
            }
            Poll::Ready(Err(Error::Fault(never))) => match never {},
            Poll::Pending => {
                assert!(cost > 0 && cost <= self.floor.capacity(), "{cost} waits");
                self.asks.push(Some(Ask { cost, future, waker, answer: None }));
                self.line.push_back(id);
            }
        }
    }

    /// Those who were answered since last heard of: in order, and each at its time.
    fn hear(&mut self) {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap());
        let capacity = self.floor.capacity();
        for (id, at) in woken {
            let place = self.line.iter().position(|waiting| *waiting == id);
            let place = place.unwrap_or_else(|| panic!("{id} was woken and does not wait"));
            self.line.remove(place);
            let cost = self.asks[id].as_ref().unwrap().cost;
            let answer = if cost > capacity {
                Answer::TooLarge
            } else {
                assert_eq!(place, 0, "{id} passed {:?}", self.line);
                let since = self.seen;
                let (floor, ceiling) = (self.floor.ready(since, cost), self.ceiling.ready(since, cost));
                self.assert_timely("grant", cost, Some(at), floor, ceiling);
                self.seen = at;
                Answer::Granted(self.spend(at, cost))
            };
            self.asks[id].as_mut().unwrap().answer = Some(answer);
        }
        let now = self.now();
        for waiting in &self.line {
            let cost = self.asks[*waiting].as_ref().unwrap().cost;
            assert!(cost <= capacity, "{waiting} waits for {cost} units, which can never go");
        }
        if let Some(first) = self.line.front() {
            let cost = self.asks[*first].as_ref().unwrap().cost;
            assert_ne!(self.ceiling.ready(now, cost), Some(now), "{first} waits for {cost} that are there");
        }
    }

    fn pick(&self, index: usize) -> Option<usize> {
        let there: Vec<usize> = (0..self.asks.len()).filter(|id| self.asks[*id].is_some()).collect();
        (!there.is_empty()).then(|| there[index % there.len()])
    }

    fn poll(&mut self, index: usize) {
        let Some(id) = self.pick(index) else { return };
        let Some(mut ask) = self.asks[id].take() else { return };
        match (ask.future.as_mut().poll(&mut Context::from_waker(&ask.waker)), ask.answer) {
            (Poll::Pending, None) => self.asks[id] = Some(ask),
            (Poll::Ready(Ok(permit)), Some(Answer::Granted(spent))) => {
                assert_eq!(permit.cost().units(), spent.cost);
                self.held.push((permit, spent));
            }
            (Poll::Ready(Err(Error::Denied(denied))), Some(Answer::TooLarge)) => {
                assert_eq!(denied.reason(), Reason::ExceedsCapacity);
            }
            (answer, expected) => panic!("{id} heard {answer:?} in place of {expected:?}"),
        }
    }

    fn leave(&mut self, index: usize) {
        let Some(id) = self.pick(index) else { return };
        match self.asks[id].as_ref().and_then(|ask| ask.answer) {
            // To be settled for less: not under other terms, unless that is what is tested.
            Some(Answer::Granted(spent)) if spent.epoch != self.epoch && !self.settles_across => {
                self.poll(index)
            }
            Some(Answer::Granted(spent)) => {
                self.give_back(spent, 0);
                self.asks[id] = None;
            }
            _ => {
                self.line.retain(|waiting| *waiting != id);
                self.asks[id] = None;
            }
        }
    }

    fn give_back(&mut self, spent: Spent, real: u64) {
        let now = self.now();
        self.floor.give_back(now, spent.at, spent.cost, spent.cost - real);
        self.ceiling.give_back(now, spent.at, spent.cost, spent.cost - real);
        self.laws.iter_mut().for_each(|law| law.settled(spent.event, real));
    }

    fn settle(&mut self, index: usize, real: Real) {
        if self.held.is_empty() {
            return;
        }
        let (permit, spent) = self.held.swap_remove(index % self.held.len());
        let now = self.now();
        let part = |part: u16| (u128::from(spent.cost) * u128::from(part) / 65_536) as u64;
        let real = match real {
            Real::Refund => 0,
            Real::Less(share) => part(share),
            Real::Same => spent.cost,
            Real::More(share) => {
                let room = self.ceiling.most_debt(None).saturating_sub(self.ceiling.left(now).debt);
                spent.cost + (1 + part(share).saturating_mul(2)).min(room)
            }
        };
        if real < spent.cost {
            if spent.epoch != self.epoch && !self.settles_across {
                return;
            }
            self.give_back(spent, real);
        } else if real > spent.cost {
            self.floor.take(now, real - spent.cost);
            self.ceiling.take(now, real - spent.cost);
            self.laws.iter_mut().for_each(|law| law.charged(now, real - spent.cost));
        }
        permit.settle(real.into());
    }

    fn look(&mut self) {
        let now = self.now();
        let (floor, ceiling) = (self.floor.left(now), self.ceiling.left(now));
        let Snapshot { capacity, remaining, debt, reset_after, waiting, waiting_units, .. } =
            self.limiter.snapshot();
        assert_eq!(capacity, self.floor.capacity());
        assert!(
            ceiling.remaining <= remaining && remaining <= floor.remaining,
            "{remaining}, {ceiling:?} {floor:?}"
        );
        assert!(floor.debt <= debt && debt <= ceiling.debt, "{debt} owed, {floor:?} {ceiling:?}");
        let full = reset_after.map(|after| now + after.as_nanos() as u64);
        self.assert_timely("reset", capacity, full, floor.full, ceiling.full);
        let units: u64 = self.line.iter().map(|id| self.asks[*id].as_ref().unwrap().cost).sum();
        assert_eq!((waiting, waiting_units), (self.line.len(), units));
    }

    fn change(&mut self, terms: Terms) {
        let Some(set_quota) = self.set_quota else { return };
        let now = self.now();
        // A debt that is too long to be remembered under the new terms is cut, as documented.
        if self.ceiling.left(now).debt > self.ceiling.most_debt(Some(terms)) {
            return;
        }
        if set_quota(&self.limiter, quota_of(terms)).is_err() {
            return;
        }
        self.floor.change(now, terms);
        self.ceiling.change(now, terms);
        self.laws.iter_mut().for_each(|law| law.change(now, terms));
        self.epoch += 1;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Each algorithm on the bench
// ---------------------------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn token_bucket(terms in prop_oneof![12 => buckets(), 1 => budgets()], ops in ops(buckets())) {
        let (clock, now) = start_at();
        let references = (Bucket::new(terms, Side::Floor, now), Bucket::new(terms, Side::Ceiling, now));
        let law = Law::new(Promise::Bucket, terms, now, now);
        let builder = TokenBucket::builder(quota_of(terms)).clock(clock.clone());
        let mut bench = Bench::new(builder, &clock, references, vec![law]);
        bench.set_quota = Some(|limiter, quota| limiter.set_quota(quota));
        bench.settles_across = false;
        bench.run(&ops);
    }

    #[test]
    fn joint_buckets(all in prop::collection::vec(buckets(), 1..4), ops in ops(buckets())) {
        let (clock, now) = start_at();
        let bucket = |side| move |terms: &Terms| Bucket::new(*terms, side, now);
        let floor: Vec<Bucket> = all.iter().map(bucket(Side::Floor)).collect();
        let ceiling: Vec<Bucket> = all.iter().map(bucket(Side::Ceiling)).collect();
        let laws = all.iter().map(|terms| Law::new(Promise::Bucket, *terms, now, now)).collect();
        let builder = TokenBucket::all(all.iter().map(|terms| quota_of(*terms))).clock(clock.clone());
        Bench::new(builder, &clock, (floor, ceiling), laws).run(&ops);
    }

    #[test]
    fn sliding_window(terms in windows(), ops in ops(windows())) {
        let (clock, now) = start_at();
        let reference = Window::new(terms, None, Side::Floor, now);
        let law = Law::new(Promise::Window, terms, now, now);
        let builder = SlidingWindow::builder(quota_of(terms)).clock(clock.clone());
        let mut bench = Bench::new(builder, &clock, (reference.clone(), reference), vec![law]);
        bench.set_quota = Some(|limiter, quota| limiter.set_quota(quota));
        bench.run(&ops);
    }

    #[test]
    fn sliding_window_in_segments(terms in windows(), segments in 1..12_u64, ops in ops(windows())) {
        let (clock, now) = start_at();
        let segments = segments.min(terms.period_ns);
        let window = |side| Window::new(terms, Some(segments), side, now);
        let law = Law::new(Promise::Window, terms, now, now);
        let builder = SlidingWindow::builder(quota_of(terms)).clock(clock.clone()).segments(segments);
        let mut bench = Bench::new(builder, &clock, (window(Side::Floor), window(Side::Ceiling)), vec![law]);
        bench.set_quota = Some(|limiter, quota| limiter.set_quota(quota));
        bench.run(&ops);
    }

    #[test]
    fn sliding_counter(terms in windows(), ops in ops(windows())) {
        let (clock, now) = start_at();
        let reference = Counter::new(terms, now);
        let law = Law::new(Promise::Counter, terms, now, now);
        let builder = SlidingCounter::builder(quota_of(terms)).clock(clock.clone());
        let mut bench = Bench::new(builder, &clock, (reference.clone(), reference), vec![law]);
        bench.set_quota = Some(|limiter, quota| limiter.set_quota(quota));
        bench.run(&ops);
    }

    #[test]
    fn fixed_window(terms in refills(), from_epoch in any::<bool>(), ops in ops(refills())) {
        let (clock, now) = start_at();
        // A manual clock's zero is the Unix epoch.
        let (origin, anchor) = if from_epoch { (0, Anchor::Epoch) } else { (now, Anchor::Start) };
        let reference = Fixed::new(terms, origin, now);
        let law = Law::new(Promise::Edges, terms, now, origin);
        let builder = FixedWindow::builder(quota_of(terms)).clock(clock.clone()).anchored(anchor);
        let mut bench = Bench::new(builder, &clock, (reference.clone(), reference), vec![law]);
        bench.set_quota = Some(|limiter, quota| limiter.set_quota(quota));
        bench.settles_across = false;
        bench.run(&ops);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What holds for every algorithm
// ---------------------------------------------------------------------------------------------------------------

/// An algorithm through its trait alone: what it answers is true, and asking changes nothing.
fn tells_the_truth<A: Algorithm>(algorithm: &A, steps: &[(u64, u64, bool)], beyond: u64) {
    let at = Timestamp::from_ns;
    let mut now = 1_000_003;
    let mut state = algorithm.start(at(now), now);
    for (step, cost, forced) in steps {
        now += step;
        let cost = if *forced { *cost } else { cost % (algorithm.capacity() + 2) };
        let before = algorithm.balance(&mut state, at(now));
        let when = algorithm.ready_at(&mut state, at(now), cost);
        assert_eq!(algorithm.ready_at(&mut state, at(now), cost), when, "asked twice");
        assert_eq!(algorithm.balance(&mut state, at(now)), before, "asking changed something");
        assert_eq!(when == When::Never, cost > algorithm.capacity(), "{when:?} for {cost}");
        let asked_at = |ns: u64| algorithm.ready_at(&mut state.clone(), at(ns), cost);
        if let When::At(ready) = when {
            let ready = ready.as_ns();
            assert_eq!(
                asked_at(ready),
                When::At(at(ready)),
                "told {ready} for {cost} at {now}, and not ready then"
            );
            assert_eq!(
                asked_at(ready.saturating_add(beyond)),
                When::At(at(ready.saturating_add(beyond))),
                "not ready any more"
            );
            if ready > now {
                assert_eq!(
                    asked_at(ready - 1),
                    When::At(at(ready)),
                    "told {ready} for {cost}, and ready before"
                );
            }
        }
        if when == When::At(at(now)) || *forced {
            algorithm.force(&mut state, at(now), cost);
        }
    }
}

/// A grant that is settled for less at once, and one that was for less in the first place, are the same.
fn settles_at_once<A: Algorithm>(algorithm: &A, steps: &[(u64, u64, bool)]) {
    let at = Timestamp::from_ns;
    let mut now = 1_000_003;
    let mut state = algorithm.start(at(now), now);
    for (step, cost, in_full) in steps {
        now += step;
        let mut twin = state.clone();
        // Within what is left: a debt near what is remembered at most would be cut.
        let cost = cost % (algorithm.balance(&mut state, at(now)).remaining + 1);
        let real = if *in_full { 0 } else { cost / 2 };
        algorithm.force(&mut state, at(now), cost);
        algorithm.give_back(&mut state, at(now), Grant::new(at(now), cost), cost - real);
        algorithm.force(&mut twin, at(now), real);
        let (left, expected) =
            (algorithm.balance(&mut state, at(now)), algorithm.balance(&mut twin, at(now)));
        assert_eq!(left, expected, "{cost} settled at {real}");
    }
}

fn steps(forced: u32) -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    let step = prop_oneof![0..5_u64, log_uniform(34)];
    let cost = prop_oneof![0..5_u64, log_uniform(30)];
    let often = forced.max(1);
    let forced = prop_oneof![8 => Just(false), often => Just(forced > 0)];
    prop::collection::vec((step, cost, forced), 1..30)
}

/// Steps that are near the scale of the terms.
fn scaled(terms: Terms, steps: &[(u64, u64, bool)]) -> Vec<(u64, u64, bool)> {
    let scale = |step: &(u64, u64, bool)| {
        let ns = if terms.period_ns == 0 { step.0 } else { step.0 % terms.period_ns.saturating_mul(2) };
        (ns, step.1 % terms.burst.saturating_mul(2), step.2)
    };
    steps.iter().map(scale).collect()
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn every_algorithm_tells_the_truth(
        bucket in buckets(),
        window in windows(),
        refill in refills(),
        segments in 1..20_u64,
        steps in steps(1),
        beyond in log_uniform(50),
    ) {
        tells_the_truth(&algorithm::TokenBucket::from_quota(quota_of(bucket)).unwrap(), &scaled(bucket, &steps), beyond);
        let steps_ = scaled(window, &steps);
        let quota = quota_of(window);
        let exact = algorithm::SlidingWindow::from_quota(quota).unwrap();
        tells_the_truth(&exact, &steps_, beyond);
        tells_the_truth(&exact.segments(segments.min(window.period_ns)).unwrap(), &steps_, beyond);
        tells_the_truth(&algorithm::SlidingCounter::from_quota(quota).unwrap(), &steps_, beyond);
        let fixed = algorithm::FixedWindow::from_quota(quota_of(refill)).unwrap();
        tells_the_truth(&fixed, &scaled(refill, &steps), beyond);
        tells_the_truth(&fixed.anchored(Anchor::Epoch), &scaled(refill, &steps), beyond);
        let joint = AllOf::<algorithm::TokenBucket>::new([quota_of(bucket), quota_of(refill).burst(bucket.burst)]);
        if let Ok(joint) = joint {
            tells_the_truth(&joint, &scaled(bucket, &steps), beyond);
        }
    }

    #[test]
    fn a_settlement_at_once_is_exact(bucket in buckets(), window in windows(), refill in refills(), steps in steps(4)) {
        let bucket_steps = scaled(bucket, &steps);
        settles_at_once(&algorithm::TokenBucket::from_quota(quota_of(bucket)).unwrap(), &bucket_steps);
        let steps_ = scaled(window, &steps);
        settles_at_once(&algorithm::SlidingWindow::from_quota(quota_of(window)).unwrap(), &steps_);
        settles_at_once(&algorithm::SlidingCounter::from_quota(quota_of(window)).unwrap(), &steps_);
        settles_at_once(&algorithm::FixedWindow::from_quota(quota_of(refill)).unwrap(), &scaled(refill, &steps));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Two limits as one
// ---------------------------------------------------------------------------------------------------------------

/// Asks both: a refusal leaves both as they were, an admission takes from both.
fn both_or_none<A, B>(
    clock: &ManualClock,
    (first, look_first): (A, impl Fn(&A) -> Snapshot),
    (second, look_second): (B, impl Fn(&B) -> Snapshot),
    steps: &[(u64, u64, bool)],
) where
    A: Compose<Fault = Infallible> + LimiterExt + Clone,
    B: Compose<Fault = Infallible> + Clone,
{
    let both = first.clone().and(second.clone());
    let mut held = VecDeque::new();
    for (step, cost, drops) in steps {
        clock.advance(Duration::from_nanos(*step));
        if *drops {
            held.pop_front();
        }
        let most = look_first(&first).capacity.min(look_second(&second).capacity);
        let cost = cost % (most + 2);
        let before = (look_first(&first), look_second(&second));
        let there = before.0.remaining.min(before.1.remaining);
        match both.try_acquire(cost) {
            Ok(permit) => {
                assert!(cost <= there, "{cost} of {there}");
                assert_eq!(look_first(&first).remaining, before.0.remaining - cost);
                assert_eq!(look_second(&second).remaining, before.1.remaining - cost);
                held.push_back(permit);
            }
            Err(denied) => {
                assert!(cost > there, "refused {cost} of {there}: {denied}");
                assert_eq!(
                    (look_first(&first), look_second(&second)),
                    before,
                    "a refusal of {cost} took something"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_refusal_by_one_leaves_the_other_untouched(
        bucket in buckets(),
        window in windows(),
        refill in refills(),
        slots in 1..9_u64,
        steps in steps(4),
    ) {
        let clock = ManualClock::new();
        let bucket_ = TokenBucket::builder(quota_of(bucket)).clock(clock.clone()).build().unwrap();
        let log = SlidingWindow::builder(quota_of(window)).clock(clock.clone()).build().unwrap();
        let counter = SlidingCounter::builder(quota_of(window)).clock(clock.clone()).build().unwrap();
        let fixed = FixedWindow::builder(quota_of(refill)).clock(clock.clone()).build().unwrap();
        let slots = Concurrency::new(slots);
        let all = TokenBucket::all([quota_of(bucket)]).clock(clock.clone()).build().unwrap();
        let steps_ = scaled(bucket, &steps);
        both_or_none(&clock, (bucket_.clone(), |one| one.snapshot()), (log, |one| one.snapshot()), &steps_);
        both_or_none(&clock, (counter, |one| one.snapshot()), (fixed, |one| one.snapshot()), &scaled(window, &steps));
        both_or_none(&clock, (slots, |one| one.snapshot()), (bucket_, |one| one.snapshot()), &steps_);
        let other = Concurrency::new(3);
        both_or_none(&clock, (all, |one| one.snapshot()), (other, |one| one.snapshot()), &steps_);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Token buckets
// ---------------------------------------------------------------------------------------------------------------

/// The clock of a machine that goes wrong: it is wherever it is put.
#[derive(Debug, Clone, Default)]
struct Wobbly(Arc<AtomicU64>);

impl Clock for Wobbly {
    type Timer = NoTimer;

    fn now(&self) -> Timestamp {
        Timestamp::from_ns(self.0.load(Ordering::Relaxed))
    }

    fn timer(&self) -> Option<NoTimer> {
        None
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn looking_at_a_bucket_changes_nothing(
        terms in buckets(),
        asks in prop::collection::vec((any::<u16>(), any::<u16>()), 1..12),
    ) {
        let clock = ManualClock::new();
        let build = || TokenBucket::builder(quota_of(terms)).clock(clock.clone()).build().unwrap();
        let (watched, alone) = (build(), build());
        let span = whole(terms.burst) / terms.rate();
        for (share, part) in asks {
            let ns = (&span * whole(u64::from(share)) / whole(60_000)).to_integer();
            let to = clock.now().after(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)));
            if to.as_ns() > LAST {
                break;
            }
            clock.set(to);
            let before = watched.snapshot();
            let cost = if part % 4 == 0 { terms.burst } else { terms.burst / 65_536 * u64::from(part) + 1 };
            let answers = (watched.check(cost), alone.check(cost));
            prop_assert_eq!(&answers.0, &answers.1);
            let spent = if answers.0.is_ok() { cost } else { 0 };
            prop_assert_eq!(watched.snapshot().remaining, before.remaining - spent);
        }
    }

    #[test]
    fn a_clock_that_goes_back_gains_nothing_over_its_latest_reading(
        terms in buckets(),
        moves in prop::collection::vec((any::<i16>(), sizes(), any::<bool>()), 1..20),
    ) {
        let clock = Wobbly::default();
        let limiter = TokenBucket::builder(quota_of(terms)).clock(clock.clone()).build().unwrap();
        let (mut now, mut latest) = (0_u64, 0);
        let span = Bucket::new(terms, Side::Floor, 0).span();
        let mut admitted = 0_u64;
        for (by, size, looks) in moves {
            let by = i128::from(span) * i128::from(by) / 30_000;
            now = u64::try_from((i128::from(now) + by).clamp(0, i128::from(LAST))).unwrap();
            clock.0.store(now, Ordering::Relaxed);
            latest = latest.max(now);
            let cost = match size {
                Size::Units(units) => units,
                Size::Part(part) => (u128::from(terms.burst) * u128::from(part) / 65_536) as u64,
                Size::Left(more) => limiter.snapshot().remaining + more,
                Size::Capacity | Size::Above(_) => terms.burst,
            };
            if looks {
                let _ = limiter.snapshot();
            }
            if limiter.check(cost).is_ok() {
                admitted = admitted.saturating_add(cost);
            }
            let most = whole(terms.burst) + terms.rate() * whole(latest);
            prop_assert!(whole(admitted) <= most, "{admitted} by {latest}");
        }
    }

    #[test]
    fn the_long_run_rate_is_what_was_asked(terms in buckets(), cost in any::<u64>(), rounds in 2..300_u64) {
        let terms = bucket_terms(Terms { burst: terms.burst.max(2), initial: 0, ..terms });
        let Some(terms) = terms.filter(|terms| terms.burst > 1) else { return Ok(()) };
        let cost = cost % (terms.burst - 1) + 1;
        let bucket = algorithm::TokenBucket::from_quota(quota_of(terms)).unwrap();
        let mut state = bucket.start(Timestamp::ZERO, 0);
        let (mut now, mut units) = (Timestamp::ZERO, 0);
        for _ in 0..rounds {
            let When::At(ready) = bucket.ready_at(&mut state, now, cost) else { panic!("{cost} can never go") };
            if ready.as_ns() > LAST {
                break;
            }
            bucket.force(&mut state, ready, cost);
            now = ready;
            units += u128::from(cost);
        }
        let ideal = Rational::from_integer(units.into()) / terms.rate();
        let took = whole(now.as_ns());
        prop_assert!(took >= ideal, "{units} units in {took} ns are more than {ideal} ns allow");
        if terms.is_exact() {
            prop_assert_eq!(took, ideal.ceil());
        } else {
            let slack = &ideal / whole(1_000_000_000);
            prop_assert!(took <= ideal.ceil() + slack, "{units} units took {took} ns, not {ideal}");
        }
    }

    #[test]
    fn the_largest_burst_an_error_names_works(rate in rates(), burst in log_uniform(64)) {
        let (count, period_ns) = rate;
        // Looks at the error, and builds with what it names.
        if let Some(terms) = bucket_terms(Terms { count, period_ns, burst, initial: burst }) {
            let limiter = TokenBucket::builder(quota_of(terms)).clock(ManualClock::new()).build().unwrap();
            prop_assert!(limiter.check(terms.burst).is_ok());
            prop_assert!(limiter.check(1).is_err());
        } else {
            prop_assert!(period_ns / count > 300 * YEAR);
        }
    }

    #[test]
    fn a_debt_beyond_all_bounds_is_one(terms in buckets(), real in prop_oneof![Just(u64::MAX), log_uniform(64)]) {
        let clock = ManualClock::new();
        let limiter = TokenBucket::builder(quota_of(terms)).clock(clock.clone()).build().unwrap();
        let permit = limiter.try_acquire(1.min(terms.initial)).unwrap();
        permit.settle(real.into());
        let debt = real.saturating_sub(terms.initial);
        let most = Bucket::new(terms, Side::Ceiling, 0).most_debt(None);
        let owed = limiter.snapshot().debt;
        prop_assert!(owed >= debt.min(most) && owed <= debt, "{owed} of {debt} is remembered");
        let refused = limiter.check(1).err();
        prop_assert_eq!(refused.is_some(), real >= terms.initial);
        if let Some(wait) = refused.and_then(|denied| denied.retry_after()) {
            clock.advance(wait);
            if clock.now() < Timestamp::MAX {
                prop_assert!(limiter.check(1).is_ok());
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// All histories of a small scope
// ---------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy)]
struct Spending {
    at: u64,
    cost: u64,
    net: u64,
    settled: bool,
}

/// Tries every history of so many moves: takes that are admitted, settlements for less, steps of the clock, changes.
/// `law` is told the terms, when they began, and what was spent since then, the last of it just now.
struct Histories<'a, A> {
    terms: &'a [(A, Terms)],
    law: fn(&Terms, u64, &[Spending]) -> bool,
    longest_step: u64,
}

#[derive(Clone)]
struct Moment<A: Algorithm> {
    algorithm: A,
    state: A::State,
    terms: usize,
    since: (u64, usize),
    now: u64,
    history: Vec<Spending>,
    /// What was done, for the report.
    done: Vec<String>,
    may_step: bool,
}

impl<A: Algorithm> Histories<'_, A> {
    fn all(&self, moves: u32) -> u64 {
        let mut tried = 0;
        for (terms, (algorithm, _)) in self.terms.iter().enumerate() {
            let state = algorithm.start(Timestamp::ZERO, 0);
            let moment = Moment {
                algorithm: algorithm.clone(),
                state,
                terms,
                since: (0, 0),
                now: 0,
                history: Vec::new(),
                done: vec![format!("{:?}", self.terms[terms].1)],
                may_step: true,
            };
            self.go_on(&moment, moves, &mut tried);
        }
        tried
    }

    fn go_on(&self, from: &Moment<A>, moves: u32, tried: &mut u64) {
        *tried += 1;
        if moves == 0 {
            return;
        }
        let now = Timestamp::from_ns(from.now);
        let next = |done: String| {
            let mut next = from.clone();
            next.may_step = true;
            next.done.push(done);
            next
        };
        for cost in 1..=from.algorithm.capacity() {
            let mut taken = next(format!("take {cost}"));
            if taken.algorithm.ready_at(&mut taken.state, now, cost) != When::At(now) {
                break;
            }
            taken.algorithm.force(&mut taken.state, now, cost);
            taken.history.push(Spending { at: from.now, cost, net: cost, settled: false });
            let (began, first) = taken.since;
            let kept = (self.law)(&self.terms[taken.terms].1, began, &taken.history[first..]);
            assert!(kept, "{:?}: {:?}", taken.done, taken.history);
            self.go_on(&taken, moves - 1, tried);
        }
        for (index, spending) in from.history.iter().enumerate().filter(|(_, spending)| !spending.settled) {
            for real in 0..spending.cost {
                let mut settled = next(format!("settle the {} of {} at {real}", spending.cost, spending.at));
                let grant = Grant::new(Timestamp::from_ns(spending.at), spending.cost);
                settled.algorithm.give_back(&mut settled.state, now, grant, spending.cost - real);
                settled.history[index] = Spending { net: real, settled: true, ..*spending };
                self.go_on(&settled, moves - 1, tried);
            }
        }
        if from.may_step {
            for ns in 1..=self.longest_step {
                let mut later = next(format!("advance {ns}"));
                later.may_step = false;
                later.now += ns;
                self.go_on(&later, moves - 1, tried);
            }
        }
        for (terms, (algorithm, named)) in
            self.terms.iter().enumerate().filter(|(terms, _)| *terms != from.terms)
        {
            let mut changed = next(format!("change to {named:?}"));
            changed.algorithm.change(algorithm.clone(), &mut changed.state, now);
            changed.terms = terms;
            changed.since = (from.now, changed.history.len());
            self.go_on(&changed, moves - 1, tried);
        }
    }
}

fn small<A: FromQuota>(count: u64, period_ns: u64, burst: u64) -> (A, Terms) {
    let terms = Terms { count, period_ns, burst, initial: burst };
    (A::from_quota(quota_of(terms)).unwrap(), terms)
}

/// For every start: what was spent since is at most the burst and what has been refilled.
fn bucket_law(terms: &Terms, _began: u64, spent: &[Spending]) -> bool {
    let last = spent[spent.len() - 1];
    (0..spent.len()).all(|first| {
        let sum: u64 = spent[first..].iter().map(|spending| spending.net).sum();
        sum * terms.period_ns <= terms.burst * terms.period_ns + terms.count * (last.at - spent[first].at)
    })
}

fn edges_law(terms: &Terms, began: u64, spent: &[Spending]) -> bool {
    let last = spent[spent.len() - 1];
    let edge = |at: u64| (at - began) / terms.period_ns;
    (0..spent.len()).all(|first| {
        let sum: u64 = spent[first..].iter().map(|spending| spending.net).sum();
        sum <= terms.burst + terms.count * (edge(last.at) - edge(spent[first].at))
    })
}

fn in_window(terms: &Terms, spent: &[Spending]) -> u64 {
    let last = spent[spent.len() - 1];
    spent.iter().filter(|spending| last.at - spending.at < terms.period_ns).map(|spending| spending.net).sum()
}

fn window_law(terms: &Terms, _began: u64, spent: &[Spending]) -> bool {
    in_window(terms, spent) <= terms.count
}

fn counter_law(terms: &Terms, began: u64, spent: &[Spending]) -> bool {
    let last = spent[spent.len() - 1];
    let grid = |at: u64| (at - began) / terms.period_ns;
    let in_grid = spent.iter().filter(|spending| grid(spending.at) == grid(last.at));
    in_window(terms, spent) <= 2 * terms.count
        && in_grid.map(|spending| spending.net).sum::<u64>() <= terms.count
}

#[test]
fn no_history_of_refunds_gains_on_a_bucket() {
    for (burst, moves) in [(1, 8), (2, 7), (3, 6)] {
        let terms = [small::<algorithm::TokenBucket>(1, 3, burst)];
        let tried = Histories { terms: &terms, law: bucket_law, longest_step: 4 }.all(moves);
        assert!(tried > 10_000, "{tried} histories of {moves} moves");
    }
    for burst in 1..4 {
        let terms = [small::<algorithm::TokenBucket>(2, 5, burst)];
        Histories { terms: &terms, law: bucket_law, longest_step: 5 }.all(5);
    }
}

#[test]
fn no_history_of_refunds_gains_on_a_window() {
    for count in 1..4 {
        let exact = small::<algorithm::SlidingWindow>(count, 3, count);
        let segmented = |segments| [(exact.0.segments(segments).unwrap(), exact.1)];
        for terms in [[exact], segmented(1), segmented(2)] {
            Histories { terms: &terms, law: window_law, longest_step: 4 }.all(6);
        }
        let terms = [small::<algorithm::SlidingCounter>(count, 3, count)];
        Histories { terms: &terms, law: counter_law, longest_step: 4 }.all(6);
        for burst in 1..4 {
            let terms = [small::<algorithm::FixedWindow>(count, 3, burst)];
            Histories { terms: &terms, law: edges_law, longest_step: 4 }.all(6);
        }
    }
}

#[test]
fn no_history_of_refunds_gains_over_changes_of_a_bucket() {
    let terms = [small::<algorithm::TokenBucket>(1, 3, 1), small(1, 1, 2), small(1, 3, 3), small(1, 7, 2)];
    Histories { terms: &terms, law: bucket_law, longest_step: 4 }.all(5);
}

#[test]
fn no_history_of_refunds_gains_over_changes_of_a_window() {
    let terms = [small::<algorithm::SlidingWindow>(2, 3, 2), small(1, 3, 1), small(3, 5, 3)];
    let exact: Vec<_> = terms.to_vec();
    Histories { terms: &exact, law: window_law, longest_step: 4 }.all(5);
    let segmented =
        |(window, terms): &(algorithm::SlidingWindow, Terms)| (window.segments(2).unwrap(), *terms);
    let terms: Vec<_> = terms.iter().map(segmented).collect();
    Histories { terms: &terms, law: window_law, longest_step: 4 }.all(5);
}

#[test]
fn no_history_of_refunds_gains_over_changes_of_a_refill() {
    // Windows of one length each: a change of the length alone starts another grid.
    let terms = [small(1, 3, 1), small(1, 3, 3), small(2, 3, 2)];
    let law = |terms: &Terms, _began: u64, spent: &[Spending]| edges_law(terms, 0, spent);
    Histories::<algorithm::FixedWindow> { terms: &terms, law, longest_step: 4 }.all(5);
    let terms = [small(1, 2, 2), small(1, 5, 2)];
    Histories::<algorithm::FixedWindow> { terms: &terms, law: edges_law, longest_step: 4 }.all(6);
}

// ---------------------------------------------------------------------------------------------------------------
// Text
// ---------------------------------------------------------------------------------------------------------------

fn any_quota() -> impl Strategy<Value = Quota> {
    let unit =
        prop::sample::select(vec![1, 1_000, 1_000_000, SECOND, 60 * SECOND, 3_600 * SECOND, DAY, 7 * DAY]);
    let period = prop_oneof![
        2 => unit.clone().prop_map(Some),
        2 => (unit, 1..500_u64).prop_map(|(unit, times)| unit.checked_mul(times)),
        2 => any::<u64>().prop_map(Some),
        1 => Just(None),
    ];
    let units = || prop_oneof![Just(None), (0..200_u64).prop_map(Some), any::<u64>().prop_map(Some)];
    let count = prop_oneof![1..1_000_u64, any::<u64>()];
    (count, period, units(), units())
        .prop_map(|(count, period, burst, initial)| {
            let mut quota = match period {
                Some(period_ns) => Quota::per(count, Duration::from_nanos(period_ns)),
                None => Quota::once(count),
            };
            if let Some(units) = burst {
                quota = quota.burst(units);
            }
            if let Some(units) = initial {
                quota = quota.initial(units % quota.capacity().max(1));
            }
            quota
        })
        .prop_filter("no limiter can be built from it", |quota| quota.check().is_ok())
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_quota_is_what_its_text_says(quota in any_quota()) {
        let text = quota.to_string();
        prop_assert_eq!(text.parse::<Quota>(), Ok(quota), "{}", text);
        let loose = text.replace('/', " per ").replace(' ', "  ");
        prop_assert_eq!(loose.parse::<Quota>(), Ok(quota), "{}", loose);
    }

    #[test]
    fn no_text_panics(
        free in any::<String>(),
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "0", "1", "50", "1_000", "_", "18446744073709551615", "18446744073709551616", "99999999999999999999999",
                "/", "//", "s", "min", "per", "once", "burst", "initial", "30s", "5 weeks", "584years", "-1", "+1", "1e9",
                "1.5", "\u{b5}s", "\u{661}", "\u{0}", "\u{202e}", "\n", " ", "\u{3000}", "340282366920938463463374607431w",
            ]),
            0..9,
        ),
        spaced in any::<bool>(),
    ) {
        for text in [free, parts.join(if spaced { " " } else { "" })] {
            match text.parse::<Quota>() {
                Ok(quota) => {
                    prop_assert!(quota.check().is_ok());
                    prop_assert_eq!(quota.to_string().parse::<Quota>(), Ok(quota));
                }
                Err(error) => {
                    prop_assert_eq!(error.text(), &text);
                    prop_assert!(error.to_string().contains("is not a quota"));
                }
            }
        }
    }
}
