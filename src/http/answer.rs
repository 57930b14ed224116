//! What a refused request is answered.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;

use super::fields::seconds;
use super::grpc::{self, Code, Retry};
use super::problem::Problem;
use crate::types::{Denied, LimitStatus, Reason};
use crate::units::Name;

/// A request that is refused, for a hook that [answers](super::HttpLayer::answer) it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// The head of the request.
    pub request: &'a Parts,
    /// What the limit said; `None` when the limiter could not decide.
    pub denied: Option<&'a Denied>,
    /// Where the limits stand that were asked, if clients are told.
    pub standings: &'a [LimitStatus],
    pub(super) status: StatusCode,
    pub(super) wait: Option<Duration>,
    /// What the fields call the limit that refused.
    pub(super) violated: Option<Name>,
}

impl Refusal<'_> {
    /// The status it is answered with: what was configured (429) for a limit that is reached, 400 for a request without
    /// what the limit is kept per, 503 while the limiter is full, closed, paused or cannot decide, 500 for a server
    /// that was set up wrongly.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.denied.map(Denied::reason) {
            Some(Reason::Exhausted | Reason::QueueFull | Reason::Evicted | Reason::ExceedsCapacity) => {
                self.status
            }
            Some(Reason::NoKey) => StatusCode::BAD_REQUEST,
            Some(Reason::NoPeer | Reason::NoTimer) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// After how long the same request would pass, if a wait helps.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.wait
    }

    /// The limit that refused, if it has a name.
    #[must_use]
    pub fn limit(&self) -> Option<&Name> {
        self.denied.and_then(Denied::limit)
    }

    /// `true` if the request is a gRPC call.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        grpc::is_grpc(self.request)
    }

    /// What is answered when nobody says otherwise: `RESOURCE_EXHAUSTED` (or what fits) with `RetryInfo` to a gRPC call,
    /// a problem document (RFC 9457) to all others.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        self.made(None)
    }

    /// The same, and when to come back.
    pub(super) fn response_and_wait(&self) -> Response<Bytes> {
        self.made(self.wait.map(to_come_back))
    }

    fn made(&self, retry_after: Option<u64>) -> Response<Bytes> {
        if self.is_grpc() {
            use Reason::{Evicted, ExceedsCapacity, Exhausted, NoKey, NoPeer, NoTimer, QueueFull};
            let code = match self.denied.map(Denied::reason) {
                Some(Exhausted | QueueFull | Evicted | ExceedsCapacity) => Code::ResourceExhausted,
                Some(NoKey) => Code::InvalidArgument,
                Some(NoPeer | NoTimer) => Code::Internal,
                _ => Code::Unavailable,
            };
            let retry = match (self.wait, self.denied.map(Denied::reason)) {
                (Some(wait), _) => Retry::After(wait),
                (_, Some(ExceedsCapacity | NoKey | NoPeer | NoTimer)) => Retry::Never,
                _ => Retry::Unknown,
            };
            return grpc::response(self.request, code, self.title(), retry);
        }
        let violated = self.violated.as_ref().or(self.limit()).filter(|_| self.is_of_policy());
        let (kind, title, status) = (self.problem_type(), self.title(), self.status());
        let reason = self.denied.map(Denied::reason);
        Problem { reason, kind, title, status, violated }.response(retry_after)
    }

    /// `true` if the policy of a limit refused, rather than what is missing from the request or the server.
    fn is_of_policy(&self) -> bool {
        !matches!(
            self.denied.map(Denied::reason),
            None | Some(Reason::NoKey | Reason::NoPeer | Reason::NoTimer)
        )
    }

    /// Constant for a reason: what is refused tells nothing of the key.
    fn title(&self) -> &'static str {
        match self.denied.map(Denied::reason) {
            Some(Reason::NoKey) => "The request lacks what its limit is kept per",
            Some(Reason::NoPeer | Reason::NoTimer) => "The server is not set up for its limits",
            Some(Reason::ExceedsCapacity) => "The request is larger than its limit",
            Some(Reason::Exhausted | Reason::QueueFull | Reason::Evicted) => "Too many requests",
            _ => "The service takes no requests for now",
        }
    }

    fn problem_type(&self) -> &'static str {
        match self.denied.map(Denied::reason) {
            Some(Reason::Exhausted | Reason::QueueFull | Reason::Evicted | Reason::ExceedsCapacity) => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            Some(Reason::NoKey | Reason::NoPeer | Reason::NoTimer) => "about:blank",
            _ => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        }
    }
}

/// Says when to come back, unless the answer says so already or no wait would help.
pub(super) fn put_retry_after(headers: &mut HeaderMap, wait: Option<Duration>) {
    if let Some(wait) = wait {
        headers.entry(RETRY_AFTER).or_insert_with(|| HeaderValue::from(to_come_back(wait)));
    }
}

/// In seconds. Never zero: a client that comes back at once would only be refused again.
fn to_come_back(wait: Duration) -> u64 {
    seconds(wait).max(1)
}
