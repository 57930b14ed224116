//! The options of a striped limit, and the size of the reserve.

use std::sync::Arc;

use super::Striped;
use super::bucket::SharedBucket;
use super::slots::{self, NONE};
use super::stripe::Stripe;
use crate::algorithm::TokenBucket;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::RateBuilder;
use crate::sync::per_thread::cores;
use crate::units::QuotaError;

/// The most units in a portion: a draw costs some eighty nanoseconds, so this makes it a third of one a unit.
const PORTION_MAX: u64 = 256;
/// A smaller portion does not pay for its decisions.
const PORTION_MIN: u64 = 4;
/// The reserve is at most this part of the burst.
const PART: u64 = 16;

impl<C: Clock> RateBuilder<TokenBucket, C> {
    /// The same limit for many cores at once: threads take units in portions and spend them without touching shared
    /// memory. See [`Striped`] for what it promises and when to use it.
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

/// Options of a [`Striped`] limit. [`build`](StripedBuilder::build) tells what is wrong with them.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct StripedBuilder<C = DefaultClock> {
    bucket: RateBuilder<TokenBucket, C>,
    sizing: Sizing,
}

impl<C: Clock> StripedBuilder<C> {
    /// Reserves `portion` units of the burst for each of `threads` threads to hold.
    ///
    /// Default: at most a sixteenth of the burst, up to 256 units for each of twice as many threads as the machine runs
    /// at once, and for at least 16 threads. A reserve that leaves nothing of the burst is rejected.
    pub fn reserve(mut self, threads: u16, portion: u64) -> Self {
        self.sizing = Sizing { threads: threads.into(), portion: Some(portion) };
        self
    }

    /// The limiter. It starts now.
    ///
    /// # Errors
    /// What is wrong with the quota or the options.
    pub fn build(self) -> Result<Striped<C>, QuotaError> {
        let Self { bucket, sizing } = self;
        let limiter = bucket.map(|bucket| SharedBucket::new(bucket, sizing)).build()?;
        let id = slots::next_id();
        let stripe = |index| Arc::new(Stripe::new(limiter.clone(), id, index));
        let threads = usize::try_from(sizing.threads).unwrap_or(usize::MAX);
        Ok(Striped { id, stripes: (0..threads).chain([NONE]).map(stripe).collect() })
    }
}

/// What is taken out of a burst for threads to hold: so many portions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserve {
    pub(super) threads: u64,
    pub(super) portion: u64,
}

/// How the reserve follows from a burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizing {
    /// The most threads that hold a portion.
    threads: u64,
    /// `None`: as the burst allows.
    portion: Option<u64>,
}

impl Sizing {
    /// For all threads that the machine runs at once, and as many again.
    pub(super) fn fitted() -> Self {
        Self { threads: (cores() as u64 * 2).clamp(16, 256), portion: None }
    }

    pub(super) fn of(self, burst: u64) -> Result<Reserve, QuotaError> {
        let (threads, portion) = match self.portion {
            Some(portion) => (self.threads, portion),
            None => match self.threads.min(burst / PART / PORTION_MIN) {
                0 | 1 => return Ok(Reserve::default()),
                threads => (threads, (burst / PART / threads).min(PORTION_MAX)),
            },
        };
        match threads.checked_mul(portion) {
            Some(0) => Ok(Reserve::default()),
            Some(units) if units < burst => Ok(Reserve { threads, portion }),
            units => Err(QuotaError::ReserveTooLarge { reserve: units.unwrap_or(u64::MAX), burst }),
        }
    }
}
