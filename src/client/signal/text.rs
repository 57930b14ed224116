//! Header fields as text, and numbers in it. Only plain digits are numbers: `parse` would take signs, exponents, NaN.

use std::time::Duration;

use ::http::HeaderMap;

/// A line that is longer says nothing: the longest that means something is a list of policies.
const LINE_MAX: usize = 4096;
/// All the lines of a list, likewise.
const LIST_MAX: usize = 8192;

/// The lines of a field that are text, without the blanks around them.
pub(super) fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    headers.get_all(name).iter().filter_map(|line| text(line.as_bytes()))
}

pub(super) fn text(line: &[u8]) -> Option<&str> {
    let line = Some(line).filter(|line| line.len() <= LINE_MAX)?;
    // `trim` would take more than a field's blanks.
    Some(std::str::from_utf8(line).ok()?.trim_matches([' ', '\t']))
}

/// All lines of a list, as one.
pub(super) fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        if !all.is_empty() {
            all.push(b',');
        }
        if all.len() + line.len() > LIST_MAX {
            return None;
        }
        all.extend_from_slice(line.as_bytes());
    }
    Some(all).filter(|all| !all.is_empty())
}

/// A number without a sign. One that is too large is the largest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) whole: u64,
    /// Rounded up: it may be a whole one.
    billionths: u32,
}

impl Number {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let digits = |part: &str| {
            part.bytes().fold(0_u64, |number, digit| {
                number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
            })
        };
        let (near, beyond) = fraction.split_at(fraction.len().min(9));
        let scale = 10_u32.pow(9 - near.len() as u32);
        let rounded_up = u32::from(beyond.bytes().any(|digit| digit != b'0'));
        Some(Self { whole: digits(whole), billionths: digits(near) as u32 * scale + rounded_up })
    }

    pub(super) fn seconds(self) -> Duration {
        Duration::from_secs(self.whole).saturating_add(Duration::from_nanos(self.billionths.into()))
    }

    pub(super) fn milliseconds(self) -> Duration {
        let rest = Duration::from_nanos(self.billionths.div_ceil(1000).into());
        Duration::from_millis(self.whole).saturating_add(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digits_are_numbers() {
        for text in
            ["", "+5", "-1", "1e3", "0x10", "NaN", "inf", ".5", "5.", "1.2.3", "1,5", " 5", "५", "1_000"]
        {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_round_up_and_never_overflow() {
        let seconds = |text| Number::parse(text).unwrap().seconds();
        assert_eq!(seconds("1.5"), Duration::from_millis(1500));
        assert_eq!(seconds("0.0000000001"), Duration::from_nanos(1));
        assert_eq!(seconds("1.9999999999"), Duration::from_secs(2));
        assert_eq!(
            seconds(&format!("{}.9999999999", "9".repeat(40))),
            Duration::from_secs(u64::MAX) + Duration::from_nanos(999_999_999)
        );
        let ms = |text| Number::parse(text).unwrap().milliseconds();
        assert_eq!(ms("1200"), Duration::from_millis(1200));
        assert_eq!(ms("0.0000001"), Duration::from_nanos(1));
        assert_eq!(ms(&"9".repeat(40)), Duration::from_millis(u64::MAX));
    }
}
