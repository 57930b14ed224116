//! All rules that apply to one request, as one composition.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::build::Set;
use crate::algorithm::{AllOf, Any};
use crate::clock::{Clock, DefaultClock};
use crate::combine::{AcquireAll, AndPermit, ListPart, Members};
use crate::http::Fingerprint;
use crate::limiter::{Compose, KeyedPart, KeyedPermit, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus, Reason};
use crate::units::{Cost, Timestamp};

/// What one rule is asked.
pub(super) struct Asked {
    pub(super) rule: usize,
    pub(super) key: Fingerprint,
    /// Its denial is acted upon.
    pub(super) enforced: bool,
}

/// Rules that apply to a request that lacks their key.
#[derive(Default)]
pub(super) struct Keyless {
    /// One that is enforced.
    refused: Option<(usize, Denied)>,
    /// Those in shadow mode.
    shadowed: Vec<(usize, Denied)>,
}

impl Keyless {
    pub(super) fn put(&mut self, rule: usize, denied: Denied, enforced: bool) {
        if enforced {
            self.refused = Some((rule, denied));
        } else {
            self.shadowed.push((rule, denied));
        }
    }
}

/// The wait for the permits of all rules that apply: taken at one instant, or not at all. It waits only if each rule that
/// refuses would wait so long itself. Cancel-safe: dropped, it leaves the queues.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRules {
    ask: RulesAsk,
    acquire: Option<AcquireAll<ListPart<RulePart>>>,
    since: Option<Timestamp>,
}

/// An ask to all rules that apply.
pub(super) struct RulesAsk {
    set: Arc<Set>,
    ask: Ask,
    asked: Vec<Asked>,
    keyless: Keyless,
}

impl RulesAsk {
    pub(super) const fn new(set: Arc<Set>, ask: Ask, asked: Vec<Asked>, keyless: Keyless) -> Self {
        Self { set, ask, asked, keyless }
    }

    fn parts(&self) -> impl Iterator<Item = RulePart> {
        self.asked.iter().map(|asked| {
            let rule = &self.set.rules[asked.rule];
            let units = rule.cost.units().saturating_mul(self.ask.units().units());
            let part = rule.keyed.part(&asked.key, Cost::new(units));
            RulePart { part, price: rule.cost, enforced: asked.enforced }
        })
    }

    /// The longest wait of the ask, or the denial of a rule that would not wait for so long.
    fn longest_wait(&self) -> Result<Duration, (usize, Denied)> {
        if let Some(refused) = &self.keyless.refused {
            return Err(refused.clone());
        }
        let refused: Vec<(usize, Denied)> = self
            .parts()
            .zip(&self.asked)
            .filter_map(|(part, asked)| part.peek().err().map(|denied| (asked.rule, denied)))
            .collect();
        let own = |rule: usize| {
            let own = self.set.rules[rule].wait;
            self.ask.max_wait().map_or(own, |wait| wait.min(own))
        };
        let would_wait = |(rule, denied): &(usize, Denied)| {
            matches!(denied.reason(), Reason::Exhausted | Reason::Paused)
                && own(*rule) > Duration::ZERO
                && denied.retry_after().is_none_or(|wait| wait <= own(*rule))
        };
        if refused.iter().all(would_wait) {
            return Ok(refused.iter().map(|(rule, _)| own(*rule)).min().unwrap_or(Duration::ZERO));
        }
        // The one that binds longest; one that no wait ends binds longest of all.
        let last = |(_, denied): &(usize, Denied)| denied.retry_after().unwrap_or(Duration::MAX);
        refused.into_iter().max_by_key(last).map_or(Ok(Duration::ZERO), Err)
    }

    fn granted(&mut self, parts: Vec<GrantedPart>, waited: Option<Duration>) -> RulesPermit {
        let mut parts = parts;
        for (part, asked) in parts.iter().zip(&self.asked) {
            self.set.rules[asked.rule].admitted(part, waited);
        }
        for (rule, denied) in self.keyless.shadowed.drain(..) {
            let rule = &self.set.rules[rule];
            let part = GrantedPart { part: None, price: rule.cost, enforced: false, shadowed: Some(denied) };
            rule.admitted(&part, waited);
            parts.push(part);
        }
        RulesPermit { cost: self.ask.units(), parts }
    }

    fn refused(&self, rule: usize, denied: Denied) -> Denied {
        self.set.rules[rule].refused(&denied);
        denied
    }

    /// The rule of this name that a denial carries.
    fn rule_of(&self, denied: &Denied) -> usize {
        let named = |asked: &&Asked| Some(&self.set.rules[asked.rule].name) == denied.limit();
        self.asked.iter().find(named).or(self.asked.first()).map_or(0, |asked| asked.rule)
    }

    /// Takes all now, or none.
    pub(super) fn take(mut self) -> Result<RulesPermit, Denied> {
        if let Err((rule, denied)) = self.longest_wait() {
            return Err(self.refused(rule, denied));
        }
        match crate::combine::take_now(ListPart::new(self.parts())) {
            Ok(AndPermit(parts)) => Ok(self.granted(parts, None)),
            Err(denied) => Err(self.refused(self.rule_of(&denied), denied)),
        }
    }
}

impl AcquireRules {
    pub(super) const fn new(ask: RulesAsk) -> Self {
        Self { ask, acquire: None, since: None }
    }
}

impl Future for AcquireRules {
    type Output = Result<RulesPermit, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.acquire.is_none() {
            let longest = match this.ask.longest_wait() {
                Ok(longest) => longest,
                Err((rule, denied)) => return Poll::Ready(Err(this.ask.refused(rule, denied).into())),
            };
            this.acquire = Some(AcquireAll::new(ListPart::new(this.ask.parts()), Some(longest)));
        }
        let Some(acquire) = &mut this.acquire else { unreachable!("it was just made") };
        let polled = Pin::new(acquire).poll(cx);
        let clock = DefaultClock::default();
        if polled.is_pending() && this.since.is_none() {
            this.since = Some(clock.now());
        }
        let waited = this.since.map(|since| clock.now().since(since));
        Poll::Ready(match ready!(polled) {
            Ok(AndPermit(parts)) => Ok(this.ask.granted(parts, waited)),
            Err(Error::Denied(denied)) => Err(this.ask.refused(this.ask.rule_of(&denied), denied).into()),
            Err(Error::Fault(never)) => match never {},
        })
    }
}

impl fmt::Debug for AcquireRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRules").field("ask", &self.ask.ask).finish_non_exhaustive()
    }
}

/// An ask to one rule. A rule that is not enforced for the key is not waited for.
struct RulePart {
    part: KeyedPart<AllOf<Any>>,
    price: Cost,
    enforced: bool,
}

impl Part for RulePart {
    type Permit = GrantedPart;
    type Fault = std::convert::Infallible;

    fn stage(&self) -> PartStage {
        self.part.stage()
    }

    fn now(&self) -> Option<Timestamp> {
        self.part.now()
    }

    fn peek(&self) -> Result<(), Denied> {
        if self.enforced { self.part.peek() } else { Ok(()) }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<GrantedPart, Error>> {
        let (part, shadowed) = match ready!(self.part.poll_take(cx)) {
            Ok(permit) => (Some(permit), None),
            Err(Error::Denied(denied)) if !self.enforced => (None, Some(denied)),
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(GrantedPart { part, price: self.price, enforced: self.enforced, shadowed }))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        if self.enforced { self.part.enlist(members) } else { Ok(()) }
    }
}

/// The permits of all rules that applied to a request. Settles each at its rule's price.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct RulesPermit {
    cost: Cost,
    parts: Vec<GrantedPart>,
}

/// The permit of one rule.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub(super) struct GrantedPart {
    part: Option<KeyedPermit<AllOf<Any>>>,
    price: Cost,
    enforced: bool,
    pub(super) shadowed: Option<Denied>,
}

impl Permit for GrantedPart {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        self.part.as_ref().map_or(Cost::ZERO, Permit::cost)
    }

    fn settle(self, actual: Cost) {
        if let Some(permit) = self.part {
            permit.settle(Cost::new(actual.units().saturating_mul(self.price.units())));
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.shadowed.as_ref()
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Some(permit) = &self.part {
            permit.status(&mut |status| {
                visit(&LimitStatus { enforced: self.enforced && status.enforced, ..status.clone() });
            });
        }
    }
}

impl Permit for RulesPermit {
    const IS_HELD: bool = false;

    fn cost(&self) -> Cost {
        self.cost
    }

    fn settle(self, actual: Cost) {
        self.parts.into_iter().for_each(|part| part.settle(actual));
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.parts.iter().find_map(|part| part.shadowed.as_ref())
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        self.parts.iter().for_each(|part| part.status(visit));
    }
}
