//! The guard of one upstream.

mod allowance;
mod builder;
mod call;
mod calls;
mod estimate;
mod jitter;
mod learner;
mod pace;
mod part;
mod permit;
mod state;
mod upstream;

pub use builder::{GuardBuilder, GuardError};
pub use part::GuardPart;
pub use permit::Guarded;

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::retry::{Repeat, RetryBudget};
use super::signal::{Profile, Scope, Signals};
use super::tells::Tells;
use super::usage::Usage;
use crate::clock::{Clock, DefaultClock};
use crate::combine::AcquireAll;
use crate::core::Limit;
use crate::limiter::{Compose, Limiter, Unlimited};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Name, Timestamp};
use calls::Pass;
use state::GuardState;

/// A guard of the calls to one upstream: await it before each call, and let it observe each answer. A cheap handle: clones
/// share one state.
///
/// **At the limit** [`acquire`](Guard::acquire) waits in line, first come, first served: for the limits it was given, and
/// for what the upstream has said. After a throttling answer *everybody* who shares the guard holds until the time that
/// the server gave has passed, those who wait already too. Where the server tells what is left of its budgets no more than
/// that is sent, calls under way counted. It is never looser than the limits it was given.
///
/// **What the server asks is bounded** by a [ceiling](GuardBuilder::ceiling), a minute unless set: whoever would have to
/// wait longer for the server is refused at once ([`Reason::AskedTooLong`](crate::Reason::AskedTooLong), with the wait).
///
/// ```
/// use tollgate::client::Guard;
/// use tollgate::{Concurrency, LimiterExt, Quota, TokenBucket};
/// # #[cfg(feature = "tokio")] {
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # async fn call() -> http::Response<()> { http::Response::new(()) }
/// let guard = Guard::new(TokenBucket::new(Quota::per_second(50))?.and(Concurrency::new(20)));
///
/// let mut permit = guard.acquire(1).await?;
/// let response = call().await;
/// permit.observe(&response);
/// drop(permit); // the call is over
///
/// let response = guard.call(1, call).await?; // the same in a line
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?; }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Guard<L = Unlimited, C: Clock = DefaultClock> {
    limits: L,
    limit: Arc<Limit<GuardState, C>>,
    told: Arc<Told>,
}

/// What a guard knows beside its line.
struct Told {
    profile: Profile,
    retries: Option<RetryBudget>,
    /// The guards of the same server, if there are several.
    group: OnceLock<Weak<dyn Group>>,
}

/// Guards that are held together when the server says that it means all of them.
pub(super) trait Group: Send + Sync {
    fn hold_all(&self, wait: Duration);
}

impl Told {
    /// If it means all of them, the others are held for it as this one is.
    fn pass_on(&self, signals: &Signals, wait: Duration) {
        if signals.throttled && signals.scope == Scope::Everyone {
            if let Some(group) = self.group.get().and_then(Weak::upgrade) {
                group.hold_all(wait);
            }
        }
    }
}

fn answered<C: Clock>(
    limit: &Arc<Limit<GuardState, C>>,
    told: &Told,
    pass: Option<&Pass>,
    signals: &Signals,
) {
    let wait = limit.change(|state, now| state.answered(now, pass, signals));
    told.pass_on(signals, wait);
}

impl<L: Compose> Guard<L> {
    /// A guard that is never looser than `limits`, on the default clock.
    #[must_use]
    pub fn new(limits: L) -> Self {
        Self::builder(limits).built_plain()
    }

    /// The same with options.
    pub fn builder(limits: L) -> GuardBuilder<L> {
        GuardBuilder::new(limits, true)
    }
}

impl Guard {
    /// A guard of an upstream whose limits nobody knows: it starts with one call, takes more as they are answered, obeys,
    /// and after the first throttle that no header explains learns the rate that is served.
    #[must_use]
    pub fn learning() -> Self {
        Self::learning_builder().built_plain()
    }

    /// The same with options.
    pub fn learning_builder() -> GuardBuilder {
        GuardBuilder::new(Unlimited, false)
    }
}

impl<L: Compose, C: Clock> Guard<L, C> {
    /// Waits in line for a permit to call: for what the upstream has said, then for the limits.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the line, and those behind move up; what
    /// was granted and not delivered goes back, to the limits and to the server's budgets.
    ///
    /// # Errors
    /// [`Denied`]: the server asks for a wait above the ceiling; not within the longest wait (refused at once, also when
    /// a hold begins while it waits); what the limits say; the line is full; or there is no timer to wait by.
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireGuarded<L, C> {
        let ask = ask.into();
        AcquireAll::new(self.part_for(Usage::requests(ask.units().units())), ask.max_wait())
    }

    /// Waits for a permit for a call whose tokens count: all of its units are reserved together, or none.
    ///
    /// The output is the most that the call may write; of it as much is reserved as calls were seen to write (all but a few:
    /// see [`estimate_percentile`](GuardBuilder::estimate_percentile)), and never more than can be had. Settle with what
    /// the answer reports: [`Guarded::settle_usage`]. Without a settlement the reservation stands, and is refilled by time
    /// as any charge is.
    ///
    /// # Cancel safety
    /// As [`acquire`](Guard::acquire).
    ///
    /// # Errors
    /// As [`acquire`](Guard::acquire); an input above a quota's capacity can never go.
    pub fn reserve(&self, most: Usage) -> AcquireGuarded<L, C> {
        AcquireAll::new(self.part_for(self.estimate(most)), None)
    }

    /// Waits for a permit as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Guard::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<Guarded<L::Permit, C>, Error<L::Fault>> {
        let ask = ask.into();
        AcquireAll::new(self.part_for(Usage::requests(ask.units().units())), ask.max_wait()).block()
    }

    fn part_for(&self, usage: Usage) -> GuardPart<L::Part, C> {
        let limits = self.limits.part(&(), Cost::new(usage.requests));
        GuardPart::new(Arc::clone(&self.limit), Arc::clone(&self.told), usage, limits)
    }

    /// What [`reserve`](Guard::reserve) would reserve for a call.
    #[must_use]
    pub fn estimate(&self, most: Usage) -> Usage {
        self.limit.with_state(|state, _| {
            let output_tokens = state.outputs.expect(most.output_tokens);
            state.upstream.clip_output(Usage { output_tokens, ..most })
        })
    }
}

impl<L, C: Clock> Guard<L, C> {
    /// Takes in what was told outside of a call. It may be older than what calls were answered: it tightens budgets, and
    /// loosens none before their window ends.
    pub fn observe<T: Tells + ?Sized>(&self, answer: &T) {
        if let Some(signals) = answer.signals(self.profile(), self.unix()) {
            if let Some(retries) = self.told.retries.as_ref().filter(|_| !signals.failed) {
                retries.succeeded();
            }
            answered(&self.limit, &self.told, None, &signals);
        }
    }

    /// Holds everybody until `wait` from now, in place of any hold there is: a shorter one lets those who wait go sooner. Beyond
    /// the [ceiling](GuardBuilder::ceiling) all are refused, as where the server asks for so long.
    pub fn hold(&self, wait: Duration) {
        self.limit.change(|state, now| state.hold(now, wait, true));
    }

    /// Ends the hold, and forgets what the server has told of its budgets and what it has taught: it begins again as it did
    /// when it was new.
    pub fn lift(&self) {
        self.limit.change(|state, now| {
            state.forget(now);
            state.hold(now, Duration::ZERO, true);
        });
    }

    /// For how long everybody is held from now on; zero if nobody is.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        self.limit.with_state(|state, now| state.held_for(now))
    }

    /// The rate in requests a second at which calls are spaced: the one it was told to start at, or once a throttle has taught
    /// one what is learnt.
    #[must_use]
    pub fn learned_rate(&self) -> Option<f64> {
        self.limit.with_state(|state, _| state.upstream.pace.as_ref().map(pace::Pace::rate))
    }

    /// `true` if a call with this answer may be made again. Counts the failure; where it may, acquire a permit anew: it
    /// obeys the wait of a throttle. The wait that a failure without a throttle asks for is in [`Signals::wait`]. False
    /// without a retry budget, for calls that must not be repeated, for answers that are no failures, and where the server
    /// says so.
    #[must_use = "a failure that may not be tried again goes to the caller"]
    pub fn may_retry(&self, signals: &Signals, repeat: Repeat) -> bool {
        let Some(retries) = self.told.retries.as_ref().filter(|_| signals.failed) else { return false };
        retries.failed() && repeat == Repeat::Safe && signals.may_retry != Some(false)
    }

    /// What is known of the server's manners.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.told.profile
    }

    /// The time since the Unix epoch on the guard's clock: what [`Signals::read`] wants to know.
    #[must_use]
    pub fn unix(&self) -> Duration {
        self.limit.clock().unix_now()
    }

    /// The limits it was given.
    #[must_use]
    pub const fn limits(&self) -> &L {
        &self.limits
    }

    /// The name refusals of its own carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.limit.name()
    }

    /// How many wait in its line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.limit.snapshot().waiting
    }

    /// Closes for good: those who wait and all who come are refused as closed. Permits out stay valid.
    pub fn close(&self) {
        self.limit.close();
        self.limit.change(|state, _| state.close());
    }

    /// Makes it one of a group. Once.
    pub(super) fn join(&self, group: Weak<dyn Group>) {
        // A guard that is in a group already stays in it.
        let _ = self.told.group.set(group);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.limit.with_state(|_, now| now)
    }

    /// Whether nothing is under way and nothing is known that a new guard would not soon know: what its limits tell is as
    /// new, and nothing the server has told still binds.
    pub(super) fn is_idle(&self) -> bool
    where
        L: Limiter,
    {
        let mut is_fresh = Arc::strong_count(&self.limit) == 1;
        self.limits.status(&(), &mut |standing| {
            let idle = standing.reset_after == Some(Duration::ZERO);
            is_fresh &= idle || (standing.policy.concurrent && standing.remaining == standing.policy.limit);
        });
        is_fresh && self.limit.with_state(GuardState::is_idle)
    }

    pub(super) fn hold_at_least(&self, wait: Duration) {
        self.limit.change(|state, now| state.hold(now, wait, false));
    }
}

impl<L: Clone, C: Clock> Clone for Guard<L, C> {
    fn clone(&self) -> Self {
        Self { limits: self.limits.clone(), limit: Arc::clone(&self.limit), told: Arc::clone(&self.told) }
    }
}

impl<L, C: Clock> fmt::Debug for Guard<L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", &self.name())
            .field("held_for", &self.held_for())
            .finish_non_exhaustive()
    }
}

/// The wait for a [`Guarded`] permit: for the guard and its limits, granted at one instant.
pub type AcquireGuarded<L, C = DefaultClock> = AcquireAll<GuardPart<<L as Compose>::Part, C>>;

/// A guard is a limiter: it goes wherever a limiter goes.
impl<K: ?Sized, L: Compose, C: Clock> Limiter<K> for Guard<L, C> {
    type Permit = Guarded<L::Permit, C>;
    type Fault = L::Fault;
    type Acquire = AcquireGuarded<L, C>;

    fn acquire(&self, _key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, ask)
    }

    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        crate::combine::take_now(self.part_for(Usage::requests(cost.units())))
    }

    fn status(&self, _key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        self.limits.status(&(), visit);
    }
}

impl<K: ?Sized, L: Compose, C: Clock> Compose<K> for Guard<L, C> {
    type Part = GuardPart<L::Part, C>;

    fn part(&self, _key: &K, cost: Cost) -> Self::Part {
        self.part_for(Usage::requests(cost.units()))
    }
}

impl<L, C: Clock> crate::combine::LimiterExt for Guard<L, C> {}
