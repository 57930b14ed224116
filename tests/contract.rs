//! The contract suite on every limiter of the crate, on governor's, and on ones a user would write.

use std::sync::Arc;
use std::time::Duration;

use tollgate::algorithm::{Algorithm, Balance, FromQuota, Grant, When};
use tollgate::contract::Contract;
use tollgate::*;

fn on_clock<L, K>(key: K, make: impl Fn(ManualClock, u64) -> L)
where
    L: Limiter<K> + Clone,
    L::Fault: std::fmt::Debug,
{
    let clock = ManualClock::new();
    Contract::new(|capacity| make(clock.clone(), capacity), key, |span| clock.advance(span)).check();
}

#[test]
fn token_bucket() {
    on_clock((), |clock, n| TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap());
    on_clock((), |clock, n| {
        TokenBucket::builder(Quota::per(7, Duration::from_secs(60)).burst(n)).clock(clock).build().unwrap()
    });
}

#[test]
fn striped() {
    // What threads hold lies beside the capacity.
    for portion in [0, 1, 2, 3, 4, 64] {
        on_clock((), |clock, n| {
            let quota = Quota::per(n, Duration::from_secs(60)).burst(n + portion);
            TokenBucket::builder(quota).clock(clock).striped().reserve(1, portion).build().unwrap()
        });
    }
}

#[test]
fn sliding_window() {
    on_clock((), |clock, n| SlidingWindow::builder(Quota::per_minute(n)).clock(clock).build().unwrap());
    on_clock((), |clock, n| {
        SlidingWindow::builder(Quota::per_minute(n)).segments(6).clock(clock).build().unwrap()
    });
}

#[test]
fn sliding_counter() {
    on_clock((), |clock, n| SlidingCounter::builder(Quota::per_minute(n)).clock(clock).build().unwrap());
}

#[test]
fn fixed_window() {
    on_clock((), |clock, n| FixedWindow::builder(Quota::per_minute(n)).clock(clock).build().unwrap());
    on_clock((), |clock, n| {
        let quota = Quota::every(Duration::from_secs(1)).burst(n);
        FixedWindow::builder(quota).anchored(algorithm::Anchor::Epoch).clock(clock).build().unwrap()
    });
}

#[test]
fn joint() {
    on_clock((), |clock, n| {
        SlidingWindow::all([Quota::per_minute(n), Quota::per_hour(2 * n)]).clock(clock).build().unwrap()
    });
}

#[test]
fn chosen_while_running() {
    on_clock((), |clock, n| {
        let chosen =
            algorithm::SlidingWindow::from_quota(Quota::per_minute(n)).map(algorithm::Any::SlidingWindow);
        RateLimiter::over(chosen.unwrap()).clock(clock).build().unwrap()
    });
}

#[test]
fn on_trial_in_earnest_for_all() {
    on_clock(7, |clock, n| {
        let bucket = TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap();
        bucket.keyed::<u32>().shadow().enforcing(Share::percent(100))
    });
}

#[cfg(feature = "metrics")]
#[test]
fn observed() {
    on_clock((), |clock, n| {
        let bucket = TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap();
        bucket.observed("contract").unwrap()
    });
}

#[test]
fn keyed() {
    on_clock(String::from("ann"), |clock, n| {
        TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap().keyed()
    });
}

#[test]
fn concurrency() {
    on_clock((), |clock, n| Concurrency::builder(n).clock(clock).build().unwrap());
}

#[test]
fn by() {
    on_clock(("ann", 3), |clock, n| {
        let per_name = TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap().keyed();
        per_name.by(|(name, _): &(&'static str, i32)| (*name).to_owned())
    });
}

#[test]
fn and() {
    // No line of its own: those who wait stand in the lines of the two.
    let clock = ManualClock::new();
    let make = |n| {
        let rate = TokenBucket::builder(Quota::per_minute(n)).clock(clock.clone()).build().unwrap();
        rate.and(Concurrency::builder(n).clock(clock.clone()).build().unwrap())
    };
    Contract::new(make, (), |span| clock.advance(span)).check();
    let make = |n| {
        let day = SlidingWindow::builder(Quota::per_hour(n)).clock(clock.clone()).build().unwrap();
        TokenBucket::builder(Quota::per_minute(n)).clock(clock.clone()).build().unwrap().and(day)
    };
    Contract::new(make, (), |span| clock.advance(span)).check();
}

#[test]
fn boxed() {
    on_clock((), |clock, n| {
        TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap().boxed::<()>()
    });
}

#[test]
fn function() {
    on_clock((), |clock, n| {
        let bucket = TokenBucket::builder(Quota::per_minute(n)).clock(clock).build().unwrap();
        limiter_fn(move |_: &(), ask: Ask| {
            let bucket = bucket.clone();
            async move { bucket.acquire(ask).await }
        })
    });
}

#[test]
fn the_handle_of_a_key_is_its_limit() {
    let keyed = TokenBucket::new(Quota::per_minute(1)).unwrap().keyed::<u32>();
    let handle = keyed.get(&1).unwrap().expect("it is not exempt");
    assert!(handle.check(1).is_ok());
    assert!(keyed.check(&1, 1).is_err());
}

/// Admits at most `limit` in all of time, until an hour has passed since the last.
#[derive(Clone, Debug)]
struct UntilQuiet(u64);

impl Algorithm for UntilQuiet {
    type State = (u64, Timestamp);
    fn start(&self, now: Timestamp, _unix_ns: u64) -> Self::State {
        (0, now)
    }
    fn capacity(&self) -> u64 {
        self.0
    }
    fn ready_at(&self, state: &mut Self::State, now: Timestamp, cost: u64) -> When {
        let quiet = state.1.after(Duration::from_secs(3_600));
        if now >= quiet {
            state.0 = 0;
        }
        match state.0 + cost {
            _ if cost > self.0 => When::Never,
            used if used <= self.0 => When::At(now),
            _ => When::At(quiet),
        }
    }
    fn force(&self, state: &mut Self::State, now: Timestamp, cost: u64) {
        *state = (state.0 + cost, now);
    }
    fn give_back(&self, state: &mut Self::State, _now: Timestamp, _grant: Grant, units: u64) {
        state.0 = state.0.saturating_sub(units);
    }
    fn balance(&self, state: &mut Self::State, now: Timestamp) -> Balance {
        let full = self.ready_at(state, now, self.0);
        Balance::new(self.0.saturating_sub(state.0), state.0.saturating_sub(self.0), full)
    }
    fn change(&mut self, next: Self, _state: &mut Self::State, _now: Timestamp) {
        *self = next;
    }
}

impl Stored for UntilQuiet {
    type FastPath = NoFastPath;
}

#[test]
fn an_algorithm_of_ones_own() {
    on_clock((), |clock, n| RateLimiter::over(UntilQuiet(n)).clock(clock).build().unwrap());
}

#[cfg(feature = "governor")]
mod governors {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::num::NonZeroU32;

    fn quota(n: u64) -> governor::Quota {
        governor::Quota::per_minute(NonZeroU32::new(n as u32).unwrap())
    }

    // Waits are timed by tokio, so governor's own clock is moved beside it and the wait is polled again.
    #[tokio::test]
    async fn direct() {
        let clock = FakeRelativeClock::default();
        let make = |n| Arc::new(governor::RateLimiter::direct_with_clock(quota(n), clock.clone()));
        Contract::new(make, (), |span| clock.advance(span)).without_line().without_refunds().check();
    }

    #[tokio::test]
    async fn keyed() {
        let clock = FakeRelativeClock::default();
        let make = |n| Arc::new(governor::RateLimiter::hashmap_with_clock(quota(n), clock.clone()));
        Contract::new(make, 7_u32, |span| clock.advance(span)).without_line().without_refunds().check();
    }

    #[tokio::test]
    async fn stands_where_ours_do() {
        let direct = Arc::new(governor::RateLimiter::direct(quota(2)));
        let both = direct.by(|_: &str| ()).and(Concurrency::new(8));
        let permit = both.acquire("any", Ask::ONE).await.unwrap();
        drop(permit);
        assert!(both.try_acquire("any", Cost::ONE).is_ok());
        let denied = both.try_acquire("any", Cost::ONE).unwrap_err();
        assert_eq!(denied.reason(), Reason::Exhausted);
        let none = both.acquire("any", Ask::ONE.within(Duration::from_secs(1))).await;
        assert!(matches!(none, Err(Error::Denied(_))), "half a minute does not fit a second");
    }
}
