//! Replays the conformance vectors in `vectors/limiters.json` through the public API, on a manual clock.
//!
//! A vector passes when every expectation of every step holds. Vectors of the class `general` all pass; the others
//! pass or stand in [`DIFFERENCES`]. Keys, operations and algorithms that are not known here fail the reading of the
//! file, so that no expectation is left out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tollgate::algorithm::{Anchor, FromQuota};
use tollgate::clock::ManualTimer;
use tollgate::{
    Ask, Clock, Concurrency, Cost, Denied, Error, FixedWindow, Limiter, ManualClock, Order, Permit, Queue,
    Quota, RateBuilder, RateLimiter, Reason, SlidingCounter, SlidingWindow, Snapshot, Stored, Timestamp,
    TokenBucket,
};

const VECTORS: &str = include_str!("vectors/limiters.json");
const VECTOR_COUNT: usize = 141;

/// Vectors that are answered differently on purpose, and why. One that passes must not stand here.
const DIFFERENCES: &[(&str, &str)] = &[
    ("b4j/add_1", NO_ADD),
    ("b4j/add_4", NO_ADD),
    ("b4j/force_add", NO_ADD),
    ("b4j/remainder_cleared_at_cap", NO_ADD),
    ("b4j/replace_proportional", "a change of quota keeps the units that are left, it does not scale them"),
    (
        "failsafe/bursty_2",
        "an ask above the window waits for a whole one: it borrows no part of one in progress",
    ),
    ("failsafe/bursty_5", LENDS),
    ("failsafe/smooth_200", LENDS),
    ("go/cancel_0_tokens", "an ask that is given up is given back whole: those behind it move up"),
    ("go/jump_back_rewind", NO_REWIND),
    ("go/reserve_jump_back", NO_REWIND),
    ("guava/earliest_in_past", PAYS_FIRST),
    ("guava/try_some_wait", PAYS_FIRST),
    ("guava/warm_up", "a rate is constant: there is no warming up"),
    ("guava/with_wait", PAYS_FIRST),
    ("limits/swc_previous", "the weighted count is exact: rounded down it admits before the units are there"),
    ("mennanov/sliding_cap3", TAKES_NOTHING),
    ("mennanov/tb_reset", "there is no reset: a fresh limiter is one"),
    ("mennanov/tb_take_max", "an ask is met whole or refused: there is no taking of what there is"),
    ("net/tb/zero_unavailable", "an ask for nothing is always admitted: what is left is told by `snapshot`"),
    ("netflix/aimd_cap", NOT_ADAPTIVE),
    ("netflix/aimd_down", NOT_ADAPTIVE),
    ("netflix/partition_excess", NO_PARTITIONS),
    ("netflix/partition_guarantee", NO_PARTITIONS),
    ("netflix/vegas_down", NOT_ADAPTIVE),
    ("netflix/vegas_hold", NOT_ADAPTIVE),
    ("netflix/vegas_large", NOT_ADAPTIVE),
    ("netflix/vegas_smoothing", NOT_ADAPTIVE),
    ("rlf/over", TAKES_NOTHING),
    ("rlf/reward", NO_ADD),
];

const LENDS: &str =
    "an ask above the capacity goes once all of it is there: those behind it wait for its debt";
const NOT_ADAPTIVE: &str = "a concurrency limit is what it is set to: `resize` is there for what adapts it";
const NO_ADD: &str = "units come back by refunds of what was granted: there is no adding of others";
const NO_PARTITIONS: &str = "there is no concurrency limit with shares";
const NO_REWIND: &str = "a clock that goes back refills nothing a second time";
const PAYS_FIRST: &str = "an ask waits for its own cost, not for that of the one before it";
const TAKES_NOTHING: &str = "a refusal takes nothing";

#[test]
fn every_vector_passes_or_is_a_documented_difference() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).expect("every key and operation is known");
    let mut faults = Vec::new();
    let (mut general, mut others, mut different) = (0, 0, 0);
    for vector in &vectors {
        let Vector { id, source, class, conventions, note, .. } = vector;
        let listed = DIFFERENCES.iter().find(|(listed, _)| listed == id).map(|(_, reason)| reason);
        match (vector.replay(), listed) {
            (Ok(()), None) if *class == Class::General => general += 1,
            (Ok(()), None) => others += 1,
            (Ok(()), Some(_)) => faults.push(format!("{id} passes: it is no difference")),
            (Err(why), Some(reason)) if *class != Class::General => {
                different += 1;
                println!("{id}: {reason} [{why}]");
            }
            (Err(why), _) => {
                faults.push(format!("{id}: {why}\n    {class:?} {conventions:?} {note}\n    {source}"));
            }
        }
    }
    for (index, (id, _)) in DIFFERENCES.iter().enumerate() {
        if vectors.iter().all(|vector| vector.id != *id) {
            faults.push(format!("{id} is listed and is no vector"));
        }
        if DIFFERENCES[..index].iter().any(|(before, _)| before == id) {
            faults.push(format!("{id} is listed twice"));
        }
    }
    println!("general passed {general} / others passed {others} / documented differences {different}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(vectors.len(), VECTOR_COUNT);
}

// The file.

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    source: String,
    algorithm: Algorithm,
    params: Params,
    steps: Vec<Step>,
    class: Class,
    conventions: Vec<String>,
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    General,
    Convention,
    Extension,
    Derived,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    TokenBucket,
    Gcra,
    LeakyBucket,
    FixedWindow,
    SlidingWindowLog,
    SlidingWindowCounter,
    Concurrency,
    ConcurrencyPartitioned,
    WarmingUp,
    Aimd,
    Vegas,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "what has no option here is read to be known, and decided as the crate decides it"
)]
struct Params {
    // Buckets.
    capacity: Option<u64>,
    refill_tokens: Option<u64>,
    refill_period_ns: Option<u64>,
    refill: Option<Refill>,
    initial_tokens: Option<i64>,
    emission_interval_ns: Option<u64>,
    burst: Option<u64>,
    mode: Option<Mode>,
    leak_tokens: Option<u64>,
    leak_period_ns: Option<u64>,
    interval_ns: Option<u64>,
    queue_capacity: Option<u64>,
    // Windows.
    limit: Option<u64>,
    window_ns: Option<u64>,
    anchor: Option<Edges>,
    segments: Option<u64>,
    // Slots.
    permits: Option<u64>,
    // All.
    limits: Option<Vec<Self>>,
    start_ns: Option<u64>,
    queue: Option<QueueParams>,
    over_capacity: Option<OverCapacity>,
    // Answers the crate has no option for.
    admission: Option<IgnoredAny>,
    cancel: Option<IgnoredAny>,
    clock: Option<IgnoredAny>,
    count_rejected: Option<IgnoredAny>,
    debt: Option<IgnoredAny>,
    inherit: Option<IgnoredAny>,
    rounding: Option<IgnoredAny>,
    zero_permits: Option<IgnoredAny>,
    // Algorithms the crate does not have.
    alpha: Option<IgnoredAny>,
    beta: Option<IgnoredAny>,
    cold_factor: Option<IgnoredAny>,
    decrease: Option<IgnoredAny>,
    initial_limit: Option<IgnoredAny>,
    max_limit: Option<IgnoredAny>,
    min_limit: Option<IgnoredAny>,
    partitions: Option<IgnoredAny>,
    smoothing: Option<IgnoredAny>,
    stable_interval_ns: Option<IgnoredAny>,
    warmup_ns: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refill {
    Continuous,
    Interval,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Queue,
    Meter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Edges {
    Start,
    Epoch,
    FirstEvent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OverCapacity {
    Error,
    Debt,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueParams {
    limit: Option<u64>,
    order: Served,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Served {
    OldestFirst,
    NewestFirst,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "what other systems assert, and what other algorithms need, is read to be known")]
struct Step {
    at_ns: u64,
    op: Op,
    n: Option<u64>,
    #[serde(rename = "ref")]
    name: Option<String>,
    max_wait_ns: Option<u64>,
    repeat: Option<Repeat>,
    params: Option<NewLimit>,
    #[serde(default)]
    expect: Expect,
    /// What the source asserts where that is not the textbook value.
    source_expect: Option<IgnoredAny>,
    // Of algorithms the crate does not have.
    count: Option<IgnoredAny>,
    dropped: Option<IgnoredAny>,
    inflight: Option<IgnoredAny>,
    partition: Option<IgnoredAny>,
    rtt_ns: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Acquire,
    Add,
    Advance,
    Cancel,
    Close,
    ForceAcquire,
    ForceAdd,
    Peek,
    Release,
    Reserve,
    Reset,
    Sample,
    SetLimit,
    Settle,
    TryAcquire,
    TryAcquireUpTo,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    count: u64,
    every_ns: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimit {
    capacity: Option<u64>,
    refill_tokens: Option<u64>,
    refill_period_ns: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    ok: Option<bool>,
    /// Present and `null`: no wait helps.
    #[serde(default, deserialize_with = "present")]
    wait_ns: Option<Option<u64>>,
    #[serde(default)]
    wait_tol_ns: u64,
    remaining: Option<u64>,
    balance: Option<Ratio>,
    reset_after_ns: Option<u64>,
    error: Option<Refusal>,
    queued: Option<bool>,
    granted: Option<Vec<String>>,
    evicted: Option<Vec<String>>,
    refunded: Option<i128>,
    allowed: Option<u64>,
    // Of operations and algorithms the crate does not have.
    inflight: Option<IgnoredAny>,
    limit: Option<IgnoredAny>,
    partition_inflight: Option<IgnoredAny>,
    taken: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    ExceedsCapacity,
    Closed,
}

/// Tells a key that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// An exact number of units, written `"-7/3"` or `"7"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Ratio {
    top: i128,
    bottom: i128,
}

impl TryFrom<String> for Ratio {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (top, bottom) = text.split_once('/').unwrap_or((&text, "1"));
        Ok(Self { top: top.parse()?, bottom: bottom.parse()? })
    }
}

impl Ratio {
    const fn floor(self) -> i128 {
        self.top.div_euclid(self.bottom)
    }

    /// Nanoseconds until there are `units` at the rate of `quota`, rounded up.
    fn wait_ns(self, units: i128, quota: Quota) -> i128 {
        let missing = (units * self.bottom - self.top).max(0) * period_ns(quota);
        ceil_div(missing, self.bottom * i128::from(quota.count()))
    }
}

fn ceil_div(top: i128, bottom: i128) -> i128 {
    -(-top).div_euclid(bottom)
}

fn period_ns(quota: Quota) -> i128 {
    let period = quota.period().expect("a quota that is refilled");
    i128::try_from(period.as_nanos()).expect("a period of less than 584 years")
}

fn as_ns(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).expect("a wait of less than 584 years")
}

// From parameters to a limiter.

impl Params {
    fn quota(&self) -> Quota {
        let span = |ns: Option<u64>| Duration::from_nanos(ns.expect("a rate has a period"));
        let quota = if let Some(interval_ns) = self.emission_interval_ns {
            Quota::per(1, span(Some(interval_ns))).burst(self.burst.expect("a burst"))
        } else if let Some(interval_ns) = self.interval_ns {
            Quota::per(1, span(Some(interval_ns))).burst(1)
        } else if let Some(capacity) = self.capacity {
            match self.refill_tokens.or(self.leak_tokens).expect("a bucket has a rate") {
                0 => Quota::once(capacity),
                tokens => {
                    Quota::per(tokens, span(self.refill_period_ns.or(self.leak_period_ns))).burst(capacity)
                }
            }
        } else {
            Quota::per(self.limit.expect("a window has a limit"), span(self.window_ns))
        };
        match self.initial_tokens {
            Some(tokens) => quota.initial(tokens.max(0).unsigned_abs()),
            None => quota,
        }
    }

    fn anchor(&self) -> Anchor {
        match self.anchor {
            None | Some(Edges::Start) => Anchor::Start,
            Some(Edges::Epoch) => Anchor::Epoch,
            // The limiter is made when the first event comes.
            Some(Edges::FirstEvent) => Anchor::Start,
        }
    }

    fn waiting(&self) -> Queue {
        let unlimited = Queue::new().limit(u64::MAX);
        match (self.queue, self.queue_capacity) {
            (Some(queue), _) => {
                let order = match queue.order {
                    Served::OldestFirst => Order::OldestFirst,
                    Served::NewestFirst => Order::NewestFirst,
                };
                unlimited.limit(queue.limit.unwrap_or(u64::MAX)).order(order)
            }
            // The capacity of a leaky bucket counts the one that leaves now.
            (None, Some(capacity)) => unlimited.limit(capacity - 1),
            (None, None) => unlimited,
        }
    }

    /// Whether an acquire is debited when it is asked for, not when it is granted.
    const fn reserves(&self) -> bool {
        self.queue.is_none()
    }

    fn unit_is_whole_ns(&self) -> bool {
        match (self.refill_tokens, self.refill_period_ns) {
            (Some(tokens), Some(period_ns)) if tokens > 0 => period_ns % tokens == 0,
            _ => true,
        }
    }

    fn is_newest_first(&self) -> bool {
        self.queue.is_some_and(|queue| queue.order == Served::NewestFirst)
    }

    fn changed(&self, new: NewLimit) -> Self {
        Self {
            capacity: new.capacity.or(self.capacity),
            refill_tokens: new.refill_tokens.or(self.refill_tokens),
            refill_period_ns: new.refill_period_ns.or(self.refill_period_ns),
            initial_tokens: None,
            ..self.clone()
        }
    }
}

impl Vector {
    fn replay(&self) -> Result<(), String> {
        let params = &self.params;
        let wall = Wall::at(params.start_ns.unwrap_or(0));
        if let Some(limits) = &params.limits {
            let builder = TokenBucket::all(limits.iter().map(Params::quota));
            let limiter = self.build(builder, &wall);
            return Play::new(self, limiter, wall, None, |_, _| panic!("joint limits are not changed")).run();
        }
        match self.algorithm {
            Algorithm::TokenBucket if params.refill == Some(Refill::Interval) => {
                self.play_rate(FixedWindow::builder(params.quota()), wall, None)
            }
            Algorithm::TokenBucket | Algorithm::Gcra | Algorithm::LeakyBucket => {
                assert_eq!(params.mode == Some(Mode::Meter), params.leak_tokens.is_some(), "{}", self.id);
                let quota = params.quota();
                self.play_rate(TokenBucket::builder(quota), wall, Some(quota))
            }
            Algorithm::FixedWindow => {
                let at_start = self.steps[0].at_ns == wall.now().as_ns();
                assert!(params.anchor != Some(Edges::FirstEvent) || at_start, "{}: opens later", self.id);
                self.play_rate(FixedWindow::builder(params.quota()).anchored(params.anchor()), wall, None)
            }
            Algorithm::SlidingWindowLog => self.play_rate(SlidingWindow::builder(params.quota()), wall, None),
            Algorithm::SlidingWindowCounter => match params.segments {
                Some(segments) => {
                    self.play_rate(SlidingWindow::builder(params.quota()).segments(segments), wall, None)
                }
                None => self.play_rate(SlidingCounter::builder(params.quota()), wall, None),
            },
            Algorithm::Concurrency => {
                let slots = Concurrency::builder(params.permits.expect("a number of slots"));
                let limiter =
                    slots.queue(params.waiting()).clock(wall.clone()).build().expect("it has no name");
                Play::new(self, limiter, wall, None, |_, _| panic!("slots are not changed by a quota")).run()
            }
            Algorithm::ConcurrencyPartitioned | Algorithm::WarmingUp | Algorithm::Aimd | Algorithm::Vegas => {
                Err(format!("there is no {:?}", self.algorithm))
            }
        }
    }

    fn build<A: Stored>(&self, builder: RateBuilder<A>, wall: &Wall) -> RateLimiter<A, Wall> {
        let builder = builder.clock(wall.clone()).queue(self.params.waiting());
        let lends = self.params.over_capacity == Some(OverCapacity::Debt);
        let builder = if lends { builder.lend_above_capacity() } else { builder };
        let limiter = builder.build().expect("a quota that can be had");
        match self.params.initial_tokens {
            Some(tokens) if tokens < 0 => owe(&limiter, tokens.unsigned_abs()),
            _ => {}
        }
        limiter
    }

    fn play_rate<A: FromQuota + Stored>(
        &self,
        builder: RateBuilder<A>,
        wall: Wall,
        continuous: Option<Quota>,
    ) -> Result<(), String> {
        let limiter = self.build(builder, &wall);
        let set_quota =
            |limiter: &RateLimiter<A, Wall>, quota| limiter.set_quota(quota).expect("a good quota");
        Play::new(self, limiter, wall, continuous, set_quota).run()
    }
}

/// Debits `units` whether there is room or not.
fn owe<L: Limiter>(limiter: &L, units: u64) {
    limiter.try_acquire(&(), Cost::ZERO).expect("nothing is always admitted").settle(Cost::new(units));
}

// The clock and the limiters, as the vectors need them.

/// A manual clock whose readings go back when they are told to; its timers do not.
#[derive(Clone)]
struct Wall {
    clock: ManualClock,
    behind_ns: Arc<AtomicU64>,
}

impl Wall {
    fn at(start_ns: u64) -> Self {
        Self { clock: ManualClock::at(Timestamp::from_ns(start_ns)), behind_ns: Arc::default() }
    }

    fn set(&self, at_ns: u64) {
        self.behind_ns.store(0, Ordering::Relaxed);
        self.clock.set(Timestamp::from_ns(at_ns));
        self.behind_ns.store(self.clock.now().as_ns() - at_ns, Ordering::Relaxed);
    }
}

impl Clock for Wall {
    type Timer = ManualTimer;

    fn now(&self) -> Timestamp {
        Timestamp::from_ns(self.clock.now().as_ns() - self.behind_ns.load(Ordering::Relaxed))
    }

    fn timer(&self) -> Option<ManualTimer> {
        self.clock.timer()
    }
}

/// What the vectors look at beside the decisions.
trait Subject: Limiter<Fault = Infallible> {
    /// `None` when time alone will not do it.
    fn ready_in(&self, units: u64) -> Option<Duration>;
    fn snapshot(&self) -> Snapshot;
    fn close(&self);
}

impl<A: Stored> Subject for RateLimiter<A, Wall> {
    fn ready_in(&self, units: u64) -> Option<Duration> {
        Self::ready_in(self, units).ok()
    }

    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }

    fn close(&self) {
        Self::close(self);
    }
}

impl Subject for Concurrency<Wall> {
    fn ready_in(&self, _units: u64) -> Option<Duration> {
        None
    }

    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }

    fn close(&self) {
        Self::close(self);
    }
}

// The replay.

/// One vector being replayed.
struct Play<'v, L: Subject> {
    vector: &'v Vector,
    limiter: L,
    wall: Wall,
    /// The rate of a bucket that is refilled continuously, which makes its fractions known.
    continuous: Option<Quota>,
    params: Params,
    set_quota: fn(&L, Quota),
    /// Every ask that had to wait, until it is answered or cancelled.
    waiting: Vec<Option<Waiting<'v, L>>>,
    woken: Woken,
    permits: Vec<(Option<&'v str>, L::Permit)>,
}

struct Waiting<'v, L: Subject> {
    name: Option<&'v str>,
    acquire: Pin<Box<L::Acquire>>,
    /// When it goes unless something else happens than time passing and others joining the line behind it: between
    /// these two. They differ where a unit takes no whole number of nanoseconds: a grant happens at the first whole one,
    /// and a bucket that is full until then keeps no credit for it, so each ask ahead can cost one.
    due_ns: Option<(u64, u64)>,
}

/// Who was woken, by its place among those who waited, and when.
type Woken = Arc<Mutex<Vec<(usize, u64)>>>;

struct Bell {
    index: usize,
    wall: Wall,
    woken: Woken,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push((self.index, self.wall.now().as_ns()));
    }
}

/// What a step led to. Not everything is to be seen at every step.
#[derive(Debug, Default)]
struct Seen<'v> {
    ok: Option<bool>,
    wait_ns: Option<Option<u64>>,
    reason: Option<Reason>,
    queued: Option<bool>,
    granted: Vec<&'v str>,
    evicted: Vec<&'v str>,
    refunded: Option<i128>,
    allowed: u64,
}

impl Seen<'_> {
    fn admitted(&mut self) {
        self.ok = Some(true);
        self.wait_ns = Some(Some(0));
        self.queued = Some(false);
    }

    fn refused(&mut self, denied: &Denied) {
        self.ok = Some(false);
        self.wait_ns = Some(denied.retry_after().map(as_ns));
        self.reason = Some(denied.reason());
        self.queued = Some(false);
    }
}

impl<'v, L: Subject> Play<'v, L> {
    fn new(
        vector: &'v Vector,
        limiter: L,
        wall: Wall,
        continuous: Option<Quota>,
        set_quota: fn(&L, Quota),
    ) -> Self {
        let params = vector.params.clone();
        let (waiting, woken, permits) = (Vec::new(), Woken::default(), Vec::new());
        Self { vector, limiter, wall, continuous, params, set_quota, waiting, woken, permits }
    }

    fn run(mut self) -> Result<(), String> {
        for (index, step) in self.vector.steps.iter().enumerate() {
            self.step(step)
                .map_err(|why| format!("step {index} ({:?} at {}): {why}", step.op, step.at_ns))?;
        }
        self.run_out().map_err(|why| format!("after the last step: {why}"))
    }

    fn step(&mut self, step: &'v Step) -> Result<(), String> {
        let foreign = [&step.count, &step.dropped, &step.inflight, &step.partition, &step.rtt_ns];
        assert!(foreign.iter().all(|key| key.is_none()), "{}: {step:?}", self.vector.id);
        let mut seen = Seen::default();
        let Repeat { count, every_ns } = step.repeat.unwrap_or(Repeat { count: 1, every_ns: 0 });
        for turn in 0..count {
            self.wall.set(step.at_ns + turn * every_ns);
            self.listen(&mut seen)?;
            self.perform(step, &mut seen)?;
            self.listen(&mut seen)?;
            seen.allowed += u64::from(seen.ok == Some(true));
        }
        self.check(&step.expect, &seen)
    }

    /// Whoever still waits goes when it was told it would.
    fn run_out(&mut self) -> Result<(), String> {
        let last_ns = self.waiting.iter().flatten().filter_map(|waiting| waiting.due_ns).max();
        if let Some((_, last_ns)) = last_ns {
            self.wall.set(last_ns);
            self.listen(&mut Seen::default())?;
        }
        match self.waiting.iter().flatten().find_map(|waiting| waiting.due_ns) {
            Some((due_ns, _)) => Err(format!("not granted at {due_ns} ns as told")),
            None => Ok(()),
        }
    }

    /// Lets those who were woken hear why.
    fn listen(&mut self, seen: &mut Seen<'v>) -> Result<(), String> {
        loop {
            let woken = std::mem::take(&mut *self.woken.lock().unwrap());
            if woken.is_empty() {
                return Ok(());
            }
            for (index, at_ns) in woken {
                let Some(mut waiting) = self.waiting[index].take() else { continue };
                match self.poll(&mut waiting.acquire, index) {
                    Poll::Pending => self.waiting[index] = Some(waiting),
                    Poll::Ready(Ok(permit)) => {
                        let missed = |due: &(u64, u64)| !(due.0..=due.1).contains(&at_ns);
                        if let Some((due_ns, _)) = waiting.due_ns.filter(missed) {
                            return Err(format!("granted at {at_ns} ns, told {due_ns} ns"));
                        }
                        seen.granted.extend(waiting.name);
                        self.permits.push((waiting.name, permit));
                    }
                    Poll::Ready(Err(denied))
                        if matches!(denied.reason(), Reason::Evicted | Reason::Closed) =>
                    {
                        seen.evicted.extend(waiting.name);
                    }
                    Poll::Ready(Err(denied)) => return Err(format!("refused after waiting: {denied}")),
                }
            }
        }
    }

    fn poll(&self, acquire: &mut Pin<Box<L::Acquire>>, index: usize) -> Poll<Result<L::Permit, Denied>> {
        let bell = Bell { index, wall: self.wall.clone(), woken: Arc::clone(&self.woken) };
        let waker = Waker::from(Arc::new(bell));
        acquire.as_mut().poll(&mut Context::from_waker(&waker)).map_err(|Error::Denied(denied)| denied)
    }

    fn perform(&mut self, step: &'v Step, seen: &mut Seen<'v>) -> Result<(), String> {
        let name = step.name.as_deref();
        let units = step.n.unwrap_or(1);
        match step.op {
            Op::TryAcquire => self.try_acquire(name, units, seen),
            Op::Acquire | Op::Reserve => {
                let ask = Ask::cost(units);
                let ask = step.max_wait_ns.map_or(ask, |ns| ask.within(Duration::from_nanos(ns)));
                self.acquire(name, ask, seen);
            }
            Op::Peek => {
                if let Some(units) = step.n {
                    let wait = self.limiter.ready_in(units);
                    seen.ok = Some(wait == Some(Duration::ZERO));
                    seen.wait_ns = Some(wait.map(as_ns));
                }
            }
            Op::Advance => {}
            Op::Cancel => self.cancel(name.expect("whom to cancel"), seen),
            Op::Release => {
                let permit = self.permit(name.expect("what to release"));
                self.forget_what_was_told();
                drop(permit);
            }
            Op::Settle => {
                let permit = self.permit(name.expect("what to settle"));
                self.forget_what_was_told();
                permit.settle(Cost::new(units));
            }
            Op::ForceAcquire => {
                self.forget_what_was_told();
                owe(&self.limiter, units);
                seen.ok = Some(true);
                seen.wait_ns = self.continuous.map(|quota| self.wait_for_zero(quota));
            }
            Op::SetLimit => {
                self.params = self.params.changed(step.params.expect("a new limit"));
                let quota = self.params.quota();
                self.continuous = self.continuous.map(|_| quota);
                self.forget_what_was_told();
                (self.set_quota)(&self.limiter, quota);
            }
            Op::Close => {
                self.forget_what_was_told();
                self.limiter.close();
            }
            Op::Add | Op::ForceAdd | Op::Reset | Op::Sample | Op::TryAcquireUpTo => {
                return Err("there is no such operation".to_owned());
            }
        }
        Ok(())
    }

    fn try_acquire(&mut self, name: Option<&'v str>, units: u64, seen: &mut Seen<'v>) {
        match self.limiter.try_acquire(&(), Cost::new(units)) {
            Ok(permit) => {
                seen.admitted();
                self.permits.push((name, permit));
            }
            Err(denied) => seen.refused(&denied),
        }
    }

    fn acquire(&mut self, name: Option<&'v str>, ask: Ask, seen: &mut Seen<'v>) {
        let told = self.limiter.ready_in(ask.units().units());
        let mut acquire = Box::pin(self.limiter.acquire(&(), ask));
        match self.poll(&mut acquire, self.waiting.len()) {
            Poll::Ready(Ok(permit)) => {
                seen.admitted();
                self.permits.push((name, permit));
            }
            Poll::Ready(Err(denied)) => seen.refused(&denied),
            Poll::Pending => {
                seen.ok = Some(true);
                seen.queued = Some(true);
                seen.wait_ns = Some(told.map(as_ns));
                // Time that went back has not gone back in there.
                let due = told.map(|wait| self.wall.clock.now().after(wait).as_ns());
                let ahead = self.waiting.iter().flatten().count() as u64;
                let slack_ns = if self.params.unit_is_whole_ns() { 0 } else { ahead };
                let due = due.filter(|_| !self.params.is_newest_first());
                let due_ns = due.map(|due_ns| (due_ns, due_ns.saturating_add(slack_ns)));
                self.waiting.push(Some(Waiting { name, acquire, due_ns }));
            }
        }
    }

    fn cancel(&mut self, name: &str, seen: &mut Seen<'v>) {
        let before = self.units_left();
        let mut queued = self.waiting.iter_mut();
        let place = queued.find(|place| place.as_ref().is_some_and(|waiting| waiting.name == Some(name)));
        let cancelled = place.and_then(Option::take);
        assert!(cancelled.is_some(), "{}: {name} does not wait", self.vector.id);
        self.forget_what_was_told();
        drop(cancelled);
        seen.ok = Some(true);
        seen.refunded = Some(self.units_left() - before);
    }

    fn permit(&mut self, name: &str) -> L::Permit {
        let index = self.permits.iter().position(|(held, _)| *held == Some(name));
        let index = index.unwrap_or_else(|| panic!("{}: {name} holds nothing", self.vector.id));
        self.permits.remove(index).1
    }

    /// What happens next changes when those who wait go.
    fn forget_what_was_told(&mut self) {
        self.waiting.iter_mut().flatten().for_each(|waiting| waiting.due_ns = None);
    }

    /// Whole units left, rounded down; fewer than none when some are owed or, in the model of reservations, asked for
    /// by those who wait.
    fn units_left(&self) -> i128 {
        let Snapshot { remaining, debt, waiting_units, .. } = self.limiter.snapshot();
        let reserved = if self.params.reserves() { waiting_units } else { 0 };
        i128::from(remaining) - i128::from(debt) - i128::from(reserved)
    }

    /// How long until nothing is owed, in nanoseconds.
    fn wait_for_zero(&self, quota: Quota) -> Option<u64> {
        // Fewest units that are refilled in a whole number of nanoseconds.
        let whole = |units: &u64| i128::from(*units) * period_ns(quota) % i128::from(quota.count()) == 0;
        let units =
            (1..=quota.capacity()).find(whole).expect("some units take a whole number of nanoseconds");
        let refill_ns = Ratio { top: 0, bottom: 1 }.wait_ns(i128::from(units), quota);
        self.limiter.ready_in(units).map(|wait| (i128::from(as_ns(wait)) - refill_ns).max(0) as u64)
    }

    fn check(&self, expect: &Expect, seen: &Seen<'_>) -> Result<(), String> {
        let Expect { ok, wait_ns, wait_tol_ns, remaining, balance, reset_after_ns, .. } = expect;
        let Expect { error, queued, granted, evicted, refunded, allowed, .. } = expect;
        let foreign = [&expect.inflight, &expect.limit, &expect.partition_inflight, &expect.taken];
        assert!(foreign.iter().all(|key| key.is_none()), "{}: {expect:?}", self.vector.id);

        let snapshot = self.limiter.snapshot();
        let left = u64::try_from(self.units_left().max(0)).expect("no more is left than fits");
        let reset_after_ns_seen = snapshot.reset_after.map(as_ns);
        let error_seen = seen.reason.and_then(|reason| match reason {
            Reason::ExceedsCapacity => Some(Refusal::ExceedsCapacity),
            Reason::Closed => Some(Refusal::Closed),
            _ => None,
        });
        same("ok", ok.as_ref(), seen.ok.as_ref())?;
        same("remaining", remaining.as_ref(), Some(&left))?;
        same("reset_after_ns", reset_after_ns.as_ref(), reset_after_ns_seen.as_ref())?;
        same("error", error.as_ref(), error_seen.as_ref())?;
        same("queued", queued.as_ref(), seen.queued.as_ref())?;
        same("refunded", refunded.as_ref(), seen.refunded.as_ref())?;
        same("allowed", allowed.as_ref(), Some(&seen.allowed))?;
        same_names("granted", granted.as_deref(), &seen.granted)?;
        same_names("evicted", evicted.as_deref(), &seen.evicted)?;
        match (wait_ns, seen.wait_ns) {
            (Some(Some(wait_ns)), Some(Some(seen_ns))) if wait_ns.abs_diff(seen_ns) <= *wait_tol_ns => {}
            (wait_ns, seen_ns) => same("wait_ns", wait_ns.as_ref(), seen_ns.as_ref())?,
        }
        balance.map_or(Ok(()), |balance| self.check_balance(balance, &snapshot))
    }

    /// Whole units as they are told, the fraction by the nanosecond at which the next unit is there.
    fn check_balance(&self, balance: Ratio, snapshot: &Snapshot) -> Result<(), String> {
        assert!(self.params.reserves() || snapshot.waiting == 0, "{}: not debited yet", self.vector.id);
        same("balance, rounded down", Some(&balance.floor()), Some(&self.units_left()))?;
        let Some(quota) = self.continuous else {
            assert_eq!(balance.bottom, 1, "{}: whole units come back at once", self.vector.id);
            return Ok(());
        };
        let next = (balance.floor() + 1).max(1);
        if let Some(units) = u64::try_from(next).ok().filter(|units| *units <= snapshot.capacity) {
            let seen_ns = self.limiter.ready_in(units).map(|wait| i128::from(as_ns(wait)));
            same("wait for the next unit", Some(&balance.wait_ns(next, quota)), seen_ns.as_ref())?;
        }
        let owed =
            Ratio { top: balance.top + i128::from(snapshot.waiting_units) * balance.bottom, ..balance };
        let full_ns = owed.wait_ns(i128::from(snapshot.capacity), quota);
        let seen_ns = snapshot.reset_after.map(|wait| i128::from(as_ns(wait)));
        same("wait for a full bucket", Some(&full_ns), seen_ns.as_ref())
    }
}

/// Nothing is expected, or it is what was seen.
fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: Option<&T>,
    seen: Option<&T>,
) -> Result<(), String> {
    match expected {
        Some(_) if expected != seen => Err(format!("{what}: expected {expected:?}, was {seen:?}")),
        _ => Ok(()),
    }
}

fn same_names(what: &str, expected: Option<&[String]>, seen: &[&str]) -> Result<(), String> {
    match expected {
        Some(expected) if expected != seen => Err(format!("{what}: expected {expected:?}, was {seen:?}")),
        _ => Ok(()),
    }
}
