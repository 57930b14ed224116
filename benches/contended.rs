//! One limit, many threads: how many decisions they make together, and how long the slowest of them take.

mod support;

use std::hint::black_box;
use std::time::Duration;

use support::forms::{Load, each_bucket};
use support::{Suite, floors, peers};
use tollgate::{Concurrency, SystemClock};

const THREADS: [usize; 5] = [1, 2, 4, 8, 16];

fn throughput(suite: &mut Suite, load: Load, threads: usize) {
    let (quanta, std) = (peers::governor(load), peers::governor_std(load));
    let (ratelimit, leaky) = (peers::ratelimit(load), peers::leaky_bucket(load));
    let cas = floors::CasLoop::default();
    let mut group = suite.group(&format!("contended/{}/{threads}", load.name()));
    each_bucket!(load, |name, limiter| {
        group.contended(name, &["governor", "floor: clock and CAS"], threads, move |_| {
            let limiter = limiter.clone();
            move || load.expect(limiter.check(black_box(1)).is_ok())
        });
    });
    group.contended("governor", &[], threads, |_| || load.expect(quanta.check().is_ok()));
    group.contended("governor (std clock)", &[], threads, |_| || load.expect(std.check().is_ok()));
    group.contended("ratelimit", &[], threads, |_| || load.expect(ratelimit.try_wait().is_ok()));
    group.contended("leaky-bucket", &[], threads, |_| || load.expect(leaky.try_acquire(1)));
    group.contended("floor: clock and CAS", &[], threads, |_| || cas.step());
    group.contended("floor: clock", &[], threads, |_| floors::clock);
    group.finish();
}

fn latency(suite: &mut Suite, load: Load, threads: usize, percentile: f64) {
    let governor = peers::governor(load);
    let mut group = suite.group(&format!("contended/{}/{threads}/p{percentile}", load.name()));
    each_bucket!(load, |name, limiter| {
        group.percentile(name, &["governor"], percentile, threads, move |_| {
            let limiter = limiter.clone();
            move || load.expect(limiter.check(black_box(1)).is_ok())
        });
    });
    group.percentile("governor", &[], percentile, threads, |_| || load.expect(governor.check().is_ok()));
    group.percentile("floor: clock", &[], percentile, threads, |_| floors::clock);
    group.finish();
}

fn slots(suite: &mut Suite, threads: usize) {
    let slots = Concurrency::builder(1_000).clock(SystemClock::default()).build().unwrap();
    let semaphore = tokio::sync::Semaphore::new(1_000);
    let atomic = floors::Atomic::default();
    let mut group = suite.group(&format!("contended/slot/{threads}"));
    group.contended("tollgate", &["tokio Semaphore"], threads, |_| {
        let slots = slots.clone();
        move || drop(slots.try_acquire(black_box(1)).unwrap())
    });
    group.contended("tokio Semaphore", &[], threads, |_| || drop(semaphore.try_acquire().unwrap()));
    group.contended("floor: atomic", &[], threads, |_| || atomic.step());
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(12));
    for threads in THREADS {
        for load in [Load::Grant, Load::Refuse, Load::AtLimit] {
            throughput(&mut suite, load, threads);
        }
        slots(&mut suite, threads);
    }
    for threads in [1, 2, 8] {
        for load in [Load::Grant, Load::Refuse] {
            for percentile in [50.0, 99.0, 99.9] {
                latency(&mut suite, load, threads, percentile);
            }
        }
    }
}
