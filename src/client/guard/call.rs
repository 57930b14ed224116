//! The whole of it in a line: acquire, call, observe, and try again where that is allowed.

use std::future::{Future, poll_fn};
use std::time::Duration;

use super::Guard;
use crate::client::retry::Repeat;
use crate::client::tells::Tells;
use crate::clock::{Clock, Sleep};
use crate::limiter::Compose;
use crate::types::{Ask, Error};

/// The wait before a call is made again that failed without being throttled; it doubles with each try.
const BACKOFF: Duration = Duration::from_millis(100);

impl<L: Compose, C: Clock> Guard<L, C> {
    /// Waits for a permit, makes the call, and observes the answer.
    ///
    /// # Cancel safety
    /// As [`acquire`](Guard::acquire) until the call is made; then it is the call's.
    ///
    /// # Errors
    /// As [`acquire`](Guard::acquire). What the call itself answers is the value, refusals of the server included.
    pub async fn call<F, Fut>(&self, ask: impl Into<Ask>, call: F) -> Result<Fut::Output, Error<L::Fault>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output: Tells>,
    {
        let mut permit = self.acquire(ask).await?;
        let answer = call().await;
        if let Some(signals) = answer.signals(self.profile(), self.unix()) {
            permit.observe(&*signals);
        }
        Ok(answer)
    }

    /// The same for a call that may be made again: up to `tries` times in all, while it fails and the
    /// [retry budget](super::GuardBuilder::retries) lasts. Each try waits for a permit of its own: it obeys what the one
    /// before was told. What failed without a throttle is tried again after a tenth of a second, two, four, or after the
    /// wait that the server asks for; not if that is above the ceiling. A call without an answer is not tried again.
    ///
    /// # Cancel safety
    /// As [`call`](Guard::call).
    ///
    /// # Errors
    /// As [`call`](Guard::call).
    pub async fn call_again<F, Fut>(
        &self,
        tries: u32,
        ask: impl Into<Ask>,
        mut call: F,
    ) -> Result<Fut::Output, Error<L::Fault>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output: Tells>,
    {
        let ask = ask.into();
        for tried in 1_u32.. {
            let mut permit = self.acquire(ask).await?;
            let answer = call().await;
            let again = match answer.signals(self.profile(), self.unix()) {
                None => return Ok(answer),
                Some(signals) => {
                    permit.observe(&*signals);
                    let asked = signals.wait.unwrap_or_default();
                    let pause = if signals.throttled {
                        Duration::ZERO
                    } else {
                        asked.max(BACKOFF.saturating_mul(1 << (tried - 1).min(10)))
                    };
                    let may = self.may_retry(&signals, Repeat::Safe) && tried < tries;
                    let in_bounds =
                        signals.throttled || asked <= self.limit.with_state(|state, _| state.ceiling);
                    (may && in_bounds).then_some(pause)
                }
            };
            drop(permit);
            match again {
                None => return Ok(answer),
                Some(Duration::ZERO) => {}
                Some(pause) => self.pause(pause).await,
            }
        }
        unreachable!("there are fewer tries than numbers")
    }

    /// Sleeps by the guard's clock.
    async fn pause(&self, wait: Duration) {
        let wait = self.limit.with_state(|state, _| state.jitter.stretch(wait));
        let mut sleep = Sleep::new(self.limit.clock().clone(), wait);
        // Without a timer there is no waiting, and the next try comes at once.
        poll_fn(|cx| sleep.poll(cx.waker(), false)).await;
    }
}
