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
//! | `methods` | the methods it applies to | all |
//! | `always` | it applies beside the most specific rule, not in its place | no |
//! | `key` | `client_ip`, `method`, `route`, `path`, `host`, `bearer`, `header:NAME`; several together; `[]` for one limit that all share | `["client_ip"]` |
//! | `missing` | a request without its key: counts by `client_ip`, is to `reject`, or is to `skip` | `client_ip` |
//! | `quotas` | all of them hold together | |
//! | `algorithm` | `token_bucket`, `sliding_window`, `sliding_counter`, `fixed_window` | `token_bucket` |
//! | `cost` | what one request takes | 1 |
//! | `wait` | the longest wait in line | no wait |
//! | `mode` | `enforce`, or `shadow` to decide and count alone | `enforce` |
//! | `percent` | the share of the keys it is enforced for | 100 |
//! | `max_keys` | the most keys it keeps a state of | 100,000 |
//! | `overrides` | quotas of single keys: `{ "203.0.113.7" = ["1000/min"] }` | |
//! | `exempt` | keys that it does not apply to | |
//!
//! Of the rules that match a request the most specific applies: the more specific route, then the one that names the
//! method; two that cannot be told apart are an error. All that apply are taken together: none is spent when another
//! refuses. A request under no rule passes: a rule without `route` is for all that have none of their own.

mod build;
mod config;
mod error;
mod key;
mod priced;
mod route;
mod together;

pub use config::RulesConfig;
pub use error::{Problem, RulesError};

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::request::Parts;
use arc_swap::ArcSwap;

use crate::decision::{Ask, Denied, Error, Snapshot, Standing};
use crate::http::{HttpLayer, Secret};
use crate::limiter::{BoxAcquire, BoxLimiter, BoxPermit, Census, Limiter};
use crate::sync::Mutex;
use crate::units::Cost;
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
    // By value, as `reload` takes it: what has been read is used up.
    #[allow(clippy::needless_pass_by_value, reason = "what has been read is used up")]
    pub fn new(config: RulesConfig) -> Result<Self, RulesError> {
        let secret = Secret::of_process();
        let (set, changes) = Set::build(&config, None, secret)?;
        changes.into_iter().for_each(build::Change::make);
        let shared = Shared { set: ArcSwap::from_pointee(set), secret, reload: Mutex::new(()) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Goes on as `config` says, from now on. A rule goes on with what its keys have spent if one of its name was there
    /// before with the same key, algorithm and `max_keys`; its quotas, mode, price, route, overrides and the rest may
    /// differ. Those that wait are served by the quotas there are now.
    ///
    /// # Errors
    /// What is wrong, and where; nothing has changed then.
    #[allow(clippy::needless_pass_by_value, reason = "what has been read is used up")]
    pub fn reload(&self, config: RulesConfig) -> Result<(), RulesError> {
        let _one = self.shared.reload.lock();
        let before = self.shared.set.load_full();
        let (set, changes) = Set::build(&config, Some(&before), self.shared.secret)?;
        self.shared.set.store(Arc::new(set));
        changes.into_iter().for_each(build::Change::make);
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

    /// What applies to `request`, as one limiter.
    fn limiter(&self, request: &Parts) -> Option<BoxLimiter<Parts>> {
        let set = self.shared.set.load();
        let limiters = set.matching(request).map(|rule| rule.limiter.clone());
        limiters.reduce(together::both)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.shared.set.load();
        f.debug_list().entries(set.rules.iter().map(|rule| &rule.name)).finish()
    }
}

impl Limiter<Parts> for Rules {
    type Permit = Option<BoxPermit>;
    type Fault = Infallible;
    type Acquire = AcquireRules;

    fn acquire(&self, request: &Parts, ask: Ask) -> AcquireRules {
        AcquireRules(self.limiter(request).map(|limiter| limiter.acquire(request, ask)))
    }

    fn report(&self, request: &Parts, visit: &mut dyn FnMut(&Standing)) {
        let set = self.shared.set.load_full();
        set.matching(request).for_each(|rule| rule.limiter.report(request, visit));
    }

    fn census(&self) -> Option<Census> {
        let set = self.shared.set.load_full();
        let each = set.rules.iter().map(|rule| rule.keyed.census());
        each.reduce(Census::plus)
    }
}

/// The wait for the permits of all rules that apply; without any it is over at once. Cancel-safe.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRules(Option<BoxAcquire>);

impl Future for AcquireRules {
    type Output = Result<Option<BoxPermit>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(acquire) => Pin::new(acquire).poll(cx).map_ok(Some),
            None => Poll::Ready(Ok(None)),
        }
    }
}

/// A rule in the hands of an administrator. Keys are named by their parts, in the order of the rule's `key`: an
/// address, a header's value.
#[must_use]
pub struct RuleHandle {
    set: Arc<Set>,
    index: usize,
}

impl RuleHandle {
    fn rule(&self) -> &Rule {
        &self.set.rules[self.index]
    }

    /// How a key stands; `None` if it has no state, as a new one.
    #[must_use]
    pub fn inspect(&self, key: &[&str]) -> Option<Snapshot> {
        self.rule().keyed.snapshot(&self.rule().key.named(key))
    }

    /// Lets a key start anew.
    pub fn reset(&self, key: &[&str]) {
        self.rule().keyed.reset(&self.rule().key.named(key));
    }

    /// Takes `cost` of a key whether it has it or not.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`](crate::Reason::TooManyKeys): the key is new and no other can be dropped.
    pub fn penalise(&self, key: &[&str], cost: impl Into<Cost>) -> Result<(), Denied> {
        self.rule().keyed.penalise(&self.rule().key.named(key), cost)
    }

    /// How many keys there are.
    #[must_use]
    pub fn census(&self) -> Census {
        self.rule().keyed.census()
    }
}

impl fmt::Debug for RuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuleHandle").field(&self.rule().name).finish()
    }
}
