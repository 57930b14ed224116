//! Problem documents (RFC 9457).

use std::cell::RefCell;

use ::http::StatusCode;
use bytes::Bytes;
use serde_json::json;

use super::memo::Memo;
use crate::units::Name;

/// What a problem document says.
pub(super) struct Problem<'a> {
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) status: StatusCode,
    pub(super) violated: Option<&'a Name>,
}

type Known = (&'static str, &'static str, StatusCode, Option<Name>);

thread_local! {
    /// Documents of before: nothing of the request is in them.
    static KNOWN: RefCell<Memo<Known, Bytes>> = const { RefCell::new(Memo::new()) };
}

impl Problem<'_> {
    pub(super) fn document(&self) -> Bytes {
        let Self { kind, title, status, violated } = *self;
        let is_this = |known: &Known| {
            (known.0, known.1, known.2) == (kind, title, status) && known.3.as_ref() == violated
        };
        let make = || ((kind, title, status, violated.cloned()), self.write());
        KNOWN.with_borrow_mut(|known| known.find_or_make(is_this, make).clone())
    }

    fn write(&self) -> Bytes {
        let mut problem = json!({ "type": self.kind, "title": self.title, "status": self.status.as_u16() });
        if let Some(name) = self.violated {
            problem["violated-policies"] = json!([name.as_str()]);
        }
        Bytes::from(problem.to_string())
    }
}
