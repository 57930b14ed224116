//! Tells if a call was refused for a limit, whom that concerns, and what is said of another try.

use ::http::{HeaderMap, StatusCode};

use super::budget::name;
use super::text::{Number, lines};
use super::{Scope, Signals};

/// Error codes with which AWS refuses for a limit, whatever the status.
const AWS_CODES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// An overloaded server's answer, as Anthropic and others have it.
const OVERLOADED: u16 = 529;

pub(super) fn is_throttled(status: StatusCode, headers: &HeaderMap, said: &Signals) -> bool {
    let by_status = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => said.wait.is_some(),
        // GitHub's. Without either of the two it is a matter of rights.
        StatusCode::FORBIDDEN => {
            said.wait.is_some() || said.budgets.first().is_some_and(|budget| budget.remaining == Some(0))
        }
        other => other == OVERLOADED && said.wait.is_some(),
    };
    by_status
        || headers.contains_key("x-envoy-ratelimited")
        || lines(headers, "x-amzn-errortype").any(|line| AWS_CODES.contains(&error_code(line)))
}

/// `ThrottlingException` of `com.amazonaws.some#ThrottlingException:http://...`.
fn error_code(line: &str) -> &str {
    let (code, _address) = line.split_once(':').unwrap_or((line, ""));
    code.rsplit_once('#').map_or(code, |(_, code)| code)
}

/// A refusal of another try outweighs an offer.
pub(super) fn may_retry(headers: &HeaderMap) -> Option<bool> {
    let said = ["x-should-retry", "stripe-should-retry"].into_iter().flat_map(|name| lines(headers, name));
    said.filter_map(|line| line.to_ascii_lowercase().parse().ok()).min()
}

pub(super) fn scope(headers: &HeaderMap) -> Scope {
    let says = |name: &str, said: fn(&str) -> bool| lines(headers, name).any(said);
    if says("x-ratelimit-global", |line| line.eq_ignore_ascii_case("true"))
        || says("x-ratelimit-scope", |line| line.eq_ignore_ascii_case("global"))
        || says("stripe-rate-limited-reason", |line| line.starts_with("global-"))
    {
        Scope::Everyone
    } else if says("x-ratelimit-scope", |line| line.eq_ignore_ascii_case("shared")) {
        Scope::Shared
    } else {
        Scope::Ours
    }
}

/// As Discord, GitHub and GitLab call theirs.
pub(super) fn bucket(headers: &HeaderMap) -> Option<Box<str>> {
    let fields = ["x-ratelimit-bucket", "x-ratelimit-resource", "ratelimit-name"];
    fields.into_iter().find_map(|field| lines(headers, field).find_map(name))
}

/// What a cache answers tells where the limits stood for somebody else, some time ago.
pub(super) fn is_cached(headers: &HeaderMap) -> bool {
    lines(headers, "age").filter_map(Number::parse).any(|age| age.whole > 0)
}
