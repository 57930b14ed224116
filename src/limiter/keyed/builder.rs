//! The options of a keyed limit.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::tiers::{Plans, Tier};
use super::{Keyed, TierBy};
use crate::algorithm::FromQuota;
use crate::clock::{Clock, DefaultClock};
use crate::limiter::rate::Template;
use crate::limiter::{RateLimiter, Stored};
use crate::units::{Quota, QuotaError};

/// Keys that there may be unless it is set. A model makes all of the table each time it runs.
pub(super) const KEYS_MAX: usize = if cfg!(tollgate_loom) { 1 } else { 100_000 };

/// Options of a keyed limit, from [`RateBuilder::keyed`](crate::RateBuilder::keyed). [`build`](KeyedBuilder::build) tells
/// what is wrong with them.
///
/// ```
/// use tollgate::{Quota, Tier, TokenBucket};
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct User { id: u32, pays: bool }
/// const PAID: Tier = Tier::new(1);
/// let per_user = TokenBucket::builder(Quota::per_minute(1))
///     .keyed()
///     .max_keys(10_000)
///     .tier(PAID, Quota::per_minute(100))
///     .tier_by(|user: &User| if user.pays { PAID } else { Tier::DEFAULT })
///     .build()?;
/// assert!(per_user.check(&User { id: 1, pays: true }, 100).is_ok());
/// assert!(per_user.check(&User { id: 2, pays: false }, 2).is_err());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedBuilder<K, A: Stored, C: Clock = DefaultClock> {
    template: Result<Template<A, C>, QuotaError>,
    max_keys: usize,
    tiers: Vec<(Tier, A)>,
    tier_by: Option<Arc<TierBy<K>>>,
    overflow: Option<RateLimiter<A, C>>,
}

impl<K, A: Stored, C: Clock> KeyedBuilder<K, A, C> {
    pub(in crate::limiter) const fn new(template: Result<Template<A, C>, QuotaError>) -> Self {
        Self { template, max_keys: KEYS_MAX, tiers: Vec::new(), tier_by: None, overflow: None }
    }

    /// Bounds the number of keys that have a state. Default: 100,000. Zero is an error.
    ///
    /// From half of it on, each new key makes room by dropping a few keys whose state equals a fresh one. A new key that
    /// finds no room is denied ([`Reason::TooManyKeys`](crate::Reason::TooManyKeys)), or uses the
    /// [`overflow`](Self::overflow).
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets the tier of each key: one of [`tier`](Self::tier), [`Tier::DEFAULT`] or [`Tier::EXEMPT`]. Default:
    /// [`Tier::DEFAULT`]. A tier that has no quota counts as the default one.
    ///
    /// The function is called for each decision. A key whose tier changes goes on under the other quota with what it has
    /// spent.
    pub fn tier_by(mut self, tier: impl Fn(&K) -> Tier + Send + Sync + 'static) -> Self {
        self.tier_by = Some(Arc::new(tier));
        self
    }

    /// Sets the limit that all keys without room share. Default: such keys are denied.
    pub fn overflow(mut self, overflow: RateLimiter<A, C>) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Gives the keys of a tier this algorithm; given twice, the last one counts. As [`tier`](Self::tier), for
    /// algorithms of your own. [`Tier::DEFAULT`] replaces the algorithm of the limit.
    pub fn tier_over(mut self, tier: Tier, algorithm: A) -> Self {
        match &mut self.template {
            Ok(template) if tier == Tier::DEFAULT => template.algorithm = algorithm,
            _ => {
                self.tiers.retain(|(known, _)| *known != tier);
                self.tiers.push((tier, algorithm));
            }
        }
        self
    }

    /// Builds the limit. All of its keys start fresh.
    ///
    /// # Errors
    /// What is wrong with a quota or an option. [`QuotaError::ZeroKeys`]: [`max_keys`](Self::max_keys) is zero.
    /// [`QuotaError::UnusableTier`]: a tier has a quota and there is no [`tier_by`](Self::tier_by), or it is
    /// [`Tier::EXEMPT`].
    pub fn build(self) -> Result<Keyed<K, A, C>, QuotaError>
    where
        K: Hash + Eq,
    {
        let template = self.template?;
        if self.max_keys == 0 {
            return Err(QuotaError::ZeroKeys);
        }
        let is_unusable = |(tier, _): &(Tier, A)| self.tier_by.is_none() || *tier == Tier::EXEMPT;
        if self.tiers.iter().any(is_unusable) {
            return Err(QuotaError::UnusableTier);
        }
        let plans = Plans::new(template.algorithm.clone(), &self.tiers);
        Ok(Keyed::of(template, &plans, self.max_keys, self.tier_by, self.overflow))
    }
}

impl<K, A: FromQuota + Stored, C: Clock> KeyedBuilder<K, A, C> {
    /// Gives the keys of a tier this quota; given twice, the last one counts. [`Tier::DEFAULT`] replaces the quota of the
    /// limit.
    pub fn tier(mut self, tier: Tier, quota: Quota) -> Self {
        let algorithm = match &self.template {
            Ok(template) => template.algorithm.with_quota(quota),
            Err(_) => return self,
        };
        match algorithm {
            Ok(algorithm) => self.tier_over(tier, algorithm),
            Err(error) => {
                self.template = Err(error);
                self
            }
        }
    }
}

impl<K, A: Stored, C: Clock> fmt::Debug for KeyedBuilder<K, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<Tier> = self.tiers.iter().map(|(tier, _)| *tier).collect();
        f.debug_struct("KeyedBuilder")
            .field("max_keys", &self.max_keys)
            .field("tiers", &tiers)
            .finish_non_exhaustive()
    }
}
