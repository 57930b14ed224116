//! The future of an ask about a key.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{HashStore, KeyState, Keyed, Store, Way};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error};
use crate::limiter::{AcquireRate, RatePermit, Stored};
use crate::units::Timestamp;

/// The wait for a permit about a key. Cancel-safe: see [`Keyed::acquire`]. A key without a state is given one at
/// the first poll.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireKeyed<K, A: Stored, C: Clock = DefaultClock, S = HashStore<K, KeyState<A, C>>>(
    Stage<K, A, C, S>,
);

enum Stage<K, A: Stored, C: Clock, S> {
    New(New<K, A, C, S>),
    Waits(AcquireRate<A, C>),
    Answered(Result<Option<RatePermit<A, C>>, Denied>),
    Done,
}

/// An ask about a key that had no state when it was called.
struct New<K, A: Stored, C: Clock, S> {
    keyed: Keyed<K, A, C, S>,
    key: K,
    ask: Ask,
    called_at: Timestamp,
}

impl<K, A, C, S> AcquireKeyed<K, A, C, S>
where
    K: Hash + Eq,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    pub(super) fn new<Q>(keyed: &Keyed<K, A, C, S>, key: &Q, ask: Ask) -> Self
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        Self(match keyed.known(key) {
            Some(way) => Stage::of(Ok(way), ask),
            None => Stage::New(New {
                keyed: keyed.clone(),
                key: key.to_owned(),
                ask,
                called_at: keyed.shared.options.clock.now(),
            }),
        })
    }
}

impl<K, A: Stored, C: Clock, S> Stage<K, A, C, S> {
    fn of(way: Result<Way<A, C>, Denied>, ask: Ask) -> Self {
        match way {
            Ok(Way::Limited(limiter) | Way::Shared(limiter)) => Self::Waits(limiter.acquire(ask)),
            Ok(Way::Exempt) => Self::Answered(Ok(None)),
            Err(denied) => Self::Answered(Err(denied)),
        }
    }
}

/// The key is moved out when it is first polled, and never pinned.
impl<K, A: Stored, C: Clock, S> Unpin for AcquireKeyed<K, A, C, S> {}

impl<K, A, C, S> Future for AcquireKeyed<K, A, C, S>
where
    K: Hash + Eq + Clone,
    A: Stored,
    C: Clock,
    S: Store<K, KeyState<A, C>>,
{
    type Output = Result<Option<RatePermit<A, C>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Stage::Waits(acquire) = &mut self.0 {
                return Pin::new(acquire).poll(cx).map_ok(Some);
            }
            match std::mem::replace(&mut self.0, Stage::Done) {
                Stage::New(New { keyed, key, ask, called_at }) => {
                    // The longest wait is counted from the call.
                    let passed = keyed.shared.options.clock.now().since(called_at);
                    let left = ask.max_wait().map(|longest| longest.saturating_sub(passed));
                    let ask = left.map_or(ask, |left| ask.within(left));
                    self.0 = Stage::of(keyed.newcomer(key), ask);
                }
                Stage::Answered(answer) => return Poll::Ready(answer.map_err(Error::Denied)),
                Stage::Waits(_) | Stage::Done => {
                    panic!("an acquire was polled after it had given its answer")
                }
            }
        }
    }
}

impl<K, A: Stored, C: Clock, S> fmt::Debug for AcquireKeyed<K, A, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireKeyed").finish_non_exhaustive()
    }
}
