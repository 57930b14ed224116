//! Families of plain fields: `X-RateLimit-*` and its relatives, and the buckets that providers name in the fields.

use std::time::Duration;

use ::http::HeaderMap;

use super::budget::{NAME_MAX, name, unit, window};
use super::structured::{Policy, limit_and_policies, policy_of};
use super::text::{Number, lines};
use super::time::{reset, reset_after};
use super::{Budget, Profile, Unit};

/// How the fields of a budget start, in the order in which the families are believed.
const FAMILIES: [&str; 4] = ["ratelimit-", "x-ratelimit-", "x-rate-limit-", "x-sib-ratelimit-"];
/// Has buckets behind the kind: `x-ratelimit-limit-tokens`.
const NAMED_BEHIND: &str = "x-ratelimit-";
/// Has them before it: `anthropic-ratelimit-tokens-limit`.
const NAMED_BEFORE: &str = "anthropic-ratelimit-";
/// Most buckets that are looked at.
const NAMED_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Limit,
    Remaining,
    Used,
    Reset,
    ResetAfter,
}

impl Kind {
    const WORDS: [(&'static str, Self); 6] = [
        ("limit", Self::Limit),
        ("remaining", Self::Remaining),
        ("used", Self::Used),
        ("observed", Self::Used),
        ("reset-after", Self::ResetAfter),
        ("reset", Self::Reset),
    ];

    fn exactly(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    }

    /// The kind before a bucket.
    fn before(rest: &str) -> Option<(Self, &str)> {
        let (word, bucket) = rest.split_once('-')?;
        Some((Self::exactly(word)?, bucket))
    }

    /// The kind behind a bucket.
    fn behind(rest: &str) -> Option<(Self, &str)> {
        let (bucket, word) = rest.rsplit_once('-')?;
        Some((Self::exactly(word)?, bucket))
    }
}

/// Which field of which budget a header is.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Family(usize),
    Bucket(&'a str),
}

fn place(header: &str) -> Option<(Place<'_>, Kind)> {
    let family =
        FAMILIES.iter().enumerate().find_map(|(at, prefix)| Some((at, header.strip_prefix(prefix)?)));
    if let Some(kind) = family.and_then(|(_, rest)| Kind::exactly(rest)) {
        return family.map(|(at, _)| (Place::Family(at), kind));
    }
    let behind = || Kind::before(header.strip_prefix(NAMED_BEHIND)?);
    let before = || Kind::behind(header.strip_prefix(NAMED_BEFORE)?);
    let (kind, bucket) = behind().or_else(before)?;
    (1..=NAME_MAX).contains(&bucket.len()).then_some((Place::Bucket(bucket), kind))
}

/// One budget, as its fields come in.
#[derive(Default)]
struct Draft<'a> {
    bucket: &'a str,
    limit: Option<u64>,
    policies: Vec<Policy>,
    remaining: Option<u64>,
    used: Option<u64>,
    reset: Option<Duration>,
    reset_after: Option<Duration>,
}

impl<'a> Draft<'a> {
    /// Of several lines the most restrictive counts.
    fn put(&mut self, kind: Kind, lines: impl Iterator<Item = &'a str>, made_at: Duration, profile: Profile) {
        match kind {
            Kind::Limit => lines.for_each(|line| self.put_limit(line)),
            Kind::Remaining => self.remaining = lines.filter_map(count).min(),
            Kind::Used => self.used = lines.filter_map(count).max(),
            Kind::Reset => self.reset = lines.filter_map(|line| reset(line, made_at, profile)).max(),
            Kind::ResetAfter => self.reset_after = lines.filter_map(reset_after).max(),
        }
    }

    fn put_limit(&mut self, line: &str) {
        let found = match Number::parse(line) {
            Some(number) => Some((number.whole, Vec::new())),
            None => limit_and_policies(line),
        };
        if let Some((limit, policies)) = found {
            if self.limit.is_none_or(|smallest| limit < smallest) {
                (self.limit, self.policies) = (Some(limit), policies);
            }
        }
    }

    /// The budget, and then those that only a policy tells of.
    fn finish(mut self) -> Vec<Budget> {
        let named = !self.bucket.is_empty();
        let limit = self.limit.or_else(|| Some(self.used?.saturating_add(self.remaining?)));
        let mut budget = Budget {
            unit: if named { unit(self.bucket) } else { Unit::Requests },
            name: name(self.bucket),
            limit,
            remaining: self.remaining.or_else(|| Some(limit?.saturating_sub(self.used?))),
            reset_after: self.reset_after.or(self.reset),
            window: window(self.bucket),
        };
        if budget.says_nothing() {
            return Vec::new();
        }
        if !named {
            policy_of(&mut budget, &mut self.policies);
        }
        let others = self.policies.into_iter().map(Budget::from);
        std::iter::once(budget).chain(others).collect()
    }
}

/// The first family that says something, unless `known` is all about it already; and every named bucket.
pub(super) fn read(
    headers: &HeaderMap,
    known: bool,
    mut policies: Vec<Policy>,
    made_at: Duration,
    profile: Profile,
) -> Vec<Budget> {
    let mut families: [Draft<'_>; FAMILIES.len()] = Default::default();
    let mut named: Vec<Draft<'_>> = Vec::new();
    for header in headers.keys() {
        let Some((place, kind)) = place(header.as_str()) else { continue };
        let draft = match place {
            Place::Family(at) => &mut families[at],
            Place::Bucket(bucket) => match named.iter().position(|draft| draft.bucket == bucket) {
                Some(at) => &mut named[at],
                None if named.len() == NAMED_MAX => continue,
                None => {
                    named.push(Draft { bucket, ..Draft::default() });
                    named.last_mut().expect("it was just put there")
                }
            },
        };
        draft.put(kind, lines(headers, header.as_str()), made_at, profile);
    }
    let mut budgets = Vec::new();
    if !known {
        let first = families.into_iter().map(Draft::finish).find(|budgets| !budgets.is_empty());
        budgets = first.or_else(|| Some(vec![shopify(headers)?])).unwrap_or_default();
        if let Some(budget) = budgets.first_mut() {
            policy_of(budget, &mut policies);
        }
    }
    budgets.extend(policies.into_iter().map(Budget::from));
    budgets.extend(named.into_iter().flat_map(Draft::finish));
    budgets
}

/// `X-Shopify-Shop-Api-Call-Limit: 32/40`, which is what was used of what there is.
fn shopify(headers: &HeaderMap) -> Option<Budget> {
    let most_used = lines(headers, "x-shopify-shop-api-call-limit").filter_map(|line| {
        let (used, limit) = line.split_once('/')?;
        let (used, limit) = (Number::parse(used)?.whole, Number::parse(limit)?.whole);
        Some((limit.saturating_sub(used), limit))
    });
    let (remaining, limit) = most_used.min()?;
    Some(Budget { limit: Some(limit), remaining: Some(remaining), ..Budget::default() })
}

/// `76`, `597.0`, `76;w=21600`. What is negative is unknown.
fn count(line: &str) -> Option<u64> {
    let end = line.find([';', ',']).unwrap_or(line.len());
    Number::parse(line[..end].trim_matches([' ', '\t'])).map(|number| number.whole)
}
