//! The algorithms alone: a state, a time and a cost; no clock, no lock, nothing shared.

mod support;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use support::forms::Load;
use support::{Suite, floors};
use tollgate::algorithm::{
    Algorithm, FixedWindow, FromQuota, SlidingCounter, SlidingWindow, TokenBucket, When,
};
use tollgate::{Quota, Timestamp};

/// Time passes as if each decision took so long.
const STEP_NS: u64 = 40;

/// A decision after another, each a step later.
fn decide<A: Algorithm>(load: Load, algorithm: A) -> impl FnMut() {
    let mut now_ns = 1 << 40;
    let mut state = algorithm.start(Timestamp::from_ns(now_ns), now_ns);
    let mut ask = move || {
        now_ns += STEP_NS;
        let now = Timestamp::from_ns(now_ns);
        let admitted = algorithm.ready_at(&mut state, now, black_box(1)) == When::At(now);
        if admitted {
            algorithm.force(&mut state, now, black_box(1));
        }
        admitted
    };
    if load == Load::Refuse {
        while ask() {}
    }
    move || load.expect(ask())
}

fn decisions(suite: &mut Suite, load: Load) {
    let (bucket, window) = match load {
        Load::Refuse => (load.quota(), Quota::per(1_000, floors::DAY)),
        _ => (load.quota(), Quota::per(8_192, Duration::from_micros(20))),
    };
    const FLOOR: &[&str] = &["floor: a subtraction"];
    let mut group = suite.group(&format!("decide/{}", load.name()));
    group.row("token bucket", FLOOR, decide(load, TokenBucket::from_quota(bucket).unwrap()));
    group.row("exact window", FLOOR, decide(load, SlidingWindow::from_quota(window).unwrap()));
    let segmented = SlidingWindow::from_quota(window).unwrap().segments(100).unwrap();
    group.row("segmented window", FLOOR, decide(load, segmented));
    group.row("counter", FLOOR, decide(load, SlidingCounter::from_quota(window).unwrap()));
    group.row("fixed window", FLOOR, decide(load, FixedWindow::from_quota(window).unwrap()));
    // governor's state is always shared: its clock here is a number that stands still, its word an atomic.
    let burst = NonZeroU32::new(1_000_000_000).unwrap();
    let quota = match load {
        Load::Refuse => governor::Quota::with_period(floors::DAY).unwrap(),
        _ => governor::Quota::per_second(burst).allow_burst(burst),
    };
    let governor = governor::RateLimiter::direct_with_clock(quota, FakeRelativeClock::default());
    if load == Load::Refuse {
        governor.check().unwrap();
    }
    group.row("governor (fake clock)", &[], move || load.expect(governor.check().is_ok()));
    let mut left = u64::MAX;
    group.row("floor: a subtraction", &[], move || {
        let cost = black_box(1);
        let admitted = left >= cost;
        left -= cost;
        admitted
    });
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(3));
    decisions(&mut suite, Load::Grant);
    decisions(&mut suite, Load::Refuse);
}
