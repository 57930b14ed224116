use std::sync::Arc;

use super::Striped;
use super::reserve::Sizing;
use super::seats::NOWHERE;
use super::shared::Shared;
use super::stripe::Stripe;
use crate::algorithm::{Algorithm, TokenBucket};
use crate::clock::{Clock, DefaultClock};
use crate::limiter::RateBuilder;
use crate::units::QuotaError;

impl<C: Clock> RateBuilder<TokenBucket, C> {
    /// The same limit for many cores at once: threads take units in portions and spend them without touching what is
    /// shared. See [`Striped`] for what it promises and when to use it.
    ///
    /// ```
    /// use tollgate::{Quota, TokenBucket};
    /// let events = TokenBucket::builder(Quota::per_second(1_000_000)).striped().build()?;
    /// assert!(events.check(1).is_ok());
    /// # Ok::<(), tollgate::QuotaError>(())
    /// ```
    pub fn striped(self) -> StripedBuilder<C> {
        StripedBuilder { bucket: self, sizing: Sizing::fitted() }
    }
}

/// Options of a [`Striped`] limit. What is wrong with them is told by [`build`](StripedBuilder::build).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct StripedBuilder<C = DefaultClock> {
    bucket: RateBuilder<TokenBucket, C>,
    sizing: Sizing,
}

impl<C: Clock> StripedBuilder<C> {
    /// Sets aside `portion` units of the burst for each of `threads` threads to hold.
    ///
    /// Without it at most a sixteenth of the burst is set aside: up to 256 units for each of twice as many threads as
    /// the machine runs at once, and of at least 16.
    pub fn reserve(mut self, threads: u16, portion: u64) -> Self {
        self.sizing = Sizing::Fixed { threads: threads.into(), portion };
        self
    }

    /// The limiter. It starts now.
    ///
    /// # Errors
    /// What is wrong with the quota or the options.
    pub fn build(self) -> Result<Striped<C>, QuotaError> {
        let sizing = self.sizing;
        let mut reserve = sizing.of(0);
        let bucket = self.bucket.map(|bucket| {
            reserve = sizing.of(bucket.capacity());
            Ok(bucket.less(reserve?.units()))
        });
        let central = bucket.build()?;
        let shared = Arc::new(Shared::new(central, sizing, reserve?));
        let stripe = |index| Arc::new(Stripe::new(Arc::clone(&shared), index));
        let seats = usize::try_from(sizing.threads()).unwrap_or(usize::MAX);
        let stripes = (0..seats).chain([NOWHERE]).map(stripe).collect();
        Ok(Striped { id: shared.id, stripes })
    }
}
