//! A limit for each key: known keys, one refused key, new keys, a flood of them, and the memory of a key.

use std::hash::Hash;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use tollgate::{Clock, Keyed, algorithm};

use super::one_limit::together;
use crate::bench::Bench;
use crate::load::Load;
use crate::ours::{self, KeyedBucket};
use crate::peers::{
    GOVERNOR, RATE_NET, THROTTLE_NET, governor_keyed, rate_net_keyed, throttle_net_keyed,
};
use crate::sample::{fresh, one_thread};
use crate::threads::throughput;
use crate::{heap, keys};

pub const TEN_THOUSAND: u64 = 10_000;
const MILLION: u64 = 1_000_000;
/// The most keys of the limiters that hold ten thousand of them.
pub const CAP: usize = 100_000;

pub fn measure(bench: &mut Bench) {
    known(bench, "10,000 keys", TEN_THOUSAND, keys::uniform, 1);
    one_refused(bench, 1);
    first_requests(bench);
    memory(bench);
    known(bench, "10,000 keys", TEN_THOUSAND, keys::uniform, 2);
    known(bench, "a million keys by rank", MILLION, keys::zipf, 1);
    known(bench, "a million keys by rank", MILLION, keys::zipf, 2);
    texts(bench);
    one_refused(bench, 2);
    flood(bench);
}

/// A sample of known keys that are all granted.
pub fn granted<C: Clock>(
    limiter: Keyed<u64, algorithm::TokenBucket, C>,
    draws: &[u64],
    threads: usize,
) -> impl FnMut(Duration) -> f64 {
    each(draws, threads, move |key| limiter.check(black_box(key), 1).is_ok())
}

pub fn governor_granted(draws: &[u64], threads: usize) -> impl FnMut(Duration) -> f64 {
    let limiter = governor_keyed::<u64>(Load::Grant);
    each(draws, threads, move |key| limiter.check_key(black_box(key)).is_ok())
}

/// A sample in which each thread goes through the draws and all are admitted. The limiter knows all keys before. One
/// thread counts its processor time.
fn each<K: Sync>(
    draws: &[K],
    threads: usize,
    admits: impl Fn(&K) -> bool + Sync,
) -> impl FnMut(Duration) -> f64 {
    draws.iter().for_each(|key| Load::Grant.expect(admits(key)));
    move |span| {
        let op = |thread| {
            let mut key = keys::walk(draws, thread);
            let admits = &admits;
            move || Load::Grant.expect(admits(key()))
        };
        if threads == 1 { one_thread(op(0))(span) } else { throughput(threads, op)(span) }
    }
}

fn known(bench: &mut Bench, what: &str, count: u64, draw: fn(u64) -> Vec<u64>, threads: usize) {
    let row = format!("grant, {what}, {}", if threads == 1 { "one thread" } else { "2 threads" });
    if ![GOVERNOR, RATE_NET, THROTTLE_NET].iter().any(|peer| bench.wants(&row, peer)) {
        return;
    }
    let (draws, cap, load) = (draw(count), 2 * count as usize, Load::Grant);
    bench
        .against(&row, || granted(ours::keyed(load.quota(), cap), &draws, threads))
        .peer(GOVERNOR, || governor_granted(&draws, threads))
        .peer(RATE_NET, || {
            let limiter = rate_net_keyed(load, cap);
            each(&draws, threads, move |&key| limiter.check(black_box(key)).is_allow())
        })
        .peer(THROTTLE_NET, || {
            let limiter = throttle_net_keyed::<u64>(load, cap);
            each(&draws, threads, move |key| limiter.try_acquire(black_box(key)))
        });
}

/// Keys that are strings of 32 bytes.
fn texts(bench: &mut Bench) {
    let row = "grant, 10,000 strings, 2 threads";
    let draws: Vec<String> = keys::uniform(TEN_THOUSAND).into_iter().map(keys::text).collect();
    let load = Load::Grant;
    bench
        .against(row, || {
            let limiter: KeyedBucket<String> = ours::keyed(load.quota(), CAP);
            each(&draws, 2, move |key| limiter.check(black_box(key.as_str()), 1).is_ok())
        })
        .peer(GOVERNOR, || {
            let limiter = governor_keyed::<String>(load);
            each(&draws, 2, move |key| limiter.check_key(black_box(key)).is_ok())
        })
        .peer(RATE_NET, || {
            let limiter = rate_net_keyed(load, CAP);
            each(&draws, 2, move |key| limiter.check_bytes(black_box(key)).is_allow())
        })
        .peer(THROTTLE_NET, || {
            let limiter = throttle_net_keyed::<String>(load, CAP);
            each(&draws, 2, move |key| limiter.try_acquire(black_box(key)))
        });
}

/// One key that is refused again and again.
fn one_refused(bench: &mut Bench, threads: usize) {
    let load = Load::Refuse;
    let row = format!("one key refused, {}", if threads == 1 { "one thread" } else { "2 threads" });
    let ours = || {
        let limiter: KeyedBucket<u64> = ours::keyed(load.quota(), CAP);
        load.prepare(limiter, |limiter| limiter.check(&7, 1).is_ok())
    };
    let governor = || load.prepare(governor_keyed::<u64>(load), |limiter| limiter.check_key(&7u64).is_ok());
    let rate_net = || load.prepare(rate_net_keyed(load, CAP), |limiter| limiter.check(7u64).is_allow());
    if threads == 1 {
        bench
            .against(&row, || {
                let limiter = ours();
                one_thread(move || load.expect(limiter.check(black_box(&7), 1).is_ok()))
            })
            .peer(GOVERNOR, || {
                let limiter = governor();
                one_thread(move || load.expect(limiter.check_key(black_box(&7)).is_ok()))
            })
            .peer(RATE_NET, || {
                let limiter = rate_net();
                one_thread(move || load.expect(limiter.check(black_box(7u64)).is_allow()))
            });
    } else {
        bench
            .against(&row, || {
                together!(load, threads, ours(), |limiter| limiter.check(black_box(&7), 1).is_ok())
            })
            .peer(GOVERNOR, || {
                together!(load, threads, Arc::new(governor()), |limiter| limiter.check_key(black_box(&7)).is_ok())
            })
            .peer(RATE_NET, || {
                together!(load, threads, Arc::new(rate_net()), |limiter| limiter.check(black_box(7u64)).is_allow())
            });
    }
}

/// The first request of each of a million keys, which then owes for a day. The most keys are two millions: rate-net
/// evicts before it is full. This crate may let two keys share a state: about one request in a million is refused.
fn first_requests(bench: &mut Bench) {
    let (load, cap) = (Load::Refuse, 2 * MILLION as usize);
    let (pairs, row) = (bench.choose(3, 9), "first request of a new key, a million keys");
    // One series of a million requests is a sample.
    let span = Duration::ZERO;
    bench
        .against(row, || {
            let refused = std::cell::Cell::new(0);
            fresh(
                MILLION,
                || ours::keyed(load.quota(), cap),
                move |limiter: &KeyedBucket<u64>, key| {
                    if limiter.check(&keys::spread(key), 1).is_err() {
                        refused.set(refused.get() + 1);
                        assert!(refused.get() < 1_000, "new keys are refused");
                    }
                },
            )
        })
        .peer_in(GOVERNOR, span, pairs, || {
            fresh(
                MILLION,
                || governor_keyed::<u64>(load),
                |limiter, key| assert!(limiter.check_key(&keys::spread(key)).is_ok()),
            )
        })
        .peer_in(RATE_NET, span, pairs, || {
            fresh(
                MILLION,
                || rate_net_keyed(load, cap),
                |limiter, key| assert!(limiter.check(keys::spread(key)).is_allow()),
            )
        })
        .peer_in(THROTTLE_NET, span, pairs, || {
            fresh(
                MILLION,
                || throttle_net_keyed::<u64>(load, cap),
                |limiter, key| assert!(limiter.try_acquire(&keys::spread(key))),
            )
        });
}

/// Bytes on the heap of each key that owes: those of a second million keys, so that the rest of a limiter is not
/// counted. And the heap after ten times as many new keys as this crate's limiter holds.
fn memory(bench: &mut Bench) {
    fn of<K: Hash + Eq + Clone, L>(key: fn(u64) -> K, make: impl Fn(usize) -> L, ask: impl Fn(&L, K)) -> f64 {
        let held = |count: u64| {
            heap::bytes(|| {
                let limiter = make(count as usize);
                (0..count).for_each(|number| ask(&limiter, key(number)));
                limiter
            })
        };
        (held(2 * MILLION) - held(MILLION)) / MILLION as f64
    }
    let (load, row) = (Load::Refuse, "heap of a key, u64");
    if [GOVERNOR, RATE_NET, THROTTLE_NET].iter().any(|peer| bench.wants(row, peer)) {
        let ours = of(
            keys::spread,
            |cap| ours::keyed::<u64>(load.quota(), cap),
            |limiter, key| drop(limiter.check(&key, 1)),
        );
        // The peers' caps are twice as many keys: none is evicted.
        let governor =
            of(keys::spread, |_| governor_keyed::<u64>(load), |limiter, key| limiter.check_key(&key).unwrap());
        let rate_net = of(
            keys::spread,
            |cap| rate_net_keyed(load, 2 * cap),
            |limiter, key| assert!(limiter.check(key).is_allow()),
        );
        let throttle_net = of(
            keys::spread,
            |cap| throttle_net_keyed::<u64>(load, 2 * cap),
            |limiter, key| assert!(limiter.try_acquire(&key)),
        );
        bench.record(row, GOVERNOR, "B", &[(ours, governor)]);
        bench.record(row, RATE_NET, "B", &[(ours, rate_net)]);
        bench.record(row, THROTTLE_NET, "B", &[(ours, throttle_net)]);
    }
    let row = "heap of a key, strings of 32 bytes";
    if bench.wants(row, GOVERNOR) {
        let ours = of(
            keys::text,
            |cap| ours::keyed::<String>(load.quota(), cap),
            |limiter, key| drop(limiter.check(&key, 1)),
        );
        let governor =
            of(keys::text, |_| governor_keyed::<String>(load), |limiter, key| limiter.check_key(&key).unwrap());
        bench.record(row, GOVERNOR, "B", &[(ours, governor)]);
    }
    let (row, peer) = ("heap after a flood of ten times the most keys", "tollgate, at its most keys");
    if bench.wants(row, peer) {
        let after = |count: u64| {
            heap::bytes(|| {
                let limiter: KeyedBucket<u64> = ours::keyed(load.quota(), CAP);
                (0..count).for_each(|key| drop(limiter.check(&keys::spread(key), 1)));
                limiter
            })
        };
        bench.record(row, peer, "B", &[(after(10 * CAP as u64), after(CAP as u64))]);
    }
}

/// The slowest one in a hundred requests of known keys, with four requests of new keys before each, and without.
fn flood(bench: &mut Bench) {
    const REQUESTS: u64 = 10_000;
    let (row, peer) = ("grant, 99th percentile, flooded by new keys", "tollgate, not flooded");
    if !bench.wants(row, peer) {
        return;
    }
    let (draws, clock, load) = (keys::uniform(TEN_THOUSAND), quanta::Clock::new(), Load::Grant);
    let sample = |strangers: u64| {
        let limiter: Arc<KeyedBucket<u64>> = Arc::new(ours::keyed(load.quota(), CAP));
        for key in 0..TEN_THOUSAND {
            limiter.check(&keys::spread(key), 1).unwrap();
        }
        let (mut known, mut next, clock) = (keys::walk(&draws, 0), TEN_THOUSAND, &clock);
        let mut stranger = move |limiter: &KeyedBucket<u64>| {
            next += 1;
            drop(black_box(limiter.check(&keys::spread(next), 1)));
        };
        for _ in 0..CAP as u64 * strangers {
            stranger(&limiter);
        }
        move || {
            let mut ask = || {
                (0..strangers).for_each(|_| stranger(&limiter));
                let key = known();
                let before = clock.raw();
                load.expect(limiter.check(black_box(key), 1).is_ok());
                clock.raw() - before
            };
            // Loads what the other sample has displaced from the caches.
            for _ in 0..REQUESTS {
                ask();
            }
            let mut latencies: Vec<u64> = (0..REQUESTS).map(|_| ask()).collect();
            let rank = latencies.len() * 99 / 100 - 1;
            clock.delta(0, *latencies.select_nth_unstable(rank).1).as_nanos() as f64
        }
    };
    let (mut flooded, mut calm) = (sample(4), sample(0));
    let pairs = crate::bench::paired(bench.pairs(), &mut flooded, &mut calm);
    bench.record(row, peer, "ns", &pairs);
}
