use std::sync::atomic::AtomicU64 as PlainU64;

use super::epoch::Epoch;
use super::reserve::{Reserve, Sizing};
use crate::algorithm::{Algorithm, Grant, TokenBucket};
use crate::clock::Clock;
use crate::core::{Acquire, Charge, LimitState};
use crate::limiter::RateLimiter;
use crate::limiter::rate::RateState;
use crate::sync::{AtomicU64, Ordering};
use crate::types::{Ask, Denied, Reason};
use crate::units::{QuotaError, Timestamp};

/// The wait in the queue of the shared bucket.
pub(super) type InQueue<C> = Acquire<RateState<TokenBucket>, C>;

/// Alone on its lines, and on those that are fetched beside them.
#[repr(align(128))]
#[derive(Debug)]
pub(super) struct Apart<T>(pub(super) T);

/// What all stripes of a limit share: the one word behind them, and what stock is drawn and spent by.
///
/// All but `seated` is read by decisions and written by changes only.
pub(super) struct Shared<C: Clock> {
    /// Told apart by this; never used again.
    pub(super) id: u64,
    pub(super) epoch: Epoch,
    /// The reserve and the largest ask. Written under the limit's lock within a change: what is drawn while they are
    /// written is not spent.
    threads: AtomicU64,
    portion: AtomicU64,
    capacity: AtomicU64,
    sizing: Sizing,
    /// The bucket less the reserve.
    pub(super) central: RateLimiter<TokenBucket, C>,
    /// How many stripes are sat at.
    pub(super) seated: Apart<AtomicU64>,
}

impl<C: Clock> Shared<C> {
    pub(super) fn new(central: RateLimiter<TokenBucket, C>, sizing: Sizing, reserve: Reserve) -> Self {
        // Not loom's: it outlives the models, and orders nothing.
        static LAST: PlainU64 = PlainU64::new(0);
        let capacity = central.limit.with_state(|state, _| state.capacity());
        Self {
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            epoch: Epoch::new(),
            threads: AtomicU64::new(reserve.threads),
            portion: AtomicU64::new(reserve.portion),
            capacity: AtomicU64::new(capacity),
            sizing,
            central,
            seated: Apart(AtomicU64::new(0)),
        }
    }

    /// What the holder of this stripe may hold. Zero: nothing.
    pub(super) fn portion_of(&self, stripe: usize) -> u64 {
        if (stripe as u64) < self.threads.load(Ordering::Relaxed) { self.portion() } else { 0 }
    }

    pub(super) fn portion(&self) -> u64 {
        self.portion.load(Ordering::Relaxed)
    }

    /// The largest ask.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, units: u64) -> Result<Grant, Denied> {
        self.central.limit.take(units, |grant| grant)
    }

    /// Gives back `units` of what was granted so: the shared time goes down by what has not been refilled since.
    pub(super) fn give_back(&self, grant: Grant, units: u64) {
        self.central.limit.settle(grant, grant.units - units);
    }

    pub(super) fn set_bucket(&self, bucket: TokenBucket) -> Result<(), QuotaError> {
        let reserve = self.sizing.of(bucket.capacity())?;
        let bucket = bucket.less(reserve.units());
        let _change = self.epoch.change();
        self.central.limit.change(|state, now| {
            self.threads.store(reserve.threads, Ordering::Relaxed);
            self.portion.store(reserve.portion, Ordering::Relaxed);
            self.capacity.store(bucket.capacity(), Ordering::Relaxed);
            state.change(bucket, now);
        });
        Ok(())
    }

    /// Takes `units` whether they are there or not. What threads hold is spent no more if that makes a debt, which
    /// they too must wait for.
    pub(super) fn charge(&self, units: u64) {
        self.central.limit.change(|state, now| {
            state.charge(now, units);
            if state.balance(now).debt > 0 {
                self.epoch.end();
            }
        });
    }

    /// Whether an ask that was refused so would wait.
    pub(super) fn would_wait(&self, ask: Ask, deadline: Option<Timestamp>, denied: &Denied) -> bool {
        let helps = matches!(denied.reason(), Reason::Exhausted | Reason::Paused);
        let in_time = match (deadline, denied.retry_after()) {
            (Some(deadline), Some(wait)) => self.central.limit.clock().now().after(wait) <= deadline,
            _ => true,
        };
        helps && in_time && ask.max_wait() != Some(std::time::Duration::ZERO)
    }
}
