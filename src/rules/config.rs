//! Rules as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::algorithm::{Any, FixedWindow, FromQuota, SlidingCounter, SlidingWindow, TokenBucket};
use crate::units::{Cost, Quota, QuotaError, Window};

/// Rules as they are written, in any format that `serde` reads. See [`rules`](crate::rules) for what they say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesConfig {
    #[serde(default)]
    pub(super) client_ip: ClientIpConfig,
    #[serde(default)]
    pub(super) rules: Vec<RuleConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientIpConfig {
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) trusted: Vec<String>,
    pub(super) hops: Option<usize>,
    pub(super) ipv6_prefix: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleConfig {
    pub(super) name: String,
    pub(super) route: Option<String>,
    #[serde(default)]
    pub(super) methods: Vec<String>,
    #[serde(default)]
    pub(super) always: bool,
    pub(super) key: Option<Vec<String>>,
    #[serde(default)]
    pub(super) missing: Missing,
    pub(super) quotas: Vec<Quota>,
    #[serde(default)]
    pub(super) algorithm: Kind,
    #[serde(default = "one")]
    pub(super) cost: Cost,
    pub(super) wait: Option<Window>,
    #[serde(default)]
    pub(super) mode: Mode,
    pub(super) percent: Option<u8>,
    #[serde(default = "most_keys")]
    pub(super) max_keys: usize,
    #[serde(default)]
    pub(super) overrides: BTreeMap<String, Vec<Quota>>,
    #[serde(default)]
    pub(super) exempt: Vec<String>,
}

const fn one() -> Cost {
    Cost::ONE
}

const fn most_keys() -> usize {
    100_000
}

/// What becomes of a request without a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    /// It counts by its client's address.
    #[default]
    ClientIp,
    Reject,
    Skip,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    #[default]
    Enforce,
    Shadow,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    #[default]
    TokenBucket,
    SlidingWindow,
    SlidingCounter,
    FixedWindow,
}

impl Kind {
    pub(super) fn algorithm(self, quota: Quota) -> Result<Any, QuotaError> {
        Ok(match self {
            Self::TokenBucket => Any::TokenBucket(TokenBucket::from_quota(quota)?),
            Self::SlidingWindow => Any::SlidingWindow(SlidingWindow::from_quota(quota)?),
            Self::SlidingCounter => Any::SlidingCounter(SlidingCounter::from_quota(quota)?),
            Self::FixedWindow => Any::FixedWindow(FixedWindow::from_quota(quota)?),
        })
    }
}
