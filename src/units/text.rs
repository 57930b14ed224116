//! Quotas as text: `50/s`, `100/min burst 20`, `5 per 30s`, `1000/day`, `20 once`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::quota::{Quota, QuotaError, second_ns};

/// Name and nanoseconds, longest first; the first name of a length is the one printed.
const SPANS: [(&str, u128); 24] = {
    let s = second_ns() as u128;
    [
        ("week", 604_800 * s),
        ("weeks", 604_800 * s),
        ("w", 604_800 * s),
        ("day", 86_400 * s),
        ("days", 86_400 * s),
        ("d", 86_400 * s),
        ("hour", 3_600 * s),
        ("hours", 3_600 * s),
        ("h", 3_600 * s),
        ("min", 60 * s),
        ("minute", 60 * s),
        ("minutes", 60 * s),
        ("m", 60 * s),
        ("s", s),
        ("sec", s),
        ("second", s),
        ("seconds", s),
        ("ms", s / 1_000),
        ("millisecond", s / 1_000),
        ("milliseconds", s / 1_000),
        ("us", s / 1_000_000),
        ("µs", s / 1_000_000),
        ("microseconds", s / 1_000_000),
        ("ns", 1),
    ]
};

pub(super) fn unit_of(ns: u128) -> Option<&'static str> {
    SPANS.iter().find(|(_, length)| *length == ns).map(|(name, _)| *name)
}

pub(super) fn write_span(f: &mut fmt::Formatter<'_>, ns: u128) -> fmt::Result {
    let (name, length) =
        SPANS.iter().find(|(_, length)| ns >= *length && ns % length == 0).copied().unwrap_or(("ns", 1));
    write!(f, "{}{name}", ns / length)
}

/// Why a text is not a quota. Quotes the part that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaTextError {
    text: String,
    wrong: Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wrong {
    Shape,
    Number(String),
    Span(String),
    Word(String),
    Twice(String),
    Quota(QuotaError),
}

impl QuotaTextError {
    /// The text that was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with the values, when the text itself could be read.
    #[must_use]
    pub const fn quota_error(&self) -> Option<QuotaError> {
        match self.wrong {
            Wrong::Quota(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for QuotaTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a quota: ", self.text)?;
        match &self.wrong {
            Wrong::Shape => f.write_str("write it like \"50/s\", \"100/min burst 20\" or \"5 per 30s\""),
            Wrong::Number(part) => write!(f, "{part:?} is not a whole number up to {}", u64::MAX),
            Wrong::Span(part) => {
                write!(
                    f,
                    "{part:?} is not a length of time: use ns, us, ms, s, min, h, day or week, as in \"30s\""
                )
            }
            Wrong::Word(part) => {
                write!(f, "{part:?} says nothing here: only \"burst N\" and \"initial N\" may follow")
            }
            Wrong::Twice(part) => write!(f, "{part:?} stands twice"),
            Wrong::Quota(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QuotaTextError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.wrong {
            Wrong::Quota(error) => Some(error),
            _ => None,
        }
    }
}

impl FromStr for Quota {
    type Err = QuotaTextError;

    fn from_str(text: &str) -> Result<Self, QuotaTextError> {
        parse(text).map_err(|wrong| QuotaTextError { text: text.to_owned(), wrong })
    }
}

fn parse(text: &str) -> Result<Quota, Wrong> {
    let spaced = text.replace('/', " / ");
    let mut words = spaced.split_whitespace();
    let count = number(words.next().ok_or(Wrong::Shape)?)?;
    let mut quota = match words.next() {
        Some("/" | "per") => {
            let first = words.next().ok_or(Wrong::Shape)?;
            // "30 s" and "30s" alike: a lone number takes the next word as its unit.
            let joined = if first.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("{first}{}", words.next().ok_or_else(|| Wrong::Span(first.to_owned()))?)
            } else {
                first.to_owned()
            };
            Quota::per(count, span(&joined)?)
        }
        Some("once") => Quota::once(count),
        _ => return Err(Wrong::Shape),
    };
    let (mut burst, mut initial) = (None, None);
    while let Some(word) = words.next() {
        let slot = match word {
            "burst" => &mut burst,
            "initial" => &mut initial,
            _ => return Err(Wrong::Word(word.to_owned())),
        };
        let value = number(words.next().ok_or_else(|| Wrong::Word(word.to_owned()))?)?;
        if slot.replace(value).is_some() {
            return Err(Wrong::Twice(word.to_owned()));
        }
    }
    if let Some(units) = burst {
        quota = quota.burst(units);
    }
    if let Some(units) = initial {
        quota = quota.initial(units);
    }
    quota.check().map_err(Wrong::Quota)?;
    Ok(quota)
}

fn number(part: &str) -> Result<u64, Wrong> {
    let digits = part.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Number(part.to_owned()));
    }
    digits.parse().map_err(|_| Wrong::Number(part.to_owned()))
}

fn span(part: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::Span(part.to_owned());
    let split = part.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (digits, name) = part.split_at(split);
    let times: u128 = if digits.is_empty() { 1 } else { digits.parse().map_err(|_| wrong())? };
    let (_, length) = SPANS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
    let ns = times.checked_mul(*length).ok_or_else(wrong)?;
    u64::try_from(ns).map(Duration::from_nanos).map_err(|_| Wrong::Quota(QuotaError::PeriodTooLong))
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::super::{Cost, Window};
    use super::{Quota, QuotaError, span};
    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::fmt;
    use std::time::Duration;

    impl Serialize for Quota {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

    impl<T> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }

    impl<'de> Deserialize<'de> for Quota {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = "a quota such as \"100/min burst 20\"";
            deserializer.deserialize_str(Text(text, |text| text.parse().map_err(|error| format!("{error}"))))
        }
    }

    impl Serialize for Cost {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u64(self.units())
        }
    }

    impl<'de> Deserialize<'de> for Cost {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u64::deserialize(deserializer).map(Self::new)
        }
    }

    impl Serialize for Window {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            struct Span(u128);
            impl fmt::Display for Span {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    super::write_span(f, self.0)
                }
            }
            serializer.collect_str(&Span(self.length().as_nanos()))
        }
    }

    impl<'de> Deserialize<'de> for Window {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            fn read(text: &str) -> Result<Window, String> {
                let length: Duration = span(text).map_err(|_| {
                    format!("{text:?} is not a length of time: write it like \"30s\" or \"1min\"")
                })?;
                Window::new(length).map_err(|error: QuotaError| error.to_string())
            }
            deserializer.deserialize_str(Text("a length of time such as \"30s\"", read))
        }
    }
}
