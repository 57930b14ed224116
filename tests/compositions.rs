//! Compositions that wait, against what each member promises: random worlds on a manual clock, a table of contended worlds,
//! threads, and foreign code that panics.
//!
//! `PROPTEST_CASES` sets how many worlds are tried. `cargo test --test compositions table -- --nocapture` prints the table.
#![cfg(all(feature = "tokio", not(tollgate_loom)))]

#[allow(dead_code, reason = "the references of all limits")]
mod oracle;

use std::collections::{BTreeSet, BinaryHeap};
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use oracle::{Law, Promise, Terms};
use proptest::prelude::*;
use tollgate::algorithm::Anchor;
use tollgate::clock::{Clock, ManualTimer};
use tollgate::{
    And, Ask, Awaited, BoxLimiter, Concurrency, Cost, Denied, Error, FixedWindow, Keyed, Limiter, LimiterExt,
    ManualClock, Permit, Queue, Quota, RateLimiter, Reason, SlidingCounter, SlidingWindow, Snapshot, Stored,
    Timestamp, TokenBucket, limiter_fn,
};

const SECOND: u64 = 1_000_000_000;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

#[track_caller]
fn granted<T, F: std::fmt::Debug>(answer: Poll<Result<T, Error<F>>>) -> T {
    match answer {
        Poll::Ready(Ok(permit)) => permit,
        Poll::Ready(Err(error)) => panic!("denied: {error:?}"),
        Poll::Pending => panic!("still waiting"),
    }
}

#[track_caller]
fn denied<T>(answer: Poll<Result<T, Error>>) -> Denied {
    match answer {
        Poll::Ready(Err(Error::Denied(denied))) => denied,
        Poll::Ready(_) => panic!("granted"),
        Poll::Pending => panic!("still waiting"),
    }
}

/// Notes who was woken, and when.
type Bells = Arc<Mutex<Vec<(usize, u64)>>>;

struct Bell {
    id: usize,
    clock: ManualClock,
    bells: Bells,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.bells.lock().unwrap().push((self.id, self.clock.now().as_ns()));
    }
}

// ------------------------------------------------------------------------------------------------- limits of any kind

/// What a test does to a limit, whatever its kind.
trait Handle {
    fn snapshot(&self) -> Snapshot;
    fn pause(&self, paused: bool);
    fn set(&self, terms: Terms);
}

impl<A: Stored + tollgate::algorithm::FromQuota> Handle for RateLimiter<A, ManualClock> {
    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn pause(&self, paused: bool) {
        if paused { self.pause() } else { self.resume() }
    }

    fn set(&self, terms: Terms) {
        self.set_quota(quota_of(terms)).unwrap();
    }
}

impl Handle for Concurrency<ManualClock> {
    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn pause(&self, paused: bool) {
        if paused { self.pause() } else { self.resume() }
    }

    fn set(&self, terms: Terms) {
        self.resize(terms.count);
    }
}

fn quota_of(terms: Terms) -> Quota {
    Quota::per(terms.count, Duration::from_nanos(terms.period_ns)).burst(terms.burst)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bucket,
    Window,
    Counter,
    Fixed,
    Slots,
}

#[derive(Debug, Clone, Copy)]
struct Spec {
    kind: Kind,
    terms: Terms,
}

struct Member {
    limiter: BoxLimiter,
    handle: Box<dyn Handle>,
    law: Option<Law>,
    capacity: u64,
    held: u64,
    is_paused: bool,
}

impl Member {
    fn new(spec: Spec, clock: &ManualClock) -> Self {
        let (terms, now) = (spec.terms, clock.now().as_ns());
        let queue = Queue::new();
        fn both<L>(limit: &L) -> (BoxLimiter, Box<dyn Handle>)
        where
            L: tollgate::Compose<(), Fault = Infallible>
                + LimiterExt
                + Handle
                + Clone
                + Send
                + Sync
                + 'static,
            L::Permit: Send + 'static,
            L::Acquire: Send + 'static,
            L::Part: Send + 'static,
        {
            (limit.clone().boxed(), Box::new(limit.clone()))
        }
        let law = |promise| Some(Law::new(promise, terms, now, now));
        let (clock, quota) = (clock.clone(), quota_of(terms));
        let ((limiter, handle), law) = match spec.kind {
            Kind::Bucket => {
                let limit = TokenBucket::builder(quota).clock(clock).queue(queue).build().unwrap();
                (both(&limit), law(Promise::Bucket))
            }
            Kind::Window => {
                let limit = SlidingWindow::builder(quota).clock(clock).queue(queue).build().unwrap();
                (both(&limit), law(Promise::Window))
            }
            Kind::Counter => {
                let limit = SlidingCounter::builder(quota).clock(clock).queue(queue).build().unwrap();
                (both(&limit), law(Promise::Counter))
            }
            Kind::Fixed => {
                let builder = FixedWindow::builder(quota).clock(clock).queue(queue);
                (both(&builder.anchored(Anchor::Start).build().unwrap()), law(Promise::Edges))
            }
            Kind::Slots => {
                (both(&Concurrency::builder(terms.count).clock(clock).queue(queue).build().unwrap()), None)
            }
        };
        let capacity = if spec.kind == Kind::Slots { terms.count } else { terms.burst };
        Self { limiter, handle, law, capacity, held: 0, is_paused: false }
    }
}

// ---------------------------------------------------------------------------------------------------- random worlds

fn specs() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        3 => Just(Kind::Bucket),
        2 => Just(Kind::Window),
        1 => Just(Kind::Counter),
        1 => Just(Kind::Fixed),
        3 => Just(Kind::Slots),
    ];
    (kind, terms()).prop_map(|(kind, terms)| {
        let burst = if kind == Kind::Bucket { terms.burst } else { terms.count };
        Spec { kind, terms: Terms { burst, initial: burst, ..terms } }
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    (1..7_u64, prop::sample::select(vec![7, 100, SECOND]), 1..7_u64)
        .prop_map(|(count, period, burst)| Terms { count, period_ns: period * count, burst, initial: burst })
}

#[derive(Debug, Clone)]
enum Op {
    /// Asks these members, in this order, and waits.
    Ask {
        set: Vec<usize>,
        cost: u64,
        within: Option<u64>,
    },
    Try {
        set: Vec<usize>,
        cost: u64,
    },
    /// Asks so often, and drops all that: nothing has changed.
    AskInVain {
        asks: Vec<(Vec<usize>, u64)>,
    },
    /// Drops an ask that waits.
    Cancel(usize),
    /// Drops it once it is granted, before it hears of that.
    CancelWhenGranted(usize),
    /// Never polls or drops it again.
    Leak(usize),
    Release(usize),
    Advance(u64),
    Change(usize, u64),
    Pause(usize, bool),
}

fn sets() -> impl Strategy<Value = Vec<usize>> {
    let all = Just(vec![0, 1, 2, 3]).prop_shuffle();
    (all, 1..4_usize).prop_map(|(mut all, count)| {
        all.truncate(count);
        all
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let strides = prop_oneof![1..20_u64, 1..300_u64, 1..2 * SECOND];
    let within = prop_oneof![3 => Just(None), 1 => (1..500_u64).prop_map(Some)];
    let op = prop_oneof![
        24 => (sets(), 1..4_u64, within).prop_map(|(set, cost, within)| Op::Ask { set, cost, within }),
        4 => (sets(), 1..4_u64).prop_map(|(set, cost)| Op::Try { set, cost }),
        2 => prop::collection::vec((sets(), 1..4_u64), 1..5).prop_map(|asks| Op::AskInVain { asks }),
        5 => any::<usize>().prop_map(Op::Cancel),
        3 => any::<usize>().prop_map(Op::CancelWhenGranted),
        1 => any::<usize>().prop_map(Op::Leak),
        12 => any::<usize>().prop_map(Op::Release),
        16 => strides.prop_map(Op::Advance),
        3 => (0..4_usize, 1..7_u64).prop_map(|(member, count)| Op::Change(member, count)),
        3 => (0..4_usize, any::<bool>()).prop_map(|(member, paused)| Op::Pause(member, paused)),
    ];
    prop::collection::vec(op, 1..64)
}

type Granting = Pin<Box<dyn Future<Output = Result<Box<dyn std::any::Any>, Error>>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    DropsWhenGranted,
    Leaked,
    Over,
}

struct Asked {
    set: Vec<usize>,
    cost: u64,
    deadline: Option<u64>,
    future: Option<Granting>,
    fate: Fate,
}

struct World {
    clock: ManualClock,
    members: Vec<Member>,
    specs: Vec<Spec>,
    asked: Vec<Asked>,
    held: Vec<(Box<dyn std::any::Any>, Vec<usize>, u64)>,
    bells: Bells,
}

impl World {
    fn new(specs: &[Spec]) -> Self {
        let clock = ManualClock::at(Timestamp::from_ns(12_345_678_901));
        let members = specs.iter().map(|spec| Member::new(*spec, &clock)).collect();
        Self {
            clock,
            members,
            specs: specs.to_vec(),
            asked: Vec::new(),
            held: Vec::new(),
            bells: Bells::default(),
        }
    }

    fn now(&self) -> u64 {
        self.clock.now().as_ns()
    }

    /// The members as one limiter: alone, as a pair, as pairs of pairs, or as a list.
    fn limiter(&self, set: &[usize]) -> BoxLimiter {
        let of = |index: usize| self.members[index].limiter.clone();
        match *set {
            [one] => of(one),
            [one, other] => of(one).and(of(other)).boxed(),
            [one, other, third] => of(one).and(of(other).and(of(third))).boxed(),
            _ => And::all(set.iter().map(|index| of(*index))).boxed(),
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.members.iter().map(|member| member.handle.snapshot()).collect()
    }

    fn acquire(&self, set: &[usize], ask: Ask) -> Granting {
        let acquire = self.limiter(set).acquire(&(), ask);
        Box::pin(async move { acquire.await.map(|permit| Box::new(permit) as Box<dyn std::any::Any>) })
    }

    fn waiting(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|asked| asked.fate != Fate::Over)
    }

    fn pick(&self, index: usize, fate: Fate) -> Option<usize> {
        let all: Vec<usize> = (0..self.asked.len()).filter(|id| self.asked[*id].fate == fate).collect();
        (!all.is_empty()).then(|| all[index % all.len()])
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Ask { set, cost, within } => self.ask(set, *cost, *within),
            Op::Try { set, cost } => {
                let before = self.snapshots();
                match self.limiter(set).try_acquire(&(), Cost::new(*cost)) {
                    Ok(permit) => {
                        self.grant(self.now(), set, *cost, usize::MAX);
                        self.held.push((Box::new(permit), set.clone(), *cost));
                    }
                    Err(_) => assert_eq!(self.snapshots(), before, "a refusal has changed something"),
                }
            }
            Op::AskInVain { asks } => {
                let before = self.snapshots();
                let mut futures: Vec<_> =
                    asks.iter().map(|(set, cost)| self.limiter(set).acquire(&(), Ask::cost(*cost))).collect();
                for future in &mut futures {
                    if let Poll::Ready(Ok(permit)) = poll(future) {
                        permit.refund();
                    }
                }
                drop(futures);
                assert_eq!(self.snapshots(), before, "asks that were dropped have changed something");
            }
            Op::Cancel(index) => {
                if let Some(id) = self.pick(*index, Fate::Waits) {
                    self.asked[id].fate = Fate::Over;
                    self.asked[id].future = None;
                }
            }
            Op::CancelWhenGranted(index) => {
                if let Some(id) = self.pick(*index, Fate::Waits) {
                    self.asked[id].fate = Fate::DropsWhenGranted;
                }
            }
            Op::Leak(index) => {
                if let Some(id) =
                    self.pick(*index, Fate::Waits).filter(|id| self.asked[*id].deadline.is_none())
                {
                    self.asked[id].fate = Fate::Leaked;
                    let _leaked = self.asked[id].future.take().map(std::mem::ManuallyDrop::new);
                }
            }
            Op::Release(index) => {
                if !self.held.is_empty() {
                    let index = index % self.held.len();
                    let (permit, set, cost) = self.held.swap_remove(index);
                    self.release(&set, cost);
                    drop(permit);
                }
            }
            Op::Advance(by) => self.clock.advance(Duration::from_nanos(*by)),
            Op::Change(index, count) => self.change(*index, *count),
            Op::Pause(index, paused) => {
                self.members[*index].is_paused = *paused;
                self.members[*index].handle.pause(*paused);
            }
        }
        self.hear();
        self.check();
    }

    fn change(&mut self, index: usize, count: u64) {
        let now = self.now();
        let spec = &mut self.specs[index];
        let burst = if spec.kind == Kind::Bucket { spec.terms.burst } else { count };
        // The window stays: what is left of a changed one is approximate for some.
        spec.terms = Terms { count, burst, initial: burst, ..spec.terms };
        let member = &mut self.members[index];
        member.capacity = if spec.kind == Kind::Slots { count } else { burst };
        if let Some(law) = &mut member.law {
            law.change(now, spec.terms);
        }
        member.handle.set(spec.terms);
    }

    fn ask(&mut self, set: &[usize], cost: u64, within: Option<u64>) {
        let (id, now) = (self.asked.len(), self.now());
        let ask = Ask::cost(cost);
        let ask = within.map_or(ask, |ns| ask.within(Duration::from_nanos(ns)));
        let mut future = self.acquire(set, ask);
        let bell = Bell { id, clock: self.clock.clone(), bells: Arc::clone(&self.bells) };
        let mut asked = Asked {
            set: set.to_vec(),
            cost,
            deadline: within.map(|within| now + within),
            future: None,
            fate: Fate::Over,
        };
        match poll_with(&mut future, &Waker::from(Arc::new(bell))) {
            Poll::Ready(Ok(permit)) => {
                self.grant(now, set, cost, id);
                self.held.push((permit, set.to_vec(), cost));
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => (asked.future, asked.fate) = (Some(future), Fate::Waits),
        }
        self.asked.push(asked);
    }

    fn release(&mut self, set: &[usize], cost: u64) {
        for index in set {
            let member = &mut self.members[*index];
            member.held -= if member.law.is_none() { cost } else { 0 };
        }
    }

    /// A permit is handed out, to an ask that arrived as the one of this number.
    fn grant(&mut self, at: u64, set: &[usize], cost: u64, id: usize) {
        let as_set = |set: &[usize]| set.iter().copied().collect::<BTreeSet<_>>();
        let passed = self
            .asked
            .iter()
            .take(id)
            .position(|asked| asked.fate != Fate::Over && as_set(&asked.set) == as_set(set));
        assert_eq!(passed, None, "{id} has passed one that waits for the same members");
        for index in set {
            let member = &mut self.members[*index];
            match &mut member.law {
                Some(law) => {
                    law.admitted(at, cost);
                }
                None => {
                    member.held += cost;
                    assert!(member.held <= member.capacity, "{} of {} slots", member.held, member.capacity);
                }
            }
        }
    }

    fn hear(&mut self) {
        loop {
            let bells = std::mem::take(&mut *self.bells.lock().unwrap());
            if bells.is_empty() {
                return;
            }
            for (id, at) in bells {
                let asked = &mut self.asked[id];
                let (set, cost) = (asked.set.clone(), asked.cost);
                match std::mem::replace(&mut asked.fate, Fate::Over) {
                    Fate::Over => panic!("{id} is woken, and waits no longer"),
                    Fate::DropsWhenGranted => asked.future = None,
                    Fate::Leaked => {
                        // Denied if it has become too large.
                        if set.iter().all(|index| cost <= self.members[*index].capacity) {
                            self.grant(at, &set, cost, id);
                        }
                    }
                    Fate::Waits => {
                        let mut future = asked.future.take().unwrap();
                        match poll(&mut future) {
                            Poll::Ready(Ok(permit)) => {
                                self.grant(at, &set, cost, id);
                                self.held.push((permit, set, cost));
                            }
                            Poll::Ready(Err(_)) => {}
                            Poll::Pending => panic!("{id} is woken for nothing"),
                        }
                    }
                }
            }
        }
    }

    fn check(&self) {
        let now = self.now();
        let snapshots = self.snapshots();
        for (index, (member, snapshot)) in self.members.iter().zip(&snapshots).enumerate() {
            let waiting = self.waiting().filter(|asked| asked.set.contains(&index));
            assert_eq!(snapshot.waiting, waiting.count(), "asks that wait for {index}");
            if member.law.is_none() {
                let free = member.capacity.saturating_sub(member.held);
                assert_eq!(snapshot.remaining, free, "slots of {index}");
            }
        }
        let mut ahead = BTreeSet::new();
        for (number, asked) in self.waiting().enumerate() {
            let slack = number as u64;
            assert!(
                asked.deadline.is_none_or(|deadline| now <= deadline + slack),
                "waits for too long: {number}"
            );
            let is_first = asked.set.iter().all(|index| !ahead.contains(index));
            let could = asked
                .set
                .iter()
                .all(|index| !self.members[*index].is_paused && snapshots[*index].remaining >= asked.cost);
            assert!(!(is_first && could), "{:?} of {} waits for nothing", asked.set, asked.cost);
            ahead.extend(asked.set.iter().copied());
        }
    }

    fn end(mut self) {
        for asked in &mut self.asked {
            if let Fate::Waits | Fate::DropsWhenGranted = asked.fate {
                (asked.fate, asked.future) = (Fate::Over, None);
            }
        }
        // Those that were dropped first have let others be granted that are dropped now.
        self.bells.lock().unwrap().clear();
        self.held.clear();
        let leaked = self.waiting().count();
        for (index, member) in self.members.iter().enumerate() {
            member.handle.pause(false);
            let waiting = member.handle.snapshot().waiting;
            assert!(waiting <= leaked, "{waiting} ghosts wait for {index}");
        }
    }
}

fn cases(usually: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    let cases = if asked { config.cases } else { usually };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..config }
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn compositions_that_wait_keep_the_promises_of_all_members(
        specs in prop::collection::vec(specs(), 4),
        ops in ops(),
    ) {
        let mut world = World::new(&specs);
        ops.iter().for_each(|op| world.run(op));
        world.end();
    }
}

// ------------------------------------------------------------------------------------------------------ contention

/// A pseudo-random number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// Milliseconds, ten on average.
    fn hold_ms(&mut self) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - uniform).ln() * 10.0) as u64
    }
}

/// One limit of a contended world, with what it promises in plain numbers.
struct Contended {
    limiter: BoxLimiter,
    limit: Limit,
}

enum Limit {
    Slots { most: u64, held: u64 },
    Bucket { rate: f64, burst: f64, level: f64, at_ms: u64, set: TokenBucket<ManualClock> },
    Window { most: u64, log: Vec<(u64, u64)> },
}

impl Contended {
    fn slots(most: u64, clock: &ManualClock) -> Self {
        let limiter = Concurrency::builder(most).clock(clock.clone()).build().unwrap().boxed();
        Self { limiter, limit: Limit::Slots { most, held: 0 } }
    }

    fn bucket(rate: u64, burst: u64, clock: &ManualClock) -> Self {
        let set =
            TokenBucket::builder(Quota::per_second(rate).burst(burst)).clock(clock.clone()).build().unwrap();
        let limit =
            Limit::Bucket { rate: rate as f64, burst: burst as f64, level: 0.0, at_ms: 0, set: set.clone() };
        Self { limiter: set.boxed(), limit }
    }

    /// One key of an exact window for each key.
    fn window(
        keyed: &Keyed<u64, tollgate::algorithm::SlidingWindow, ManualClock>,
        key: u64,
        most: u64,
    ) -> Self {
        let limiter = keyed.clone().by(move |(): &()| key).boxed();
        Self { limiter, limit: Limit::Window { most, log: Vec::new() } }
    }

    fn grant(&mut self, now_ms: u64, cost: u64) {
        match &mut self.limit {
            Limit::Slots { most, held } => {
                *held += cost;
                assert!(held <= most, "{held} of {most} slots");
            }
            Limit::Bucket { rate, burst, level, at_ms, .. } => {
                *level = (*level - *rate * (now_ms - *at_ms) as f64 / 1000.0).max(0.0) + cost as f64;
                *at_ms = now_ms;
                // Times are noted in whole milliseconds.
                assert!(*level <= *burst + *rate / 1000.0 + 1e-6, "{level} of a burst of {burst}");
            }
            Limit::Window { most, log } => {
                log.retain(|(at, _)| at + 1000 > now_ms);
                log.push((now_ms, cost));
                let sum: u64 = log.iter().map(|(_, cost)| cost).sum();
                assert!(sum <= *most, "{sum} of {most} in a window");
            }
        }
    }

    fn release(&mut self, cost: u64) {
        if let Limit::Slots { held, .. } = &mut self.limit {
            *held -= cost;
        }
    }

    fn set_rate(&mut self, now_ms: u64, next: u64) {
        if let Limit::Bucket { rate, level, at_ms, burst, set } = &mut self.limit {
            *level = (*level - *rate * (now_ms - *at_ms) as f64 / 1000.0).max(0.0);
            (*at_ms, *rate) = (now_ms, next as f64);
            set.set_quota(Quota::per_second(next).burst(*burst as u64)).unwrap();
        }
    }
}

struct User {
    limiter: BoxLimiter,
    set: Vec<usize>,
    most_cost: u64,
    cancels: bool,
    cost: u64,
    future: Option<<BoxLimiter as Limiter>::Acquire>,
    permit: Option<<BoxLimiter as Limiter>::Permit>,
    asked_ms: u64,
    longest_ms: u64,
    grants: u64,
}

#[derive(Debug)]
struct Figures {
    joint: u64,
    longest_ms: u64,
    plain: u64,
    wakes: u64,
    grants: u64,
}

/// Users that ask, hold for ten milliseconds on average, and ask again.
struct Contention {
    clock: ManualClock,
    random: Random,
    limits: Vec<Contended>,
    users: Vec<User>,
    bells: Bells,
    wakes: u64,
    ends: BinaryHeap<(std::cmp::Reverse<u64>, usize)>,
    cancels: BinaryHeap<(std::cmp::Reverse<u64>, usize, u64)>,
}

impl Contention {
    fn new(clock: ManualClock, seed: u64, limits: Vec<Contended>) -> Self {
        Self {
            clock,
            random: Random(seed),
            limits,
            users: Vec::new(),
            bells: Bells::default(),
            wakes: 0,
            ends: BinaryHeap::new(),
            cancels: BinaryHeap::new(),
        }
    }

    fn user(&mut self, set: &[usize], most_cost: u64, cancels: bool) {
        let of = |index: &usize| self.limits[*index].limiter.clone();
        let limiter = match set {
            [one] => of(one),
            [one, other] => of(one).and(of(other)).boxed(),
            _ => And::all(set.iter().map(of)).boxed(),
        };
        self.users.push(User {
            limiter,
            set: set.to_vec(),
            most_cost,
            cancels,
            cost: 1,
            future: None,
            permit: None,
            asked_ms: 0,
            longest_ms: 0,
            grants: 0,
        });
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().as_ns() / 1_000_000
    }

    fn ask(&mut self, id: usize) {
        let now_ms = self.now_ms();
        let cost = 1 + self.random.below(self.users[id].most_cost);
        let user = &mut self.users[id];
        (user.cost, user.asked_ms) = (cost, now_ms);
        user.future = Some(user.limiter.acquire(&(), Ask::cost(cost)));
        if user.cancels && self.random.below(4) == 0 {
            self.cancels.push((std::cmp::Reverse(now_ms + 1 + self.random.below(30)), id, user.grants));
        }
        self.poll(id, now_ms);
    }

    fn poll(&mut self, id: usize, at_ms: u64) {
        let bell = Bell { id, clock: self.clock.clone(), bells: Arc::clone(&self.bells) };
        let user = &mut self.users[id];
        let Some(future) = &mut user.future else { return };
        match poll_with(future, &Waker::from(Arc::new(bell))) {
            Poll::Ready(answer) => {
                user.permit = Some(answer.expect("nothing is denied"));
                user.future = None;
                user.grants += 1;
                user.longest_ms = user.longest_ms.max(at_ms - user.asked_ms);
                let cost = user.cost;
                user.set.iter().for_each(|index| self.limits[*index].grant(at_ms, cost));
                self.ends.push((std::cmp::Reverse(self.now_ms() + self.random.hold_ms()), id));
            }
            Poll::Pending => {}
        }
    }

    fn hear(&mut self) {
        loop {
            let bells = std::mem::take(&mut *self.bells.lock().unwrap());
            if bells.is_empty() {
                return;
            }
            for (id, at) in bells {
                self.wakes += 1;
                self.poll(id, at / 1_000_000);
            }
        }
    }

    fn run(mut self, seconds: u64, changes: bool) -> Figures {
        (0..self.users.len()).for_each(|id| self.ask(id));
        self.hear();
        for step in 1..=seconds * 1000 {
            self.clock.set(Timestamp::from_ns(step * 1_000_000));
            self.hear();
            if changes && step % 500 == 0 {
                let rate = [20, 50, 100][self.random.below(3) as usize];
                let index = self.random.below(self.limits.len() as u64) as usize;
                self.limits[index].set_rate(step, rate);
                self.hear();
            }
            while let Some((_, id, grants)) = self.cancels.pop_if_due(step) {
                if self.users[id].grants == grants && self.users[id].future.is_some() {
                    self.users[id].future = None;
                    self.hear();
                    self.ask(id);
                }
            }
            while let Some((_, id)) = self.ends.pop_if_due(step) {
                let user = &mut self.users[id];
                let (permit, cost) = (user.permit.take(), user.cost);
                for index in &user.set {
                    self.limits[*index].release(cost);
                }
                drop(permit);
                self.hear();
                self.ask(id);
                self.hear();
            }
        }
        let end = self.now_ms();
        let is_joint = |user: &&User| user.set.len() > 1;
        let of_joint = |figure: &dyn Fn(&User) -> u64| -> Vec<u64> {
            self.users.iter().filter(is_joint).map(figure).collect()
        };
        let waits = |user: &User| if user.future.is_some() { end - user.asked_ms } else { 0 };
        Figures {
            joint: of_joint(&|user| user.grants).into_iter().sum(),
            longest_ms: of_joint(&|user| user.longest_ms.max(waits(user))).into_iter().max().unwrap_or(0),
            plain: self.users.iter().filter(|user| !is_joint(user)).map(|user| user.grants).sum(),
            wakes: self.wakes,
            grants: self.users.iter().map(|user| user.grants).sum(),
        }
    }
}

trait Due<T> {
    fn pop_if_due(&mut self, now: u64) -> Option<T>;
}

impl Due<(std::cmp::Reverse<u64>, usize)> for BinaryHeap<(std::cmp::Reverse<u64>, usize)> {
    fn pop_if_due(&mut self, now: u64) -> Option<(std::cmp::Reverse<u64>, usize)> {
        if self.peek()?.0.0 <= now { self.pop() } else { None }
    }
}

impl Due<(std::cmp::Reverse<u64>, usize, u64)> for BinaryHeap<(std::cmp::Reverse<u64>, usize, u64)> {
    fn pop_if_due(&mut self, now: u64) -> Option<(std::cmp::Reverse<u64>, usize, u64)> {
        if self.peek()?.0.0 <= now { self.pop() } else { None }
    }
}

/// Two limits of two slots, six plain users each, and two users of both in opposite orders.
fn saturated(seconds: u64) -> Figures {
    let clock = ManualClock::new();
    let limits = vec![Contended::slots(2, &clock), Contended::slots(2, &clock)];
    let mut world = Contention::new(clock, 1, limits);
    (0..6).for_each(|_| {
        world.user(&[0], 1, false);
        world.user(&[1], 1, false);
    });
    world.user(&[0, 1], 1, false);
    world.user(&[1, 0], 1, false);
    world.run(seconds, false)
}

/// Slots, buckets and keys of a window, plain users of each, and groups of random members in random orders, with costs,
/// cancellations and changes of quota.
fn random_world(seed: u64, seconds: u64) -> Figures {
    let clock = ManualClock::new();
    let mut random = Random(seed);
    let window = SlidingWindow::builder(Quota::per_second(60)).clock(clock.clone()).build().unwrap().keyed();
    let limits = vec![
        Contended::slots(2 + random.below(2), &clock),
        Contended::slots(2 + random.below(2), &clock),
        Contended::bucket([20, 100][random.below(2) as usize], 2 + random.below(4), &clock),
        Contended::window(&window, seed % 2, 60),
    ];
    let mut world = Contention::new(clock, seed, limits);
    for index in 0..4 {
        for _ in 0..random.below(5) {
            world.user(&[index], 2, false);
        }
    }
    for _ in 0..4 {
        let mut set: Vec<usize> = (0..4).collect();
        for last in (1..4).rev() {
            set.swap(last, random.below(last as u64 + 1) as usize);
        }
        set.truncate(2 + random.below(3) as usize);
        for _ in 0..=random.below(3) {
            let cancels = random.below(4) == 0;
            world.user(&set, 2, cancels);
        }
    }
    world.run(seconds, true)
}

#[test]
fn table_of_compositions_under_contention() {
    let wakes = |figures: &Figures| figures.wakes as f64 / figures.grants as f64;
    let slots = saturated(200);
    println!(
        "saturated slots, 200 s: {} joint grants, longest wait {:.2} s, {} plain grants, {:.2} wake-ups each",
        slots.joint,
        slots.longest_ms as f64 / 1000.0,
        slots.plain,
        wakes(&slots)
    );
    let worlds: Vec<Figures> = (0..40).map(|seed| random_world(seed, 50)).collect();
    let fewest = worlds.iter().map(|world| world.joint).min().unwrap();
    let longest = worlds.iter().map(|world| world.longest_ms).max().unwrap();
    let most_wakes = worlds.iter().map(wakes).fold(0.0, f64::max);
    println!(
        "40 random worlds, 50 s: fewest joint grants {fewest}, longest wait {:.2} s, {} joint and {} plain grants, \
         at most {most_wakes:.2} wake-ups each",
        longest as f64 / 1000.0,
        worlds.iter().map(|world| world.joint).sum::<u64>(),
        worlds.iter().map(|world| world.plain).sum::<u64>(),
    );
    assert!(slots.joint > 2_000 && slots.longest_ms < 1_000, "starved: {slots:?}");
    assert!(fewest > 100 && longest < 10_000, "starved: {fewest}, {longest}");
    assert!(wakes(&slots) <= 2.0 && most_wakes <= 2.0);
}

#[test]
fn a_fast_limit_is_not_kept_idle_for_a_slow_one() {
    for flip in [false, true] {
        let clock = ManualClock::new();
        let build = |quota| TokenBucket::builder(quota).clock(clock.clone()).build().unwrap();
        let (fast, slow) = (build(Quota::per_second(10).burst(1)), build(Quota::per_minute(1).burst(1)));
        let both = if flip { slow.clone().and(fast.clone()) } else { fast.clone().and(slow.clone()) };
        // Both limits have others that wait for them all the time.
        let refill = |limit: &TokenBucket<ManualClock>, waits: &mut Vec<_>| {
            for _ in 0..100 {
                if waits.len() < 3 {
                    let mut wait = limit.acquire(1);
                    waits.extend(poll(&mut wait).is_pending().then_some(wait));
                }
            }
        };
        let (mut at_fast, mut at_slow) = (Vec::new(), Vec::new());
        refill(&slow, &mut at_slow);
        refill(&fast, &mut at_fast);
        let mut joint = both.acquire(1);
        assert!(poll(&mut joint).is_pending());
        let (mut idle, mut most_idle, mut got) = (0, 0, 0);
        for _ in 0..(30 * 60 * 10) {
            clock.advance(ms(100));
            let before = at_fast.len();
            at_fast.retain_mut(|wait| poll(wait).is_pending());
            at_slow.retain_mut(|wait| poll(wait).is_pending());
            idle = if at_fast.len() == before { idle + 1 } else { 0 };
            most_idle = most_idle.max(idle);
            refill(&slow, &mut at_slow);
            refill(&fast, &mut at_fast);
            if poll(&mut joint).is_ready() {
                got += 1;
                joint = both.acquire(1);
                assert!(poll(&mut joint).is_pending());
            }
        }
        assert!(got >= 3, "starved: {got} grants in half an hour of a limit of one a minute");
        assert!(most_idle < 20, "the limit of ten a second stood idle for {most_idle} of its units");
    }
}

// ------------------------------------------------------------------------------------------------- changes from outside

#[test]
fn close_pause_and_resize_reach_asks_wherever_they_stand() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(3).clock(clock.clone()).build().unwrap();
    let rate =
        TokenBucket::builder(Quota::per_second(1).burst(3).initial(0)).clock(clock.clone()).build().unwrap();
    for both in [slots.clone().and(rate.clone()).boxed::<()>(), rate.clone().and(slots.clone()).boxed()] {
        let mut waits: Vec<_> = (1..=3).map(|cost| both.acquire(&(), Ask::cost(cost))).collect();
        waits.iter_mut().for_each(|wait| assert!(poll(wait).is_pending()));
        // They stand at the rate; it is the slots that change.
        slots.resize(2);
        assert_eq!(denied(poll(&mut waits[2])).reason(), Reason::ExceedsCapacity);
        slots.resize(3);
        slots.pause();
        let mut timed = both.acquire(&(), Ask::cost(1).within(ms(5_000)));
        assert!(poll(&mut timed).is_pending());
        clock.advance(ms(4_000));
        assert!(poll(&mut waits[0]).is_pending(), "paused");
        assert_eq!(rate.snapshot().remaining, 3, "nothing is taken meanwhile");
        clock.advance(ms(1_000));
        assert_eq!(denied(poll(&mut timed)).reason(), Reason::Paused);
        slots.resume();
        drop(granted(poll(&mut waits[0])));
        drop(granted(poll(&mut waits[1])));
    }
    let both = rate.clone().and(slots.clone());
    let mut waits = [both.acquire(1), both.acquire(1)];
    waits.iter_mut().for_each(|wait| assert!(poll(wait).is_pending()));
    slots.close();
    waits.iter_mut().for_each(|wait| assert_eq!(denied(poll(wait)).reason(), Reason::Closed));
    assert_eq!((rate.snapshot().waiting, slots.snapshot().waiting), (0, 0));
}

#[test]
fn newcomers_to_a_group_do_not_use_up_its_patience() {
    let clock = ManualClock::new();
    let slots: Vec<_> =
        (0..2).map(|_| Concurrency::builder(1).clock(clock.clone()).build().unwrap()).collect();
    let both = slots[0].clone().and(slots[1].clone());
    let (first, second) = (slots[0].try_acquire(1).unwrap(), slots[1].try_acquire(1).unwrap());
    let mut waits = vec![both.acquire(1)];
    assert!(poll(&mut waits[0]).is_pending());
    drop(first);
    // It waits for the second now, and the first is taken by another.
    let first = slots[0].try_acquire(1).expect("nobody stands there");
    for _ in 0..20 {
        waits.push(both.acquire(1));
        assert!(poll(waits.last_mut().unwrap()).is_pending());
    }
    drop(first);
    drop(slots[0].try_acquire(1).expect("no head is kept"));
    drop(second);
    drop(granted(poll(&mut waits[0])));
}

#[test]
fn what_was_granted_goes_back_when_an_awaited_member_is_given_up() {
    type Answer = Result<tollgate::RatePermit<tollgate::algorithm::TokenBucket, ManualClock>, Error>;
    let slots = Concurrency::new(1);
    let never = limiter_fn(|(): &(), _: Ask| std::future::pending::<Answer>());
    let both = slots.clone().and(Awaited::new(never));
    let held = slots.try_acquire(1).unwrap();
    let mut waits = Limiter::acquire(&both, &(), Ask::ONE);
    assert!(poll(&mut waits).is_pending());
    drop(held);
    assert!(poll(&mut waits).is_pending(), "the awaited member is asked");
    drop(waits);
    assert_eq!((slots.snapshot().remaining, slots.snapshot().waiting), (1, 0));
}

// ------------------------------------------------------------------------------------------------------- many threads

/// Tasks of several threads, half of which give up now and then: all come to an end, and nothing is lost.
#[test]
fn compositions_in_opposite_orders_beside_plain_users_lose_nothing() {
    const EACH: usize = 1_000;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let (total, db) = (Concurrency::new(2), Concurrency::new(1));
    let rate = TokenBucket::new(Quota::per_second(1_000_000).burst(10)).unwrap();
    let limiters: Vec<BoxLimiter> = vec![
        total.clone().and(db.clone()).boxed(),
        db.clone().and(total.clone()).boxed(),
        rate.clone().and(total.clone()).and(db.clone()).boxed(),
        total.clone().boxed(),
        total.clone().boxed(),
        db.clone().boxed(),
    ];
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (number, limiter) in limiters.iter().chain(&limiters).enumerate() {
            let limiter = limiter.clone();
            tasks.spawn(async move {
                for round in 0..EACH {
                    let mut acquire = limiter.acquire(&(), Ask::ONE);
                    if (round + number) % 4 == 0 {
                        // Given up at any time: before it is granted, after, or as it is.
                        let polled = poll(&mut acquire).map(|answer| answer.map(drop));
                        tokio::task::yield_now().await;
                        drop((acquire, polled));
                        continue;
                    }
                    let permit = acquire.await.unwrap();
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            });
        }
        tasks.join_all().await;
    });
    for (slots, all) in [(&total, 2), (&db, 1)] {
        let snapshot = slots.snapshot();
        assert_eq!((snapshot.remaining, snapshot.waiting, snapshot.waiting_units), (all, 0, 0));
    }
    assert_eq!(rate.snapshot().waiting, 0);
}

// ------------------------------------------------------------------------------------------- foreign code that panics

/// A manual clock that panics when it is read for the time that was set.
#[derive(Clone)]
struct Fragile {
    clock: ManualClock,
    reads: Arc<AtomicUsize>,
    panics_at: Arc<AtomicUsize>,
}

impl Fragile {
    fn new() -> Self {
        let panics_at = Arc::new(AtomicUsize::new(usize::MAX));
        Self { clock: ManualClock::new(), reads: Arc::new(AtomicUsize::new(0)), panics_at }
    }

    fn panic_at_read(&self, number: usize) {
        self.panics_at.store(self.reads.load(Ordering::SeqCst) + number, Ordering::SeqCst);
    }

    fn has_panicked(&self) -> bool {
        self.reads.load(Ordering::SeqCst) > self.panics_at.load(Ordering::SeqCst)
    }
}

impl Clock for Fragile {
    type Timer = ManualTimer;

    fn now(&self) -> Timestamp {
        let read = self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(read != self.panics_at.load(Ordering::SeqCst), "the clock panics");
        self.clock.now()
    }

    fn timer(&self) -> Option<ManualTimer> {
        self.clock.timer()
    }
}

/// Two asks, then time: a panic of the clock at any of its readings costs nobody anything but the ask that it hit.
fn survives_a_clock_that_panics<F>(make: impl Fn(&Fragile) -> (Box<dyn Fn() -> F>, Box<dyn Fn() -> Snapshot>))
where
    F: Future<Output: Send> + Unpin,
{
    for number in 0..200 {
        let clock = Fragile::new();
        let (ask, snapshot) = make(&clock);
        clock.panic_at_read(number);
        let mut waits = Vec::new();
        for _ in 0..2 {
            // One whose first poll panics is dropped at once, as its task would be.
            let wait = catch_unwind(AssertUnwindSafe(|| {
                let mut wait = ask();
                let _ = poll(&mut wait).is_ready();
                wait
            }));
            waits.extend(wait.ok());
        }
        for _ in 0..4 {
            let _ = catch_unwind(AssertUnwindSafe(|| clock.clock.advance(ms(100))));
        }
        let done = !clock.has_panicked();
        clock.panics_at.store(usize::MAX, Ordering::SeqCst);
        for mut wait in waits {
            assert!(poll(&mut wait).is_ready(), "one waits for ever after a panic at reading {number}");
        }
        assert_eq!(snapshot().waiting, 0, "a ghost waits after a panic at reading {number}");
        if done {
            return;
        }
    }
    panic!("more readings than expected");
}

fn rate_of(clock: &Fragile) -> TokenBucket<Fragile> {
    TokenBucket::builder(Quota::per_second(10).burst(1).initial(0)).clock(clock.clone()).build().unwrap()
}

#[test]
fn a_clock_that_panics_once_stops_no_queue() {
    survives_a_clock_that_panics(|clock| {
        let limit = rate_of(clock);
        let ask = limit.clone();
        (Box::new(move || ask.acquire(1)), Box::new(move || limit.snapshot()))
    });
}

#[test]
fn a_clock_that_panics_once_stops_no_composition() {
    survives_a_clock_that_panics(|clock| {
        let (limit, slots) = (rate_of(clock), Concurrency::builder(1).clock(clock.clone()).build().unwrap());
        let both = limit.clone().and(slots);
        (Box::new(move || both.acquire(1)), Box::new(move || limit.snapshot()))
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker panics");
    }
}

/// Drops `permit` while the thread unwinds.
fn drop_in_panic<T>(permit: T) {
    let unwinds = catch_unwind(AssertUnwindSafe(|| {
        let _permit = permit;
        panic!("the one who holds it panics");
    }));
    assert!(unwinds.is_err());
}

#[test]
fn a_waker_that_panics_while_a_thread_unwinds_does_not_abort() {
    let slots = Concurrency::new(1);
    let rate = TokenBucket::new(Quota::per_second(1_000)).unwrap();
    let both = rate.and(slots.clone());
    for _ in 0..2 {
        let permit = slots.try_acquire(1).unwrap();
        let waker = Waker::from(Arc::new(Panics));
        let mut alone = slots.acquire(1);
        assert!(poll_with(&mut alone, &waker).is_pending());
        drop_in_panic(permit);
        let permit = granted(poll(&mut alone));
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let mut joint = both.acquire(1);
            assert!(poll_with(&mut joint, &waker).is_pending());
            drop_in_panic(permit);
            drop(granted(poll(&mut joint)));
        });
    }
    assert_eq!((slots.snapshot().remaining, slots.snapshot().waiting), (1, 0));
}

#[test]
fn a_waker_that_panics_costs_nobody_else_the_news() {
    let clock = ManualClock::new();
    let slots = Concurrency::builder(3).clock(clock.clone()).build().unwrap();
    let rate = TokenBucket::builder(Quota::per_second(10).burst(3)).clock(clock.clone()).build().unwrap();
    let both = slots.clone().and(rate.clone());
    let permit = both.try_acquire(3).unwrap();
    let bells = Bells::default();
    let mut waits: Vec<_> = (0..3).map(|_| both.acquire(1)).collect();
    for (id, wait) in waits.iter_mut().enumerate() {
        let bell = Bell { id, clock: clock.clone(), bells: Arc::clone(&bells) };
        let waker = if id == 0 { Waker::from(Arc::new(Panics)) } else { Waker::from(Arc::new(bell)) };
        assert!(poll_with(wait, &waker).is_pending());
    }
    assert!(catch_unwind(AssertUnwindSafe(|| permit.refund())).is_err());
    assert_eq!(bells.lock().unwrap().len(), 2);
    waits.iter_mut().for_each(|wait| drop(granted(poll(wait))));
}
