//! What holds of [`Signals`] whatever a response is like. Asked by the tests and by the fuzzer in `fuzz/`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tollgate::client::{Profile, Signals};

/// Fields that mean something: a random name would be read by nobody.
pub(crate) const NAMES: &[&str] = &[
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-ratelimit-retry-after",
    "date",
    "age",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "ratelimit-observed",
    "ratelimit-name",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-used",
    "x-ratelimit-bucket",
    "x-ratelimit-global",
    "x-ratelimit-scope",
    "x-rate-limit-limit",
    "x-rate-limit-remaining",
    "x-rate-limit-reset",
    "x-sib-ratelimit-limit",
    "x-sib-ratelimit-reset",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-minute",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "x-shopify-shop-api-call-limit",
    "x-should-retry",
    "stripe-rate-limited-reason",
    "x-amzn-errortype",
    "x-envoy-ratelimited",
    "grpc-status",
    "grpc-retry-pushback-ms",
    "grpc-status-details-bin",
];

/// A response made of any bytes: two for the status, four for the time, then lines of a name's number and a value.
pub(crate) fn response(bytes: &[u8]) -> (StatusCode, HeaderMap, Duration) {
    let (head, rest) = bytes.split_at(bytes.len().min(6));
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let status = 100 + number(&head[..head.len().min(2)]) % 500;
    let unix_now = Duration::from_secs(number(&head[head.len().min(2)..]));
    let mut headers = HeaderMap::new();
    for line in rest.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        let name = NAMES[usize::from(*name) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    (StatusCode::from_u16(status as u16).expect("from 100 to 599"), headers, unix_now)
}

/// Reads a response and holds what is read to its bounds.
pub(crate) fn check(status: StatusCode, headers: &HeaderMap, unix_now: Duration) {
    for profile in [Profile::Auto, Profile::ResetMs] {
        let said = Signals::read(profile, status, headers, unix_now);
        bounded(&said);
        assert_eq!(
            said,
            Signals::read(profile, status, headers, unix_now),
            "it is a function of the response"
        );
        assert!(!said.throttled || said.failed);
        if headers.contains_key("age") && headers["age"] == "1" {
            assert!(said.budgets.is_empty(), "a cached response tells of another time");
        }
        // One who says the same again, and to stay away longer, is not heard to say less.
        let mut longer = headers.clone();
        longer.append("retry-after", HeaderValue::from_static("9999999999"));
        let heard = Signals::read(profile, status, &longer, unix_now);
        let overruled = ["retry-after-ms", "x-ms-retry-after-ms", "grpc-status"];
        if overruled.iter().all(|name| !headers.contains_key(*name)) {
            assert_eq!(heard.wait, Some(Signals::WAIT_MAX));
        }
    }
    bounded(&Signals::read_trailers(headers));
}

fn bounded(said: &Signals) {
    let believed = |wait: Option<Duration>| wait.is_none_or(|wait| wait <= Signals::WAIT_MAX);
    let short = |text: &Option<Box<str>>| text.as_ref().is_none_or(|text| (1..=64).contains(&text.len()));
    assert!(believed(said.wait) && believed(said.hold()), "{said:?}");
    assert!(said.budgets.len() <= 16 && said.violations.len() <= 16, "{said:?}");
    assert!(short(&said.bucket), "{said:?}");
    for budget in &said.budgets {
        assert!(believed(budget.reset_after) && short(&budget.name), "{budget:?}");
        assert!(
            budget.limit.is_some() || budget.remaining.is_some() || budget.reset_after.is_some(),
            "a budget that says nothing is none"
        );
    }
    let exhausted = said.budgets.iter().map(|budget| budget.remaining == Some(0));
    assert!(exhausted.rev().is_sorted(), "the exhausted ones come first: {said:?}");
    for violation in &said.violations {
        let length = |text: &str| text.chars().count();
        assert!(length(&violation.subject) <= 256 && length(&violation.description) <= 256);
    }
}
