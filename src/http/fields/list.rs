//! The lists of named items of draft 08 and later.

use std::cell::RefCell;

use ::http::HeaderValue;
use sfv::{ListSerializer, StringRef};

use super::{Told, integer, key, seconds};

/// Room for most fields: they are written without growing.
const USUAL: usize = 96;
/// How many policies a thread remembers: as many as routes and tiers in most services.
const REMEMBERED: usize = 16;

thread_local! {
    /// Policies that were told before. They change when a quota does, and are told with every response.
    static BEFORE: RefCell<Vec<(Vec<Told>, HeaderValue)>> = const { RefCell::new(Vec::new()) };
}

/// What the limits promise.
pub(super) fn policies(told: &[Told]) -> Option<HeaderValue> {
    if told.iter().any(|told| told.partition.is_some()) {
        return write_policies(told);
    }
    BEFORE.with_borrow_mut(|before| {
        if let Some((_, value)) = before.iter().find(|(known, _)| promise_alike(known, told)) {
            return Some(value.clone());
        }
        let value = write_policies(told)?;
        if before.len() == REMEMBERED {
            before.remove(0);
        }
        before.push((told.to_vec(), value.clone()));
        Some(value)
    })
}

fn promise_alike(one: &[Told], other: &[Told]) -> bool {
    let promise = |told: &Told| (told.limit, told.window, told.concurrent);
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| promise(one) == promise(other) && one.name == other.name)
}

fn write_policies(told: &[Told]) -> Option<HeaderValue> {
    write(told, |list, told| {
        let mut item = list.bare_item(StringRef::from_str(told.name.as_str()).ok()?);
        item = item.parameter(key("q"), integer(told.limit));
        if told.concurrent {
            item = item.parameter(key("qu"), StringRef::from_str("concurrent-requests").ok()?);
        }
        if let Some(window) = told.window {
            item = item.parameter(key("w"), integer(seconds(window).max(1)));
        }
        if let Some(partition) = &told.partition {
            let _ = item.parameter(key("pk"), partition.as_slice());
        }
        Some(())
    })
}

/// What is left of the limits.
pub(super) fn limits(told: &[Told], next: bool) -> Option<HeaderValue> {
    let (available, window) = if next { ("a", "w") } else { ("r", "t") };
    write(told, |list, told| {
        let mut item = list.bare_item(StringRef::from_str(told.name.as_str()).ok()?);
        item = item.parameter(key(available), integer(told.remaining));
        if let Some(wait) = told.reset_after {
            item = item.parameter(key(window), integer(seconds(wait)));
        }
        if let Some(partition) = &told.partition {
            let _ = item.parameter(key("pk"), partition.as_slice());
        }
        Some(())
    })
}

fn write(
    told: &[Told],
    mut each: impl FnMut(&mut ListSerializer<&mut String>, &Told) -> Option<()>,
) -> Option<HeaderValue> {
    let mut text = String::with_capacity(USUAL);
    let mut list = ListSerializer::with_buffer(&mut text);
    for told in told {
        each(&mut list, told)?;
    }
    let _ = list.finish();
    HeaderValue::from_str(&text).ok()
}
