//! `vectors/structured_fields.json`: what is read, what is refused, what is written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate::http::{FieldFormat, FieldItem, Shadowed, Told, parse_items};
use tollgate::{FixedWindow, LimitLayer, LimiterExt, ManualClock, Name, Quota};
use tower::{Layer, ServiceExt, service_fn};

use crate::Tally;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    parse_ok: Vec<ParseOk>,
    parse_fail: Vec<ParseFail>,
    serialise: Vec<Serialise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParseOk {
    id: String,
    #[serde(rename = "field")]
    _field: String,
    lines: Vec<String>,
    items: Vec<Item>,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    name_type: String,
    params: BTreeMap<String, Param>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Param {
    Integer(i64),
    Text(String),
    Bytes { bytes_hex: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParseFail {
    id: String,
    line: String,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialise {
    id: String,
    state: State,
    expect: Expected,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    name: String,
    limit: u64,
    window_ms: u64,
    remaining: u64,
    reset_ms: u64,
    denied: bool,
    retry_ms: Option<u64>,
    pk_hex: Option<String>,
    quota_unit: Option<String>,
    now: String,
    #[serde(default)]
    shadow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    config_error: bool,
    status: Option<String>,
    draft10: Option<BTreeMap<String, String>>,
    draft_next: Option<BTreeMap<String, String>>,
    draft07: Option<BTreeMap<String, String>>,
    draft06: Option<BTreeMap<String, String>>,
    draft03_x: Option<BTreeMap<String, String>>,
    x_epoch: Option<BTreeMap<String, String>>,
    #[serde(rename = "note")]
    _note: Option<IgnoredAny>,
}

/// The one time the vectors use, in seconds since the Unix epoch.
const NOW: (&str, u64) = ("2026-03-01T12:00:00Z", 1_772_366_400);

fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

impl Item {
    fn is(&self, read: &FieldItem) -> bool {
        let (mut integers, mut texts, mut partition) = (BTreeMap::new(), BTreeMap::new(), None);
        for (key, param) in &self.params {
            match param {
                Param::Integer(number) => drop(integers.insert(key.clone(), *number)),
                Param::Text(text) => drop(texts.insert(key.clone(), text.clone())),
                Param::Bytes { bytes_hex } if key == "pk" => partition = Some(bytes_of(bytes_hex)),
                Param::Bytes { .. } => panic!("{key} holds bytes"),
            }
        }
        assert_eq!(self.name_type, "string");
        read.name == self.name
            && read.integers == integers
            && read.texts == texts
            && read.partition == partition
    }
}

#[tokio::test]
async fn fields_are_read_and_written_as_the_vectors_expect() {
    let fields: Fields = serde_json::from_str(include_str!("../vectors/structured_fields.json")).unwrap();
    let (mut parsed, mut refused, mut written) = (Tally::default(), Tally::default(), Tally::default());
    for ParseOk { id, lines, items, .. } in &fields.parse_ok {
        let lines: Vec<_> = lines.iter().map(|line| HeaderValue::from_str(line).unwrap()).collect();
        let read = parse_items(&lines).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(read.len(), items.len(), "{id}");
        assert!(items.iter().zip(&read).all(|(item, read)| item.is(read)), "{id}: {read:?}");
        parsed.passed += 1;
    }
    for ParseFail { id, line, why } in &fields.parse_fail {
        match HeaderValue::from_str(line) {
            Ok(line) => drop(parse_items([&line]).expect_err(&format!("{id}: {why}"))),
            // Nothing that holds one gets as far as here.
            Err(_) => assert!(line.bytes().any(|byte| byte.is_ascii_control()), "{id}: {why}"),
        }
        refused.passed += 1;
    }
    for vector in &fields.serialise {
        vector.state.check_known(&vector.id);
        if vector.state.shadow {
            vector.replay_on_trial().await;
        } else {
            vector.replay();
        }
        written.passed += 1;
    }
    parsed.print("structured_fields parse_ok");
    refused.print("structured_fields parse_fail");
    written.print("structured_fields serialise");
    assert_eq!((parsed.passed, refused.passed, written.passed), (5, 7, 8));
}

impl State {
    /// What no vector has is not replayed either.
    fn check_known(&self, id: &str) {
        assert_eq!((self.quota_unit.as_deref(), self.now.as_str()), (None, NOW.0), "{id}");
        let retry_ms = self.denied.then_some(self.reset_ms);
        assert_eq!((self.shadow, self.retry_ms), (self.denied, retry_ms), "{id}");
    }
}

impl Serialise {
    fn replay(&self) {
        let Self { id, state, expect, .. } = self;
        let name = Name::new(state.name.as_str());
        assert_eq!(name.is_err(), expect.config_error, "{id}");
        let Ok(name) = name else { return };
        let mut told = Told::new(name, state.limit, state.remaining);
        told.window = Some(Duration::from_millis(state.window_ms));
        told.reset_after = Some(Duration::from_millis(state.reset_ms));
        told.partition = state.pk_hex.as_deref().map(bytes_of);
        let formats = [
            (FieldFormat::Draft10, &expect.draft10),
            (FieldFormat::DraftNext, &expect.draft_next),
            (FieldFormat::Draft07, &expect.draft07),
            (FieldFormat::Draft06, &expect.draft06),
            (FieldFormat::XDraft03, &expect.draft03_x),
            (FieldFormat::XEpoch, &expect.x_epoch),
        ];
        assert!(formats.iter().any(|(_, expected)| expected.is_some()), "{id}");
        for (format, expected) in formats {
            let written = format.fields(std::slice::from_ref(&told), Duration::from_secs(NOW.1));
            for line in written.values().map(|line| line.to_str().unwrap()) {
                let numbers = line.split(|letter: char| !letter.is_ascii_digit());
                let longest = numbers.map(str::len).max();
                assert!(longest <= Some(15), "{id}: {format:?} has an integer that nobody can read: {line}");
            }
            let Some(expected) = expected else { continue };
            for (field, value) in expected {
                let line = written.get(field).map(|line| line.to_str().unwrap());
                assert_eq!(line, Some(value.as_str()), "{id}: {format:?} {field}");
            }
            // The one that lists every field of every format.
            assert!(id != "s-basic" || written.len() == expected.len(), "{id}: {format:?} {written:?}");
        }
    }

    /// A limit in the vector's state, on trial before a real service: what it answers is the handler's.
    async fn replay_on_trial(&self) {
        let Self { id, state, expect, .. } = self;
        assert_eq!(expect.status.as_deref(), Some("handler status"), "{id}");
        assert!(expect.draft10.as_ref().is_some_and(BTreeMap::is_empty), "{id}");
        let clock = ManualClock::new();
        let window = Duration::from_millis(state.window_ms);
        let limit = FixedWindow::builder(Quota::per(state.limit, window)).name(state.name.as_str());
        let limit = limit.clock(clock.clone()).build().unwrap();
        let reset = Duration::from_millis(state.reset_ms);
        clock.advance(window - reset);
        drop(limit.try_acquire(state.limit - state.remaining).unwrap());
        let handler = service_fn(move |request: Request<()>| async move {
            let would_refuse = request.extensions().get::<Shadowed>().map(|shadowed| shadowed.0.clone());
            let asked = would_refuse.and_then(|denied| denied.retry_after()) == Some(reset);
            let status = if asked { StatusCode::IM_A_TEAPOT } else { StatusCode::OK };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        });
        let request = || Request::new(());
        let quiet = LimitLayer::http(limit.clone().shadow()).layer(handler);
        let answer = quiet.oneshot(request()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT, "{id}: the handler's status");
        assert!(answer.headers().is_empty(), "{id}: {:?}", answer.headers());

        let opted_in = LimitLayer::http(limit.clone().shadow()).tell_shadow().layer(handler);
        let answer = opted_in.oneshot(request()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT, "{id}");
        assert_eq!(answer.headers()["ratelimit"], "\"default\";r=0;t=5", "{id}: they are told if asked for");
        assert!(!answer.headers().contains_key("retry-after"), "{id}");

        let in_earnest = LimitLayer::http(limit).layer(handler).oneshot(request()).await.unwrap();
        assert_eq!(in_earnest.status(), StatusCode::TOO_MANY_REQUESTS, "{id}: in earnest it would refuse");
        assert_eq!(in_earnest.headers()["retry-after"], "5", "{id}");
    }
}

/// What the vectors leave out of the rules for lists (RFC 9651, draft 10).
#[test]
fn a_field_that_is_no_list_of_names_is_refused_whole() {
    for line in
        ["a;r=1", "1;r=1", "?1;r=1", "(\"a\");r=1", "\"a\";r=1,", "\"a\";r=1,b;r=2", "\"a\";r=1 \"b\""]
    {
        assert!(parse_items([&HeaderValue::from_static(line)]).is_err(), "{line}");
    }
    let [last_wins] = &parse_items([&HeaderValue::from_static("\"a\";r=1;r=2;t")]).unwrap()[..] else {
        panic!("one item");
    };
    assert_eq!(last_wins.integers, BTreeMap::from([("r".to_owned(), 2)]), "a parameter alone is no number");
    assert_eq!(parse_items([]).unwrap(), []);
}
