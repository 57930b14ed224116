//! A token bucket for one hot limit on many cores.
//!
//! * [`shared`] is the one word behind it; [`stripe`] what one thread holds; [`seats`] which stripe a thread sits at;
//!   [`epoch`] what makes held units void; [`reserve`] how many may be held.

mod acquire;
mod builder;
mod epoch;
mod permit;
mod reserve;
mod seats;
mod shared;
mod stripe;

pub use acquire::AcquireStriped;
pub use builder::StripedBuilder;
pub use permit::StripedPermit;

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Compose, Limiter, Part};
use crate::algorithm::{FromQuota, TokenBucket};
use crate::clock::{Clock, DefaultClock};
use crate::core::{Members, Ticket};
use crate::limiter::rate::RateState;
use crate::sync::Ordering;
use crate::types::{Ask, Denied, Error, LimitStatus, Snapshot};
use crate::units::{Cost, Name, Quota, QuotaError, Timestamp};
use seats::Leave;
use shared::Shared;
use stripe::{Stripe, Taken};

/// A token bucket for one hot limit on many cores: threads take units in portions and spend them without touching what
/// is shared. Made by [`RateBuilder::striped`](crate::RateBuilder::striped). A cheap handle: clones share one limit.
///
/// **Guarantee.** As a [`TokenBucket`](crate::TokenBucket): in every interval of length *d* at most *burst + rate · d*
/// units are admitted, exactly, whatever threads do and however often they start and end. What threads may hold is taken
/// out of the burst beforehand: the *reserve*. The shared bucket has the rest, which is also the
/// [`capacity`](Snapshot::capacity), the largest ask.
///
/// **At the limit** [`acquire`](Striped::acquire) waits in line, first come, first served, and nobody passes those who
/// wait: what threads hold goes back as they come by. [`try_acquire`](Striped::try_acquire) and
/// [`check`](Striped::check) refuse and say when.
///
/// **What is relaxed** is fairness between threads, by at most the reserve: units that one thread holds are not
/// another's, so one may be refused, or wait, that long while another is still served. A thread that takes a few units
/// and never comes back keeps at most a portion, until it ends; what goes back then is worth what has not been refilled
/// since it was drawn. The rate is reached all the same: nothing is drawn to be held while somebody waits, and only what
/// is asked for while little is left. A thread holds nothing until it comes again, and draws twice as much each time, up
/// to a portion, until it is refused.
///
/// **Changes** of quota, pauses, closing, resets, and debts act at once on what threads hold: it is not spent any more.
///
/// **Reserve.** At most a sixteenth of the burst: up to 256 units for each of twice as many threads as the machine runs
/// at once, and of at least 16. On up to eight cores that is all of 4,096 units from a burst of 65,536 on. Smaller
/// bursts give smaller portions, then fewer; below 128 nothing is held, and all goes as in a
/// [`TokenBucket`](crate::TokenBucket). So it does for threads beyond, for asks above a portion, and for what a thread
/// asks of limits beyond the sixteenth. [`reserve`](StripedBuilder::reserve) sets it otherwise.
///
/// **Refund.** On the thread it was taken on, until that thread draws again, a refund is worth what was taken.
/// Afterwards and elsewhere: what was taken less what has been refilled since it was drawn.
///
/// **Memory.** 256 bytes for each thread that the reserve is for: 4 kB on up to eight cores.
///
/// **When to use it.** Where a single limit decides millions of times a second on several cores, with
/// [`check`](Striped::check). One thread gains too: there is no look at the clock while it holds units. Limits for each
/// key and limits below some hundred thousand decisions a second gain nothing.
///
/// ```
/// use tollgate::{Quota, TokenBucket};
/// let events = TokenBucket::builder(Quota::per_second(1_000_000)).striped().build()?;
/// let admitted: usize = std::thread::scope(|scope| {
///     let threads: Vec<_> =
///         (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| events.check(1).is_ok()).count())).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).sum()
/// });
/// assert_eq!(admitted, 4000);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub struct Striped<C: Clock = DefaultClock> {
    id: u64,
    /// One to sit at for each thread that may hold units, and last the one that holds nothing.
    stripes: Arc<[Arc<Stripe<C>>]>,
}

// Why nothing above the envelope is admitted. Let B be the burst, R the reserve, r the rate.
//
// At any time at most R units are held: each is held at a stripe that one thread sits at, a stripe holds at most a
// portion, and R is the portions of all stripes. Units on their way between stripe and shared word count as held: a
// draw is charged before it is held, and a stripe is free for the next thread once its units are back.
//
// The shared bucket lets in at most B − R + r·d of draws, less what was given back, in any interval of length d. What is
// given back is worth at most what has not drained of its draw, so it lowers the shared time by no more than that draw
// still raises it: what drained in idle time is not minted again.
//
// In an interval, what is spent was held when it began or was drawn in it, less what went back: at most
// R + (B − R + r·d). So units may be held for ever; no clock need be looked at to spend them.
//
// A refund into stock takes the place of a unit spent from the same draw, so that a draw never holds more than a portion
// in all: that is what R counts. Of an earlier draw it goes to the shared word, and is worth what that one says.

impl<C: Clock> Striped<C> {
    /// Waits in line for a permit.
    ///
    /// **At the limit** it waits first come, first served, for at most the ask's longest wait. An ask that goes to wait
    /// gives back what its thread holds.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the line, and those behind move up; a
    /// permit granted but not yet delivered goes back.
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`](crate::RateLimiter::acquire).
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    #[inline]
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireStriped<C> {
        let stripe = self.seated().unwrap_or_else(|| self.sit_down());
        AcquireStriped::new(Arc::clone(stripe), ask.into())
    }

    /// Waits in line as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`acquire`](Striped::acquire).
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<StripedPermit<C>, Denied> {
        let (ask, stripe) = (ask.into(), self.here());
        let deadline = stripe.shared.central.limit.deadline(ask.max_wait());
        let taken = stripe.take_here(ask.units().units()).or_else(|denied| {
            if !stripe.shared.would_wait(ask, deadline, &denied) {
                return Err(denied);
            }
            let (acquire, joining) = stripe.join(ask, deadline);
            acquire.block_after(joining).map(|(_, grant)| Taken::granted(grant))
        })?;
        Ok(StripedPermit::new(Arc::clone(stripe), taken))
    }

    /// Takes a permit if it may be had now. Needs no runtime, and no lock. Its permit costs two atomic operations on a
    /// line of this thread, for being able to [`settle`](crate::Permit::settle) anywhere; [`check`](Striped::check)
    /// does without.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would be had.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<StripedPermit<C>, Denied> {
        let units = cost.into().units();
        match self.seated() {
            Some(stripe) if stripe.spend(units) => {
                Ok(StripedPermit::new(Arc::clone(stripe), stripe.spent(units)))
            }
            _ => self.draw(units, |stripe, taken| StripedPermit::new(Arc::clone(stripe), taken)),
        }
    }

    /// Decides and takes, and holds nothing: a [`try_acquire`](Striped::try_acquire) whose permit is dropped.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would pass.
    #[inline]
    pub fn check(&self, cost: impl Into<Cost>) -> Result<(), Denied> {
        let units = cost.into().units();
        match self.seated() {
            Some(stripe) if stripe.spend(units) => Ok(()),
            _ => self.draw(units, |_, _| ()),
        }
    }

    /// When `cost` could go on this thread behind those who wait, if nobody else came. Takes nothing; zero means now.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn ready_in(&self, cost: impl Into<Cost>) -> Result<Duration, Denied> {
        let (units, shared) = (cost.into().units(), self.shared());
        let held = self.seated().map_or(0, |stripe| stripe.held());
        let missing = if units > shared.capacity() { units } else { units.saturating_sub(held) };
        shared.central.ready_in(missing)
    }

    /// What is left, what is owed and who waits, at this instant. What threads hold is left, up to the capacity.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let central = self.shared().central.snapshot();
        Snapshot { remaining: self.with_held(central.remaining, central.capacity), ..central }
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.shared().central.name()
    }

    /// Changes the quota from now on, and the reserve with it. What was accrued up to now stays, clipped to the new
    /// capacity; a debt stays in units; those who wait are served by the new one, and refused at once if their longest
    /// wait can no longer be kept or their cost can never go. What threads hold is of the old one, and goes back as
    /// they come by.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.shared().set_bucket(TokenBucket::from_quota(quota)?)
    }

    /// Takes `cost` whether it is there or not: what is missing becomes a debt that those who wait and all who come
    /// wait for, whatever they hold. A fine, or what was used without asking.
    pub fn charge(&self, cost: impl Into<Cost>) {
        self.shared().charge(cost.into().units());
    }

    /// Starts anew, as when it was made: what was spent, held and owed is forgotten, and what permits from before give
    /// back is not counted. Those who wait stay in line.
    pub fn reset(&self) {
        let _change = self.shared().epoch.change();
        self.shared().central.reset();
    }

    /// Lets nobody in until [`resume`](Striped::resume). Time goes on: what refills, refills.
    pub fn pause(&self) {
        let _change = self.shared().epoch.change();
        self.shared().central.pause();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.shared().central.resume();
    }

    /// Closes for good: those who wait and all who come are refused as closed. Permits out stay valid.
    pub fn close(&self) {
        let _change = self.shared().epoch.change();
        self.shared().central.close();
    }

    #[inline]
    fn shared(&self) -> &Shared<C> {
        &self.loose().shared
    }

    /// The stripe that holds nothing.
    #[inline]
    fn loose(&self) -> &Arc<Stripe<C>> {
        &self.stripes[self.stripes.len() - 1]
    }

    /// The stripe this thread sits at.
    #[inline]
    fn seated(&self) -> Option<&Arc<Stripe<C>>> {
        self.stripes.get(seats::find(self.id))
    }

    /// Takes what is held and the rest from what is shared, and makes what is wanted of it.
    #[cold]
    #[inline(never)]
    fn draw<R>(&self, units: u64, made: impl FnOnce(&Arc<Stripe<C>>, Taken) -> R) -> Result<R, Denied> {
        let stripe = self.here();
        stripe.take(units).map(|taken| made(stripe, taken))
    }

    /// The stripe this thread sits at, from now on if there is one to be had, or the one that holds nothing.
    fn here(&self) -> &Arc<Stripe<C>> {
        self.seated().unwrap_or_else(|| self.sit_down())
    }

    #[cold]
    #[inline(never)]
    fn sit_down(&self) -> &Arc<Stripe<C>> {
        let (shared, seats) = (self.shared(), self.stripes.len() - 1);
        // Relaxed: a hint. Who comes as another leaves may find all taken, and looks again next time.
        if shared.portion() == 0 || shared.seated.0.load(Ordering::Relaxed) >= seats as u64 {
            return self.loose();
        }
        let seat = seats::sit(self.id, || {
            let (index, stripe) =
                self.stripes[..seats].iter().enumerate().find(|(_, stripe)| stripe.claim())?;
            let weak: Weak<Stripe<C>> = Arc::downgrade(stripe);
            Some((index, weak as Weak<dyn Leave>))
        });
        seat.map_or(self.loose(), |index| &self.stripes[index])
    }

    fn with_held(&self, remaining: u64, capacity: u64) -> u64 {
        let held: u64 = self.stripes.iter().map(|stripe| stripe.held()).sum();
        remaining.saturating_add(held).min(capacity)
    }
}

impl<C: Clock> Clone for Striped<C> {
    fn clone(&self) -> Self {
        Self { id: self.id, stripes: Arc::clone(&self.stripes) }
    }
}

impl<C: Clock> fmt::Debug for Striped<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Striped").field("name", &self.name()).field("now", &self.snapshot()).finish()
    }
}

impl<K: ?Sized, C: Clock> Limiter<K> for Striped<C> {
    type Permit = StripedPermit<C>;
    type Fault = std::convert::Infallible;
    type Acquire = AcquireStriped<C>;

    #[inline]
    fn acquire(&self, _key: &K, ask: Ask) -> Self::Acquire {
        Self::acquire(self, ask)
    }

    #[inline]
    fn try_acquire(&self, _key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        Self::try_acquire(self, cost)
    }

    #[inline]
    fn check(&self, _key: &K, cost: Cost) -> Result<(), Denied> {
        Self::check(self, cost)
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        Limiter::<K>::status(&self.shared().central, key, &mut |standing| {
            let remaining = self.with_held(standing.remaining, standing.policy.limit);
            visit(&LimitStatus { remaining, ..standing.clone() });
        });
    }
}

impl<K: ?Sized, C: Clock> Compose<K> for Striped<C> {
    type Part = StripedPart<C>;

    fn part(&self, _key: &K, cost: Cost) -> StripedPart<C> {
        StripedPart { stripe: Arc::clone(self.here()), units: cost.units(), ticket: None }
    }
}

/// An ask to a [`Striped`] limit as a member of a composition.
pub struct StripedPart<C: Clock = DefaultClock> {
    stripe: Arc<Stripe<C>>,
    units: u64,
    ticket: Option<Ticket<RateState<TokenBucket>, C>>,
}

impl<C: Clock> Part for StripedPart<C> {
    type Permit = StripedPermit<C>;
    type Fault = std::convert::Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.stripe.shared.central.limit.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        self.stripe.peek(self.units)
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error>> {
        let claimed = self.ticket.take().and_then(|ticket| ticket.claim()).map(Taken::granted);
        let taken = claimed.map_or_else(|| self.stripe.take_here(self.units), Ok);
        let permit = |taken| StripedPermit::new(Arc::clone(&self.stripe), taken);
        Poll::Ready(taken.map(permit).map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        let central = &self.stripe.shared.central;
        self.stripe.stop_spending();
        self.ticket = Some(members.add(&central.limit, self.units));
        Ok(())
    }
}

impl<C: Clock> fmt::Debug for StripedPart<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripedPart").field("units", &self.units).finish_non_exhaustive()
    }
}
