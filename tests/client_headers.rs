//! Replays the conformance vectors about the responses that a client reads, through the public API, unchanged; then
//! what those vectors leave open. Keys of the files that are not known here fail their reading.

mod grpc_reply;
mod signal_bounds;

use std::collections::BTreeMap;
use std::time::Duration;

use grpc_reply::Reply;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate::client::{Budget, Profile, Scope, Signals, Unit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tier {
    Must,
    Should,
    May,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    status: u16,
    headers: BTreeMap<String, Lines>,
    now: String,
    expect: Expect,
    buckets: Option<BTreeMap<String, LimitStatus>>,
    profile: Option<ProfileOf>,
    tier: Tier,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "hostile", default)]
    _hostile: bool,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
    #[serde(rename = "provenance")]
    _provenance: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lines {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_after_ms: Option<u64>,
    retry_after_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitStatus {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_after_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileOf {
    reset_unit: ResetUnit,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResetUnit {
    Ms,
}

impl From<&Budget> for LimitStatus {
    fn from(budget: &Budget) -> Self {
        let reset_after_ms = budget.reset_after.map(ms);
        Self { limit: budget.limit, remaining: budget.remaining, reset_after_ms }
    }
}

/// Milliseconds, rounded up.
fn ms(wait: Duration) -> u64 {
    wait.as_nanos().div_ceil(1_000_000) as u64
}

fn append(headers: &mut HeaderMap, name: &str, line: &str) {
    let name: HeaderName = name.parse().unwrap();
    headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
}

impl Vector {
    fn read(&self) -> Signals {
        let mut headers = HeaderMap::new();
        for (name, lines) in &self.headers {
            match lines {
                Lines::One(line) => append(&mut headers, name, line),
                Lines::Several(lines) => lines.iter().for_each(|line| append(&mut headers, name, line)),
            }
        }
        let profile = match &self.profile {
            None => Profile::Auto,
            Some(ProfileOf { reset_unit: ResetUnit::Ms }) => Profile::ResetMs,
        };
        let now: jiff::Timestamp = self.now.parse().unwrap();
        let unix_now = Duration::try_from(now.as_duration()).unwrap();
        let status = StatusCode::from_u16(self.status).unwrap();
        signal_bounds::check(status, &headers, unix_now);
        Signals::read(profile, status, &headers, unix_now)
    }
}

#[test]
fn every_vector_is_read_as_expected() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors/client_headers.json")).unwrap();
    let mut passed = BTreeMap::new();
    for vector in &vectors {
        let said = vector.read();
        let id = &vector.id;
        let binding = said.budgets.first().map(LimitStatus::from);
        let LimitStatus { limit, remaining, reset_after_ms } =
            binding.unwrap_or(LimitStatus { limit: None, remaining: None, reset_after_ms: None });
        let found = Expect { limit, remaining, reset_after_ms, retry_after_ms: said.wait.map(ms) };
        assert_eq!(found, vector.expect, "{id}: {said:?}");
        if let Some(buckets) = &vector.buckets {
            // What only a policy tells of has no standing.
            let standing = said.budgets.iter().filter(|budget| budget.remaining.is_some());
            let name = |budget: &Budget| budget.name.as_deref().unwrap_or("default").to_owned();
            let found: BTreeMap<_, _> = standing.map(|budget| (name(budget), budget.into())).collect();
            assert_eq!(&found, buckets, "{id}");
        }
        let throttled = match vector.status {
            429 => true,
            503 => vector.expect.retry_after_ms.is_some(),
            400 => id == "aws-throttle-no-headers",
            _ => false,
        };
        assert_eq!(said.throttled, throttled, "{id}");
        *passed.entry(vector.tier).or_insert(0) += 1;
    }
    println!("client_headers: {passed:?}, differences 0");
    assert_eq!(passed, BTreeMap::from([(Tier::Must, 58), (Tier::Should, 8), (Tier::May, 3)]));
}

// gRPC.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcVector {
    id: String,
    trailers: BTreeMap<String, String>,
    expect: GrpcExpect,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
    #[serde(rename = "hostile", default)]
    _hostile: bool,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcExpect {
    throttled: bool,
    retry_after_ms: Option<u64>,
    may_retry: bool,
    #[serde(default)]
    violations: Vec<GrpcViolation>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcViolation {
    subject: String,
    description: String,
}

impl From<&Signals> for GrpcExpect {
    fn from(said: &Signals) -> Self {
        let violations = said.violations.iter().map(|violation| GrpcViolation {
            subject: violation.subject.to_string(),
            description: violation.description.to_string(),
        });
        Self {
            throttled: said.throttled,
            retry_after_ms: said.wait.map(ms),
            // The vectors ask it of throttles only, where a server that says nothing leaves it to the client.
            may_retry: said.throttled && said.may_retry != Some(false),
            violations: violations.collect(),
        }
    }
}

#[test]
fn every_grpc_reply_is_read_as_expected() {
    let vectors: Vec<GrpcVector> = serde_json::from_str(include_str!("vectors/grpc.json")).unwrap();
    for GrpcVector { id, trailers, expect, .. } in &vectors {
        let mut fields = HeaderMap::new();
        trailers.iter().for_each(|(name, line)| append(&mut fields, name, line));
        signal_bounds::check(StatusCode::OK, &fields, Duration::ZERO);
        let in_the_trailers = Signals::read_trailers(&fields);
        assert_eq!(&GrpcExpect::from(&in_the_trailers), expect, "{id}");
        let in_the_head = Signals::read(Profile::Auto, StatusCode::OK, &fields, Duration::ZERO);
        assert_eq!(in_the_head, in_the_trailers, "{id}");
        // As tonic has it, who panics at details that are not base64.
        let status = (id != "not-base64").then(|| tonic::Status::from_header_map(&fields).unwrap());
        if let Some(status) = status.filter(|status| status.code() != tonic::Code::Ok) {
            assert_eq!(Signals::from(&status), in_the_trailers, "{id}");
        }
        // A reader that shares nothing with ours.
        let other = Reply::read(&fields);
        let read = (other.is_throttled(), other.wait_ms(), other.may_retry());
        assert_eq!(
            read,
            (expect.throttled, expect.retry_after_ms, expect.may_retry),
            "{id}: the other reader"
        );
        assert_eq!(in_the_trailers.wait, other.wait(), "{id}: to the nanosecond");
    }
    println!("grpc: {} of {} passed", vectors.len(), vectors.len());
    assert_eq!(vectors.len(), 18);
}

// What the vectors leave open.

const NOW: Duration = Duration::from_secs(1_772_366_400);

fn read(status: u16, fields: &[(&str, &str)]) -> Signals {
    let mut headers = HeaderMap::new();
    fields.iter().for_each(|(name, line)| append(&mut headers, name, line));
    Signals::read(Profile::Auto, StatusCode::from_u16(status).unwrap(), &headers, NOW)
}

fn binding(fields: &[(&str, &str)]) -> Budget {
    read(200, fields).budgets.swap_remove(0)
}

#[test]
fn throttles_are_told_from_other_refusals() {
    type Fields = &'static [(&'static str, &'static str)];
    let throttles: [(u16, Fields, bool); 15] = [
        (429, &[], true),
        (503, &[], false),
        (503, &[("retry-after", "1")], true),
        (503, &[("retry-after", "soon")], false),
        (529, &[("retry-after", "1")], true),
        (500, &[("retry-after", "1")], false),
        (403, &[], false),
        (403, &[("x-ratelimit-remaining", "7")], false),
        (403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1772366430")], true),
        (403, &[("retry-after", "60")], true),
        (200, &[("retry-after", "60")], false),
        (503, &[("x-envoy-ratelimited", "true")], true),
        (400, &[("x-amzn-errortype", "com.amazonaws.kms#ThrottlingException:http://internal/")], true),
        (400, &[("x-amzn-errortype", "ValidationException")], false),
        (200, &[("grpc-status", "14")], false),
    ];
    for (status, fields, throttled) in throttles {
        assert_eq!(read(status, fields).throttled, throttled, "{status} {fields:?}");
    }
}

#[test]
fn failures_are_those_of_the_server() {
    for (status, failed) in [(200, false), (404, false), (429, true), (500, true), (503, true)] {
        assert_eq!(read(status, &[]).failed, failed, "{status}");
    }
    for (code, failed) in [("0", false), ("3", false), ("4", true), ("8", true), ("13", true), ("14", true)] {
        assert_eq!(read(200, &[("grpc-status", code)]).failed, failed, "{code}");
    }
}

#[test]
fn a_throttle_holds_for_its_wait_or_until_the_exhausted_budget_has_more() {
    let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")];
    assert_eq!(read(429, &spent).hold(), Some(Duration::from_secs(30)));
    assert_eq!(read(200, &spent).hold(), None, "nothing was refused");
    assert_eq!(read(429, &[spent[0], spent[1], ("retry-after", "5")]).hold(), Some(Duration::from_secs(5)));
    assert_eq!(read(429, &[("x-ratelimit-remaining", "3"), spent[1]]).hold(), None);
    assert_eq!(read(429, &[]).hold(), None);
}

#[test]
fn the_draft_to_come_is_read_too() {
    let next = binding(&[
        ("ratelimit", "\"a\";a=5;w=10"),
        ("ratelimit-policy", "\"a\";q=100;w=60;qu=\"content-bytes\""),
    ]);
    assert_eq!((next.remaining, next.reset_after), (Some(5), Some(Duration::from_secs(10))));
    assert_eq!((next.limit, next.window, next.unit), (Some(100), Some(Duration::from_secs(60)), Unit::Bytes));
    let both = binding(&[("ratelimit", "\"a\";a=5;r=4;w=10;t=9")]);
    assert_eq!((both.remaining, both.reset_after), (Some(4), Some(Duration::from_secs(9))));
}

#[test]
fn a_malformed_list_is_no_list_and_what_is_older_counts() {
    let older = [("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "4")];
    for malformed in
        ["\"a\";r=1;t=-1", "\"a\";r=1;t=1.5", "\"a\";r=1,", "\"a\";r=1, b;r=1", "\"a\";r=\"1\"", "limit=-1"]
    {
        let said = read(200, &[older[0], older[1], ("ratelimit", malformed)]);
        assert_eq!(said.budgets.len(), 1, "{malformed}");
        assert_eq!(said.budgets[0].remaining, Some(4), "{malformed}");
    }
    let said = read(200, &[older[0], older[1], ("ratelimit", "\"a\";r=9;t=1")]);
    assert_eq!(said.budgets.len(), 1, "the older forms repeat it");
    assert_eq!(said.budgets[0].remaining, Some(9));
}

#[test]
fn policies_give_windows_and_are_budgets_of_their_own() {
    let window = |seconds| Some(Duration::from_secs(seconds));
    let docker = binding(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
    assert_eq!((docker.limit, docker.remaining, docker.window), (Some(100), Some(76), window(21_600)));
    let envoy = read(
        200,
        &[("x-ratelimit-limit", "10, 10;w=1;name=\"per-ip\", 1000;w=3600"), ("x-ratelimit-remaining", "3")],
    );
    let told: Vec<_> =
        envoy.budgets.iter().map(|budget| (budget.limit, budget.remaining, budget.window)).collect();
    assert_eq!(told, [(Some(10), Some(3), window(1)), (Some(1000), None, window(3600))]);
    let policy_only = read(200, &[("ratelimit-policy", "\"hour\";q=1000;w=3600")]);
    assert_eq!(policy_only.budgets[0].limit, Some(1000));
    assert_eq!(policy_only.budgets[0].remaining, None);
    let draft06 = binding(&[
        ("ratelimit-limit", "100"),
        ("ratelimit-remaining", "9"),
        ("ratelimit-policy", "100;w=10"),
    ]);
    assert_eq!(draft06.window, window(10));
}

#[test]
fn names_tell_what_is_counted() {
    let units = [
        ("x-ratelimit-remaining-requests", Unit::Requests),
        ("x-ratelimit-remaining-tokens", Unit::Tokens),
        ("x-ratelimit-remaining-tokens_usage_based", Unit::Tokens),
        ("x-ratelimit-remaining-minute", Unit::Requests),
        ("x-ratelimit-remaining-neurons", Unit::Other),
        ("anthropic-ratelimit-input-tokens-remaining", Unit::InputTokens),
        ("anthropic-ratelimit-output-tokens-remaining", Unit::OutputTokens),
        ("anthropic-ratelimit-requests-remaining", Unit::Requests),
    ];
    for (name, unit) in units {
        assert_eq!(binding(&[(name, "1")]).unit, unit, "{name}");
    }
    assert_eq!(binding(&[("x-ratelimit-limit-hour", "100")]).window, Some(Duration::from_secs(3600)));
}

#[test]
fn scopes_and_buckets_are_told() {
    for (name, line, scope) in [
        ("x-ratelimit-global", "true", Scope::Everyone),
        ("x-ratelimit-scope", "global", Scope::Everyone),
        ("x-ratelimit-scope", "shared", Scope::Shared),
        ("x-ratelimit-scope", "user", Scope::Ours),
        ("stripe-rate-limited-reason", "global-concurrency", Scope::Everyone),
        ("stripe-rate-limited-reason", "endpoint-rate", Scope::Ours),
    ] {
        assert_eq!(read(429, &[(name, line)]).scope, scope, "{name}: {line}");
    }
    for name in ["x-ratelimit-bucket", "x-ratelimit-resource", "ratelimit-name"] {
        assert_eq!(read(200, &[(name, "core")]).bucket.as_deref(), Some("core"));
        assert_eq!(read(200, &[(name, &"x".repeat(65))]).bucket, None);
    }
    let discord = binding(&[
        ("x-ratelimit-limit", "5"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1772366470.123"),
        ("x-ratelimit-reset-after", "1.25"),
    ]);
    assert_eq!(discord.reset_after, Some(Duration::from_millis(1250)), "the delta needs no clock");
}

#[test]
fn a_word_on_retries_is_heard_and_no_outweighs_yes() {
    for (lines, may_retry) in [
        (&["true"][..], Some(true)),
        (&["False"], Some(false)),
        (&["true", "false"], Some(false)),
        (&["maybe"], None),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("x-should-retry", *line)).collect();
        assert_eq!(read(429, &fields).may_retry, may_retry, "{lines:?}");
    }
    assert_eq!(read(429, &[("stripe-should-retry", "false")]).may_retry, Some(false));
}

// Hostile responses.

/// A megabyte in one line, and in as many lines and names as a map of headers takes.
#[test]
fn huge_responses_stay_small() {
    let long = "9".repeat(1 << 20);
    for name in signal_bounds::NAMES {
        for line in [
            &long,
            &format!("\"a\";r={long}"),
            &format!("{long}s"),
            &"\"a\";r=1,".repeat(100_000),
            &"1;w=1,".repeat(150_000),
        ] {
            let mut headers = HeaderMap::new();
            append(&mut headers, name, line);
            signal_bounds::check(StatusCode::TOO_MANY_REQUESTS, &headers, NOW);
        }
        let mut headers = HeaderMap::new();
        for line in 0..5_000 {
            append(&mut headers, name, &format!("\"{line}\";r={line};t={line}"));
        }
        signal_bounds::check(StatusCode::TOO_MANY_REQUESTS, &headers, NOW);
    }
    let mut headers = HeaderMap::new();
    for bucket in 0..5_000 {
        append(&mut headers, &format!("x-ratelimit-remaining-{bucket}"), "1");
    }
    append(&mut headers, "x-ratelimit-remaining", "0");
    signal_bounds::check(StatusCode::TOO_MANY_REQUESTS, &headers, NOW);
    let said = Signals::read(Profile::Auto, StatusCode::OK, &headers, NOW);
    assert_eq!((said.budgets[0].name.as_deref(), said.budgets[0].remaining), (None, Some(0)));
}

/// Parts of values that mean something, and some that mean harm.
const PARTS: &[&str] = &[
    "0",
    "1",
    "9",
    "60",
    "-1",
    "+5",
    "1.5",
    "1e9",
    "NaN",
    "1772366430",
    "1772366430500",
    "18446744073709551616",
    "999999999999999",
    "\"a\"",
    "\"b\";r=0",
    ";r=",
    ";t=",
    ";q=",
    ";w=",
    ";a=",
    "limit=",
    "remaining=",
    "reset=",
    ", ",
    ",",
    ";",
    "=",
    " ",
    "\t",
    "/",
    "s",
    "ms",
    "h",
    "6m0s",
    "true",
    "false",
    "Sun, 01 Mar 2026 12:00:05 GMT",
    "2026-03-01T12:00:05Z",
    "9999-12-31T23:59:59Z",
    "0000-01-01T00:00:00-23:59",
    "CAgSAXgaMAoo",
    "\u{96b}",
    ":",
    "pk=:QQ==:",
];

fn line() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::collection::vec(prop::sample::select(PARTS), 0..6)
        .prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![4 => parts, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_response_is_out_of_bounds(
        head in prop::array::uniform6(any::<u8>()),
        lines in prop::collection::vec((any::<u8>(), line()), 0..12),
    ) {
        let mut bytes = head.to_vec();
        for (name, line) in lines {
            bytes.push(name);
            bytes.extend(line);
            bytes.push(b'\n');
        }
        let (status, headers, unix_now) = signal_bounds::response(&bytes);
        signal_bounds::check(status, &headers, unix_now);
    }
}
