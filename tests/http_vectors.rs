//! Replays the conformance vectors about fields, keys and gRPC replies through the public API, unchanged.
//!
//! Each is answered as expected, or stands in [`DIFFERENCES`] with the reason, or in [`CLIENT_HALF`]: replies that no
//! server of this crate sends. Keys of the files that are not known here fail their reading.

#[path = "http_vectors/fields.rs"]
mod fields;
mod grpc_reply;
#[path = "http_vectors/keys.rs"]
mod keys;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use grpc_reply::Reply;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate::{Ask, Cost, Denied, Error, LimitLayer, Permit, Reason, limiter_fn};
use tower::{Layer, ServiceExt, service_fn};

/// Vectors that are answered differently on purpose, and why. One that passes must not stand here.
const DIFFERENCES: &[(&str, &str)] = &[(
    "quota-failure",
    "a refusal tells nothing of the key: it has a wait, and no QuotaFailure with a subject",
)];

/// Replies a client has to expect of other servers, and why none of ours is like that.
const CLIENT_HALF: &[(&str, &str)] = &[
    ("retryinfo-negative", "a wait is never negative"),
    ("retryinfo-i64max", "a wait is a legal Duration"),
    ("unknown-detail", "RetryInfo is the only detail"),
    ("truncated", "details are whole"),
    ("not-base64", "details are base64"),
    ("pushback-empty", "a pushback is a number"),
    ("pushback-2147483648", "a pushback fits 32 bits"),
    ("pushback-+5", "a pushback has no plus sign"),
];

/// For what reason a limit refuses where the reply is as in the vector. The wait is the one that the vector tells.
const REFUSALS: &[(&str, Reason)] = &[
    ("plain", Reason::Exhausted),
    ("retryinfo-1500ms", Reason::Exhausted),
    ("retryinfo-58s", Reason::Exhausted),
    ("retryinfo-zero", Reason::Exhausted),
    ("retryinfo-1ns", Reason::Exhausted),
    ("quota-failure", Reason::Exhausted),
    ("unavailable-with-retryinfo", Reason::Paused),
    ("pushback-beats-retryinfo", Reason::Exhausted),
    ("pushback-no-retry-beats-retryinfo", Reason::ExceedsCapacity),
];

/// What became of the vectors of one group.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    different: usize,
    client_half: usize,
}

impl Tally {
    fn print(&self, group: &str) {
        let Self { passed, different, client_half } = self;
        println!("{group:<28} passed {passed:>2}  differences {different}  client half {client_half}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    trailers: BTreeMap<String, String>,
    expect: Outcome,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
    #[serde(default)]
    hostile: bool,
}

/// What a client makes of a reply.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    throttled: bool,
    retry_after_ms: Option<u64>,
    may_retry: bool,
    #[serde(default)]
    violations: Vec<Violation>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Violation {
    subject: String,
    description: String,
}

impl From<&Reply> for Outcome {
    fn from(reply: &Reply) -> Self {
        let violation = |(subject, description): &(String, String)| Violation {
            subject: subject.clone(),
            description: description.clone(),
        };
        Self {
            throttled: reply.is_throttled(),
            retry_after_ms: reply.wait_ms(),
            may_retry: reply.may_retry(),
            violations: reply.violations.iter().map(violation).collect(),
        }
    }
}

struct Nothing;

impl Permit for Nothing {
    fn cost(&self) -> Cost {
        Cost::ONE
    }

    fn settle(self, _: Cost) {}
}

/// What the layer answers to a gRPC call when its limiter answers so: the headers, after a look at the rest.
async fn answered(answer: Result<(), Denied>) -> HeaderMap {
    let admitted = answer.is_ok();
    let limiter = limiter_fn(move |_: &Parts, _: Ask| {
        let answer = answer.clone().map(|()| Nothing).map_err(Error::<Infallible>::from);
        async move { answer }
    });
    let served = service_fn(|_: Request<()>| async {
        let ok = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        Ok::<_, Infallible>(ok.body(Full::<Bytes>::default()).unwrap())
    });
    let call = Request::post("/a.Service/Call").header("content-type", "application/grpc+proto");
    let service = LimitLayer::http(limiter).layer(served);
    let (head, body) = service.oneshot(call.body(()).unwrap()).await.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::OK);
    let content_type = if admitted { "application/grpc" } else { "application/grpc+proto" };
    assert_eq!(head.headers["content-type"], content_type);
    let rest = body.collect().await.unwrap();
    assert!(rest.trailers().is_none(), "all is said in the head");
    assert!(rest.to_bytes().is_empty());
    head.headers
}

/// Our reply in place of the vector's; `None` for those of the client half.
async fn our_reply(id: &str, theirs: &Reply) -> Option<HeaderMap> {
    if id == "absent" {
        return Some(answered(Ok(())).await);
    }
    let (_, reason) = REFUSALS.iter().find(|(refused, _)| *refused == id)?;
    let headers = answered(Err(Denied::new(*reason).after(theirs.wait()))).await;
    let ours = Reply::read(&headers);
    assert_eq!(ours.code, theirs.code, "{id}");
    // One wait, told twice, and to the nanosecond where that can be told.
    assert_eq!(ours.retry_info, theirs.wait(), "{id}");
    let details = Reply { code: theirs.code, pushback: ours.pushback.clone(), ..ours.clone() };
    assert_eq!(details, ours, "{id}");
    if theirs.wait().is_some() {
        for other in ["grpc-retry-pushback-ms", "grpc-status-details-bin"] {
            let mut half = headers.clone();
            assert!(half.remove(other).is_some(), "{id}");
            assert_eq!(Reply::read(&half).wait_ms(), theirs.wait_ms(), "{id} without {other}");
        }
    }
    tonic_reads_the_same(&headers, &ours);
    Some(headers)
}

fn tonic_reads_the_same(headers: &HeaderMap, ours: &Reply) {
    let status = tonic::Status::from_header_map(headers).expect("a status");
    assert_eq!(Some(i32::from(status.code())), ours.code);
    assert_eq!(headers["grpc-message"], status.message(), "nothing in it needs an escape");
    let Reply { retry_info, violations, .. } = Reply::of_details(status.details());
    assert_eq!((retry_info, &violations), (ours.retry_info, &ours.violations));
    let pushback = status.metadata().get("grpc-retry-pushback-ms").map(|ms| ms.to_str().unwrap().parse());
    assert_eq!(pushback.transpose().unwrap(), ours.pushback.clone().transpose().unwrap());
}

fn listed(table: &[(&str, &'static str)], id: &str) -> Option<&'static str> {
    table.iter().find(|(listed, _)| *listed == id).map(|(_, reason)| *reason)
}

#[tokio::test]
async fn grpc_replies_read_as_the_vectors_expect() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors/grpc.json")).unwrap();
    let mut tally = Tally::default();
    for Vector { id, trailers, expect, hostile, .. } in &vectors {
        let lines = trailers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        });
        let theirs = Reply::read(&lines.collect());
        // The reader reads every vector as expected, or it could not be trusted with ours.
        assert_eq!(Outcome::from(&theirs), *expect, "{id}: the reader");
        let ours = our_reply(id, &theirs).await.map(|headers| Outcome::from(&Reply::read(&headers)));
        match (ours, listed(DIFFERENCES, id), listed(CLIENT_HALF, id)) {
            (Some(ours), None, None) => {
                assert_eq!(ours, *expect, "{id}");
                tally.passed += 1;
            }
            (Some(ours), Some(reason), None) => {
                assert_ne!(ours, *expect, "{id} passes: it is no difference");
                let alike = (ours.throttled, ours.retry_after_ms, ours.may_retry);
                assert_eq!(alike, (expect.throttled, expect.retry_after_ms, expect.may_retry), "{id}");
                println!("{id}: {reason}");
                tally.different += 1;
            }
            (None, None, Some(reason)) => {
                println!("{id}: the client's half, {reason}");
                tally.client_half += 1;
            }
            (ours, ..) => panic!("{id} (hostile: {hostile}) stands in no table, or in two: {ours:?}"),
        }
    }
    tally.print("grpc");
    assert_eq!(tally, Tally { passed: 9, different: 1, client_half: 8 });
    let known = DIFFERENCES.iter().chain(CLIENT_HALF).map(|(id, _)| id);
    for id in known.chain(REFUSALS.iter().map(|(id, _)| id)) {
        assert!(vectors.iter().any(|vector| vector.id == *id), "{id} is listed and is no vector");
    }
}

/// The other side of the client's half: whatever a limiter says, no reply of ours is one of those.
#[tokio::test]
async fn no_reply_is_one_that_clients_must_not_understand() {
    let waits = [
        Duration::from_millis(i32::MAX as u64 - 1),
        Duration::from_millis(i32::MAX as u64) + Duration::from_nanos(1),
        Duration::from_millis(1 << 31),
        Duration::from_secs(1 << 32),
        Duration::from_nanos(u64::MAX),
        Duration::from_secs(315_576_000_000),
        Duration::from_secs(i64::MAX as u64),
        Duration::MAX,
    ];
    for wait in waits {
        let headers = answered(Err(Denied::new(Reason::Exhausted).after(Some(wait)))).await;
        let reply = Reply::read(&headers);
        let ms = i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        assert_eq!(reply.pushback, Some(Ok(ms)), "{wait:?}");
        // A denial tells a wait of at most 584 years.
        assert_eq!(reply.retry_info, Some(wait.min(Duration::from_nanos(u64::MAX))), "{wait:?}");
        tonic_reads_the_same(&headers, &reply);
    }
}

/// A client is told never to retry where no wait helps, and to come back when it likes where no wait is known.
#[tokio::test]
async fn only_what_no_wait_helps_is_never_to_be_retried() {
    let refused = [
        (Reason::Exhausted, 8, true),
        (Reason::QueueFull, 8, true),
        (Reason::Evicted, 8, true),
        (Reason::ExceedsCapacity, 8, false),
        (Reason::NoKey, 3, false),
        (Reason::NoPeer, 13, false),
        (Reason::NoTimer, 13, false),
        (Reason::Closed, 14, true),
        (Reason::Paused, 14, true),
        (Reason::TooManyKeys, 14, true),
    ];
    for (reason, code, may_retry) in refused {
        let headers = answered(Err(Denied::new(reason))).await;
        let reply = Reply::read(&headers);
        assert_eq!((reply.code, reply.retry_info), (Some(code), None), "{reason:?}");
        let pushback = if may_retry { None } else { Some(Ok(-1)) };
        assert_eq!(reply.pushback, pushback, "{reason:?}");
        tonic_reads_the_same(&headers, &reply);
    }
}
