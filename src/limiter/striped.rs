//! A token bucket for one hot limit on many cores.
//!
//! * [`bucket`] is the shared bucket, and says which held units may be spent; [`stripe`] is what one thread holds.
//! * [`slots`] finds the stripe of a thread; [`builder`] has the options and the size of the reserve.
//! * [`acquire`] and [`permit`] are what an ask returns.

mod acquire;
mod bucket;
mod builder;
mod permit;
mod slots;
mod stripe;

pub use acquire::AcquireStriped;
pub use builder::StripedBuilder;
pub use permit::StripedPermit;

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Compose, Limiter, Part, RateLimiter};
use crate::clock::{Clock, DefaultClock};
use crate::core::{Members, Ticket};
use crate::limiter::rate::RateState;
use crate::sync::Ordering;
use crate::types::{Ask, Denied, Error, LimitStatus, Snapshot};
use crate::units::{Cost, Name, Quota, QuotaError, Timestamp};
use bucket::SharedBucket;
use slots::Leave;
use stripe::{Stripe, Taken};

/// A token bucket for one hot limit on many cores: threads take units in portions and spend them without touching shared
/// memory. [`RateBuilder::striped`](crate::RateBuilder::striped) makes one. A cheap handle: clones share one limit.
///
/// **Guarantee.** As a [`TokenBucket`](crate::TokenBucket): in every interval of length *d* at most *burst + rate · d*
/// units are admitted, exactly, whatever threads do and however often they start and end. What threads may hold is taken
/// out of the burst beforehand: the *reserve*. The shared bucket has the rest, which is also the
/// [`capacity`](Snapshot::capacity), the largest ask.
///
/// **At the limit** [`acquire`](Striped::acquire) waits in a queue, first come, first served, and nobody passes those who
/// wait: a thread that asks meanwhile gives back what it holds. [`try_acquire`](Striped::try_acquire) and
/// [`check`](Striped::check) refuse and say when.
///
/// **Relaxed** is fairness between threads, by at most the reserve: units that one thread holds are not another's, so one
/// may be refused, or wait, that long while another is still served. A thread that takes a few units and never comes back
/// keeps at most a portion, until it ends; what goes back then is worth what has not been refilled since it was drawn.
/// The rate is reached all the same: nothing is drawn to be held while somebody waits, and only what is asked for while
/// little is left. A thread holds nothing until it asks again, and draws twice as much each time, up to a portion, until
/// it is refused.
///
/// **Changes** act at once on what threads hold: it is not spent while the limit is paused or somebody waits, nor after a
/// new quota, a reset, a debt or the end.
///
/// **Reserve.** At most a sixteenth of the burst: up to 256 units for each of twice as many threads as the machine runs
/// at once, and of at least 16. On up to eight cores that is all of 4,096 units from a burst of 65,536 on. Smaller
/// bursts give smaller portions, then fewer; below 128 nothing is held, and the limit works as a
/// [`TokenBucket`](crate::TokenBucket). So it does for threads beyond, for asks above a portion, and for what a thread
/// asks of limits beyond the sixteenth. [`reserve`](StripedBuilder::reserve) sets another.
///
/// **Refund.** On the thread it was taken on, until that thread draws again, a refund is worth what was taken.
/// Afterwards and elsewhere: what was taken less what has been refilled since it was drawn.
///
/// **Memory.** 256 bytes for each thread that the reserve is for: 4 kB on up to eight cores.
///
/// **When to use it.** Where a single limit decides millions of times a second on several cores, with
/// [`check`](Striped::check). One thread gains too: it reads no clock while it holds units. Limits for each key and
/// limits below some hundred thousand decisions a second gain nothing.
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
    /// The number of the limit.
    id: u64,
    /// One for each thread that may hold units, and last the one that holds nothing.
    stripes: Arc<[Arc<Stripe<C>>]>,
}

// Why nothing above the envelope is admitted. Let B be the burst, R the reserve, r the rate.
//
// 1. At any time at most R units are held: each is held at a stripe that one thread has claimed, a stripe holds at most
//    a portion, and R is the portions of all stripes. Units on their way between a stripe and the shared bucket count as
//    held: a draw is charged before it is held, and a stripe is free for the next thread once its units are back.
// 2. The shared bucket lets in at most B − R + r·d of draws, less what was given back, in any interval of length d. What
//    is given back is worth at most what has not drained of its draw, so it lowers the shared time by no more than that
//    draw still raises it: what drained in idle time is not minted again.
// 3. In an interval, what is spent was held when it began or was drawn in it, less what went back: at most
//    R + (B − R + r·d). So units may be held for ever, over waits and pauses too, and no clock is read to spend them.
// 4. A refund into stock takes the place of a unit spent from the same draw, so that a draw never holds more than a
//    portion in all: that is what R counts. One of an earlier draw goes to the shared bucket, and is worth what 2 says.
// 5. A new quota has another B and R, and a debt is above B: units drawn before are not spent behind either. Each voids
//    them under the lock, with the fast path closed. A thread reads the revision r before it draws, and the units count
//    as drawn in r. If the change comes between, the revision behind it is not r; if it comes before the read, the draw
//    is of the new bucket. Units of an ask that are partly held are spent only if the revision after the draw is r still.

impl<C: Clock> Striped<C> {
    /// Waits in the queue for a permit. See [`RateLimiter::acquire`]. An ask that goes to wait gives back what its thread
    /// holds.
    ///
    /// # Cancel safety
    /// Nothing happens before the first poll. Dropped while it waits it leaves the queue, and those behind move up; a
    /// permit granted but not yet delivered goes back.
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`].
    ///
    /// # Panics
    /// The future panics when polled again after it has answered.
    #[inline]
    pub fn acquire(&self, ask: impl Into<Ask>) -> AcquireStriped<C> {
        let (ask, stripe) = (ask.into(), self.here());
        let deadline = stripe.limiter.limit.deadline(ask.max_wait());
        let stripe = Some(Arc::clone(stripe));
        AcquireStriped { stripe, units: ask.units().units(), deadline, waiting: None }
    }

    /// Waits in the queue as a thread: no runtime is needed. Do not call it from a task.
    ///
    /// # Errors
    /// As [`RateLimiter::acquire`].
    pub fn acquire_blocking(&self, ask: impl Into<Ask>) -> Result<StripedPermit<C>, Denied> {
        let (ask, stripe) = (ask.into(), self.here());
        let (units, deadline) = (ask.units().units(), stripe.limiter.limit.deadline(ask.max_wait()));
        let taken = match stripe.take_here(units) {
            Err(denied) if stripe.would_wait(deadline, &denied) => {
                stripe.enqueue(units, deadline).block().map(|(_, grant)| Taken::granted(grant))
            }
            answer => answer,
        };
        taken.map(|taken| StripedPermit { stripe: Arc::clone(stripe), taken })
    }

    /// Takes a permit if it can be granted now. Needs no runtime, and no lock. Its permit costs two atomic operations on a
    /// cache line of this thread, for being able to [`settle`](crate::Permit::settle) anywhere; [`check`](Striped::check)
    /// does without.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would be granted.
    #[inline]
    pub fn try_acquire(&self, cost: impl Into<Cost>) -> Result<StripedPermit<C>, Denied> {
        let units = cost.into().units();
        let permit = |stripe: &Arc<Stripe<C>>, taken| StripedPermit { stripe: Arc::clone(stripe), taken };
        match self.claimed() {
            Some(stripe) if stripe.spend(units) => Ok(permit(stripe, stripe.spent(units))),
            Some(stripe) if stripe.is_refused() => {
                stripe.limiter.limit.take(units, |grant| grant).map(|grant| {
                    stripe.grow(units);
                    permit(stripe, Taken::granted(grant))
                })
            }
            _ => self.draw(units, permit),
        }
    }

    /// Decides and takes, and holds nothing: a [`try_acquire`](Striped::try_acquire) whose permit is dropped.
    ///
    /// # Errors
    /// Why not, and the smallest wait after which it would pass.
    #[inline]
    pub fn check(&self, cost: impl Into<Cost>) -> Result<(), Denied> {
        let units = cost.into().units();
        match self.claimed() {
            Some(stripe) if stripe.spend(units) => Ok(()),
            Some(stripe) if stripe.is_refused() => {
                stripe.limiter.limit.take(units, |grant| grant).map(|_| stripe.grow(units))
            }
            _ => self.draw(units, |_, _| ()),
        }
    }

    /// The time until `cost` could be granted on this thread behind those who wait, if nobody else came. Takes nothing;
    /// zero means now.
    ///
    /// # Errors
    /// When no wait would help.
    pub fn ready_in(&self, cost: impl Into<Cost>) -> Result<Duration, Denied> {
        let stripe = self.claimed().unwrap_or_else(|| self.loose());
        stripe.limiter.ready_in(stripe.missing(cost.into().units()))
    }

    /// What is left, what is owed and who waits, at this instant. What threads hold is left, up to the capacity.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = self.limiter().snapshot();
        Snapshot { remaining: shared.remaining.saturating_add(self.held()).min(shared.capacity), ..shared }
    }

    /// The name refusals carry.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.limiter().name()
    }

    /// Changes the quota from now on, and the reserve with it. See [`RateLimiter::change`]. What threads hold is of the
    /// old one, and goes back when they ask next.
    ///
    /// # Errors
    /// What is wrong with the quota; nothing has changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), QuotaError> {
        self.limiter().set_quota(quota)
    }

    /// Takes `cost` even if it is not left. See [`RateLimiter::charge`]. A debt is waited for by those who hold units
    /// too.
    pub fn charge(&self, cost: impl Into<Cost>) {
        self.limiter().charge(cost);
    }

    /// Starts anew, as when it was made. See [`RateLimiter::reset`]. What threads hold is forgotten.
    pub fn reset(&self) {
        self.limiter().reset();
    }

    /// Admits nobody until [`resume`](Striped::resume). See [`RateLimiter::pause`].
    pub fn pause(&self) {
        self.limiter().pause();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.limiter().resume();
    }

    /// Closes for good. See [`RateLimiter::close`].
    pub fn close(&self) {
        self.limiter().close();
    }

    fn limiter(&self) -> &RateLimiter<SharedBucket, C> {
        &self.loose().limiter
    }

    /// The stripe that holds nothing.
    fn loose(&self) -> &Arc<Stripe<C>> {
        &self.stripes[self.stripes.len() - 1]
    }

    /// The stripe that this thread has claimed.
    #[inline]
    fn claimed(&self) -> Option<&Arc<Stripe<C>>> {
        self.stripes.get(slots::find(self.id))
    }

    /// Takes what is held and the rest from the shared bucket, and makes of it what is wanted.
    #[cold]
    #[inline(never)]
    fn draw<R>(&self, units: u64, make: impl FnOnce(&Arc<Stripe<C>>, Taken) -> R) -> Result<R, Denied> {
        let stripe = self.here();
        stripe.take(units).map(|taken| make(stripe, taken))
    }

    /// The stripe that this thread has claimed, now if there is a free one, or the one that holds nothing.
    #[inline]
    fn here(&self) -> &Arc<Stripe<C>> {
        self.claimed().unwrap_or_else(|| self.claim())
    }

    #[cold]
    #[inline(never)]
    fn claim(&self) -> &Arc<Stripe<C>> {
        let (loose, threads) = (self.loose(), self.stripes.len() - 1);
        let claimed = &loose.shared().claimed.0;
        // Relaxed: a hint. A thread that asks as another ends may find all claimed, and tries again next time.
        if claimed.load(Ordering::Relaxed) >= threads as u64 {
            return loose;
        }
        let claimed = slots::fill(self.id, || {
            let mut all = self.stripes[..threads].iter().enumerate();
            let (index, stripe) = all.find(|(_, stripe)| stripe.claim())?;
            let stripe: Weak<Stripe<C>> = Arc::downgrade(stripe);
            Some((index, stripe as Weak<dyn Leave>))
        });
        claimed.map_or(loose, |index| &self.stripes[index])
    }

    /// The units that threads hold.
    fn held(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.held()).sum()
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
        self.limiter().status(key, &mut |status| visit(&permit::with_held(status, self.held())));
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
    ticket: Option<Ticket<RateState<SharedBucket>, C>>,
}

impl<C: Clock> Part for StripedPart<C> {
    type Permit = StripedPermit<C>;
    type Fault = std::convert::Infallible;

    fn now(&self) -> Option<Timestamp> {
        Some(self.stripe.limiter.limit.clock().now())
    }

    fn peek(&self) -> Result<(), Denied> {
        match self.stripe.missing(self.units) {
            0 if self.units > 0 => Ok(()),
            missing => self.stripe.limiter.limit.peek(missing),
        }
    }

    fn poll_take(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error>> {
        let claimed = self.ticket.take().and_then(|ticket| ticket.claim()).map(Taken::granted);
        let taken = claimed.map_or_else(|| self.stripe.take_here(self.units), Ok);
        let permit = |taken| StripedPermit { stripe: Arc::clone(&self.stripe), taken };
        Poll::Ready(taken.map(permit).map_err(Error::Denied))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        self.stripe.return_mine();
        self.ticket = Some(members.add(&self.stripe.limiter.limit, self.units));
        Ok(())
    }
}

impl<C: Clock> fmt::Debug for StripedPart<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripedPart").field("units", &self.units).finish_non_exhaustive()
    }
}
