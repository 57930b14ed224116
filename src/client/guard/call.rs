//! The whole of it in a line: acquire, call, observe, and try again where that is allowed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Guard;
use super::estimate::Outputs;
use super::gate::GuardGate;
use super::jitter::Jitter;
use super::learner::Learner;
use super::upstream::Upstream;
use crate::client::retry::Repeat;
use crate::client::tells::Tells;
use crate::client::usage::Usage;
use crate::clock::Clock;
use crate::decision::{Ask, Error};
use crate::limiter::gate::{Acquire, Core};
use crate::limiter::{Limiter, Line};

/// The wait before a call is made again that failed without being throttled; it doubles with each try.
const BACKOFF: Duration = Duration::from_millis(100);

impl<L: Limiter + Clone, C: Clock> Guard<L, C> {
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
                    let in_bounds = signals.throttled || asked <= self.core.with_gate(|gate, _| gate.ceiling);
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

    /// Sleeps by the guard's clock: the wait in a line of its own that is held for so long.
    async fn pause(&self, wait: Duration) {
        let learner = Learner::new(false, true);
        let jitter = Jitter::new(0, 0);
        let gate = GuardGate::new(Upstream::default(), learner, Outputs::new(100), Duration::MAX, jitter);
        let core = Arc::new(Core::new(gate, Line::new(), None, self.core.clock().clone()));
        let wait = self.core.with_gate(|gate, _| gate.jitter.stretch(wait));
        drop(core.change(|gate, now| gate.hold(now, wait, true)));
        // Without a timer there is no waiting, and no try is spared by it either.
        let _ = Acquire::new(core, Usage::requests(1), None).await;
    }
}
