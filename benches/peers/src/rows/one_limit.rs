//! One limit without keys: grants, refusals, and more requests than it admits.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use crate::bench::Bench;
use crate::load::Load;
use crate::peers::{
    self, GOVERNOR, GOVERNOR_STD, LEAKY_BUCKET, RATE_NET, RATELIMIT, THROTTLE_NET, governor, governor_std,
};
use crate::sample::{mixed, one_thread};
use crate::threads::throughput;
use crate::{floors, ours};

/// A sample of one thread: `$admits` is asked of `$limiter`, and each answer is checked.
macro_rules! alone {
    ($load:expr, $limiter:expr, |$name:ident| $admits:expr) => {{
        let (load, $name) = ($load, $limiter);
        one_thread(move || load.expect($admits))
    }};
}
pub(super) use alone;

/// A sample of one thread whose answers are of both kinds.
macro_rules! at_limit {
    ($limiter:expr, |$name:ident| $admits:expr) => {{
        let $name = $limiter;
        mixed(move || $admits)
    }};
}
pub(super) use at_limit;

/// A sample of `$threads` threads that share the limiter by clones of a handle: this crate's are handles themselves.
macro_rules! together {
    ($load:expr, $threads:expr, $limiter:expr, |$name:ident| $admits:expr) => {{
        let (load, $name) = ($load, $limiter);
        throughput($threads, move |_| {
            let $name = $name.clone();
            move || load.expect($admits)
        })
    }};
}
pub(super) use together;

pub fn measure(bench: &mut Bench) {
    one_thread_each(bench, Load::Grant);
    one_thread_each(bench, Load::Refuse);
    at_the_limit(bench);
    striped(bench);
    two_threads(bench);
}

fn one_thread_each(bench: &mut Bench, load: Load) {
    let row = format!("{}, one thread", load.name());
    bench
        .against(&row, || alone!(load, ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok()))
        .peer(GOVERNOR_STD, || alone!(load, governor_std(load), |limiter| limiter.check().is_ok()))
        .peer(RATE_NET, || alone!(load, peers::rate_net(load), |limiter| limiter.check().is_allow()))
        .peer(THROTTLE_NET, || alone!(load, peers::throttle_net(load), |limiter| limiter.try_acquire()))
        .peer(RATELIMIT, || alone!(load, peers::ratelimit(load), |limiter| limiter.try_wait().is_ok()))
        .peer(LEAKY_BUCKET, || alone!(load, peers::leaky_bucket(load), |limiter| limiter.try_acquire(1)))
        .peer(GOVERNOR, || alone!(load, governor(load), |limiter| limiter.check().is_ok()));
}

fn at_the_limit(bench: &mut Bench) {
    let load = Load::AtLimit;
    bench
        .against("at the limit, one thread", || {
            at_limit!(ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(GOVERNOR_STD, || at_limit!(governor_std(load), |limiter| limiter.check().is_ok()))
        .peer(RATE_NET, || at_limit!(peers::rate_net(load), |limiter| limiter.check().is_allow()))
        .peer(THROTTLE_NET, || at_limit!(peers::throttle_net(load), |limiter| limiter.try_acquire()))
        .peer(RATELIMIT, || at_limit!(peers::ratelimit(load), |limiter| limiter.try_wait().is_ok()))
        .peer(GOVERNOR, || at_limit!(governor(load), |limiter| limiter.check().is_ok()));
}

fn striped(bench: &mut Bench) {
    const ONE_WORD: &str = "tollgate, one word";
    let load = Load::Grant;
    bench
        .against("striped, grant, one thread", || {
            alone!(load, ours::striped(load), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(GOVERNOR_STD, || alone!(load, governor_std(load), |limiter| limiter.check().is_ok()))
        .peer("floor: clock and compare-exchange", || {
            let (word, start) = (floors::Word::default(), Instant::now());
            one_thread(move || word.step_now(start))
        });
    for threads in [2, 16] {
        bench
            .against(&format!("striped, grant, {threads} threads"), || {
                together!(load, threads, ours::striped(load), |limiter| limiter.check(black_box(1)).is_ok())
            })
            .peer(GOVERNOR_STD, || {
                together!(load, threads, Arc::new(governor_std(load)), |limiter| limiter.check().is_ok())
            });
    }
    let load = Load::Refuse;
    bench
        .against("striped, refuse, one thread", || {
            alone!(load, ours::striped(load), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(ONE_WORD, || alone!(load, ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok()));
    bench
        .against("striped, at the limit, one thread", || {
            at_limit!(ours::striped(Load::AtLimit), |limiter| limiter.check(black_box(1)).is_ok())
        })
        .peer(ONE_WORD, || {
            at_limit!(ours::bucket(Load::AtLimit), |limiter| limiter.check(black_box(1)).is_ok())
        });
    for load in [Load::Refuse, Load::AtLimit] {
        bench
            .against(&format!("striped, {}, 2 threads", load.name()), || {
                together!(load, 2, ours::striped(load), |limiter| limiter.check(black_box(1)).is_ok())
            })
            .peer(ONE_WORD, || {
                together!(load, 2, ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok())
            });
    }
}

/// Refusals share the word without writing it. Grants on one word depend on its address: see `one_word`.
fn two_threads(bench: &mut Bench) {
    for load in [Load::Refuse, Load::AtLimit] {
        bench
            .against(&format!("{}, 2 threads", load.name()), || {
                together!(load, 2, ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok())
            })
            .peer(GOVERNOR_STD, || together!(load, 2, Arc::new(governor_std(load)), |limiter| limiter.check().is_ok()))
            .peer(RATE_NET, || {
                together!(load, 2, Arc::new(peers::rate_net(load)), |limiter| limiter.check().is_allow())
            })
            .peer(THROTTLE_NET, || {
                together!(load, 2, Arc::new(peers::throttle_net(load)), |limiter| limiter.try_acquire())
            });
    }
}
