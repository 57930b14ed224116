//! Permits: awaited, settled, refunded; and permits of concurrency.

use std::hint::black_box;
use std::sync::Arc;

use tollgate::{Concurrency, Permit};

use super::one_limit::alone;
use crate::bench::Bench;
use crate::load::Load;
use crate::peers::{
    self, GOVERNOR, GOVERNOR_STD, LEAKY_BUCKET, RATE_NET, SEMAPHORE, THROTTLE_NET, governor, governor_std,
};
use crate::sample::{now, one_thread};
use crate::threads::throughput;
use crate::ours;

const LOAD: Load = Load::Grant;
const SLOTS: u32 = 1_000;

pub fn measure(bench: &mut Bench) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    awaited(bench);
    beside_check(bench);
    concurrency(bench);
}

fn awaited(bench: &mut Bench) {
    bench
        .against("`acquire().await` that does not wait", || {
            let limiter = ours::bucket(LOAD);
            one_thread(move || drop(now(limiter.acquire(black_box(1))).unwrap()))
        })
        .peer(GOVERNOR_STD, || {
            let limiter = governor_std(LOAD);
            one_thread(move || now(limiter.until_ready()))
        })
        .peer(RATE_NET, || {
            let limiter = peers::rate_net(LOAD);
            one_thread(move || now(limiter.try_until_ready()).unwrap())
        })
        .peer(THROTTLE_NET, || {
            let limiter = peers::throttle_net(LOAD);
            one_thread(move || now(limiter.acquire()).unwrap())
        })
        .peer(LEAKY_BUCKET, || {
            let limiter = peers::leaky_bucket(LOAD);
            one_thread(move || now(limiter.acquire(1)))
        })
        .peer(GOVERNOR, || {
            let limiter = governor(LOAD);
            one_thread(move || now(limiter.until_ready()))
        });
}

/// The cost of a permit over that of a decision alone.
fn beside_check(bench: &mut Bench) {
    const CHECK: &str = "tollgate, `check`";
    let check = || alone!(LOAD, ours::bucket(LOAD), |limiter| limiter.check(black_box(1)).is_ok());
    let permit = || {
        let limiter = ours::bucket(LOAD);
        one_thread(move || drop(limiter.try_acquire(black_box(1)).unwrap()))
    };
    let settled = || {
        let limiter = ours::bucket(LOAD);
        one_thread(move || limiter.try_acquire(black_box(2)).unwrap().settle(black_box(1.into())))
    };
    let refunded = || {
        let limiter = ours::bucket(LOAD);
        one_thread(move || limiter.try_acquire(black_box(1)).unwrap().refund())
    };
    bench.against("permit", permit).peer(CHECK, check);
    bench.against("permit, settled lower", settled).peer(CHECK, check);
    bench.against("permit, refunded", refunded).peer(CHECK, check);
}

fn concurrency(bench: &mut Bench) {
    let ours = || Concurrency::new(SLOTS.into());
    let semaphore = || tokio::sync::Semaphore::new(SLOTS as usize);
    bench
        .against("Concurrency, grant, one thread", || {
            let slots = ours();
            one_thread(move || drop(slots.try_acquire(black_box(1)).unwrap()))
        })
        .peer(SEMAPHORE, || {
            let semaphore = semaphore();
            one_thread(move || drop(semaphore.try_acquire().unwrap()))
        });
    bench
        .against("Concurrency, grant, 2 threads", || {
            let slots = ours();
            throughput(2, move |_| {
                let slots = slots.clone();
                move || drop(slots.try_acquire(black_box(1)).unwrap())
            })
        })
        .peer(SEMAPHORE, || {
            let semaphore = Arc::new(semaphore());
            throughput(2, move |_| {
                let semaphore = Arc::clone(&semaphore);
                move || drop(semaphore.try_acquire().unwrap())
            })
        });
    bench
        .against("Concurrency, `acquire().await` that does not wait", || {
            let slots = ours();
            one_thread(move || drop(now(slots.acquire(black_box(1))).unwrap()))
        })
        .peer(SEMAPHORE, || {
            let semaphore = semaphore();
            one_thread(move || drop(now(semaphore.acquire()).unwrap()))
        });
    bench
        .against("Concurrency, refuse, one thread", || {
            let slots = Concurrency::new(1);
            let held = slots.try_acquire(1).unwrap();
            one_thread(move || {
                let _held = &held;
                assert!(slots.try_acquire(black_box(1)).is_err());
            })
        })
        .peer(SEMAPHORE, || {
            let semaphore = tokio::sync::Semaphore::new(0);
            one_thread(move || assert!(semaphore.try_acquire().is_err()))
        });
}
