//! Waits and resets: numbers, durations, and the dates that servers write.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use ::http::HeaderMap;
use jiff::civil;
use jiff::fmt::{strtime, temporal};

use super::text::{Number, lines};
use super::{Profile, Signals};

/// What no count of seconds from now is as large as: it is a time since the Unix epoch.
const UNIX_FROM: u64 = 1_000_000_000;
/// What no count of seconds at all is as large as: it is in milliseconds.
const UNIX_MS_FROM: u64 = 1_000_000_000_000;

/// When the response was made, since the Unix epoch. Times it tells of are counted from there, so that the local clock
/// need not be right.
pub(super) fn made_at(headers: &HeaderMap, unix_now: Duration) -> Duration {
    lines(headers, "date").find_map(http_date).unwrap_or(unix_now)
}

/// How long the server asks to stay away. Of several lines the longest counts, of several fields the first.
pub(super) fn wait(headers: &HeaderMap, made_at: Duration) -> Option<Duration> {
    let longest = |name, read: &dyn Fn(&str) -> Option<Duration>| lines(headers, name).filter_map(read).max();
    let ms = |text: &str| Number::parse(text).map(Number::milliseconds);
    let after = |text: &str| retry_after(text, made_at);
    let found = longest("retry-after-ms", &ms)
        .or_else(|| longest("x-ms-retry-after-ms", &ms))
        .or_else(|| longest("retry-after", &after))
        .or_else(|| longest("x-ratelimit-retry-after", &after));
    found.map(believed)
}

fn retry_after(text: &str, made_at: Duration) -> Option<Duration> {
    let number = Number::parse(text).map(Number::seconds);
    number.or_else(|| duration(text)).or_else(|| Some(http_date(text)?.saturating_sub(made_at)))
}

/// When a budget has more: in whatever form.
pub(super) fn reset(text: &str, made_at: Duration, profile: Profile) -> Option<Duration> {
    let after = match (Number::parse(text), profile) {
        (Some(number), Profile::ResetMs) => number.milliseconds(),
        (Some(number), Profile::Auto) => match number.whole {
            UNIX_MS_FROM.. => number.milliseconds().saturating_sub(made_at),
            UNIX_FROM.. => number.seconds().saturating_sub(made_at),
            _ => number.seconds(),
        },
        (None, _) => duration(text).or_else(|| {
            let moment = rfc3339(text).or_else(|| http_date(text)).or_else(|| javascript_date(text));
            Some(moment?.saturating_sub(made_at))
        })?,
    };
    Some(believed(after))
}

/// Seconds from now, whatever the number.
pub(super) fn reset_after(text: &str) -> Option<Duration> {
    Number::parse(text).map(|number| believed(number.seconds()))
}

pub(super) fn believed(wait: Duration) -> Duration {
    wait.min(Signals::WAIT_MAX)
}

/// `6m0s`, `12ms`, `2m59.56s`: as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    let starts_so = text.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let found: jiff::SignedDuration = Some(text).filter(|_| starts_so)?.parse().ok()?;
    Duration::try_from(found).ok()
}

/// The three forms of HTTP.
fn http_date(text: &str) -> Option<Duration> {
    // A leap second is legal, and the second after the one before it.
    let leap = text.contains("23:59:60 ");
    let text = if leap { Cow::Owned(text.replacen(":60 ", ":59 ", 1)) } else { Cow::Borrowed(text) };
    let date = httpdate::parse_http_date(&text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date + Duration::from_secs(leap.into()))
}

/// `2026-03-01T14:00:01.250+02:00`, or without the seconds.
fn rfc3339(text: &str) -> Option<Duration> {
    let pieces = temporal::Pieces::parse(text).ok()?;
    // Not by way of a timestamp, which ends a day before the year 9999 does.
    let local = civil::DateTime::from_parts(pieces.date(), pieces.time()?);
    let offset = jiff::SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let since = local.duration_since(civil::date(1970, 1, 1).at(0, 0, 0, 0)).checked_sub(offset)?;
    Some(Duration::try_from(since).unwrap_or_default())
}

/// `Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)`.
fn javascript_date(text: &str) -> Option<Duration> {
    let (text, _zone) = text.split_once(" (").unwrap_or((text, ""));
    let date = strtime::parse("%a %b %d %Y %H:%M:%S GMT%z", text).ok()?.to_timestamp().ok()?;
    Some(Duration::try_from(date.as_duration()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_772_366_400); // 2026-03-01T12:00:00Z

    fn ms(text: &str) -> Option<u128> {
        reset(text, NOW, Profile::Auto).map(|after| after.as_millis())
    }

    #[test]
    fn resets_are_read_in_every_form() {
        for (text, after) in [
            ("0", 0),
            ("999999999", 999_999_999_000),
            ("1772366430", 30_000),
            ("1772366430.5", 30_500),
            ("1772366430500", 30_500),
            ("1000000000", 0),
            ("7.66s", 7_660),
            ("1h2m3s", 3_723_000),
            ("2026-03-01T12:05Z", 300_000),
            ("2026-03-01T12:00:30+00:00", 30_000),
            ("1960-01-01T00:00:00Z", 0),
            ("Sun, 01 Mar 2026 12:01:00 GMT", 60_000),
            ("Sunday, 01-Mar-26 12:01:00 GMT", 60_000),
            ("Sun Mar  1 12:01:00 2026", 60_000),
            ("Sun Mar 01 2026 14:00:02 GMT+0200 (Some Time)", 2_000),
        ] {
            assert_eq!(ms(text), Some(after), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "soon",
            "-5s",
            "+5",
            "ms",
            "5 minutes ago",
            "2026-03-01T12:05",
            "2026-13-01T12:05:00Z",
            "1e9",
            "12:00",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }
}
