//! Replies of gRPC: their status, its details, and the pushback.

use std::time::Duration;

use ::http::HeaderMap;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::time::believed;
use super::{Signals, Violation};

const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

/// The longest `google.protobuf.Duration`, in seconds.
const SECONDS_MAX: u64 = 315_576_000_000;
/// Details that are longer are not read.
const DETAILS_MAX: usize = 16 * 1024;
const VIOLATIONS_MAX: usize = 16;
/// The longest text of a violation, in characters.
const TEXT_MAX: usize = 256;

/// Servers pad or do not, and both are right.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) struct Reply {
    code: i32,
    retry_info: Option<Duration>,
    /// `Some(None)` is an order not to try again.
    pushback: Option<Option<Duration>>,
    violations: Vec<Violation>,
}

impl Reply {
    /// `None` if it is not the end of a gRPC reply.
    pub(super) fn read(fields: &HeaderMap) -> Option<Self> {
        let code = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let details = fields.get("grpc-status-details-bin").filter(|value| value.len() <= DETAILS_MAX);
        let details = details.and_then(|value| BASE64.decode(value).ok()).unwrap_or_default();
        Some(Self::of(code, &details, fields))
    }

    /// `details` is a `google.rpc.Status`.
    pub(super) fn of(code: i32, details: &[u8], fields: &HeaderMap) -> Self {
        let (retry_info, violations) = Some(details)
            .filter(|details| details.len() <= DETAILS_MAX)
            .and_then(read_details)
            .unwrap_or_default();
        Self { code, retry_info, pushback: pushback(fields), violations }
    }

    pub(super) fn put(self, said: &mut Signals) {
        // The pushback is the protocol's own instruction: it comes before the details, and before fields of HTTP.
        if let Some(pushback) = self.pushback {
            said.wait = pushback;
            said.may_retry = Some(pushback.is_some());
        } else if self.retry_info.is_some() {
            said.wait = self.retry_info;
        }
        said.throttled = self.code == RESOURCE_EXHAUSTED || (self.code == UNAVAILABLE && said.wait.is_some());
        said.failed = matches!(self.code, DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED | INTERNAL | UNAVAILABLE);
        said.violations = self.violations;
    }
}

fn pushback(fields: &HeaderMap) -> Option<Option<Duration>> {
    let each = fields.get_all("grpc-retry-pushback-ms").iter();
    let waits = each.map(|value| {
        let text = value.to_str().ok()?;
        // `parse` alone would take a plus sign, and zeros without end.
        let is_plain = text == "0" || text.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
        let ms: i32 = Some(text).filter(|_| is_plain)?.parse().ok()?;
        Some(Duration::from_millis(u64::try_from(ms).ok()?))
    });
    // None is smaller than any wait, and forbids.
    let (least, most) = waits.fold(None, |range: Option<(_, _)>, wait| {
        Some(range.map_or((wait, wait), |(least, most)| (wait.min(least), wait.max(most))))
    })?;
    Some(least.and(most))
}

/// Nothing, if any of it is malformed.
fn read_details(status: &[u8]) -> Option<(Option<Duration>, Vec<Violation>)> {
    let (mut retry_info, mut violations) = (None, Vec::new());
    for field in Fields(status) {
        let (3, Value::Bytes(any)) = field? else { continue };
        let (Some(kind), Some(message)) = (bytes(any, 1), bytes(any, 2)) else { continue };
        if kind.ends_with(b"/google.rpc.RetryInfo") {
            retry_info = retry_info.max(bytes(message, 1).and_then(duration));
        } else if kind.ends_with(b"/google.rpc.QuotaFailure") {
            for field in Fields(message) {
                let Some((1, Value::Bytes(violation))) = field else { break };
                if violations.len() < VIOLATIONS_MAX {
                    let (subject, description) = (text(violation, 1), text(violation, 2));
                    violations.push(Violation { subject, description });
                }
            }
        }
    }
    Some((retry_info, violations))
}

/// Negative ones are the largest of all as they are written.
fn duration(message: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(message) {
        match field? {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = number,
            _ => {}
        }
    }
    let is_legal = seconds <= SECONDS_MAX && nanos < 1_000_000_000;
    is_legal.then(|| believed(Duration::new(seconds, nanos as u32)))
}

fn text(message: &[u8], wanted: u64) -> Box<str> {
    let text = String::from_utf8_lossy(bytes(message, wanted).unwrap_or_default());
    text.chars().take(TEXT_MAX).collect()
}

/// The last of the fields with this number, as protobuf has it; `None` too if the message is malformed.
fn bytes(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found = None;
    for field in Fields(message) {
        if let (number, Value::Bytes(bytes)) = field? {
            if number == wanted {
                found = Some(bytes);
            }
        }
    }
    found
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message; `None` at the end of one that is malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
