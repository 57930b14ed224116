//! The hot paths, one a run, for a counter of instructions: `instructions PATH CALLS` makes so many calls and nothing
//! else that depends on their number. `bash benches/count` counts; without arguments the paths are listed.

mod support;

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::now;
use tollgate::clock::NoTimer;
use tollgate::{
    Clock, Concurrency, FixedWindow, LimitLayer, Quota, SlidingCounter, SlidingWindow, Timestamp, TokenBucket,
};
use tower::{Layer, Service, service_fn};

/// A clock that goes on by 40 ns each time it is read: the same in every run and on every machine.
#[derive(Clone, Default)]
struct Steps(Arc<AtomicU64>);

impl Clock for Steps {
    type Timer = NoTimer;

    #[inline]
    fn now(&self) -> Timestamp {
        Timestamp::from_ns(self.0.fetch_add(40, Ordering::Relaxed))
    }

    fn timer(&self) -> Option<NoTimer> {
        None
    }
}

const GRANT: Quota = Quota::per_second(1_000_000_000);
/// Some hundreds are in the window at any time, and there is room for more.
const GRANT_WINDOW: Quota = Quota::per(8_192, Duration::from_micros(20));
const REFUSE: Quota = Quota::per_day(1);

/// A path: it makes so many calls.
type Path = fn(u64);

macro_rules! rate {
    ($limiter:ident, $quota:expr, $expected:literal) => {
        |count| {
            let limiter = $limiter::builder($quota).clock(Steps::default()).build().unwrap();
            // What is remembered is there, or spent, and a log is in its ring, before it counts.
            for _ in 0..20_000 {
                let _ = limiter.check(1);
            }
            for _ in 0..count {
                assert_eq!(limiter.check(black_box(1)).is_ok(), $expected);
            }
        }
    };
}

macro_rules! keyed {
    ($quota:expr, $expected:literal) => {
        |count| {
            let limiter =
                TokenBucket::builder($quota).clock(Steps::default()).build().unwrap().keyed::<u64>();
            limiter.check(&7, 1).unwrap();
            for _ in 0..count {
                assert_eq!(limiter.check(black_box(&7), black_box(1)).is_ok(), $expected);
            }
        }
    };
}

const PATHS: [(&str, Path); 15] = [
    ("bucket grant", rate!(TokenBucket, GRANT, true)),
    ("bucket refuse", rate!(TokenBucket, REFUSE, false)),
    ("exact window grant", rate!(SlidingWindow, GRANT_WINDOW, true)),
    ("exact window refuse", rate!(SlidingWindow, REFUSE, false)),
    ("counter grant", rate!(SlidingCounter, GRANT_WINDOW, true)),
    ("counter refuse", rate!(SlidingCounter, REFUSE, false)),
    ("fixed window grant", rate!(FixedWindow, GRANT_WINDOW, true)),
    ("fixed window refuse", rate!(FixedWindow, REFUSE, false)),
    ("bucket permit", |count| {
        let limiter = TokenBucket::builder(GRANT).clock(Steps::default()).build().unwrap();
        for _ in 0..count {
            drop(limiter.try_acquire(black_box(1)).unwrap());
        }
    }),
    ("bucket awaited", |count| {
        let limiter = TokenBucket::builder(GRANT).clock(Steps::default()).build().unwrap();
        for _ in 0..count {
            drop(now(limiter.acquire(black_box(1))).unwrap());
        }
    }),
    ("bucket in a layer", |count| {
        let limiter = TokenBucket::builder(GRANT).clock(Steps::default()).build().unwrap();
        let mut service =
            LimitLayer::new(limiter).layer(service_fn(|word: u64| ready(Ok::<_, Infallible>(word))));
        for _ in 0..count {
            now(poll_fn(|cx| service.poll_ready(cx))).unwrap();
            now(service.call(black_box(7))).unwrap();
        }
    }),
    ("striped grant", |count| {
        let limiter = TokenBucket::builder(GRANT).clock(Steps::default()).striped().build().unwrap();
        for _ in 0..count {
            limiter.check(black_box(1)).unwrap();
        }
    }),
    ("slot", |count| {
        let slots = Concurrency::builder(2).clock(Steps::default()).build().unwrap();
        for _ in 0..count {
            drop(slots.try_acquire(black_box(1)).unwrap());
        }
    }),
    ("known key grant", keyed!(GRANT, true)),
    ("known key refuse", keyed!(REFUSE, false)),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(name) = arguments.next() else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let count = arguments.next().and_then(|count| count.parse().ok());
    match (PATHS.iter().find(|(path, _)| *path == name), count) {
        (Some((_, path)), Some(count)) => path(count),
        _ => panic!("a path and a number of calls"),
    }
}
