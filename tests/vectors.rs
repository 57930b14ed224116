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

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tollgate::algorithm::{Anchor, FromQuota};
use tollgate::clock::ManualTimer;
use tollgate::{
    Ask, Clock, Concurrency, Cost, Denied, Error, FixedWindow, Line, ManualClock, Order, Permit, Quota,
    RateBuilder, RateLimiter, Reason, SlidingCounter, SlidingWindow, Snapshot, Stored, Timestamp,
    TokenBucket, TryLimiter,
};

const VECTORS: &str = include_str!("vectors/limiters.json");
const VECTOR_COUNT: usize = 141;

/// Vectors that are answered differently on purpose, and why. One that passes must not stand here.
const DIFFERENCES: &[(&str, &str)] = &[];

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

    fn line(&self) -> Line {
        let unlimited = Line::new().limit(u64::MAX);
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
        if let Some(limits) = &params.limits {
            let limiter = self.build(TokenBucket::all(limits.iter().map(Params::quota)));
            return self.play(limiter, None, |_, _| panic!("a joint limit is not changed by one quota"));
        }
        match self.algorithm {
            Algorithm::TokenBucket if params.refill == Some(Refill::Interval) => {
                self.play_rate(FixedWindow::builder(params.quota()), None)
            }
            Algorithm::TokenBucket | Algorithm::Gcra | Algorithm::LeakyBucket => {
                let rate = params.quota();
                self.play_rate(TokenBucket::builder(rate), rate.period().map(|_| rate))
            }
            Algorithm::FixedWindow => {
                let first = self.steps.first().map(|step| step.at_ns);
                let opens_at_start = first == Some(params.start_ns.unwrap_or(0));
                assert!(params.anchor != Some(Edges::FirstEvent) || opens_at_start, "{}", self.id);
                self.play_rate(FixedWindow::builder(params.quota()).anchored(params.anchor()), None)
            }
            Algorithm::SlidingWindowLog => self.play_rate(SlidingWindow::builder(params.quota()), None),
            Algorithm::SlidingWindowCounter => match params.segments {
                Some(segments) => {
                    self.play_rate(SlidingWindow::builder(params.quota()).segments(segments), None)
                }
                None => self.play_rate(SlidingCounter::builder(params.quota()), None),
            },
            Algorithm::Concurrency => {
                let slots = Concurrency::builder(params.permits.expect("a number of slots"));
                let limiter = slots.line(params.line()).clock(Wall::at(0)).build();
                todo!()
            }
            Algorithm::ConcurrencyPartitioned | Algorithm::WarmingUp | Algorithm::Aimd | Algorithm::Vegas => {
                Err(format!("there is no {:?}", self.algorithm))
            }
        }
    }
}
