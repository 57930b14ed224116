//! Refusals as gRPC clients read them: a status in the head of a reply that has no body.

use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::request::Parts;
use ::http::{HeaderValue, Method, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;

/// Status codes of gRPC that a limiter answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

/// When a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    After(Duration),
    /// No wait helps.
    Never,
    /// Nobody knows: the client backs off as it sees fit.
    Unknown,
}

/// The longest `google.protobuf.Duration`.
const DURATION_MAX: Duration = Duration::from_secs(315_576_000_000);

/// Whether the request is a gRPC call: a `POST` whose content type says so. Other methods can be cached by those between
/// who take a refusal, whose status is 200, for the answer.
pub(super) fn is_grpc(request: &Parts) -> bool {
    request.method == Method::POST
        && request.headers.get(CONTENT_TYPE).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b'-')))
        })
}

/// Longer ones first.
const CONTENT_TYPES: [&str; 8] = [
    "application/grpc-web-text+proto",
    "application/grpc-web-text",
    "application/grpc-web+proto",
    "application/grpc-web+json",
    "application/grpc-web",
    "application/grpc+proto",
    "application/grpc+json",
    "application/grpc",
];

/// The content type in which the client reads replies: of those there are, not in its own words.
fn content_type(request: &Parts) -> HeaderValue {
    let asked = request.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let known = CONTENT_TYPES.into_iter().find(|known| asked.starts_with(known.as_bytes()));
    HeaderValue::from_static(known.unwrap_or("application/grpc"))
}

/// A reply of trailers only.
pub(super) fn response(parts: &Parts, code: Code, message: &str, retry: Retry) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(parts));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("grpc-status", HeaderValue::from(code as u16));
    headers.insert("grpc-message", percent_encoded(message));
    let details = STANDARD_NO_PAD.encode(status_details(code, message, retry));
    if let Ok(details) = HeaderValue::try_from(details) {
        headers.insert("grpc-status-details-bin", details);
    }
    let pushback = match retry {
        Retry::After(wait) => Some(i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)),
        // A negative one: do not make the call again.
        Retry::Never => Some(-1),
        Retry::Unknown => None,
    };
    if let Some(pushback) = pushback {
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from(pushback));
    }
    response
}

/// The message as the protocol wants it: printable ASCII, all else and `%` escaped.
fn percent_encoded(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

/// `google.rpc.Status`, with `google.rpc.RetryInfo` in it where there is a wait.
pub(super) fn status_details(code: Code, message: &str, retry: Retry) -> Vec<u8> {
    let mut status = Vec::new();
    put_varint(&mut status, 1, code as u64);
    put_bytes(&mut status, 2, message.as_bytes());
    if let Retry::After(wait) = retry {
        let wait = wait.min(DURATION_MAX);
        let mut duration = Vec::new();
        put_varint(&mut duration, 1, wait.as_secs());
        put_varint(&mut duration, 2, u64::from(wait.subsec_nanos()));
        let mut info = Vec::new();
        put_bytes(&mut info, 1, &duration);
        let mut any = Vec::new();
        put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes(&mut any, 2, &info);
        put_bytes(&mut status, 3, &any);
    }
    status
}

/// A field of a number; protobuf leaves out zeros.
fn put_varint(message: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        message.push(field << 3);
        varint(message, value);
    }
}

fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of `grpc.json`'s vectors, which other systems' encoders wrote.
    #[test]
    fn details_are_what_protobuf_writes() {
        let said = |message, wait| {
            STANDARD_NO_PAD.encode(status_details(Code::ResourceExhausted, message, Retry::After(wait)))
        };
        assert_eq!(
            said("rate limited", Duration::from_millis(1500)),
            "CAgSDHJhdGUgbGltaXRlZBo2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoKCAgBEIDKte4B"
        );
        assert_eq!(
            said("x", Duration::ZERO),
            "CAgSAXgaLgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxICCgA"
        );
        assert_eq!(
            said("x", Duration::from_nanos(1)),
            "CAgSAXgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIQAQ"
        );
    }

    #[test]
    fn messages_cannot_break_out_of_their_header() {
        assert_eq!(percent_encoded("a\r\nb: 100%"), "a%0D%0Ab: 100%25");
    }
}
