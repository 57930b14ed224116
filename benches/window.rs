//! Windows: the exact log, its segments, the weighted counter, the fixed window, and the log most people write first.

mod support;

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::forms::{Load, each_window};
use support::{Suite, floors};
use tollgate::Quota;

/// A grant leaves the window soon: some hundreds are in it at any time, and there is room for more.
const GRANT: (u64, Duration) = (8_192, Duration::from_micros(20));
const REFUSE: (u64, Duration) = (1_000, floors::DAY);

fn limit_of(load: Load) -> (u64, Duration) {
    if load == Load::Grant { GRANT } else { REFUSE }
}

/// The log as it is mostly written: times behind a lock.
struct Log {
    limit: usize,
    window: Duration,
    times: Mutex<VecDeque<Instant>>,
}

impl Log {
    fn new((limit, window): (u64, Duration)) -> Self {
        Self { limit: limit as usize, window, times: Mutex::default() }
    }

    fn check(&self) -> bool {
        let mut times = self.times.lock().unwrap();
        let now = Instant::now();
        while times.front().is_some_and(|&time| now.duration_since(time) >= self.window) {
            times.pop_front();
        }
        let admitted = times.len() < self.limit;
        if admitted {
            times.push_back(now);
        }
        admitted
    }
}

fn one_thread(suite: &mut Suite, load: Load) {
    let (limit, window) = limit_of(load);
    let mut group = suite.group(&format!("window/{}", load.name()));
    each_window!(load, Quota::per(limit, window), |name, limiter| {
        group.row(name, &["Mutex<VecDeque>"], move || load.expect(limiter.check(black_box(1)).is_ok()));
    });
    let log = support::peers::spent(load, Log::new(limit_of(load)), Log::check);
    group.row("Mutex<VecDeque>", &[], move || load.expect(log.check()));
    group.row("floor: clock", &[], floors::clock);
    group.finish();
}

fn contended(suite: &mut Suite, load: Load, threads: usize) {
    let (limit, window) = limit_of(load);
    let log = support::peers::spent(load, Log::new(limit_of(load)), Log::check);
    let mut group = suite.group(&format!("window/{}/{threads}", load.name()));
    each_window!(load, Quota::per(limit, window), |name, limiter| {
        group.contended(name, &["Mutex<VecDeque>"], threads, move |_| {
            let limiter = limiter.clone();
            move || load.expect(limiter.check(black_box(1)).is_ok())
        });
    });
    group.contended("Mutex<VecDeque>", &[], threads, |_| || load.expect(log.check()));
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(6));
    for load in [Load::Grant, Load::Refuse] {
        one_thread(&mut suite, load);
        contended(&mut suite, load, 2);
    }
}
