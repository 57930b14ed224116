use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::estimate::Outputs;
use super::jitter::Jitter;
use super::learner::Learner;
use super::pace::Pace;
use super::state::GuardState;
use super::upstream::{UnitQuota, Upstream};
use super::{Guard, Told};
use crate::algorithm::{FromQuota, TokenBucket};
use crate::client::retry::RetryBudget;
use crate::client::signal::{Profile, Unit};
use crate::clock::{Clock, DefaultClock};
use crate::core::{Limit, Named, Options, Queue};
use crate::limiter::{Compose, Unlimited};
use crate::units::{Name, NameError, Quota, QuotaError, Timestamp};

/// Options of a guard. What is wrong with them is told by [`build`](GuardBuilder::build).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct GuardBuilder<L = Unlimited, C = DefaultClock> {
    limits: L,
    /// `true` if limits were given, or nothing is known.
    is_limited: bool,
    is_careful: bool,
    options: Options<C>,
    profile: Profile,
    ceiling: Duration,
    jitter_percent: u32,
    quotas: Vec<(Unit, Quota)>,
    start_at: Option<Quota>,
    percentile: u8,
    retries: Option<RetryBudget>,
}

/// Why there can be no such guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardError {
    /// What is wrong with one of the quotas.
    Quota(QuotaError),
    /// A rate to start at that is never refilled.
    StartWithoutPeriod,
    /// What is wrong with the name.
    Name(NameError),
    /// A ceiling of nothing: no wait of the server could be obeyed.
    ZeroCeiling,
    /// Jitter of more than the whole wait.
    Jitter(u32),
    /// A percentile outside of 1 to 100.
    Percentile(u8),
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota(error) => error.fmt(f),
            Self::Name(error) => error.fmt(f),
            Self::StartWithoutPeriod => f.write_str("a rate to start at needs a period"),
            Self::ZeroCeiling => {
                f.write_str("a ceiling of zero obeys no wait at all: ask for as long as a caller would wait")
            }
            Self::Jitter(percent) => write!(f, "jitter is 0 to 100 percent of a wait, not {percent}"),
            Self::Percentile(percentile) => write!(f, "a percentile is 1 to 100, not {percentile}"),
        }
    }
}

impl std::error::Error for GuardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Quota(error) => Some(error),
            Self::Name(error) => Some(error),
            _ => None,
        }
    }
}

impl<L> GuardBuilder<L> {
    pub(super) fn new(limits: L, is_limited: bool) -> Self {
        Self {
            limits,
            is_limited,
            is_careful: true,
            options: Options::default(),
            profile: Profile::Auto,
            ceiling: Duration::from_secs(60),
            jitter_percent: 10,
            quotas: Vec::new(),
            start_at: None,
            percentile: 95,
            retries: None,
        }
    }
}

impl<L: Compose, C: Clock> GuardBuilder<L, C> {
    /// Tells the time by `clock`.
    pub fn clock<D: Clock>(self, clock: D) -> GuardBuilder<L, D> {
        GuardBuilder {
            limits: self.limits,
            is_limited: self.is_limited,
            is_careful: self.is_careful,
            options: self.options.clock(clock),
            profile: self.profile,
            ceiling: self.ceiling,
            jitter_percent: self.jitter_percent,
            quotas: self.quotas,
            start_at: self.start_at,
            percentile: self.percentile,
            retries: self.retries,
        }
    }

    /// Sets the bound and the order of the guard's own queue. Default: [`Queue::new`].
    pub fn queue(mut self, queue: Queue) -> Self {
        self.options.queue = queue;
        self
    }

    /// Names the guard, for refusals to carry.
    pub fn name<N: TryInto<Name>>(mut self, name: N) -> Self
    where
        NameError: From<N::Error>,
    {
        self.options.name(name);
        self
    }

    /// Says what is known of the server's manners that its answers do not tell.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// The longest wait that the server may ask for, one minute unless set. Whoever would have to wait longer for it is
    /// refused at once, with the wait.
    pub fn ceiling(mut self, ceiling: Duration) -> Self {
        self.ceiling = ceiling;
        self
    }

    /// By how much of a wait at most those who were told it come back later than told, in percent of it: ten unless set. It
    /// keeps many clients from coming back at once. Never earlier.
    pub fn jitter_percent(mut self, percent: u32) -> Self {
        self.jitter_percent = percent;
        self
    }

    /// Most requests, decided together with the quotas of tokens.
    pub fn requests(mut self, quota: Quota) -> Self {
        self.quotas.push((Unit::Requests, quota));
        self
    }

    /// Most tokens, input and output together.
    pub fn tokens(mut self, quota: Quota) -> Self {
        self.quotas.push((Unit::Tokens, quota));
        self
    }

    /// Most tokens that are read.
    pub fn input_tokens(mut self, quota: Quota) -> Self {
        self.quotas.push((Unit::InputTokens, quota));
        self
    }

    /// Most tokens that are written.
    pub fn output_tokens(mut self, quota: Quota) -> Self {
        self.quotas.push((Unit::OutputTokens, quota));
        self
    }

    /// What the server's limit is believed to be: requests are spaced at this rate, which doubles every ten seconds while it
    /// is used to the full and nothing speaks against it, and goes by what is served once a throttle has. For a limit that
    /// must hold whatever happens use a limiter.
    pub fn start_at(mut self, rate: Quota) -> Self {
        self.start_at = Some(rate);
        self
    }

    /// Which share of calls a learned estimate of output is to cover, in percent: 95 unless set. At 100 the most that a call
    /// may write is always reserved.
    pub fn estimate_percentile(mut self, percentile: u8) -> Self {
        self.percentile = percentile;
        self
    }

    /// Bounds how much trying again may add to the traffic. Without it nothing is tried again.
    pub fn retries(mut self, budget: RetryBudget) -> Self {
        self.retries = Some(budget);
        self
    }

    /// Sends as many calls at once as the limits let go from the first moment on. Otherwise a guard begins with a few, and
    /// takes more as they are answered: where a limit is wrong, few calls find out.
    pub fn without_slow_start(mut self) -> Self {
        self.is_careful = false;
        self
    }

    /// The guard.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn build(self) -> Result<Guard<L, C>, GuardError> {
        let options = self.options.clone().checked().map_err(GuardError::Name)?;
        if self.ceiling.is_zero() {
            return Err(GuardError::ZeroCeiling);
        }
        if self.jitter_percent > 100 {
            return Err(GuardError::Jitter(self.jitter_percent));
        }
        if !(1..=100).contains(&self.percentile) {
            return Err(GuardError::Percentile(self.percentile));
        }
        let now = options.clock.now();
        let mut quotas = Vec::new();
        for (unit, quota) in &self.quotas {
            let bucket = TokenBucket::from_quota(*quota).map_err(GuardError::Quota)?;
            quotas.push(UnitQuota::new(*unit, bucket, now));
        }
        let pace = match self.start_at {
            None => None,
            Some(quota) => {
                quota.check().map_err(GuardError::Quota)?;
                let period = quota.period().ok_or(GuardError::StartWithoutPeriod)?;
                Some(Pace::guessed(quota.count() as f64 / period.as_secs_f64(), now))
            }
        };
        Ok(self.built(options, quotas, pace))
    }

    fn built(self, options: Named<C>, quotas: Vec<UnitQuota>, pace: Option<Pace>) -> Guard<L, C> {
        let learner = Learner::new(self.is_careful && pace.is_none(), self.is_limited);
        let upstream = Upstream { held_until: Timestamp::ZERO, quotas, pace, ..Upstream::default() };
        let jitter = Jitter::new(RandomState::new().hash_one(0), self.jitter_percent);
        let state = GuardState::new(upstream, learner, Outputs::new(self.percentile), self.ceiling, jitter);
        let told = Told { profile: self.profile, retries: self.retries, group: OnceLock::new() };
        Guard { limits: self.limits, limit: Arc::new(Limit::new(state, options)), told: Arc::new(told) }
    }
}

impl<L: Compose> GuardBuilder<L> {
    /// With no option set there is nothing that could be wrong.
    pub(super) fn built_plain(self) -> Guard<L> {
        let Options { clock, queue, .. } = self.options.clone();
        self.built(Named { clock, queue, name: None }, Vec::new(), None)
    }
}
