//! Limits of an HTTP service as configuration: named rules, reloaded while they run.
//!
//! ```
//! use tollgate::rules::Rules;
//! let rules = Rules::new(toml::from_str(r#"
//!     [client_ip]
//!     source = "x-forwarded-for"
//!     trusted = ["10.0.0.0/8"]
//!
//!     [[rules]]
//!     name = "everything"
//!     quotas = ["100/s", "1000/min"]
//!
//!     [[rules]]
//!     name = "login"
//!     route = "/login"
//!     methods = ["POST"]
//!     quotas = ["5/min"]
//!     algorithm = "sliding_window"
//! "#)?)?;
//! let app: axum::Router = axum::Router::new().layer(rules.layer());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | field of a rule | what it says | unless set |
//! |---|---|---|
//! | `name` | what refusals, fields and metrics call it; what its state is kept by over reloads | |
//! | `route` | a pattern: `/users/{id}`, `/static/{*path}` | every route |
//! | `methods` | the methods it applies to; `GET` is also `HEAD`, unless another rule names that | all |
//! | `always` | it applies beside the most specific rule, not in its place | no |
//! | `key` | `client_ip`, `client_ip/48` for so wide networks of IPv6, `method`, `route`, `path`, `host`, `bearer`, `header:NAME`; several together; `[]` for one limit that all share | `["client_ip"]` |
//! | `missing` | a request without its key: counts by `client_ip`, is to `reject`, or is to `skip` | `client_ip` |
//! | `quotas` | all of them hold together | |
//! | `algorithm` | `token_bucket`, `sliding_window`, `sliding_counter`, `fixed_window` | `token_bucket` |
//! | `cost` | what one request takes | 1 |
//! | `wait` | the longest wait in line | no wait |
//! | `mode` | `enforce`, or `shadow` to decide and count alone | `enforce` |
//! | `percent` | the share of the keys it is enforced for; the same ones wherever the [secret](Rules::with_secret) is the same | 100 |
//! | `max_keys` | the most keys it keeps a state of | 100,000 |
//! | `overrides` | quotas of single keys: `{ "203.0.113.7" = ["1000/min"] }` | |
//! | `exempt` | keys that it does not apply to; networks too, where the key is `client_ip` | |
//!
//! Of the rules that match a request the most specific applies: the more specific route, then the one that names the
//! method; two that cannot be told apart are an error. All that apply are taken together: none is spent when another
//! refuses, and a request waits only where each rule that refuses it would wait for so long. A request under no rule passes: a rule without `route` is for all that have none of their own.
//!
//! The path that routes are matched with is the one the layer sees: on a router that is nested, without the prefix. The
//! key `route` is the route that the framework matched ([`Route`](crate::http::Route)), not the rule's.

mod acquire;
mod build;
mod config;
mod error;
mod key;
mod route;

pub use acquire::{AcquireRules, RulesPermit};
pub use config::RulesConfig;
pub use error::{Problem, RulesError};

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use arc_swap::ArcSwap;

use crate::algorithm::{AllOf, Any};
use crate::combine::{Found, KeyOf};
use crate::http::{Fingerprint, HttpLayer, Secret};
use crate::limiter::{Keyed, Limiter, PendingChange};
use crate::sync::Mutex;
use crate::types::{Ask, Denied, LimitStatus};
use crate::units::Cost;
use acquire::{Asked, Keyless, RulesAsk};
use build::{Rule, Set};

/// Rules that run. A cheap handle: clones share the rules and their state.
///
/// See the [module](crate::rules) for what rules say.
#[derive(Clone)]
pub struct Rules {
    shared: Arc<Shared>,
}

struct Shared {
    set: ArcSwap<Set>,
    secret: Secret,
    /// Reloads come one after the other.
    reload: Mutex<()>,
}

impl Rules {
    /// Rules as `config` says.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn new(config: RulesConfig) -> Result<Self, RulesError> {
        Self::with_secret(config, Secret::of_process())
    }

    /// Rules whose keys are kept as fingerprints by `secret`: with one secret, a share of the keys is the same share
    /// in every process.
    ///
    /// # Errors
    /// What is wrong, and where.
    #[allow(clippy::needless_pass_by_value, reason = "what has been read is used up")]
    pub fn with_secret(config: RulesConfig, secret: Secret) -> Result<Self, RulesError> {
        let (set, changes) = Set::build(&config, None, secret)?;
        changes.into_iter().flat_map(build::Change::decide).for_each(PendingChange::make);
        let shared = Shared { set: ArcSwap::from_pointee(set), secret, reload: Mutex::new(()) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Goes on as `config` says, from now on. A rule goes on with what its keys have spent if one of its name was there
    /// just before with the same key, algorithm and `max_keys`; its quotas, mode, price, route, overrides and the rest
    /// may differ. Those that wait are served by the quotas there are now; under a rule that is gone, or does not go
    /// on, they wait on as they were.
    ///
    /// # Errors
    /// What is wrong, and where; nothing has changed then.
    #[allow(clippy::needless_pass_by_value, reason = "what has been read is used up")]
    pub fn reload(&self, config: RulesConfig) -> Result<(), RulesError> {
        let pending: Vec<_> = {
            let _one = self.shared.reload.lock();
            let before = self.shared.set.load_full();
            let (set, changes) = Set::build(&config, Some(&before), self.shared.secret)?;
            let pending = changes.into_iter().flat_map(build::Change::decide).collect();
            self.shared.set.store(Arc::new(set));
            pending
        };
        // Outside the lock: it wakes those who wait.
        pending.into_iter().for_each(PendingChange::make);
        Ok(())
    }

    /// The layer that puts requests under these rules. Its options are those of every [`HttpLayer`]; how long requests
    /// wait is said by their rules.
    pub fn layer(&self) -> HttpLayer<Self> {
        HttpLayer::new(self.clone()).wait(Duration::MAX)
    }

    /// A rule, for an administrator.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<RuleHandle> {
        let set = self.shared.set.load_full();
        let index = set.rules.iter().position(|rule| rule.name.as_str() == name)?;
        Some(RuleHandle { set, index })
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.shared.set.load();
        f.debug_list().entries(set.rules.iter().map(|rule| &rule.name)).finish()
    }
}

impl Limiter<Parts> for Rules {
    type Permit = RulesPermit;
    type Fault = Infallible;
    type Acquire = AcquireRules;

    fn acquire(&self, request: &Parts, ask: Ask) -> AcquireRules {
        AcquireRules::new(self.ask(request, ask))
    }

    fn try_acquire(&self, request: &Parts, cost: Cost) -> Result<RulesPermit, Denied> {
        self.ask(request, cost.into()).take()
    }

    fn status(&self, request: &Parts, visit: &mut dyn FnMut(&LimitStatus)) {
        let set = self.shared.set.load_full();
        for rule in set.matching(request).into_iter().map(|index| &set.rules[index]) {
            if let Found::Key(key) = rule.key.key_of(request) {
                let enforced = rule.is_enforced(&key);
                rule.keyed.status(&key, &mut |standing| {
                    visit(&LimitStatus { enforced: enforced && standing.enforced, ..standing.clone() });
                });
            }
        }
    }
}

impl Rules {
    /// What the rules that match are asked.
    fn ask(&self, request: &Parts, ask: Ask) -> RulesAsk {
        let set = self.shared.set.load_full();
        let (mut asked, mut keyless) = (Vec::new(), Keyless::default());
        for index in set.matching(request) {
            let rule = &set.rules[index];
            match rule.key.key_of(request) {
                Found::Key(key) => {
                    asked.push(Asked { rule: index, enforced: rule.is_enforced(&key), key });
                }
                Found::Skip => {}
                Found::Reject(reason) => {
                    let denied = Denied::new(reason).by(Some(rule.name.clone()));
                    keyless.put(index, denied, rule.is_enforced_for_all());
                }
            }
        }
        RulesAsk::new(set, ask, asked, keyless)
    }
}

/// A rule in the hands of an administrator, as it stands when it is taken: take it anew after a reload.
///
/// ```
/// # use tollgate::rules::Rules;
/// # let rules = Rules::new(toml::from_str("[[rules]]\nname = \"api\"\nquotas = [\"5/min\"]")?)?;
/// if let Some(api) = rules.rule("api") {
///     let client = api.key(&["203.0.113.7"])?;
///     api.limit().charge(&client, 3)?;
///     assert_eq!(api.limit().snapshot(&client).map(|now| now.remaining), Some(2));
///     api.limit().reset(&client);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct RuleHandle {
    set: Arc<Set>,
    index: usize,
}

impl RuleHandle {
    fn rule(&self) -> &Rule {
        &self.set.rules[self.index]
    }

    /// The key with these parts, in the order of the rule's `key`: an address, a header's value.
    ///
    /// # Errors
    /// Another number of parts than the key has, or a text that no request could have.
    pub fn key(&self, parts: &[&str]) -> Result<Fingerprint, Problem> {
        self.rule().key.named(parts)
    }

    /// The key of a client whose requests lack the rule's key and count by its address.
    ///
    /// # Errors
    /// The text is no client's address.
    pub fn fallback_key(&self, client: &str) -> Result<Fingerprint, Problem> {
        self.rule().key.fallback(client)
    }

    /// The limit of each key: to look at, to reset, to charge. What it does to quotas lasts until the next reload.
    #[must_use]
    pub fn limit(&self) -> &Keyed<Fingerprint, AllOf<Any>> {
        &self.rule().keyed
    }
}

impl fmt::Debug for RuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuleHandle").field(&self.rule().name).finish()
    }
}
