//! The same limits on clocks that are not the default: the system's by name, and the processor's counter.

use std::hint::black_box;

use tollgate::clock::TscClock;
use tollgate::{Clock, SystemClock};

use super::keyed::{CAP, TEN_THOUSAND, granted, governor_granted};
use super::one_limit::{alone, at_limit};
use crate::bench::Bench;
use crate::load::Load;
use crate::ours::{self, bucket_on};
use crate::peers::{GOVERNOR, GOVERNOR_STD, governor, governor_std};
use crate::sample::{mixed, now, one_thread};
use crate::{keys, peers};

pub fn measure(bench: &mut Bench) {
    on(bench, "SystemClock", SystemClock::default);
    on(bench, "TscClock", TscClock::default);
    keyed(bench);
}

fn on<C: Clock>(bench: &mut Bench, name: &str, clock: impl Fn() -> C) {
    for load in [Load::Grant, Load::Refuse] {
        bench
            .against(&format!("{name}, {}, one thread", load.name()), || {
                alone!(load, bucket_on(load, clock()), |limiter| limiter.check(black_box(1)).is_ok())
            })
            .peer(GOVERNOR, || alone!(load, governor(load), |limiter| limiter.check().is_ok()))
            .peer(GOVERNOR_STD, || alone!(load, governor_std(load), |limiter| limiter.check().is_ok()));
    }
    let load = Load::AtLimit;
    bench
        .against(&format!("{name}, at the limit, one thread"), || {
            at_limit!(bucket_on(load, clock()), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(GOVERNOR, || at_limit!(governor(load), |limiter| limiter.check().is_ok()))
        .peer(GOVERNOR_STD, || at_limit!(governor_std(load), |limiter| limiter.check().is_ok()));
    bench
        .against(&format!("{name}, `acquire().await` that does not wait"), || {
            let limiter = bucket_on(Load::Grant, clock());
            one_thread(move || drop(now(limiter.acquire(black_box(1))).unwrap()))
        })
        .peer(GOVERNOR, || {
            let limiter = governor(Load::Grant);
            one_thread(move || now(limiter.until_ready()))
        });
}

fn keyed(bench: &mut Bench) {
    let draws = keys::uniform(TEN_THOUSAND);
    bench
        .against("TscClock, grant, 10,000 keys, one thread", || {
            let limiter = ours::keyed_on(Load::Grant.quota(), CAP, TscClock::default());
            granted(limiter, &draws, 1)
        })
        .peer(GOVERNOR, || governor_granted(&draws, 1));
    let load = Load::Refuse;
    bench
        .against("TscClock, one key refused, one thread", || {
            let limiter = ours::keyed_on(load.quota(), CAP, TscClock::default());
            let limiter = load.prepare(limiter, |limiter| limiter.check(&7, 1).is_ok());
            one_thread(move || load.expect(limiter.check(black_box(&7), 1).is_ok()))
        })
        .peer(GOVERNOR, || {
            let limiter = load.prepare(peers::governor_keyed::<u64>(load), |limiter| limiter.check_key(&7u64).is_ok());
            one_thread(move || load.expect(limiter.check_key(black_box(&7)).is_ok()))
        });
}
