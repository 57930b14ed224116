//! A limit for each key: one key, ten thousand, a million; all alike, by rank, all of them new; and what keys weigh.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use support::forms::{Load, each_keyed};
use support::threads::percentile_of;
use support::{Suite, peers, zipf};
use tollgate::Quota;

/// What each key may do: ten a second, twenty at once. Keys asked for often are at their limit, the others are not.
const PER_SECOND: u32 = 10;
const BURST: u32 = 20;
const QUOTA: Quota = Quota::per_second(PER_SECOND as u64).burst(BURST as u64);
const THREADS: [usize; 2] = [1, 2];
const MILLION: u64 = 1_000_000;
/// The cap of a limiter that is flooded.
const CAP: u64 = 100_000;

/// Goes through the draws, from another place in each thread.
fn walk(draws: &[u64], thread: usize) -> impl FnMut() -> u64 + '_ {
    let mut at = thread * draws.len() / 3;
    move || {
        at = (at + 1) % draws.len();
        draws[at]
    }
}

/// Keys that are all there when the measuring starts.
fn known(suite: &mut Suite, keys: u64) {
    let governor = peers::governor_keyed(PER_SECOND, BURST);
    for key in 0..keys {
        governor.check_key(&zipf::spread(key)).unwrap();
    }
    let governor = &governor;
    for (kind, draws) in [("uniform", zipf::uniform(keys)), ("zipf", zipf::zipf(keys))] {
        for threads in THREADS {
            let (draws, mut group) = (&draws, suite.group(&format!("keyed/{kind} {keys}/{threads}")));
            each_keyed!(QUOTA, |name, make| {
                let limiter = make(2 * keys as usize);
                for key in 0..keys {
                    limiter.check(&zipf::spread(key), 1).unwrap();
                }
                group.contended(name, &["governor"], threads, move |thread| {
                    let (limiter, mut key) = (limiter.clone(), walk(draws, thread));
                    move || limiter.check(black_box(&key()), 1).is_ok()
                });
            });
            group.contended("governor", &[], threads, |thread| {
                let mut key = walk(draws, thread);
                move || governor.check_key(black_box(&key())).is_ok()
            });
            group.contended("floor: draws", &[], threads, |thread| walk(draws, thread));
            group.finish();
        }
    }
}

/// One key that is refused again and again.
fn hot(suite: &mut Suite, threads: usize) {
    let governor = governor::RateLimiter::dashmap(peers::governor_quota(Load::Refuse));
    governor.check_key(&7u64).unwrap();
    let mut group = suite.group(&format!("keyed/one refused/{threads}"));
    each_keyed!(Load::Refuse.quota(), |name, make| {
        let limiter = make(1_000);
        limiter.check(&7, 1).unwrap();
        group.contended(name, &["governor"], threads, move |_| {
            let limiter = limiter.clone();
            move || Load::Refuse.expect(limiter.check(black_box(&7), 1).is_ok())
        });
    });
    group.contended("governor", &[], threads, |_| {
        || Load::Refuse.expect(governor.check_key(black_box(&7)).is_ok())
    });
    group.finish();
}

/// Keys that nobody has asked for yet. Threads take them by the thousand: taking them is no part of what is contended.
fn fresh(next: &Arc<AtomicU64>) -> impl FnMut() -> u64 + use<> {
    let (next, mut keys) = (Arc::clone(next), 0..0);
    move || {
        let key = keys.next().unwrap_or_else(|| {
            let first = next.fetch_add(1_000, Ordering::Relaxed);
            keys = first + 1..first + 1_000;
            first
        });
        zipf::spread(key)
    }
}

/// Every key is asked for once and never again. This crate holds at most a million of them, governor all.
fn all_new(suite: &mut Suite, threads: usize) {
    let mut group = suite.group(&format!("keyed/all new/{threads}"));
    each_keyed!(QUOTA, |name, make| {
        let (limiter, next) = (make(MILLION as usize), Arc::default());
        group.contended(name, &["governor"], threads, move |_| {
            let (limiter, mut key) = (limiter.clone(), fresh(&next));
            move || limiter.check(black_box(&key()), 1).is_ok()
        });
    });
    let (governor, next) = (Arc::new(peers::governor_keyed(PER_SECOND, BURST)), Arc::default());
    group.contended("governor", &[], threads, move |_| {
        let (governor, mut key) = (Arc::clone(&governor), fresh(&next));
        move || governor.check_key(black_box(&key())).is_ok()
    });
    group.finish();
}

/// Bytes on the heap that what is built takes.
fn heap<L>(build: impl FnOnce() -> L) -> f64 {
    let mut built = None;
    let held = measure(|| built = Some(build()));
    held.bytes_current as f64
}

/// Bytes for each of a million keys that hold something back; and how much more all of it takes when ten times as many
/// keys have asked as this crate's cap allows. governor knows no cap.
fn memory(suite: &mut Suite) {
    let mut group = suite.group("keyed/memory");
    let mut tell = |name: &str, heap_of: &dyn Fn(u64, u64) -> f64| {
        // What a million keys more take: what the limiter takes besides is no key's.
        let more = heap_of(2 * MILLION, 2 * MILLION) - heap_of(MILLION, MILLION);
        group.figure(name, "bytes a key", &[more / MILLION as f64]);
        group.figure(name, "flooded", &[heap_of(CAP, 10 * CAP) / heap_of(CAP, CAP)]);
    };
    each_keyed!(Load::Refuse.quota(), |name, make| {
        tell(name, &|cap, keys| {
            heap(|| {
                let limiter = make(cap as usize);
                for key in 0..keys {
                    let _ = limiter.check(&zipf::spread(key), 1);
                }
                limiter
            })
        });
    });
    tell("governor", &|_, keys| {
        heap(|| {
            let limiter = governor::RateLimiter::dashmap(peers::governor_quota(Load::Refuse));
            for key in 0..keys {
                limiter.check_key(&zipf::spread(key)).unwrap();
            }
            limiter
        })
    });
    group.finish();
}

/// What known keys feel of a flood of new ones over the cap: how long their slowest asks take, four strangers between
/// any two.
fn flood(suite: &mut Suite, percentile: f64) {
    const KNOWN: u64 = 10_000;
    const ASKS: u64 = 10_000;
    let draws = zipf::uniform(KNOWN);
    let mut group = suite.group(&format!("keyed/flood/p{percentile}"));
    each_keyed!(QUOTA, |name, make| {
        for (row, strangers) in [(name.to_owned(), 0), (format!("{name}, flooded"), 4)] {
            let limiter = make(CAP as usize);
            for key in 0..KNOWN {
                limiter.check(&zipf::spread(key), 1).unwrap();
            }
            let mut stranger = fresh(&Arc::new(AtomicU64::new(KNOWN)));
            for _ in 0..CAP * strangers {
                let _ = limiter.check(&stranger(), 1);
            }
            let (mut key, clock) = (walk(&draws, 0), quanta::Clock::new());
            let references: &[&str] = if strangers > 0 { &[name] } else { &[] };
            group.batch(&row, references, move || {
                let mut ask = || {
                    for _ in 0..strangers {
                        let _ = limiter.check(&stranger(), 1);
                    }
                    let key = key();
                    let before = clock.raw();
                    let _ = black_box(limiter.check(black_box(&key), 1));
                    clock.raw() - before
                };
                // What the other row has left in the caches is no part of it.
                (0..KNOWN).for_each(|_| {
                    ask();
                });
                let mut latencies: Vec<u64> = (0..ASKS).map(|_| ask()).collect();
                clock.delta(0, percentile_of(&mut latencies, percentile)).as_nanos() as f64
            });
        }
    });
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(12));
    memory(&mut suite);
    for threads in THREADS {
        hot(&mut suite, threads);
    }
    known(&mut suite, 10_000);
    known(&mut suite, MILLION);
    for threads in THREADS {
        all_new(&mut suite, threads);
    }
    flood(&mut suite, 99.0);
}
