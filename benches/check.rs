//! One decision, one thread: a token bucket here and governor's, on the same kind of clock, granted and refused apart.

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, criterion_group, criterion_main};
use governor::clock::MonotonicClock;
use tollgate::clock::SystemClock;
use tollgate::{Quota, TokenBucket};

/// Fast enough that no ask is ever refused: four a nanosecond's worth of calls would not drain it.
const GRANTS: u32 = 1_000_000_000;

fn grant(c: &mut Criterion) {
    let mut group = c.benchmark_group("check/grant");
    let ours =
        TokenBucket::builder(Quota::per_second(GRANTS.into())).clock(SystemClock::default()).build().unwrap();
    group.bench_function("tollgate", |b| b.iter(|| ours.check(black_box(1)).unwrap()));
    let quota = governor::Quota::per_second(NonZeroU32::new(GRANTS).unwrap());
    let theirs = governor::RateLimiter::direct_with_clock(quota, MonotonicClock);
    group.bench_function("governor", |b| b.iter(|| theirs.check().unwrap()));
    group.bench_function("floor: clock", |b| b.iter(std::time::Instant::now));
    group.finish();
}

fn refuse(c: &mut Criterion) {
    let mut group = c.benchmark_group("check/refuse");
    let ours = TokenBucket::builder(Quota::per_day(1)).clock(SystemClock::default()).build().unwrap();
    ours.check(1).unwrap();
    group.bench_function("tollgate", |b| b.iter(|| ours.check(black_box(1)).unwrap_err()));
    let day = std::time::Duration::from_secs(86_400);
    let theirs =
        governor::RateLimiter::direct_with_clock(governor::Quota::with_period(day).unwrap(), MonotonicClock);
    theirs.check().unwrap();
    group.bench_function("governor", |b| b.iter(|| theirs.check().unwrap_err()));
    group.finish();
}

criterion_group!(benches, grant, refuse);
criterion_main!(benches);
