//! One of the algorithms, chosen while the program runs.

use super::{
    Algorithm, Balance, FixedWindow, FromQuota, Grant, SlidingCounter, SlidingWindow, TokenBucket, When,
    start_late,
};
use crate::types::Policy;
use crate::units::{Quota, QuotaError, Timestamp};

macro_rules! any {
    ($($(#[$doc:meta])* $name:ident),+) => {
        /// One of the algorithms, chosen while the program runs: by configuration, say.
        ///
        /// **Guarantee.** The chosen one's. A change to another algorithm starts anew.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Any {
            $($(#[$doc])* $name($name),)+
        }

        /// The state of the chosen one.
        #[derive(Debug, Clone)]
        #[allow(unnameable_types, reason = "the state of a pure algorithm is its own business")]
        pub enum State {
            $($name(<$name as Algorithm>::State),)+
        }

        impl Any {
            /// Asks the chosen one, with a state of its kind: one of another kind, which only a mistake could bring,
            /// is started anew.
            fn with<R>(
                &self,
                state: &mut State,
                now: Timestamp,
                ask: impl FnOnce(&mut dyn Asked) -> R,
            ) -> R {
                match (self, &mut *state) {
                    $((Self::$name(one), State::$name(state)) => ask(&mut Pair(one, state)),)+
                    _ => {
                        *state = self.start(now, now.as_ns());
                        match (self, state) {
                            $((Self::$name(one), State::$name(state)) => ask(&mut Pair(one, state)),)+
                            _ => unreachable!("it was started by this very algorithm"),
                        }
                    }
                }
            }
        }

        impl Algorithm for Any {
            type State = State;

            fn start(&self, now: Timestamp, unix_ns: u64) -> State {
                match self {
                    $(Self::$name(one) => State::$name(one.start(now, unix_ns)),)+
                }
            }

            fn capacity(&self) -> u64 {
                match self {
                    $(Self::$name(one) => one.capacity(),)+
                }
            }

            fn policy(&self) -> Policy {
                match self {
                    $(Self::$name(one) => one.policy(),)+
                }
            }

            fn ready_at(&self, state: &mut State, now: Timestamp, cost: u64) -> When {
                self.with(state, now, |one| one.ready_at(now, cost))
            }

            fn force(&self, state: &mut State, now: Timestamp, cost: u64) {
                self.with(state, now, |one| one.force(now, cost));
            }

            fn give_back(&self, state: &mut State, now: Timestamp, grant: Grant, units: u64) {
                self.with(state, now, |one| one.give_back(now, grant, units));
            }

            fn balance(&self, state: &mut State, now: Timestamp) -> Balance {
                self.with(state, now, |one| one.balance(now))
            }

            fn change(&mut self, next: Self, state: &mut State, now: Timestamp) {
                match (self, next, state) {
                    $((Self::$name(one), Self::$name(next), State::$name(state)) => one.change(next, state, now),)+
                    (one, next, state) => {
                        *one = next;
                        *state = start_late(&next, now, now.as_ns());
                    }
                }
            }

            fn ready_behind(&self, state: &State, now: Timestamp, ahead: u64, cost: u64) -> Option<When> {
                match (self, state) {
                    $((Self::$name(one), State::$name(state)) => one.ready_behind(state, now, ahead, cost),)+
                    _ => None,
                }
            }
        }

        impl FromQuota for Any {
            /// A token bucket, unless another was chosen before: see [`with_quota`](FromQuota::with_quota).
            fn from_quota(quota: Quota) -> Result<Self, QuotaError> {
                TokenBucket::from_quota(quota).map(Self::TokenBucket)
            }

            fn with_quota(&self, quota: Quota) -> Result<Self, QuotaError> {
                match self {
                    $(Self::$name(one) => one.with_quota(quota).map(Self::$name),)+
                }
            }
        }
    };
}

any!(
    /// See [`TokenBucket`].
    TokenBucket,
    /// See [`SlidingWindow`].
    SlidingWindow,
    /// See [`SlidingCounter`].
    SlidingCounter,
    /// See [`FixedWindow`].
    FixedWindow
);

/// An algorithm and its state, whichever it is.
trait Asked {
    fn ready_at(&mut self, now: Timestamp, cost: u64) -> When;
    fn force(&mut self, now: Timestamp, cost: u64);
    fn give_back(&mut self, now: Timestamp, grant: Grant, units: u64);
    fn balance(&mut self, now: Timestamp) -> Balance;
}

struct Pair<'a, A: Algorithm>(&'a A, &'a mut A::State);

impl<A: Algorithm> Asked for Pair<'_, A> {
    fn ready_at(&mut self, now: Timestamp, cost: u64) -> When {
        self.0.ready_at(self.1, now, cost)
    }

    fn force(&mut self, now: Timestamp, cost: u64) {
        self.0.force(self.1, now, cost);
    }

    fn give_back(&mut self, now: Timestamp, grant: Grant, units: u64) {
        self.0.give_back(self.1, now, grant, units);
    }

    fn balance(&mut self, now: Timestamp) -> Balance {
        self.0.balance(self.1, now)
    }
}
