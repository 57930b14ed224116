//! What a limiter is, written as tests: run it on a limiter of your own.
//!
//! ```
//! use tollgate::contract::Contract;
//! use tollgate::{ManualClock, Quota, TokenBucket};
//!
//! let clock = ManualClock::new();
//! let make = |capacity| {
//!     TokenBucket::builder(Quota::per_minute(capacity)).clock(clock.clone()).build().expect("a good quota")
//! };
//! Contract::new(make, (), |span| clock.advance(span)).check();
//! ```

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::limiter::{Limiter, Permit};
use crate::types::{Ask, Error, Reason};

/// By when a limiter under test has restored all of its capacity.
const LONG: Duration = Duration::from_secs(3_600);

/// The laws, and a limiter to hold to them.
#[must_use = "nothing is tested until `check`"]
pub struct Contract<M, K, T> {
    make: M,
    key: K,
    pass_time: T,
    refunds: bool,
    in_line: bool,
}

impl<M, K, T> fmt::Debug for Contract<M, K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract").finish_non_exhaustive()
    }
}

type Answer<L, K> = Result<<L as Limiter<K>>::Permit, Error<<L as Limiter<K>>::Fault>>;

impl<M, K, T, L> Contract<M, K, T>
where
    M: Fn(u64) -> L,
    L: Limiter<K> + Clone,
    L::Fault: fmt::Debug,
    T: Fn(Duration),
{
    /// A contract for the limiters that `make` makes: fresh, with the capacity it is given, all of which is there again
    /// an hour of `pass_time` after its permits are dropped. The asks are about `key`.
    ///
    /// `pass_time` moves the limiter's clock. A limiter whose waits need a runtime is tested inside one.
    pub const fn new(make: M, key: K, pass_time: T) -> Self {
        Self { make, key, pass_time, refunds: true, in_line: true }
    }

    /// For a limiter that cannot take back what was granted.
    pub const fn without_refunds(mut self) -> Self {
        self.refunds = false;
        self
    }

    /// For a limiter that keeps no order among those who wait.
    pub const fn without_line(mut self) -> Self {
        self.in_line = false;
        self
    }

    /// Holds the limiter to each law.
    ///
    /// # Panics
    /// When one is broken, with its words.
    pub fn check(&self) {
        self.admits_its_capacity_and_no_more();
        self.does_nothing_before_the_first_poll();
        self.takes_nothing_when_it_refuses();
        self.is_shared_by_clones();
        self.admits_a_cost_of_zero();
        self.says_never_above_the_capacity();
        self.gives_a_wait_that_is_enough_and_not_more();
        self.lets_in_who_waits();
        self.forgets_who_gives_up();
        if self.in_line {
            self.lets_nobody_pass_who_waits();
            self.gives_back_what_is_granted_and_not_delivered();
        }
        if self.refunds {
            self.takes_back_what_is_refunded_at_once();
        }
    }

    fn poll(&self, acquire: Pin<&mut L::Acquire>) -> Poll<Answer<L, K>> {
        acquire.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Asks and does not wait.
    fn ask_now(&self, limiter: &L, units: u64) -> Answer<L, K> {
        let acquire = pin!(limiter.acquire(&self.key, Ask::cost(units).within(Duration::ZERO)));
        match self.poll(acquire) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("an ask within zero never waits"),
        }
    }

    fn must_admit(&self, limiter: &L, units: u64, law: &str) -> L::Permit {
        match self.ask_now(limiter, units) {
            Ok(permit) => permit,
            Err(error) => panic!("{law}: {units} should have been admitted, but: {error:?}"),
        }
    }

    fn must_refuse(&self, limiter: &L, units: u64, law: &str) -> crate::types::Denied {
        match self.ask_now(limiter, units) {
            Ok(_) => panic!("{law}: {units} should have been refused"),
            Err(Error::Denied(denied)) => denied,
            Err(Error::Fault(fault)) => panic!("{law}: {fault:?}"),
        }
    }

    fn admits_its_capacity_and_no_more(&self) {
        let law = "a fresh limiter admits its capacity and no more";
        for capacity in [1, 2, 7] {
            let limiter = (self.make)(capacity);
            let held: Vec<_> = (0..capacity).map(|_| self.must_admit(&limiter, 1, law)).collect();
            self.must_refuse(&limiter, 1, law);
            drop(held);
            (self.pass_time)(LONG);
            let whole = self.must_admit(&limiter, capacity, law);
            self.must_refuse(&limiter, 1, law);
            assert_eq!(whole.cost().units(), capacity, "a permit tells its cost");
        }
    }

    fn does_nothing_before_the_first_poll(&self) {
        let limiter = (self.make)(1);
        drop(limiter.acquire(&self.key, Ask::ONE));
        let unpolled = limiter.acquire(&self.key, Ask::ONE);
        let _held = self.must_admit(&limiter, 1, "nothing is taken before the first poll");
        drop(unpolled);
    }

    fn takes_nothing_when_it_refuses(&self) {
        let law = "a refusal takes nothing";
        let limiter = (self.make)(5);
        let _two = self.must_admit(&limiter, 2, law);
        self.must_refuse(&limiter, 4, law);
        self.must_refuse(&limiter, 6, law);
        let _three = self.must_admit(&limiter, 3, law);
    }

    fn is_shared_by_clones(&self) {
        let law = "clones share one limit";
        let limiter = (self.make)(1);
        let _held = self.must_admit(&limiter.clone(), 1, law);
        self.must_refuse(&limiter, 1, law);
    }

    fn admits_a_cost_of_zero(&self) {
        let law = "a cost of zero is admitted and changes nothing";
        let limiter = (self.make)(1);
        let _nothing = self.must_admit(&limiter, 0, law);
        let _held = self.must_admit(&limiter, 1, law);
        let _nothing_more = self.must_admit(&limiter, 0, law);
    }

    fn says_never_above_the_capacity(&self) {
        let law = "a cost above the capacity is refused as such, in every verb";
        let limiter = (self.make)(3);
        let mut waiting = pin!(limiter.acquire(&self.key, Ask::cost(4)));
        let waited = match self.poll(waiting.as_mut()) {
            Poll::Ready(Err(Error::Denied(denied))) => denied,
            Poll::Ready(_) => panic!("{law}: it was admitted or failed"),
            Poll::Pending => panic!("{law}: it waits for ever"),
        };
        for denied in [waited, self.must_refuse(&limiter, 4, law)] {
            assert_eq!(denied.reason(), Reason::ExceedsCapacity, "{law}");
            assert_eq!(denied.retry_after(), None, "{law}: no wait would help");
        }
    }

    fn gives_a_wait_that_is_enough_and_not_more(&self) {
        let law = "a refusal gives the smallest wait after which the same ask would pass";
        let limiter = (self.make)(3);
        let _held = self.must_admit(&limiter, 2, law);
        // None: others must finish first, which no time tells.
        if let Some(wait) = self.must_refuse(&limiter, 2, law).retry_after() {
            assert!(wait > Duration::ZERO, "{law}: it was refused now");
            (self.pass_time)(wait - Duration::from_nanos(1));
            self.must_refuse(&limiter, 2, law);
            (self.pass_time)(Duration::from_nanos(1));
            let _passes = self.must_admit(&limiter, 2, law);
        }
    }

    fn lets_in_who_waits(&self) {
        let law = "who waits is let in when there is room";
        let limiter = (self.make)(1);
        let held = self.must_admit(&limiter, 1, law);
        let mut waiting = pin!(limiter.acquire(&self.key, Ask::ONE));
        assert!(self.poll(waiting.as_mut()).is_pending(), "{law}: it did not wait");
        drop(held);
        (self.pass_time)(LONG);
        assert!(matches!(self.poll(waiting.as_mut()), Poll::Ready(Ok(_))), "{law}");
    }

    fn forgets_who_gives_up(&self) {
        let law = "who gives up leaves the limit as if it had never been asked";
        let limiter = (self.make)(2);
        let held = self.must_admit(&limiter, 2, law);
        let mut waiting = Box::pin(limiter.acquire(&self.key, Ask::cost(2)));
        assert!(self.poll(waiting.as_mut()).is_pending(), "{law}: it did not wait");
        drop(waiting);
        drop(held);
        (self.pass_time)(LONG);
        let _whole = self.must_admit(&limiter, 2, law);
    }

    fn lets_nobody_pass_who_waits(&self) {
        let law = "no small ask passes a large one that waits";
        let limiter = (self.make)(3);
        let held = self.must_admit(&limiter, 2, law);
        let mut large = pin!(limiter.acquire(&self.key, Ask::cost(3)));
        assert!(self.poll(large.as_mut()).is_pending(), "{law}: it did not wait");
        self.must_refuse(&limiter, 1, law);
        let mut small = pin!(limiter.acquire(&self.key, Ask::ONE));
        assert!(self.poll(small.as_mut()).is_pending(), "{law}");
        drop(held);
        (self.pass_time)(LONG);
        let granted = match self.poll(large.as_mut()) {
            Poll::Ready(Ok(permit)) => permit,
            _ => panic!("{law}: the large one was not served"),
        };
        drop(granted);
        (self.pass_time)(LONG);
        assert!(
            matches!(self.poll(small.as_mut()), Poll::Ready(Ok(_))),
            "{law}: the small one was forgotten"
        );
    }

    fn gives_back_what_is_granted_and_not_delivered(&self) {
        let law = "a grant that was not delivered goes back";
        let limiter = (self.make)(1);
        let held = self.must_admit(&limiter, 1, law);
        let mut first = Box::pin(limiter.acquire(&self.key, Ask::ONE));
        let mut second = pin!(limiter.acquire(&self.key, Ask::ONE));
        assert!(self.poll(first.as_mut()).is_pending() && self.poll(second.as_mut()).is_pending(), "{law}");
        drop(held);
        // The first is granted, or about to be, and never hears of it.
        drop(first);
        (self.pass_time)(LONG);
        assert!(matches!(self.poll(second.as_mut()), Poll::Ready(Ok(_))), "{law}");
    }

    fn takes_back_what_is_refunded_at_once(&self) {
        let law = "an immediate refund is worth what was taken";
        let limiter = (self.make)(3);
        self.must_admit(&limiter, 2, law).refund();
        let part = self.must_admit(&limiter, 3, law);
        part.refund();
        let _whole = self.must_admit(&limiter, 3, law);
        self.must_refuse(&limiter, 1, law);
    }
}
