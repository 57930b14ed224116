//! `vectors/key_normalisation.json`: which inputs share a key, through real limits of one unit for each key.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use http::request::{Builder, Parts};
use http::{HeaderName, Request};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tollgate::http::{ClientIp, Header, Method, Path, Peer, PeerAddr, Route, RoutePattern, Secret};
use tollgate::{Cost, EitherKey, Found, KeyOf, Limiter, LimiterExt, Quota, Reason, TokenBucket};
use unicode_normalization::UnicodeNormalization;

use crate::Tally;

fn request() -> Builder {
    Request::builder().extension(PeerAddr(Peer::Ip("192.0.2.1".parse().expect("an address"))))
}

fn head(request: Builder) -> Parts {
    request.body(()).expect("a request").into_parts().0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    id: String,
    kind: String,
    inputs: Vec<Input>,
    same_key: bool,
    #[serde(default)]
    options: Options,
    #[serde(rename = "why")]
    _why: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Repeat { repeat: String, times: usize },
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    merge_slashes: bool,
    normalise: Option<String>,
    /// What [`Path`] does without being asked.
    #[serde(rename = "key")]
    _key: Option<IgnoredAny>,
}

impl Input {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Repeat { repeat, times } => repeat.repeat(*times),
        }
    }

    /// `("a:b","c")`
    fn pair(&self) -> (String, String) {
        let text = self.text();
        serde_json::from_str(&format!("[{}]", text.trim_matches(['(', ')']))).expect("two strings")
    }
}

/// Who logs in, as a handler in front has read it: neither a header nor a path could hold each of them.
#[derive(Clone)]
struct Typed(String);

/// The hook: the key is what the login code of the application makes of a name. This one's does as rack-attack.
fn login(typed: &str) -> String {
    typed.nfkc().filter(|letter| !letter.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Whether a real limit of one unit for each key refuses `other` once `one` has had its own.
fn share<F: KeyOf<Parts>>(key: F, one: &Parts, other: &Parts) -> bool
where
    F::Key: Hash + Eq + Clone + Send + 'static,
{
    let limit = TokenBucket::new(Quota::once(1)).unwrap().keyed::<F::Key>().by(key);
    limit.check(one, Cost::ONE).expect("a key of its own, never seen");
    match limit.try_acquire(other, Cost::ONE) {
        Ok(_) => false,
        Err(denied) => denied.reason() == Reason::Exhausted || panic!("{denied}"),
    }
}

impl Group {
    /// Whether the keys of two inputs are one.
    fn shares(&self, one: &Input, other: &Input) -> bool {
        let heads = |make: &dyn Fn(&Input) -> Builder| (head(make(one)), head(make(other)));
        match self.kind.as_str() {
            "path" => {
                let (one, other) = heads(&|input| request().uri(input.text()));
                let apart = share(Path::new(), &one, &other);
                if !self.options.merge_slashes {
                    return apart;
                }
                // A server that does not merge them has another route there.
                assert_eq!(apart, one.uri == other.uri, "{}: unless asked", self.id);
                share(Path::new().merge_slashes(), &one, &other)
            }
            "method" => {
                let (one, other) = heads(&|input| {
                    let text = input.text();
                    let (method, line) = text.split_once(" + ").unwrap_or((&text, ""));
                    with_line(request().method(method), line)
                });
                share(Method, &one, &other)
            }
            "header:x-api-key" => {
                let (one, other) = heads(&|input| match input {
                    Input::Text(text) if text == "(absent)" => request(),
                    Input::Text(line) if line.contains(": ") => with_line(request(), line),
                    value => request().header("x-api-key", value.text()),
                });
                let header = Header::named(HeaderName::from_static("x-api-key"));
                share(header.or(ClientIp::peer()), &one, &other)
            }
            "username" => {
                let (one, other) = heads(&|input| request().extension(Typed(input.text())));
                let typed = |parts: &Parts| parts.extensions.get::<Typed>().expect("a name").0.clone();
                match self.options.normalise.as_deref() {
                    Some("login") => share(move |parts: &Parts| login(&typed(parts)), &one, &other),
                    None => {
                        let raw = share(typed, &one, &other);
                        assert_eq!(raw, share(move |parts: &Parts| login(&typed(parts)), &one, &other));
                        raw
                    }
                    other => panic!("{}: {other:?}", self.id),
                }
            }
            "composite(user,route)" => {
                let (one, other) = heads(&|input| {
                    let (user, route) = input.pair();
                    request().extension(Typed(user)).extension(RoutePattern(route.into()))
                });
                let user = |parts: &Parts| parts.extensions.get::<Typed>().expect("a name").0.clone();
                let hashed = move |parts: &Parts| {
                    let route = Route::of(parts).expect("a route");
                    Secret::of_process().fingerprint_of([user(parts).as_bytes(), route.as_bytes()])
                };
                let tuple = share((user, Route), &one, &other);
                assert_eq!(tuple, share(hashed, &one, &other), "{}: tuple and fingerprint", self.id);
                tuple
            }
            "composite(limit,user)" => {
                let of = |name: String| {
                    let limit = TokenBucket::builder(Quota::once(1)).name(name.as_str()).build().unwrap();
                    (name, limit.keyed::<String>())
                };
                let ((limit, user), (other_limit, other_user)) = (one.pair(), other.pair());
                let limits = HashMap::from([of(limit.clone()), of(other_limit.clone())]);
                limits[&limit].check(&user, 1).expect("a key of its own, never seen");
                limits[&other_limit].check(&other_user, 1).is_err()
            }
            kind => panic!("{}: a {kind}", self.id),
        }
    }
}

fn with_line(request: Builder, line: &str) -> Builder {
    match line.split_once(": ") {
        Some((name, value)) => request.header(name, value),
        None => request,
    }
}

#[test]
fn inputs_share_a_key_as_the_vectors_expect() {
    let groups: Vec<Group> = serde_json::from_str(include_str!("../vectors/key_normalisation.json")).unwrap();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for group in &groups {
        assert!(group.inputs.len() > 1, "{}", group.id);
        for (at, one) in group.inputs.iter().enumerate() {
            assert!(group.shares(one, one), "{}: an input shares with itself", group.id);
            for other in &group.inputs[at + 1..] {
                let text = format!("{:.40} and {:.40}", one.text(), other.text());
                assert_eq!(group.shares(one, other), group.same_key, "{}: {text}", group.id);
                assert_eq!(group.shares(other, one), group.same_key, "{}: {text}, turned round", group.id);
            }
        }
        tallies.entry(&group.kind).or_default().passed += 1;
    }
    tallies.iter().for_each(|(kind, tally)| tally.print(&format!("keys {kind}")));
    let passed: Vec<_> = tallies.iter().map(|(kind, tally)| (*kind, tally.passed)).collect();
    let expected = [
        ("composite(limit,user)", 1),
        ("composite(user,route)", 1),
        ("header:x-api-key", 4),
        ("method", 1),
        ("path", 6),
        ("username", 4),
    ];
    assert_eq!(passed, expected);
}

/// `header-missing-vs-empty`: no key is no allowance.
#[test]
fn a_request_without_the_header_is_refused_or_counts_for_its_address() {
    let header = || Header::named(HeaderName::from_static("x-api-key"));
    let twice = request().header("x-api-key", "a").header("x-api-key", "b");
    for parts in [request(), request().header("x-api-key", ""), request().header("x-api-key", " \t"), twice] {
        let parts = head(parts);
        assert_eq!(header().key_of(&parts), Found::Reject(Reason::NoKey), "{:?}", parts.headers);
        let client = ClientIp::peer().client(Peer::Ip("192.0.2.1".parse().unwrap()), &parts.headers);
        let found = header().or(ClientIp::peer()).key_of(&parts);
        assert_eq!(found, Found::Key(EitherKey::Second(client)), "{:?}", parts.headers);
    }
}

/// `header-too-long`: its two inputs differ in the first letter.
#[test]
fn long_keys_count_to_their_last_byte() {
    let long = |last: &str| head(request().header("x-api-key", "k".repeat(70_000) + last));
    let header = || Header::named(HeaderName::from_static("x-api-key"));
    assert!(share(header(), &long("a"), &long("a")));
    assert!(!share(header(), &long("a"), &long("b")));
}
