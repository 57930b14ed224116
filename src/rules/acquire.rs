//! All rules that apply to one request, taken together.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::build::Set;
use crate::algorithm::{Any, Joint};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Ask, Denied, Error, Reason, Standing};
use crate::http::Fingerprint;
use crate::limiter::{AcquireKeyed, KeyedPermit, Permit};
use crate::units::Cost;

/// What one rule is asked.
pub(super) struct Asked {
    pub(super) rule: usize,
    pub(super) key: Fingerprint,
    /// Whether its refusal is acted upon.
    pub(super) enforced: bool,
}

/// Rules that apply and cannot tell to whom.
#[derive(Default)]
pub(super) struct Keyless {
    /// One that is in earnest.
    refused: Option<(usize, Denied)>,
    /// Those on trial.
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

/// The wait for the permits of all rules that apply: none is spent when another refuses. It waits only where each rule
/// that refuses would wait so long itself. Cancel-safe: dropped, what it holds goes back.
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRules {
    set: Arc<Set>,
    ask: Ask,
    asked: Vec<Asked>,
    keyless: Keyless,
    held: Vec<Held>,
    stage: Stage,
}

type Part = Option<KeyedPermit<Joint<Any>>>;

#[derive(Default)]
struct Held {
    part: Option<Part>,
    shadowed: Option<Denied>,
}

enum Stage {
    Fresh,
    /// Those that are still to be had, the next one last, and the wait for it.
    Waits {
        left: Vec<usize>,
        acquire: Box<AcquireKeyed<Joint<Any>>>,
        since: crate::units::Timestamp,
    },
    Done,
}

impl AcquireRules {
    pub(super) fn new(set: Arc<Set>, ask: Ask, asked: Vec<Asked>, keyless: Keyless) -> Self {
        let held = Vec::with_capacity(asked.len());
        Self { set, ask, asked, keyless, held, stage: Stage::Fresh }
    }

    fn units(&self, asked: &Asked) -> u64 {
        self.set.rules[asked.rule].cost.units().saturating_mul(self.ask.units().units())
    }

    /// Nobody waits for a rule that is on trial.
    fn longest_wait(&self, asked: &Asked) -> Duration {
        let own = if asked.enforced { self.set.rules[asked.rule].wait } else { Duration::ZERO };
        self.ask.max_wait().map_or(own, |wait| wait.min(own))
    }

    /// Takes what may be had now; what refuses, in earnest, is returned.
    fn take_all(&mut self) -> Vec<(usize, Denied)> {
        let mut refused = Vec::new();
        for (index, asked) in self.asked.iter().enumerate() {
            let keyed = &self.set.rules[asked.rule].keyed;
            self.held.push(match keyed.try_acquire(&asked.key, self.units(asked)) {
                Ok(part) => Held { part: Some(part), shadowed: None },
                Err(denied) if !asked.enforced => Held { part: None, shadowed: Some(denied) },
                Err(denied) => {
                    refused.push((index, denied));
                    Held::default()
                }
            });
        }
        refused
    }

    fn give_back(&mut self) {
        for held in &mut self.held {
            if let Some(part) = held.part.take() {
                part.refund();
            }
        }
    }

    /// The refusal of all that have refused, if one of them would not wait for so long.
    fn refusal(&self, refused: &[(usize, Denied)]) -> Option<(usize, Denied)> {
        let would_wait = |(index, denied): &(usize, Denied)| {
            let longest = self.longest_wait(&self.asked[*index]);
            matches!(denied.reason(), Reason::Exhausted | Reason::Paused)
                && longest > Duration::ZERO
                && denied.retry_after().is_none_or(|wait| wait <= longest)
        };
        if refused.iter().all(would_wait) {
            return None;
        }
        // The one that binds longest; one that no wait ends binds longest of all.
        let last = |(_, denied): &&(usize, Denied)| denied.retry_after().unwrap_or(Duration::MAX);
        refused.iter().max_by_key(last).map(|(index, denied)| (self.asked[*index].rule, denied.clone()))
    }

    fn wait_for(&self, left: Vec<usize>, since: crate::units::Timestamp) -> Stage {
        match left.last() {
            None => Stage::Done,
            Some(next) => {
                let asked = &self.asked[*next];
                // What it has waited for the others it has waited.
                let waited = DefaultClock::default().now().since(since);
                let longest = self.longest_wait(asked).saturating_sub(waited);
                let ask = Ask::cost(self.units(asked)).within(longest);
                let acquire = self.set.rules[asked.rule].keyed.acquire(&asked.key, ask);
                Stage::Waits { left, acquire: Box::new(acquire), since }
            }
        }
    }

    fn granted(&mut self, waited: Option<Duration>) -> Poll<Result<RulesPermit, Error>> {
        self.stage = Stage::Done;
        let parts = self.held.drain(..).zip(&self.asked);
        let mut parts: Vec<GrantedPart> = parts
            .map(|(held, asked)| GrantedPart {
                part: held.part.flatten(),
                price: self.set.rules[asked.rule].cost,
                enforced: asked.enforced,
                shadowed: held.shadowed,
            })
            .collect();
        for (part, asked) in parts.iter().zip(&self.asked) {
            self.set.rules[asked.rule].admitted(part, waited);
        }
        for (rule, denied) in self.keyless.shadowed.drain(..) {
            let rule = &self.set.rules[rule];
            let part = GrantedPart { part: None, price: rule.cost, enforced: false, shadowed: Some(denied) };
            rule.admitted(&part, waited);
            parts.push(part);
        }
        Poll::Ready(Ok(RulesPermit { cost: self.ask.units(), parts }))
    }

    fn refused(&mut self, rule: usize, denied: Denied) -> Poll<Result<RulesPermit, Error>> {
        self.stage = Stage::Done;
        self.give_back();
        self.set.rules[rule].refused(&denied);
        Poll::Ready(Err(Error::Denied(denied)))
    }
}

impl Future for AcquireRules {
    type Output = Result<RulesPermit, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Fresh => {
                    if let Some((rule, denied)) = this.keyless.refused.take() {
                        return this.refused(rule, denied);
                    }
                    let mut refused = this.take_all();
                    if refused.is_empty() {
                        return this.granted(None);
                    }
                    this.give_back();
                    if let Some((rule, denied)) = this.refusal(&refused) {
                        return this.refused(rule, denied);
                    }
                    // The longest wait first, so that nothing is held for longer than it must be.
                    refused.sort_by_key(|(_, denied)| denied.retry_after());
                    let waits: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
                    let at_once = (0..this.asked.len()).filter(|index| !waits.contains(index));
                    let left = at_once.chain(waits.iter().copied()).collect();
                    this.held.iter_mut().for_each(|held| *held = Held::default());
                    this.stage = this.wait_for(left, DefaultClock::default().now());
                }
                Stage::Waits { left, acquire, since } => {
                    let answer = ready!(Pin::new(&mut **acquire).poll(cx));
                    let (Some(index), since) = (left.pop(), *since) else { unreachable!("it waits for one") };
                    let left = std::mem::take(left);
                    match answer {
                        Ok(part) => this.held[index].part = Some(part),
                        Err(Error::Denied(denied)) if !this.asked[index].enforced => {
                            this.held[index].shadowed = Some(denied);
                        }
                        Err(Error::Denied(denied)) => {
                            let rule = this.asked[index].rule;
                            return this.refused(rule, denied);
                        }
                        Err(Error::Fault(never)) => match never {},
                    }
                    if left.is_empty() {
                        let waited = DefaultClock::default().now().since(since);
                        return this.granted(Some(waited));
                    }
                    this.stage = this.wait_for(left, since);
                }
                Stage::Done => panic!("an acquire was polled after it had given its answer"),
            }
        }
    }
}

impl Drop for AcquireRules {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for AcquireRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRules").field("ask", &self.ask).finish_non_exhaustive()
    }
}

/// The permits of all rules that applied to a request. Settles each at its rule's price.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct RulesPermit {
    cost: Cost,
    parts: Vec<GrantedPart>,
}

#[derive(Debug)]
pub(super) struct GrantedPart {
    part: Part,
    price: Cost,
    enforced: bool,
    pub(super) shadowed: Option<Denied>,
}

impl GrantedPart {
    pub(super) fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        self.part.report(&mut |standing| {
            visit(&Standing { enforced: self.enforced && standing.enforced, ..standing.clone() });
        });
    }
}

impl Permit for RulesPermit {
    fn cost(&self) -> Cost {
        self.cost
    }

    fn settle(self, actual: Cost) {
        for part in self.parts {
            part.part.settle(Cost::new(actual.units().saturating_mul(part.price.units())));
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        self.parts.iter().find_map(|part| part.shadowed.as_ref())
    }

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        self.parts.iter().for_each(|part| part.report(visit));
    }
}
