//! Limits of other crates on what the rows ask: the same rates and bursts, their clocks on, their refill on.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};

use super::forms::Load;

pub type Governor<C> =
    governor::RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

pub fn governor_quota(load: Load) -> governor::Quota {
    let units = |count| NonZeroU32::new(count).unwrap();
    match load {
        Load::Grant => governor::Quota::per_second(units(1_000_000_000)),
        Load::Refuse => governor::Quota::with_period(super::floors::DAY).unwrap(),
        Load::AtLimit => governor::Quota::per_second(units(1_000_000)).allow_burst(units(10_000)),
    }
}

/// governor on its default clock, the processor's counter by quanta.
pub fn governor(load: Load) -> Governor<DefaultClock> {
    spent(load, governor::RateLimiter::direct(governor_quota(load)), |limiter| limiter.check().is_ok())
}

/// governor on the standard library's clock.
pub fn governor_std(load: Load) -> Governor<MonotonicClock> {
    let limiter = governor::RateLimiter::direct_with_clock(governor_quota(load), MonotonicClock);
    spent(load, limiter, |limiter| limiter.check().is_ok())
}

pub fn ratelimit(load: Load) -> ratelimit::Ratelimiter {
    let built =
        |rate, burst| ratelimit::Ratelimiter::builder(rate).max_tokens(burst).initial_available(burst);
    let builder = match load {
        Load::Grant => built(1_000_000_000, 1_000_000_000),
        Load::Refuse => built(1, 1).period(super::floors::DAY),
        Load::AtLimit => built(1_000_000, 10_000),
    };
    spent(load, builder.build().unwrap(), |limiter| limiter.try_wait().is_ok())
}

pub fn leaky_bucket(load: Load) -> leaky_bucket::RateLimiter {
    let built = |refill, interval, max| {
        leaky_bucket::RateLimiter::builder().refill(refill).interval(interval).max(max).initial(max).build()
    };
    let tick = Duration::from_millis(1);
    let limiter = match load {
        Load::Grant => built(1_000_000, tick, 1_000_000_000),
        Load::Refuse => built(1, super::floors::DAY, 1),
        Load::AtLimit => built(1_000, tick, 10_000),
    };
    spent(load, limiter, |limiter| limiter.try_acquire(1))
}

pub type GovernorKeyed = governor::DefaultKeyedRateLimiter<u64>;

/// governor's keyed limit as it comes: a concurrent map on SipHash, its clock the processor's counter.
pub fn governor_keyed(units_per_second: u32, burst: u32) -> GovernorKeyed {
    let units = |count| NonZeroU32::new(count).unwrap();
    governor::RateLimiter::dashmap(
        governor::Quota::per_second(units(units_per_second)).allow_burst(units(burst)),
    )
}

/// A limit that is to refuse has admitted all it will.
pub fn spent<L>(load: Load, limiter: L, admits: impl Fn(&L) -> bool) -> L {
    if load == Load::Refuse {
        while admits(&limiter) {}
    }
    limiter
}
