//! A reader of gRPC replies that knows nothing of what writes them: by the specifications (gRPC A6, `google.rpc.Status`,
//! the protobuf encoding), as strict as a client ought to be.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

/// The longest wait that `google.protobuf.Duration` may hold, in seconds: about 10,000 years.
const SECONDS_MAX: u64 = 315_576_000_000;

/// What a reply says about another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// `grpc-status`.
    pub(crate) code: Option<i32>,
    /// The wait of a `RetryInfo` in the details, if it is a legal one.
    pub(crate) retry_info: Option<Duration>,
    /// `grpc-retry-pushback-ms`; `Err` if it is there and makes no sense.
    pub(crate) pushback: Option<Result<i32, String>>,
    /// Subject and description of each violation of a `QuotaFailure` in the details.
    pub(crate) violations: Vec<(String, String)>,
}

impl Reply {
    pub(crate) fn read(trailers: &HeaderMap) -> Self {
        let text = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let details = text("grpc-status-details-bin").and_then(decoded).unwrap_or_default();
        Self {
            code: text("grpc-status").and_then(|code| code.parse().ok()),
            pushback: text("grpc-retry-pushback-ms").map(|ms| whole_number(ms).ok_or_else(|| ms.to_owned())),
            ..Self::of_details(&details)
        }
    }

    /// What is in a `google.rpc.Status` alone. Nothing, if any of it is malformed.
    pub(crate) fn of_details(status: &[u8]) -> Self {
        let mut reply = Self { code: None, retry_info: None, pushback: None, violations: Vec::new() };
        for any in messages(status, 3).unwrap_or_default() {
            let (Some(kind), Some(message)) = (last_bytes(any, 1), last_bytes(any, 2)) else { continue };
            if kind.ends_with(b"/google.rpc.RetryInfo") {
                reply.retry_info = last_bytes(message, 1).and_then(duration);
            } else if kind.ends_with(b"/google.rpc.QuotaFailure") {
                let text = |from, field| String::from_utf8_lossy(last_bytes(from, field).unwrap_or_default());
                let all = messages(message, 1).unwrap_or_default().into_iter();
                reply.violations =
                    all.map(|of| (text(of, 1).into_owned(), text(of, 2).into_owned())).collect();
            }
        }
        reply
    }

    /// What the reply asks to wait: the pushback, which is the instruction of gRPC itself, before the details.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match &self.pushback {
            Some(Ok(ms)) => u64::try_from(*ms).ok().map(Duration::from_millis),
            Some(Err(_)) => None,
            None => self.retry_info,
        }
    }

    pub(crate) fn wait_ms(&self) -> Option<u64> {
        self.wait().map(|wait| wait.as_nanos().div_ceil(1_000_000) as u64)
    }

    /// `UNAVAILABLE` tells of a limit if it tells of a wait.
    pub(crate) fn is_throttled(&self) -> bool {
        self.code == Some(8) || (self.code == Some(14) && self.wait().is_some())
    }

    pub(crate) fn may_retry(&self) -> bool {
        self.is_throttled() && !matches!(self.pushback, Some(Err(_) | Ok(..=-1)))
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config).decode(text).ok()
}

/// `parse` alone would take a plus sign.
fn whole_number(text: &str) -> Option<i32> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn duration(message: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for (field, value) in fields(message)? {
        match (field, value) {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // Negative ones are the largest of all as they are written.
    (seconds <= SECONDS_MAX && nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos as u32))
}

// Protobuf.

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn messages(message: &[u8], wanted: u64) -> Option<Vec<&[u8]>> {
    let of_bytes = |(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    };
    Some(fields(message)?.into_iter().filter_map(of_bytes).collect())
}

fn last_bytes(message: &[u8], wanted: u64) -> Option<&[u8]> {
    messages(message, wanted)?.pop()
}

fn fields(mut rest: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = varint(&mut rest)?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        all.push((tag >> 3, value));
    }
    Some(all)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
