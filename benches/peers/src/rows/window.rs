//! Windows: the exact log, the weighted counter, the fixed window.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use rate_net::Algorithm;
use tollgate::{FixedWindow, Quota, SlidingCounter, SlidingWindow};

use super::one_limit::{alone, together};
use crate::bench::Bench;
use crate::load::{DAY, Load};
use crate::peers::{Log, RATE_NET, THROTTLE_NET, rate_net_window, throttle_net_window};
use crate::sample::{fresh, one_thread};
use crate::threads::throughput;

type Limit = (u32, Duration);

/// The requests of a fresh limiter.
const FRESH: Limit = (1_000, Duration::from_secs(1));
/// A grant leaves the window soon: some hundreds are in it at any time, and there is room for more.
const GRANT: Limit = (8_192, Duration::from_micros(20));
const REFUSE: Limit = (1_000, DAY);

fn limit_of(load: Load) -> Limit {
    if load == Load::Grant { GRANT } else { REFUSE }
}

fn quota((limit, window): Limit) -> Quota {
    Quota::per(limit.into(), window)
}

pub fn measure(bench: &mut Bench) {
    first_requests(bench);
    for load in [Load::Grant, Load::Refuse] {
        exact(bench, load);
    }
    for load in [Load::Grant, Load::Refuse] {
        approximate(bench, load);
    }
}

fn first_requests(bench: &mut Bench) {
    let count = u64::from(FRESH.0);
    let load = Load::Grant;
    bench
        .against("exact window, first `limit` requests of a fresh limiter", || {
            let make = || SlidingWindow::new(quota(FRESH)).unwrap();
            fresh(count, make, |limiter, _| load.expect(limiter.check(black_box(1)).is_ok()))
        })
        .peer(RATE_NET, || {
            let make = || rate_net_window(load, Algorithm::SlidingWindowLog, FRESH);
            fresh(count, make, |limiter, _| load.expect(limiter.check().is_allow()))
        })
        .peer(THROTTLE_NET, || {
            fresh(
                count,
                || throttle_net_window(load, FRESH),
                |limiter, _| load.expect(limiter.try_acquire()),
            )
        })
        .peer(Log::NAME, || {
            fresh(count, || Log::new(load, FRESH), |limiter, _| load.expect(limiter.check()))
        });
}

fn exact(bench: &mut Bench, load: Load) {
    let limit = limit_of(load);
    let ours = || load.prepare(SlidingWindow::new(quota(limit)).unwrap(), |limiter| limiter.check(1).is_ok());
    let rate_net = || rate_net_window(load, Algorithm::SlidingWindowLog, limit);
    bench
        .against(&format!("exact window, {}, one thread", load.name()), || {
            alone!(load, ours(), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(RATE_NET, || alone!(load, rate_net(), |limiter| limiter.check().is_allow()))
        .peer(THROTTLE_NET, || {
            alone!(load, throttle_net_window(load, limit), |limiter| limiter.try_acquire())
        })
        .peer(Log::NAME, || alone!(load, Log::new(load, limit), |limiter| limiter.check()));
    bench
        .against(&format!("exact window, {}, 2 threads", load.name()), || {
            together!(load, 2, ours(), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(RATE_NET, || together!(load, 2, Arc::new(rate_net()), |limiter| limiter.check().is_allow()))
        .peer(Log::NAME, || together!(load, 2, Arc::new(Log::new(load, limit)), |limiter| limiter.check()));
}

fn approximate(bench: &mut Bench, load: Load) {
    let limit = limit_of(load);
    bench
        .against(&format!("sliding counter, {}, one thread", load.name()), || {
            let limiter = SlidingCounter::new(quota(limit)).unwrap();
            let limiter = load.prepare(limiter, |limiter| limiter.check(1).is_ok());
            alone!(load, limiter, |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(RATE_NET, || {
            let limiter = rate_net_window(load, Algorithm::SlidingWindowCounter, limit);
            alone!(load, limiter, |limiter| limiter.check().is_allow())
        });
    bench
        .against(&format!("fixed window, {}, one thread", load.name()), || {
            let limiter = FixedWindow::new(quota(limit)).unwrap();
            let limiter = load.prepare(limiter, |limiter| limiter.check(1).is_ok());
            alone!(load, limiter, |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(RATE_NET, || {
            let limiter = rate_net_window(load, Algorithm::FixedWindow, limit);
            alone!(load, limiter, |limiter| limiter.check().is_allow())
        });
}
