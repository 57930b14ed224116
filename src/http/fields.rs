//! The fields in which clients are told where they stand.

mod list;
mod parse;

pub use parse::{FieldItem, FieldsError, parse_items};

use std::sync::OnceLock;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{DictSerializer, KeyRef};

use crate::types::LimitStatus;
use crate::units::Name;

/// How clients are told. Versions of one draft, and what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FieldFormat {
    /// `RateLimit-Policy` and `RateLimit` as lists of named items: draft-ietf-httpapi-ratelimit-headers-08 to -10.
    #[default]
    Draft10,
    /// The same, with the parameters the draft is to have after -10.
    DraftNext,
    /// `RateLimit: limit=100, remaining=50, reset=30`.
    Draft07,
    /// `RateLimit-Limit`, `-Remaining`, `-Reset` in seconds from now, and the policy.
    Draft06,
    /// `X-RateLimit-*` with the policies in the limit, as Envoy sends them.
    XDraft03,
    /// `X-RateLimit-*` with the reset as a time, in seconds since the Unix epoch.
    XEpoch,
}

/// One limit, as the fields tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// What the limit is called.
    pub name: Name,
    /// Most units in a window.
    pub limit: u64,
    /// The window, if there is one.
    pub window: Option<Duration>,
    /// Units left.
    pub remaining: u64,
    /// When more will be there.
    pub reset_after: Option<Duration>,
    /// `true` if it counts what is in progress.
    pub concurrent: bool,
    /// Whose limit it is, if clients are told: never the key itself.
    pub partition: Option<Vec<u8>>,
}

impl Told {
    /// A limit of `limit` units with `remaining` left.
    #[must_use]
    pub const fn new(name: Name, limit: u64, remaining: u64) -> Self {
        let (window, reset_after) = (None, None);
        Self { name, limit, window, remaining, reset_after, concurrent: false, partition: None }
    }

    /// All of `standings`, each under a name of its own.
    pub(super) fn all(standings: &[LimitStatus]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::with_capacity(standings.len());
        for standing in standings {
            let name = standing.limit.as_ref().map_or("default", Name::as_str);
            let taken = |name: &str| all.iter().any(|told| told.name.as_str() == name);
            let own = if taken(name) {
                (2..).map(|n| format!("{name}-{n}")).find(|name| !taken(name))
            } else {
                None
            };
            // A name that is too long with its number stays as it is: a field with two of a name is still one.
            let own = own.and_then(|own| Name::new(own).ok()).or_else(|| standing.limit.clone());
            let name = own.unwrap_or_else(unnamed);
            all.push(Self {
                window: standing.policy.window,
                reset_after: standing.reset_after,
                concurrent: standing.policy.concurrent,
                ..Self::new(name, standing.policy.limit, standing.remaining)
            });
        }
        all
    }
}

/// What a limit without a name is called.
fn unnamed() -> Name {
    static NAME: OnceLock<Name> = OnceLock::new();
    NAME.get_or_init(|| Name::new("default").expect("it is printable")).clone()
}

/// The largest integer a structured field can hold.
const INTEGER_MAX: u64 = 999_999_999_999_999;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMITS: HeaderName = HeaderName::from_static("ratelimit");
static LISTS: [HeaderName; 2] = [POLICY, LIMITS];
static PLAIN: [HeaderName; 4] = [
    POLICY,
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];
static PREFIXED: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

impl FieldFormat {
    /// The fields that tell of `told`, at `unix_now` since the Unix epoch. None for no limit.
    ///
    /// Formats without names tell of the limit that binds, and of the policies of all.
    #[must_use]
    pub fn fields(self, told: &[Told], unix_now: Duration) -> HeaderMap {
        let mut fields = HeaderMap::new();
        let mut put = |name, value| drop(fields.insert(name, value));
        if self.is_list() {
            if let Some(mut frame) = list::Frame::of(told) {
                let left = told.iter().map(|told| (told.remaining, told.reset_after));
                self.put_lists(&mut frame, left, &mut put);
            }
        } else {
            self.put_numbers(told, || unix_now, &mut put);
        }
        fields
    }

    /// Puts each of the fields that tell of `standings`.
    pub(super) fn each(
        self,
        standings: &[LimitStatus],
        unix_now: impl FnOnce() -> Duration,
        put: &mut dyn FnMut(HeaderName, HeaderValue),
    ) {
        if self.is_list() {
            let left = standings.iter().map(|standing| (standing.remaining, standing.reset_after));
            list::framed(standings, |frame| self.put_lists(frame, left, put));
        } else {
            self.put_numbers(&Told::all(standings), unix_now, put);
        }
    }

    fn put_lists(
        self,
        frame: &mut list::Frame,
        left: impl Iterator<Item = (u64, Option<Duration>)>,
        put: &mut dyn FnMut(HeaderName, HeaderValue),
    ) {
        put(POLICY, frame.policies());
        if let Some(limits) = frame.limits(left, self == Self::DraftNext) {
            put(LIMITS, limits);
        }
    }

    /// The formats without names.
    fn put_numbers(
        self,
        told: &[Told],
        unix_now: impl FnOnce() -> Duration,
        put: &mut dyn FnMut(HeaderName, HeaderValue),
    ) {
        let mut put = |name: HeaderName, value: Option<String>| {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                put(name, value);
            }
        };
        let Some(binding) = binding(told) else { return };
        let reset = binding.reset_after.map(seconds);
        match self {
            Self::Draft10 | Self::DraftNext => {}
            Self::Draft07 => {
                put(POLICY, Some(policies(told)));
                put(LIMITS, dictionary(binding, reset));
            }
            Self::Draft06 | Self::XDraft03 | Self::XEpoch => {
                let [.., limit, remaining, reset_name] = self.names() else { return };
                let all = match self {
                    Self::XDraft03 => format!("{}, {}", capped(binding.limit), policies(told)),
                    _ => capped(binding.limit).to_string(),
                };
                let reset = match self {
                    Self::XEpoch => binding.reset_after.map(|wait| seconds(unix_now().saturating_add(wait))),
                    _ => reset,
                };
                put(limit.clone(), Some(all));
                put(remaining.clone(), Some(capped(binding.remaining).to_string()));
                put(reset_name.clone(), reset.map(|reset| reset.to_string()));
                if self == Self::Draft06 {
                    put(POLICY, Some(policies(told)));
                }
            }
        }
    }

    /// What it calls its fields.
    pub(super) fn names(self) -> &'static [HeaderName] {
        match self {
            Self::Draft10 | Self::DraftNext | Self::Draft07 => &LISTS,
            Self::Draft06 => &PLAIN,
            Self::XDraft03 | Self::XEpoch => &PREFIXED,
        }
    }

    /// `true` if a field of several limits is a list, to which others can be added.
    pub(super) const fn is_list(self) -> bool {
        matches!(self, Self::Draft10 | Self::DraftNext)
    }
}

/// Seconds, rounded up: whoever waits so long has waited enough.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).min(INTEGER_MAX)
}

fn capped(units: u64) -> u64 {
    units.min(INTEGER_MAX)
}

/// The exhausted limit that takes longest to come back; if none is exhausted, the one of which the smallest part is
/// left.
fn binding(told: &[Told]) -> Option<&Told> {
    let exhausted = told.iter().filter(|told| told.remaining == 0);
    let longest = exhausted.max_by_key(|told| told.reset_after.unwrap_or(Duration::MAX));
    longest.or_else(|| {
        told.iter().min_by(|a, b| {
            // a.remaining / a.limit < b.remaining / b.limit, without a division.
            let left = u128::from(a.remaining) * u128::from(b.limit);
            left.cmp(&(u128::from(b.remaining) * u128::from(a.limit)))
        })
    })
}

fn policies(told: &[Told]) -> String {
    let each = told.iter().map(|told| match told.window {
        Some(window) => format!("{};w={}", capped(told.limit), seconds(window).max(1)),
        None => capped(told.limit).to_string(),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn key(name: &'static str) -> &'static KeyRef {
    KeyRef::from_str(name).expect("a key of lower-case letters")
}

fn integer(units: u64) -> sfv::Integer {
    // Within fifteen digits.
    sfv::Integer::try_from(capped(units)).unwrap_or(sfv::Integer::MAX)
}

fn dictionary(binding: &Told, reset: Option<u64>) -> Option<String> {
    let mut fields = DictSerializer::new();
    let _ = fields.bare_item(key("limit"), integer(binding.limit));
    let _ = fields.bare_item(key("remaining"), integer(binding.remaining));
    if let Some(reset) = reset {
        let _ = fields.bare_item(key("reset"), integer(reset));
    }
    fields.finish()
}
