//! What it costs to hold proof: a permit beside a mere decision, settled, refunded, awaited; slots beside a semaphore's.

mod support;

use std::hint::black_box;
use std::time::Duration;

use support::forms::Load;
use support::{Suite, floors, now, peers};
use tollgate::{Concurrency, Permit, SystemClock, TokenBucket};

fn rate(suite: &mut Suite) {
    let mut group = suite.group("permit/rate");
    let bucket = TokenBucket::builder(Load::Grant.quota()).clock(SystemClock::default()).build().unwrap();
    let limiter = bucket.clone();
    group.row("check", &[], move || limiter.check(black_box(1)).unwrap());
    let limiter = bucket.clone();
    group.row("permit", &["check"], move || drop(limiter.try_acquire(black_box(1)).unwrap()));
    let limiter = bucket.clone();
    group.row("settled as estimated", &["check"], move || {
        limiter.try_acquire(black_box(2)).unwrap().settle(black_box(2.into()));
    });
    let limiter = bucket.clone();
    group.row("settled lower", &["check"], move || {
        limiter.try_acquire(black_box(2)).unwrap().settle(black_box(1.into()));
    });
    let limiter = bucket.clone();
    group.row("settled higher", &["check"], move || {
        limiter.try_acquire(black_box(1)).unwrap().settle(black_box(2.into()));
    });
    let limiter = bucket.clone();
    group.row("refunded", &["check"], move || limiter.try_acquire(black_box(1)).unwrap().refund());
    group.row("awaited", &["check", "governor, awaited"], move || {
        drop(now(bucket.acquire(black_box(1))).unwrap());
    });
    let governor = peers::governor(Load::Grant);
    group.row("governor, awaited", &[], move || now(governor.until_ready()));
    let cas = floors::CasLoop::default();
    group.row("floor: clock and CAS", &[], move || cas.step());
    group.finish();
}

fn slot(suite: &mut Suite) {
    let mut group = suite.group("permit/slot");
    let slots = Concurrency::builder(1_000).clock(SystemClock::default()).build().unwrap();
    let limiter = slots.clone();
    group.row("tollgate", &["tokio Semaphore"], move || drop(limiter.try_acquire(black_box(1)).unwrap()));
    group.row("tollgate, awaited", &["tokio Semaphore, awaited"], move || {
        drop(now(slots.acquire(black_box(1))).unwrap());
    });
    let full = Concurrency::builder(1).clock(SystemClock::default()).build().unwrap();
    let held = full.try_acquire(1).unwrap();
    group.row("tollgate, refused", &["tokio Semaphore, refused"], move || {
        let _held = &held;
        full.try_acquire(black_box(1)).unwrap_err()
    });
    let semaphore = tokio::sync::Semaphore::new(1_000);
    group.row("tokio Semaphore", &[], move || drop(semaphore.try_acquire().unwrap()));
    let semaphore = tokio::sync::Semaphore::new(1_000);
    group.row("tokio Semaphore, awaited", &[], move || drop(now(semaphore.acquire()).unwrap()));
    let semaphore = tokio::sync::Semaphore::new(0);
    group.row("tokio Semaphore, refused", &[], move || semaphore.try_acquire().unwrap_err());
    let atomic = floors::Atomic::default();
    group.row("floor: two atomics", &[], move || (atomic.step(), atomic.step()));
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(3));
    rate(&mut suite);
    slot(&mut suite);
}
