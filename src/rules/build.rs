//! From what is written to what runs. All of it is checked before any of it takes effect.

use std::collections::HashMap;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderName, Method};

use super::acquire::GrantedPart;
use super::config::{ClientIpConfig, Kind, Mode, RuleConfig, RulesConfig};
use super::error::{Problem, RulesError};
use super::key::RuleKey;
use super::route::{Misplaced, Scope, Table};
use crate::algorithm::{Algorithm, AllOf, Any};
use crate::combine::{Enforced, Share};
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::combine::{Outcome, Watch};
use crate::http::{ClientIp, Fingerprint, Secret, Source};
use crate::limiter::{Keyed, PendingChange, RateLimiter, Tier};
use crate::types::Denied;
use crate::units::{Cost, Name, Quota, Window};

/// The limit of a rule, for each of its keys.
pub(super) type RuleLimit = Keyed<Fingerprint, AllOf<Any>>;

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
    pub(super) cost: Cost,
    pub(super) wait: Duration,
    trial: Trial,
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    watch: Watch,
    identity: Identity,
    own: Own,
}

type Own = HashMap<Fingerprint, Option<AllOf<Any>>>;

/// For which keys a rule is in earnest.
#[derive(Clone, Copy)]
enum Trial {
    All,
    Nobody,
    Share(Share),
}

impl Rule {
    /// A request without a key is in no share of the keys.
    pub(super) const fn is_enforced_for_all(&self) -> bool {
        matches!(self.trial, Trial::All)
    }

    pub(super) fn is_enforced(&self, key: &Fingerprint) -> bool {
        match self.trial {
            Trial::All => true,
            Trial::Nobody => false,
            Trial::Share(share) => share.is_enforced(key),
        }
    }

    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(super) fn admitted(&self, part: &GrantedPart, waited: Option<Duration>) {
        let mut near = false;
        if cfg!(feature = "metrics") {
            crate::limiter::Permit::status(part, &mut |status| near |= status.is_near());
        }
        self.watch.count_keys(|| Some(self.keyed.stats()));
        self.watch.record(&Outcome::Admitted { near, waited, shadowed: part.shadowed.as_ref() });
    }

    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(super) fn refused(&self, denied: &Denied) {
        self.watch.count_keys(|| Some(self.keyed.stats()));
        self.watch.record(&Outcome::Refused(denied));
    }

    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    pub(super) fn admitted(&self, _part: &GrantedPart, _waited: Option<Duration>) {}

    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    pub(super) fn refused(&self, _denied: &Denied) {}
}

/// What a rule must have in common with the one of its name before it to go on with its state. What a client's address
/// is may change: the addresses mean the same.
#[derive(Clone, PartialEq)]
struct Identity {
    key: Vec<String>,
    kind: Kind,
    max_keys: usize,
}

/// A change that is still to be made to a limit that goes on.
pub(super) struct Change {
    keyed: RuleLimit,
    algorithm: AllOf<Any>,
    forget: Vec<Fingerprint>,
    own: Own,
}

impl Change {
    /// Decides it: from now on newcomers come under it. What is returned brings those there are under it.
    pub(super) fn decide(self) -> Vec<PendingChange<RateLimiter<AllOf<Any>>>> {
        let mut pending = vec![self.keyed.change_tier_pending(Tier::DEFAULT, &self.algorithm)];
        pending.extend(self.forget.iter().filter_map(|key| self.keyed.forget_pending(key)));
        for (key, own) in self.own {
            match own {
                Some(algorithm) => pending.push(self.keyed.change_of_pending(&key, algorithm)),
                None => self.keyed.exempt(&key),
            }
        }
        pending
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
            let (rule_built, change) =
                Building { config: rule, client_ip: &client_ip, secret }.build(name, old, &at)?;
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
    pub(super) fn matching(&self, request: &Parts) -> Vec<usize> {
        let path = request.uri.path();
        // An escape that says no more than a letter must not lead around a rule.
        let is_plain = path.bytes().all(|byte| byte.is_ascii() && byte != b'%');
        let normal = if is_plain { None } else { Some(crate::http::Path::new().normal(path)) };
        let path = normal.as_deref().unwrap_or(path);
        let tables = self.always.iter().chain([&self.specific]);
        tables.filter_map(|table| table.find(&request.method, path)).collect()
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
    let mut methods = rule.methods.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut seen = Vec::new();
    methods.retain(|method| {
        let is_new = !seen.contains(method);
        seen.push(method.clone());
        is_new
    });
    Ok(methods)
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
        let mut key = RuleKey::read(&parts, config.missing, self.client_ip.clone(), self.secret)
            .map_err(|problem| RulesError::new(at("key"), problem))?;
        let algorithm = self.joint(&config.quotas, at("quotas"))?;
        let own = self.own(&mut key, at)?;
        self.check_cost(&algorithm, at)?;
        if config.max_keys == 0 {
            let what = "without room for a key nobody would be admitted: keep at least one";
            return Err(RulesError::new(at("max_keys"), Problem::Pointless(what)));
        }
        let parts = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        let identity = Identity { key: parts, kind: config.algorithm, max_keys: config.max_keys };
        let old = old.filter(|old| old.identity == identity);
        let keyed = match old {
            Some(old) => old.keyed.clone(),
            None => {
                let limit = RateLimiter::over(algorithm.clone()).name(name.clone()).keyed();
                let limit = limit.max_keys(config.max_keys).build();
                limit.map_err(|error| RulesError::new(at("quotas"), Problem::Quota(error)))?
            }
        };
        let kept = old.map(|old| old.own.keys().filter(|key| !own.contains_key(key)).copied().collect());
        let forget = kept.unwrap_or_default();
        let change = Change { keyed: keyed.clone(), algorithm, forget, own: own.clone() };
        let rule = Rule {
            #[cfg(any(feature = "metrics", feature = "tracing"))]
            watch: Watch::new(name.clone()),
            trial: self.trial(at)?,
            cost: config.cost,
            wait: config.wait.map_or(Duration::ZERO, Window::length),
            name,
            key,
            keyed,
            identity,
            own,
        };
        Ok((rule, change))
    }

    fn trial(&self, at: &dyn Fn(&str) -> String) -> Result<Trial, RulesError> {
        let wrong = |what| Err(RulesError::new(at("percent"), Problem::Pointless(what)));
        match (self.config.mode, self.config.percent) {
            (Mode::Enforce, None | Some(100)) => Ok(Trial::All),
            (Mode::Enforce, Some(percent @ 1..100)) => Ok(Trial::Share(Share::percent(percent))),
            (Mode::Enforce, Some(_)) => wrong("a share is 1 to 100 percent; for none, use mode = \"shadow\""),
            (Mode::Shadow, None) => Ok(Trial::Nobody),
            (Mode::Shadow, Some(_)) => {
                wrong("a rule on trial is enforced for nobody: leave out `percent`, or the mode")
            }
        }
    }

    fn check_cost(&self, algorithm: &AllOf<Any>, at: &dyn Fn(&str) -> String) -> Result<(), RulesError> {
        let what = match self.config.cost.units() {
            0 => "a cost of nothing is never refused: leave the rule out, or use mode = \"shadow\"",
            units if units > algorithm.capacity() => {
                "a cost above what a quota admits at once is always refused: lower it"
            }
            _ => return Ok(()),
        };
        Err(RulesError::new(at("cost"), Problem::Pointless(what)))
    }

    /// All of `quotas` together; they stand in `field`.
    fn joint(&self, quotas: &[Quota], field: String) -> Result<AllOf<Any>, RulesError> {
        let wrong = |n, error| RulesError::new(format!("{field}[{n}]"), Problem::Quota(error));
        let each = quotas.iter().enumerate();
        let each =
            each.map(|(n, quota)| self.config.algorithm.algorithm(*quota).map_err(|error| wrong(n, error)));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        AllOf::of(each).map_err(|error| RulesError::new(field, Problem::Quota(error)))
    }

    fn own(&self, key: &mut RuleKey, at: &dyn Fn(&str) -> String) -> Result<Own, RulesError> {
        let Self { config, .. } = self;
        let mut own = Own::new();
        for (text, quotas) in &config.overrides {
            let place = format!("overrides.{text:?}");
            let wrong = |problem| RulesError::new(at(&place), problem);
            let named = key.named(&[text]).map_err(wrong)?;
            let algorithm = self.joint(quotas, at(&place))?;
            if own.insert(named, Some(algorithm)).is_some() {
                return Err(wrong(Problem::KeyTwice(text.clone())));
            }
        }
        for (n, text) in config.exempt.iter().enumerate() {
            let wrong = |problem| RulesError::new(at(&format!("exempt[{n}]")), problem);
            match key.named(&[text]) {
                Ok(named) if own.insert(named, None).is_none() => {}
                Ok(_) => return Err(wrong(Problem::KeyTwice(text.clone()))),
                Err(_) if key.exempt(text) => {}
                Err(problem) => return Err(wrong(problem)),
            }
        }
        Ok(own)
    }
}
