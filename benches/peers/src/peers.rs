//! The limiters of other crates, on the same rates and bursts, with their clocks on.
//!
//! rate-net's `CoarseClock` is no peer: a thread moves its time each millisecond, so that a decision reads no clock.

use std::collections::VecDeque;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use governor::DefaultKeyedRateLimiter;
use governor::clock::{Clock, DefaultClock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use rate_net::Algorithm;

use crate::load::{DAY, Load};

/// Names of the peers, as the rows print them.
pub const GOVERNOR: &str = "governor, its counter";
pub const GOVERNOR_STD: &str = "governor, std clock";
pub const RATE_NET: &str = "rate-net";
pub const THROTTLE_NET: &str = "throttle-net";
pub const RATELIMIT: &str = "ratelimit";
pub const LEAKY_BUCKET: &str = "leaky-bucket";
pub const SEMAPHORE: &str = "tokio Semaphore";

pub type Governor<C> =
    governor::RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

pub fn units(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

pub fn governor_quota(load: Load) -> governor::Quota {
    match load {
        Load::Grant => governor::Quota::per_second(units(1_000_000_000)),
        Load::Refuse => governor::Quota::with_period(DAY).unwrap(),
        Load::AtLimit => governor::Quota::per_second(units(1_000_000)).allow_burst(units(10_000)),
    }
}

/// governor on its default clock: the processor's counter, read by quanta.
pub fn governor(load: Load) -> Governor<DefaultClock> {
    load.prepare(governor::RateLimiter::direct(governor_quota(load)), |limiter| limiter.check().is_ok())
}

pub fn governor_std(load: Load) -> Governor<MonotonicClock> {
    let limiter = governor::RateLimiter::direct_with_clock(governor_quota(load), MonotonicClock);
    load.prepare(limiter, |limiter| limiter.check().is_ok())
}

/// governor's keyed limit as it comes: a concurrent map on SipHash, on the processor's counter.
pub fn governor_keyed<K: Hash + Eq + Clone>(load: Load) -> DefaultKeyedRateLimiter<K> {
    governor::RateLimiter::dashmap(governor_quota(load))
}

fn rate_net_quota(load: Load) -> rate_net::Quota {
    match load {
        Load::Grant => rate_net::Quota::per_second(1_000_000_000),
        Load::Refuse => rate_net::Quota::rate(1, DAY).unwrap(),
        Load::AtLimit => rate_net::Quota::per_second(1_000_000).with_burst(10_000),
    }
}

pub fn rate_net(load: Load) -> rate_net::DirectLimiter {
    let limiter = rate_net::DirectLimiter::with_quota(rate_net_quota(load));
    load.prepare(limiter, |limiter| limiter.check().is_allow())
}

/// One of rate-net's window algorithms.
pub fn rate_net_window(
    load: Load,
    algorithm: Algorithm,
    (limit, window): (u32, Duration),
) -> rate_net::DirectLimiter {
    let builder = rate_net::RateLimiter::builder().algorithm(algorithm).quota(limit, window);
    load.prepare(builder.try_build_direct().unwrap(), |limiter| limiter.check().is_allow())
}

pub fn rate_net_keyed(load: Load, keys: usize) -> rate_net::RateLimiter {
    rate_net::RateLimiter::with_quota(rate_net_quota(load)).with_eviction(rate_net::Eviction::capacity(keys))
}

pub fn throttle_net(load: Load) -> throttle_net::Throttle {
    let limiter = match load {
        Load::Grant => throttle_net::Throttle::per_second(1_000_000_000),
        Load::Refuse => throttle_net::Throttle::per_duration(1, DAY),
        Load::AtLimit => throttle_net::Throttle::builder().per_second(1_000_000).burst(10_000).build(),
    };
    load.prepare(limiter, |limiter| limiter.try_acquire())
}

pub fn throttle_net_window(load: Load, (limit, window): (u32, Duration)) -> throttle_net::SlidingWindowLog {
    load.prepare(throttle_net::SlidingWindowLog::new(limit, window), |limiter| limiter.try_acquire())
}

pub fn throttle_net_keyed<K>(load: Load, keys: usize) -> throttle_net::PerKey<K>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let limiter = match load {
        Load::Refuse => throttle_net::PerKey::per_duration(1, DAY),
        _ => throttle_net::PerKey::per_second(1_000_000_000),
    };
    limiter.with_eviction(throttle_net::Eviction::capacity(keys))
}

pub fn ratelimit(load: Load) -> ratelimit::Ratelimiter {
    let built =
        |rate, burst| ratelimit::Ratelimiter::builder(rate).max_tokens(burst).initial_available(burst);
    let builder = match load {
        Load::Grant => built(1_000_000_000, 1_000_000_000),
        Load::Refuse => built(1, 1).period(DAY),
        Load::AtLimit => built(1_000_000, 10_000),
    };
    load.prepare(builder.build().unwrap(), |limiter| limiter.try_wait().is_ok())
}

pub fn leaky_bucket(load: Load) -> leaky_bucket::RateLimiter {
    let built = |refill, interval, max| {
        leaky_bucket::RateLimiter::builder().refill(refill).interval(interval).max(max).initial(max).build()
    };
    let tick = Duration::from_millis(1);
    let limiter = match load {
        Load::Grant => built(1_000_000, tick, 1_000_000_000),
        Load::Refuse => built(1, DAY, 1),
        Load::AtLimit => built(1_000, tick, 10_000),
    };
    load.prepare(limiter, |limiter| limiter.try_acquire(1))
}

/// The exact window as programs write it themselves: times behind a lock.
pub struct Log {
    limit: usize,
    window: Duration,
    times: Mutex<VecDeque<Instant>>,
}

impl Log {
    pub const NAME: &str = "Mutex<VecDeque>";

    pub fn new(load: Load, (limit, window): (u32, Duration)) -> Self {
        load.prepare(Self { limit: limit as usize, window, times: Mutex::default() }, Self::check)
    }

    pub fn check(&self) -> bool {
        let mut times = self.times.lock().unwrap();
        let now = Instant::now();
        while times.front().is_some_and(|&time| now.duration_since(time) >= self.window) {
            times.pop_front();
        }
        let admitted = times.len() < self.limit;
        if admitted {
            times.push_back(now);
        }
        admitted
    }
}
