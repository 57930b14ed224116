//! Grants of one strict limit that two threads share, each sample in a process of its own.
//!
//! Two threads trade one cache line, and its address decides the time: allocations of random sizes move it in each
//! process.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::one_limit::together;
use crate::bench::{Bench, paired};
use crate::load::Load;
use crate::peers::{self, GOVERNOR, GOVERNOR_STD, LEAKY_BUCKET, RATE_NET, THROTTLE_NET};
use crate::threads::throughput;
use crate::{floors, ours};

/// The hidden option of a process that takes one sample: it is followed by a limiter and by milliseconds.
pub const CHILD: &str = "--one-word";
const OURS: &str = "tollgate";
const FLOOR: &str = "floor: clock and compare-exchange";

pub fn measure(bench: &mut Bench) {
    let processes = bench.choose(9, 41);
    let row = format!("grant on one word, 2 threads, {processes} processes");
    let program = env::current_exe().unwrap();
    let millis = bench.span().as_millis().to_string();
    for peer in [GOVERNOR_STD, LEAKY_BUCKET, RATE_NET, THROTTLE_NET, GOVERNOR, FLOOR] {
        if bench.wants(&row, peer) {
            let sample = |limiter: &str| {
                let output = Command::new(&program).args([CHILD, limiter, &millis]).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
            };
            let pairs = paired(processes, || sample(OURS), || sample(peer));
            bench.record(&row, peer, "ns", &pairs);
        }
    }
}

/// Prints one sample of the limiter.
pub fn child(limiter: &str, millis: u64) {
    let (load, span) = (Load::Grant, Duration::from_millis(millis));
    let mut draws = RandomState::new().build_hasher();
    let moved: Vec<Vec<u8>> = (0..64)
        .map(|number| {
            draws.write_u32(number);
            vec![1; 16 + (draws.finish() % 4_096) as usize]
        })
        .collect();
    let nanos = match limiter {
        OURS => together!(load, 2, ours::bucket(load), |limiter| limiter.check(black_box(1)).is_ok())(span),
        GOVERNOR_STD => {
            together!(load, 2, Arc::new(peers::governor_std(load)), |limiter| limiter.check().is_ok())(span)
        }
        GOVERNOR => together!(load, 2, Arc::new(peers::governor(load)), |limiter| limiter.check().is_ok())(span),
        LEAKY_BUCKET => together!(load, 2, Arc::new(peers::leaky_bucket(load)), |limiter| limiter.try_acquire(1))(span),
        RATE_NET => together!(load, 2, Arc::new(peers::rate_net(load)), |limiter| limiter.check().is_allow())(span),
        THROTTLE_NET => {
            together!(load, 2, Arc::new(peers::throttle_net(load)), |limiter| limiter.try_acquire())(span)
        }
        FLOOR => {
            let start = Instant::now();
            together!(load, 2, Arc::new(floors::Word::default()), |word| {
                word.step_now(start);
                true
            })(span)
        }
        _ => panic!("no limiter {limiter}"),
    };
    println!("{nanos}");
    drop(moved);
}
