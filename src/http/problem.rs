//! Problem documents (RFC 9457).

use std::cell::RefCell;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde_json::json;

use super::memo::Memo;
use crate::types::Reason;
use crate::units::Name;

/// What a problem document says.
pub(super) struct Problem<'a> {
    /// It tells the kind and the title; `None`: there was no decision.
    pub(super) reason: Option<Reason>,
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) status: StatusCode,
    pub(super) violated: Option<&'a Name>,
}

type Known = (Option<Reason>, StatusCode, Option<Name>);

/// A response of before: nothing of the request is in it. To copy it takes half as long as to write it.
struct Prepared {
    document: Bytes,
    headers: HeaderMap,
    /// The same with the seconds after which to come back: mostly as many as the last time.
    later: Option<(u64, HeaderMap)>,
}

thread_local! {
    static KNOWN: RefCell<Memo<Known, Prepared>> = const { RefCell::new(Memo::new()) };
}

impl Problem<'_> {
    /// The response that says so, and after how many seconds to come back.
    pub(super) fn response(&self, retry_after: Option<u64>) -> Response<Bytes> {
        let Self { reason, status, violated, .. } = *self;
        let is_this = |known: &Known| (known.0, known.1) == (reason, status) && known.2.as_ref() == violated;
        let make = || ((reason, status, violated.cloned()), Prepared::new(self.write()));
        KNOWN.with_borrow_mut(|known| {
            let prepared = known.find_or_make(is_this, make);
            let mut response = Response::new(prepared.document.clone());
            *response.status_mut() = status;
            *response.headers_mut() = prepared.headers(retry_after).clone();
            response
        })
    }

    fn write(&self) -> Bytes {
        let mut problem = json!({ "type": self.kind, "title": self.title, "status": self.status.as_u16() });
        if let Some(name) = self.violated {
            problem["violated-policies"] = json!([name.as_str()]);
        }
        Bytes::from(problem.to_string())
    }
}

impl Prepared {
    fn new(document: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self { document, headers, later: None }
    }

    fn headers(&mut self, retry_after: Option<u64>) -> &HeaderMap {
        let Some(seconds) = retry_after else { return &self.headers };
        let (known, headers) = self.later.get_or_insert_with(|| (0, self.headers.clone()));
        if *known != seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            *known = seconds;
        }
        headers
    }
}
