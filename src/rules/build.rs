//! From what is written to what runs. All of it is checked before any of it takes effect.

use std::collections::HashMap;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderName, Method};

use super::config::{ClientIpConfig, Kind, Missing, Mode, RuleConfig, RulesConfig};
use super::error::{Problem, RulesError};
use super::key::RuleKey;
use super::priced::Priced;
use super::route::{Misplaced, Scope, Table};
use crate::algorithm::{Any, Joint};
use crate::http::{ClientIp, Fingerprint, Secret, Source};
use crate::limiter::{BoxLimiter, Keyed, LimiterExt, RateLimiter, Share, Tier};
use crate::units::{Cost, Name, Quota, Window};

/// The limit of a rule, for each of its keys.
pub(super) type RuleLimit = Keyed<Fingerprint, Joint<Any>>;

/// All rules, as they stand until the next reload.
pub(super) struct Set {
    pub(super) rules: Vec<Rule>,
    specific: Table,
    always: Vec<Table>,
}

/// One rule as it runs.
pub(super) struct Rule {
    pub(super) name: Name,
    pub(super) key: RuleKey,
    pub(super) keyed: RuleLimit,
    /// What requests are put to: the limit, by its key, on trial or not, at the rule's price.
    pub(super) limiter: BoxLimiter<Parts>,
    identity: Identity,
    own: HashMap<Fingerprint, Option<Joint<Any>>>,
}

/// What a rule must have in common with the one of its name before it to go on with its state.
#[derive(Clone, PartialEq)]
struct Identity {
    key: Vec<String>,
    missing: Missing,
    client_ip: ClientIpConfig,
    kind: Kind,
    max_keys: Option<usize>,
}

/// A change that is still to be made to a limit that goes on.
pub(super) struct Change {
    keyed: RuleLimit,
    algorithm: Joint<Any>,
    forget: Vec<Fingerprint>,
    own: HashMap<Fingerprint, Option<Joint<Any>>>,
}

impl Change {
    pub(super) fn make(self) {
        self.keyed.change_tier(Tier::DEFAULT, &self.algorithm);
        self.forget.iter().for_each(|key| self.keyed.forget_quota_of(key));
        for (key, own) in self.own {
            match own {
                Some(algorithm) => self.keyed.change_of(key, algorithm),
                None => self.keyed.exempt(key),
            }
        }
    }
}

impl Set {
    pub(super) fn build(
        config: &RulesConfig,
        before: Option<&Self>,
        secret: Secret,
    ) -> Result<(Self, Vec<Change>), RulesError> {
        let client_ip =
            client_ip(&config.client_ip).map_err(|problem| RulesError::new("client_ip", problem))?;
        let mut rules: Vec<Rule> = Vec::new();
        let (mut changes, mut methods) = (Vec::new(), Vec::new());
        for (index, rule) in config.rules.iter().enumerate() {
            let at = |field: &str| place(index, rule, field);
            let name = Name::new(rule.name.as_str())
                .map_err(|error| RulesError::new(at("name"), Problem::Name(error)))?;
            if rules.iter().any(|other| other.name == name) {
                return Err(RulesError::new(at("name"), Problem::NameTaken));
            }
            let old = before.and_then(|before| before.rules.iter().find(|old| old.name == name));
            let (rule_built, change) = Building { config: rule, all: config, client_ip: &client_ip, secret }
                .build(name, old, &at)?;
            changes.push(change);
            rules.push(rule_built);
            methods.push(read_methods(rule, &at)?);
        }
        let scope = |(index, rule): (usize, &RuleConfig)| (index, rule.route.clone(), rule.always);
        let scopes: Vec<_> = config.rules.iter().enumerate().map(scope).collect();
        let table = |of: &dyn Fn(usize, bool) -> bool| {
            let chosen = scopes.iter().filter(|(index, _, always)| of(*index, *always));
            let chosen: Vec<_> = chosen
                .map(|(index, route, _)| Scope {
                    rule: *index,
                    route: route.as_deref(),
                    methods: &methods[*index],
                })
                .collect();
            Table::new(&chosen).map_err(|(index, misplaced)| {
                let rule = &config.rules[index];
                match misplaced {
                    Misplaced::Route(problem) => RulesError::new(place(index, rule, "route"), problem),
                    Misplaced::With(other) => {
                        let other = place(other, &config.rules[other], "");
                        RulesError::new(place(index, rule, "route"), Problem::Ambiguous(other))
                    }
                }
            })
        };
        let specific = table(&|_, always| !always)?;
        let always = scopes.iter().filter(|(.., always)| *always);
        let always =
            always.map(|(index, ..)| table(&|other, _| other == *index)).collect::<Result<_, _>>()?;
        Ok((Self { rules, specific, always }, changes))
    }

    /// The rules a request comes under, those that always apply first.
    pub(super) fn matching(&self, request: &Parts) -> impl Iterator<Item = &Rule> {
        let path = request.uri.path();
        // An escape that says no more than a letter must not lead around a rule.
        let normal = path.contains('%').then(|| crate::http::Path::new().normal(path));
        let normal = normal.as_deref().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or(path);
        let tables = self.always.iter().chain([&self.specific]);
        let found: Vec<usize> = tables.filter_map(|table| table.find(&request.method, normal)).collect();
        found.into_iter().map(|index| &self.rules[index])
    }
}

fn place(index: usize, rule: &RuleConfig, field: &str) -> String {
    let colon = if field.is_empty() { "" } else { ": " };
    format!("rules[{index}] {:?}{colon}{field}", rule.name)
}

fn read_methods(rule: &RuleConfig, at: &dyn Fn(&str) -> String) -> Result<Vec<Method>, RulesError> {
    let read = |(n, text): (usize, &String)| {
        let is_one = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| is_one);
        method.ok_or_else(|| RulesError::new(at(&format!("methods[{n}]")), Problem::Method(text.clone())))
    };
    rule.methods.iter().enumerate().map(read).collect()
}

fn client_ip(config: &ClientIpConfig) -> Result<ClientIp, Problem> {
    let source = match config.source.as_deref() {
        None if !config.trusted.is_empty() || config.hops.is_some() => {
            return Err(Problem::Pointless("trust needs the header that is trusted: set `source`"));
        }
        None => None,
        Some("x-forwarded-for") => Some(Source::x_forwarded_for()),
        Some("forwarded") => Some(Source::forwarded()),
        Some(text) => {
            let name = text.strip_prefix("header:").and_then(|name| name.parse::<HeaderName>().ok());
            Some(Source::header(
                name.ok_or(Problem::Pointless("`source` is x-forwarded-for, forwarded or header:NAME"))?,
            ))
        }
    };
    let client_ip = match (source, config.hops) {
        (None, _) => Ok(ClientIp::peer()),
        (Some(_), Some(_)) if !config.trusted.is_empty() => {
            return Err(Problem::Pointless(
                "proxies are trusted by address or by number: `trusted` or `hops`",
            ));
        }
        (Some(source), Some(hops)) => ClientIp::hops(source, hops),
        (Some(source), None) => ClientIp::behind(source, &config.trusted),
    };
    let bits = config.ipv6_prefix;
    client_ip
        .and_then(|client_ip| bits.map_or(Ok(client_ip.clone()), |bits| client_ip.ipv6_prefix(bits)))
        .map_err(Problem::Trust)
}

/// One rule, being built.
struct Building<'a> {
    config: &'a RuleConfig,
    all: &'a RulesConfig,
    client_ip: &'a ClientIp,
    secret: Secret,
}

impl Building<'_> {
    fn build(
        &self,
        name: Name,
        old: Option<&Rule>,
        at: &dyn Fn(&str) -> String,
    ) -> Result<(Rule, Change), RulesError> {
        let config = self.config;
        let parts = config.key.clone().unwrap_or_else(|| vec!["client_ip".to_owned()]);
        let key = RuleKey::read(&parts, config.missing, self.client_ip.clone(), self.secret)
            .map_err(|problem| RulesError::new(at("key"), problem))?;
        let algorithm = self.joint(&config.quotas, &|n| at(&format!("quotas[{n}]")))?;
        let own = self.own(&key, at)?;
        let identity = Identity {
            key: parts,
            missing: config.missing,
            client_ip: self.all.client_ip.clone(),
            kind: config.algorithm,
            max_keys: config.max_keys,
        };
        let old = old.filter(|old| old.identity == identity);
        let keyed = match old {
            Some(old) => old.keyed.clone(),
            None => {
                let limit = RateLimiter::over(algorithm.clone()).name(name.clone()).build();
                let limit = limit.map_err(|error| RulesError::new(at("quotas"), Problem::Quota(error)))?;
                let keyed = limit.keyed();
                config.max_keys.map_or(keyed.clone(), |most| keyed.max_keys(most))
            }
        };
        let kept = old.map(|old| old.own.keys().filter(|key| !own.contains_key(key)).copied().collect());
        let forget = kept.unwrap_or_default();
        let change = Change { keyed: keyed.clone(), algorithm, forget, own: own.clone() };
        let wait = config.wait.map_or(Duration::ZERO, Window::length);
        let limiter = self.limiter(&name, &keyed, &key, wait, at)?;
        Ok((Rule { name, key, keyed, limiter, identity, own }, change))
    }

    fn limiter(
        &self,
        name: &Name,
        keyed: &RuleLimit,
        key: &RuleKey,
        wait: Duration,
        at: &dyn Fn(&str) -> String,
    ) -> Result<BoxLimiter<Parts>, RulesError> {
        let (keyed, key, cost) = (keyed.clone(), key.clone(), self.config.cost);
        Ok(match (self.config.mode, self.config.percent) {
            (Mode::Enforce, None | Some(100..)) => seen(keyed.by(key), name, cost, wait),
            (Mode::Enforce, Some(percent)) => {
                seen(keyed.shadow().enforcing(Share::percent(percent)).by(key), name, cost, wait)
            }
            (Mode::Shadow, None) => seen(keyed.shadow().by(key), name, cost, wait),
            (Mode::Shadow, Some(_)) => {
                let what = "a rule on trial is enforced for nobody: leave `percent` out, or the mode";
                return Err(RulesError::new(at("percent"), Problem::Pointless(what)));
            }
        })
    }

    fn joint(&self, quotas: &[Quota], at: &dyn Fn(usize) -> String) -> Result<Joint<Any>, RulesError> {
        let wrong = |n, error| RulesError::new(at(n), Problem::Quota(error));
        let each = quotas.iter().enumerate();
        let each =
            each.map(|(n, quota)| self.config.algorithm.algorithm(*quota).map_err(|error| wrong(n, error)));
        Joint::of(each.collect::<Result<Vec<_>, _>>()?).map_err(|error| wrong(0, error))
    }

    fn own(
        &self,
        key: &RuleKey,
        at: &dyn Fn(&str) -> String,
    ) -> Result<HashMap<Fingerprint, Option<Joint<Any>>>, RulesError> {
        let Self { config, .. } = self;
        if key.parts() != 1 && !(config.overrides.is_empty() && config.exempt.is_empty()) {
            return Err(RulesError::new(at("overrides"), Problem::KeyHasParts));
        }
        let mut own = HashMap::new();
        for (text, quotas) in &config.overrides {
            let algorithm = self.joint(quotas, &|n| at(&format!("overrides.{text:?}[{n}]")))?;
            own.insert(key.named(&[text]), Some(algorithm));
        }
        own.extend(config.exempt.iter().map(|text| (key.named(&[text]), None)));
        Ok(own)
    }
}

/// The limit as requests meet it: watched, where there is something to watch it with, and at the rule's price.
#[cfg_attr(
    not(any(feature = "metrics", feature = "tracing")),
    allow(unused_variables, reason = "the name is for those who watch")
)]
fn seen<L>(limiter: L, name: &Name, cost: Cost, wait: Duration) -> BoxLimiter<Parts>
where
    L: crate::limiter::Limiter<Parts, Fault = std::convert::Infallible> + Clone + Send + Sync + 'static,
    L::Permit: Send + 'static,
    L::Acquire: Send + 'static,
{
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    let limiter = crate::limiter::Observed::new(limiter, name.clone());
    Priced::new(limiter, cost, wait).boxed()
}
