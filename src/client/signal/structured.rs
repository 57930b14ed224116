//! Structured fields: `RateLimit` and `RateLimit-Policy`, old and new. A malformed one counts as absent, all of it.

use std::time::Duration;

use ::http::HeaderMap;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::budget::name;
use super::text::joined;
use super::time::believed;
use super::{Budget, Unit};

/// What a limit promises, apart from what is left of it.
pub(super) struct Policy {
    name: Option<Box<str>>,
    limit: u64,
    window: Option<Duration>,
    unit: Unit,
}

impl From<Policy> for Budget {
    fn from(policy: Policy) -> Self {
        let Policy { name, limit, window, unit } = policy;
        Self { unit, name, limit: Some(limit), window, ..Self::default() }
    }
}

/// `RateLimit` with what `RateLimit-Policy` adds to it: a list of named items, or the dictionary of draft 07.
///
/// Where there is no `RateLimit`, the policies are still returned: they may belong to other fields.
pub(super) fn read(headers: &HeaderMap) -> (Vec<Budget>, Vec<Policy>) {
    let policies = joined(headers, "ratelimit-policy").and_then(|field| policies(&list(&field)?));
    let mut policies = policies.unwrap_or_default();
    let Some(field) = joined(headers, "ratelimit") else { return (Vec::new(), policies) };
    let limits = list(&field).and_then(|list| list.iter().map(limit).collect::<Option<Vec<_>>>());
    let mut budgets = limits.or_else(|| dictionary(&field).map(|one| vec![one])).unwrap_or_default();
    // What is believed of a list is bounded before it is compared.
    budgets.truncate(64);
    for budget in &mut budgets {
        policy_of(budget, &mut policies);
    }
    (budgets, policies)
}

/// Fills in what the budget's policy says, and takes the policy.
pub(super) fn policy_of(budget: &mut Budget, policies: &mut Vec<Policy>) {
    let its = |policy: &Policy| match (&budget.name, &policy.name) {
        (Some(name), Some(other)) => name == other,
        // The forms without names tell of one limit, and repeat it among its policies.
        (None, _) => budget.limit == Some(policy.limit),
        _ => false,
    };
    if let Some(found) = policies.iter().position(its) {
        let policy = policies.remove(found);
        budget.limit = Some(policy.limit);
        budget.window = policy.window;
        budget.unit = policy.unit;
    }
}

fn list(field: &[u8]) -> Option<List> {
    Parser::new(field).parse::<List>().ok()
}

/// `"default";r=50;t=30`, or with the names that the draft is to have next: `a` and `w`.
fn limit(entry: &ListEntry) -> Option<Budget> {
    let item = item(entry)?;
    let BareItem::String(text) = &item.bare_item else { return None };
    let available = integer(item, "r")?;
    let (remaining, reset) = match available {
        Some(_) => (available, integer(item, "t")?),
        None => (Some(integer(item, "a")??), integer(item, "w")?),
    };
    let reset_after = reset.map(|seconds| believed(Duration::from_secs(seconds)));
    Some(Budget { name: Some(name(text.as_str())?), remaining, reset_after, ..Budget::default() })
}

/// `limit=100, remaining=50, reset=5`.
fn dictionary(field: &[u8]) -> Option<Budget> {
    let fields = Parser::new(field).parse::<Dictionary>().ok()?;
    let get = |wanted: &str| {
        let found = fields.iter().find(|(key, _)| key.as_str() == wanted).map(|(_, entry)| item(entry));
        found.map_or(Some(None), |item| Some(Some(count(&item?.bare_item)?)))
    };
    let reset_after = get("reset")?.map(|seconds| believed(Duration::from_secs(seconds)));
    let budget =
        Budget { limit: get("limit")?, remaining: get("remaining")?, reset_after, ..Budget::default() };
    Some(budget).filter(|budget| !budget.says_nothing())
}

/// `"hour";q=1000;w=3600`, or of the older forms `1000;w=3600`.
fn policies(list: &List) -> Option<Vec<Policy>> {
    list.iter().map(policy).collect()
}

fn policy(entry: &ListEntry) -> Option<Policy> {
    let item = item(entry)?;
    let (name, limit) = match &item.bare_item {
        BareItem::String(text) => (Some(name(text.as_str())?), integer(item, "q")??),
        number => (text(item, "name").and_then(name), count(number)?),
    };
    let window = integer(item, "w")?.or(integer(item, "window")?);
    let unit = match text(item, "qu") {
        None | Some("requests" | "request") => Unit::Requests,
        Some("content-bytes") => Unit::Bytes,
        Some("concurrent-requests") => Unit::Concurrent,
        Some(_) => Unit::Other,
    };
    Some(Policy { name, limit, window: window.map(Duration::from_secs), unit })
}

/// `100`, or with its policies behind it: `100, 100;w=60, 5000;w=3600`, `100;w=21600`.
pub(super) fn limit_and_policies(line: &str) -> Option<(u64, Vec<Policy>)> {
    let list = list(line.as_bytes())?;
    let limit = count(&item(list.first()?)?.bare_item)?;
    let with_window = |entry: &ListEntry| policy(entry).filter(|policy| policy.window.is_some());
    Some((limit, list.iter().filter_map(with_window).take(64).collect()))
}

fn item(entry: &ListEntry) -> Option<&Item> {
    match entry {
        ListEntry::Item(item) => Some(item),
        ListEntry::InnerList(_) => None,
    }
}

/// `None` if it is there and is no count.
fn integer(item: &Item, wanted: &str) -> Option<Option<u64>> {
    parameter(item, wanted).map_or(Some(None), |value| Some(Some(count(value)?)))
}

fn text<'a>(item: &'a Item, wanted: &str) -> Option<&'a str> {
    match parameter(item, wanted)? {
        BareItem::String(text) => Some(text.as_str()),
        _ => None,
    }
}

fn parameter<'a>(item: &'a Item, wanted: &str) -> Option<&'a BareItem> {
    item.params.iter().find(|(key, _)| key.as_str() == wanted).map(|(_, value)| value)
}

fn count(value: &BareItem) -> Option<u64> {
    match value {
        BareItem::Integer(number) => u64::try_from(i64::from(*number)).ok(),
        _ => None,
    }
}
