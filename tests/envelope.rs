//! The strict envelope, in real time: threads that burst and pause at random, and in no interval more than a burst and
//! what the rate gives in it.
//!
//! A unit is admitted somewhere between a look at the clock before the ask and one after it. Units that must all have
//! been admitted between two instants are those whose ask began and ended between them: if these are more than a burst
//! and what comes in that time, some interval had too much, however the clocks were read. No wall time is asserted.
#![cfg(not(tollgate_loom))]

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tollgate::{Quota, SlidingWindow, SystemClock, TokenBucket};

const THREADS: u64 = 4;
const BURST: u64 = 400;
const PER_SECOND: u64 = 200_000;
/// How long each form is tried.
const TRIAL: Duration = Duration::from_millis(150);

/// When a unit was asked for and when it was had, in nanoseconds.
#[derive(Clone, Copy)]
struct Admitted {
    asked_ns: u64,
    had_ns: u64,
}

/// A step of a fixed sequence of numbers: splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Bursts and pauses of random lengths on every thread; what was admitted, and how many asks there were.
fn hammer(check: impl Fn() -> bool + Sync) -> (Vec<Admitted>, u64) {
    let (start, barrier) = (Instant::now(), Barrier::new(THREADS as usize));
    let (barrier, check) = (&barrier, &check);
    let one = |thread| {
        let (mut admitted, mut asks, mut state) = (Vec::new(), 0, thread);
        let now_ns = || u64::try_from(start.elapsed().as_nanos()).unwrap();
        barrier.wait();
        let until = Instant::now() + TRIAL;
        while Instant::now() < until {
            for _ in 0..random(&mut state) % (2 * BURST) {
                let asked_ns = now_ns();
                asks += 1;
                if check() {
                    admitted.push(Admitted { asked_ns, had_ns: now_ns() });
                }
            }
            // From nothing to as long as it takes to refill.
            let pause = Duration::from_nanos(random(&mut state) % (BURST * 1_000_000_000 / PER_SECOND));
            let resume = Instant::now() + pause;
            while Instant::now() < resume {
                thread::yield_now();
            }
        }
        (admitted, asks)
    };
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || one(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let asks = all.iter().map(|(_, asks)| asks).sum();
    (all.into_iter().flat_map(|(admitted, _)| admitted).collect(), asks)
}

/// The most units beyond what the rate gives that lie within one interval, in the burst: at most one is strict.
///
/// For the interval from `a` to `b` that is the number of units asked for at `a` or later and had by `b`, less
/// `rate * (b - a)`. Going through ends in order, a tree over the beginnings keeps, for each `a`, the units counted so
/// far plus `rate * a`.
fn excess(mut admitted: Vec<Admitted>, per_second: u64, burst: u64) -> f64 {
    let rate = per_second as f64 / 1e9;
    let mut begins: Vec<u64> = admitted.iter().map(|unit| unit.asked_ns).collect();
    begins.sort_unstable();
    begins.dedup();
    let mut best = Best::new(begins.iter().map(|&ns| rate * ns as f64).collect());
    admitted.sort_unstable_by_key(|unit| unit.had_ns);
    let mut most = 0.0f64;
    for (place, unit) in admitted.iter().enumerate() {
        // It counts for every beginning not after its ask.
        best.add_up_to(begins.partition_point(|&ns| ns <= unit.asked_ns));
        let is_last = admitted.get(place + 1).is_none_or(|next| next.had_ns > unit.had_ns);
        if is_last {
            // Only beginnings up to here can be meant: later ones have no unit that was had by now.
            let known = begins.partition_point(|&ns| ns <= unit.had_ns);
            most = most.max(best.max_up_to(known) - rate * unit.had_ns as f64);
        }
    }
    most / burst as f64
}

/// The largest of a sequence, under additions of one to a beginning of it: a segment tree.
struct Best {
    leaves: usize,
    /// The largest below a node, and what has been added to all below it.
    nodes: Vec<(f64, f64)>,
}

impl Best {
    fn new(values: Vec<f64>) -> Self {
        let leaves = values.len().next_power_of_two();
        let mut nodes = vec![(f64::MIN, 0.0); 2 * leaves];
        for (leaf, value) in values.into_iter().enumerate() {
            nodes[leaves + leaf].0 = value;
        }
        for node in (1..leaves).rev() {
            nodes[node].0 = nodes[2 * node].0.max(nodes[2 * node + 1].0);
        }
        Self { leaves, nodes }
    }

    fn add_up_to(&mut self, end: usize) {
        self.add(1, 0, self.leaves, end);
    }

    fn add(&mut self, node: usize, from: usize, to: usize, end: usize) {
        if end <= from {
            return;
        }
        if to <= end {
            self.nodes[node].0 += 1.0;
            self.nodes[node].1 += 1.0;
            return;
        }
        let middle = (from + to) / 2;
        self.add(2 * node, from, middle, end);
        self.add(2 * node + 1, middle, to, end);
        self.nodes[node].0 = self.nodes[2 * node].0.max(self.nodes[2 * node + 1].0) + self.nodes[node].1;
    }

    fn max_up_to(&self, end: usize) -> f64 {
        self.max(1, 0, self.leaves, end)
    }

    fn max(&self, node: usize, from: usize, to: usize, end: usize) -> f64 {
        if end <= from {
            return f64::MIN;
        }
        if to <= end {
            return self.nodes[node].0;
        }
        let middle = (from + to) / 2;
        self.max(2 * node, from, middle, end).max(self.max(2 * node + 1, middle, to, end))
            + self.nodes[node].1
    }
}

/// A limit of a rate and a burst, tried: strict, and neither idle nor unbounded.
fn is_strict(name: &str, burst: u64, check: impl Fn() -> bool + Sync) {
    let (admitted, asks) = hammer(check);
    let (count, excess) = (admitted.len() as u64, excess(admitted, PER_SECOND, burst));
    println!("{name}: {count} of {asks} admitted, at most {excess:.4} of a burst within what the rate gives");
    assert!(excess <= 1.0, "{name}: {excess} of its burst");
    assert!(count > burst, "{name} admitted {count}: no more than one burst");
    assert!(count < asks, "{name} was never at its limit");
}

fn quota() -> Quota {
    Quota::per_second(PER_SECOND).burst(BURST)
}

/// Each form of the token bucket: a line each.
macro_rules! strict {
    ($($test:ident: $limiter:expr;)*) => {
        $(#[test]
        fn $test() {
            let limiter = $limiter.unwrap();
            is_strict(stringify!($test), BURST, || limiter.check(1).is_ok());
        })*
    };
}

strict! {
    token_bucket: TokenBucket::builder(quota()).clock(SystemClock::default()).build();
    token_bucket_on_the_default_clock: TokenBucket::new(quota());
    token_bucket_that_lends: TokenBucket::builder(quota()).lend_above_capacity().build();
    striped: TokenBucket::builder(quota()).clock(SystemClock::default()).striped().build();
    striped_with_half_of_the_burst_set_aside: TokenBucket::builder(quota()).striped().reserve(4, BURST / 8).build();
    joint_token_buckets: TokenBucket::all([quota(), Quota::per_hour(1 << 30)]).build();
}

#[test]
fn keyed_token_bucket() {
    let limiter = TokenBucket::new(quota()).unwrap().keyed::<u64>();
    is_strict("keyed", BURST, || limiter.check(&7, 1).is_ok());
}

#[test]
fn token_bucket_of_many_units_at_once() {
    let limiter = TokenBucket::new(Quota::per_second(7 * PER_SECOND).burst(7 * BURST)).unwrap();
    is_strict("seven at once", BURST, || limiter.check(7).is_ok());
}

/// A window of a limit admits at most the limit in any interval shorter than it: an envelope of no rate at all within
/// the window, told by the trial of each window's length.
#[test]
fn exact_window() {
    let window = Duration::from_millis(2);
    let limiter = SlidingWindow::new(Quota::per(BURST, window)).unwrap();
    let (mut admitted, asks) = hammer(|| limiter.check(1).is_ok());
    assert!(admitted.len() as u64 > BURST && (admitted.len() as u64) < asks, "never at its limit");
    admitted.sort_unstable_by_key(|unit| unit.had_ns);
    let most = most_within(&admitted, window);
    println!("exact window: at most {most} of {BURST} in {window:?}");
    assert!(most <= BURST);
}

/// The most units asked for and had in less than `window`.
fn most_within(admitted: &[Admitted], window: Duration) -> u64 {
    let window_ns = u64::try_from(window.as_nanos()).unwrap();
    let mut most = 0;
    for (last, end) in admitted.iter().enumerate() {
        let from_ns = end.had_ns.saturating_sub(window_ns);
        // Had by `end`, and asked for within the window that it ends: those had before it begins are not.
        let first = admitted[..=last].partition_point(|unit| unit.had_ns <= from_ns);
        let within = admitted[first..=last].iter().filter(|unit| unit.asked_ns > from_ns).count();
        most = most.max(within as u64);
    }
    most
}

/// A limit in two parts, each of three quarters of it, that are asked in turn: what the envelope is there to catch.
#[test]
fn a_limit_that_is_not_strict_is_caught() {
    let part = || TokenBucket::new(Quota::per_second(PER_SECOND * 3 / 4).burst(BURST * 3 / 4)).unwrap();
    let (parts, turn) = ([part(), part()], AtomicUsize::new(0));
    let (admitted, _) = hammer(|| parts[turn.fetch_add(1, Ordering::Relaxed) % 2].check(1).is_ok());
    let excess = excess(admitted, PER_SECOND, BURST);
    println!("in two parts: {excess:.4} of a burst");
    assert!(excess > 1.0, "{excess}");
}

/// The sum itself, against counting every interval.
#[test]
fn the_excess_is_that_of_every_interval() {
    for seed in 0..200 {
        let mut state = seed;
        let admitted: Vec<_> = (0..1 + random(&mut state) % 12)
            .map(|_| {
                let asked_ns = random(&mut state) % 40;
                Admitted { asked_ns, had_ns: asked_ns + random(&mut state) % 8 }
            })
            .collect();
        // A unit in four nanoseconds.
        let mut most = 0.0f64;
        for from in &admitted {
            for to in &admitted {
                let within = |unit: &&Admitted| unit.asked_ns >= from.asked_ns && unit.had_ns <= to.had_ns;
                if from.asked_ns <= to.had_ns {
                    let length = (to.had_ns - from.asked_ns) as f64;
                    most = most.max(admitted.iter().filter(within).count() as f64 - length / 4.0);
                }
            }
        }
        let found = excess(admitted, 250_000_000, 1);
        assert!((found - most).abs() < 1e-9, "seed {seed}: {found} is not {most}");
    }
}
