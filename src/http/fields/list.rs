//! The lists of named items of draft 08 and later.

use std::cell::RefCell;
use std::time::Duration;

use ::http::HeaderValue;
use sfv::{ItemSerializer, ListSerializer, StringRef};

use super::{Told, capped, integer, key, seconds};
use crate::http::memo::Memo;
use crate::types::{LimitStatus, Policy};
use crate::units::Name;

/// Room for most fields: they are written without growing.
const USUAL: usize = 96;

/// What is told of some limits, but for the numbers that change with each response.
pub(super) struct Frame {
    policies: HeaderValue,
    items: Vec<Item>,
    /// Where the numbers are put between the rest.
    text: String,
}

/// What stands before the numbers of a limit, and after them.
struct Item {
    before: String,
    after: String,
}

/// What a limit is called, and what it promises.
type Promise = (Option<Name>, Policy);

thread_local! {
    /// Frames of before: they change when a quota does.
    static KNOWN: RefCell<Memo<Vec<Promise>, Option<Frame>>> = const { RefCell::new(Memo::new()) };
}

/// Calls `with` with the frame of `standings`.
pub(super) fn framed<R>(standings: &[LimitStatus], with: impl FnOnce(&mut Frame) -> R) -> Option<R> {
    let is_of = |known: &Vec<Promise>| {
        let promise = |one: &Promise, of: &LimitStatus| one.1 == of.policy && one.0 == of.limit;
        known.len() == standings.len() && known.iter().zip(standings).all(|(one, of)| promise(one, of))
    };
    let make = || {
        let promises = standings.iter().map(|of| (of.limit.clone(), of.policy)).collect();
        (promises, Frame::of(&Told::all(standings)))
    };
    KNOWN.with_borrow_mut(|known| known.find_or_make(is_of, make).as_mut().map(with))
}

impl Frame {
    pub(super) fn of(told: &[Told]) -> Option<Self> {
        let items = told.iter().map(Item::of).collect::<Option<_>>()?;
        Some(Self { policies: policies(told)?, items, text: String::with_capacity(USUAL) })
    }

    /// What the limits promise.
    pub(super) fn policies(&self) -> HeaderValue {
        self.policies.clone()
    }

    /// What is left of the limits: so many units each, and when all of them will be there again.
    pub(super) fn limits(
        &mut self,
        left: impl Iterator<Item = (u64, Option<Duration>)>,
        next: bool,
    ) -> Option<HeaderValue> {
        let (available, window) = if next { (";a=", ";w=") } else { (";r=", ";t=") };
        let mut digits = itoa::Buffer::new();
        self.text.clear();
        for (item, (remaining, reset_after)) in self.items.iter().zip(left) {
            if !self.text.is_empty() {
                self.text.push_str(", ");
            }
            self.text.push_str(&item.before);
            self.text.push_str(available);
            self.text.push_str(digits.format(capped(remaining)));
            if let Some(wait) = reset_after {
                self.text.push_str(window);
                self.text.push_str(digits.format(seconds(wait)));
            }
            self.text.push_str(&item.after);
        }
        HeaderValue::from_str(&self.text).ok()
    }
}

impl Item {
    fn of(told: &Told) -> Option<Self> {
        let name = StringRef::from_str(told.name.as_str()).ok()?;
        let before = ItemSerializer::new().bare_item(name).finish();
        let mut item = ItemSerializer::new().bare_item(name);
        if let Some(partition) = &told.partition {
            item = item.parameter(key("pk"), partition.as_slice());
        }
        let after = item.finish().split_off(before.len());
        Some(Self { before, after })
    }
}

fn policies(told: &[Told]) -> Option<HeaderValue> {
    let mut text = String::with_capacity(USUAL);
    let mut list = ListSerializer::with_buffer(&mut text);
    for told in told {
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
    }
    list.finish()?;
    HeaderValue::from_str(&text).ok()
}
