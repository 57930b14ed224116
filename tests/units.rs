//! Values: how quotas read, print and fail.

use std::time::Duration;
use tollgate::{FixedWindow, Quota, QuotaError, SlidingWindow, TokenBucket, Window};

#[test]
fn texts_read_and_print() {
    let minute = Duration::from_secs(60);
    for (text, quota, printed) in [
        ("50/s", Quota::per_second(50), "50/s"),
        ("100/min burst 20", Quota::per(100, minute).burst(20), "100/min burst 20"),
        ("5 per 30s", Quota::per(5, Duration::from_secs(30)), "5 per 30s"),
        ("1000/day", Quota::per_day(1000), "1000/day"),
        ("1_000 / hour", Quota::per_hour(1000), "1000/hour"),
        (
            " 3 per 250 ms  initial 0 ",
            Quota::per(3, Duration::from_millis(250)).initial(0),
            "3 per 250ms initial 0",
        ),
        ("20 once", Quota::once(20), "20 once"),
        ("7/week", Quota::per(7, 7 * 1440 * minute), "7/week"),
        ("1 per 90s", Quota::every(Duration::from_secs(90)), "1 per 90s"),
        ("9/us", Quota::per(9, Duration::from_micros(1)), "9/us"),
    ] {
        assert_eq!(text.parse(), Ok(quota), "{text}");
        assert_eq!(quota.to_string(), printed);
        assert_eq!(printed.parse(), Ok(quota));
    }
}

#[test]
fn errors_quote_what_was_wrong() {
    for (text, quoted) in [
        ("", "write it like"),
        ("fifty/s", "\"fifty\""),
        ("-5/s", "\"-5\""),
        ("50", "write it like"),
        ("50/fortnight", "\"fortnight\""),
        ("50/s bursts 5", "\"bursts\""),
        ("50/s burst five", "\"five\""),
        ("50/s burst 5 burst 6", "stands twice"),
        ("99999999999999999999/s", "99999999999999999999"),
        ("0/s", "admits nothing"),
        ("5/s burst 0", "admits nothing"),
        ("5/s initial 6", "at most 5"),
        ("5 per 0s", "at least one nanosecond"),
        ("5 per 40000 weeks", "584 years"),
    ] {
        let error = text.parse::<Quota>().expect_err(text).to_string();
        assert!(error.contains(quoted), "{text:?} said: {error}");
        assert!(error.contains(text), "{text:?} is not quoted: {error}");
    }
}

#[test]
fn bad_quotas_do_not_start() {
    let zero = Duration::ZERO;
    assert_eq!(TokenBucket::new(Quota::per_second(0)).unwrap_err(), QuotaError::ZeroCount);
    assert_eq!(TokenBucket::new(Quota::per_second(1).burst(0)).unwrap_err(), QuotaError::ZeroBurst);
    assert_eq!(TokenBucket::new(Quota::every(zero)).unwrap_err(), QuotaError::ZeroPeriod);
    assert_eq!(SlidingWindow::new(Quota::once(5)).unwrap_err(), QuotaError::WindowWithoutPeriod);
    assert_eq!(FixedWindow::new(Quota::once(5)).unwrap_err(), QuotaError::WindowWithoutPeriod);
    assert_eq!(TokenBucket::all([]).build().unwrap_err(), QuotaError::NoQuota);
    let error = SlidingWindow::new(Quota::per_second(5).burst(9)).unwrap_err();
    assert_eq!(error, QuotaError::BurstOnWindow { limit: 5, burst: 9 });
    let error = SlidingWindow::builder(Quota::per_second(5)).segments(0).build().unwrap_err();
    assert_eq!(error, QuotaError::Segments { segments: 0, most: 1_000_000_000 });
    assert!(matches!(Window::new(zero), Err(QuotaError::ZeroPeriod)));
    assert!(matches!(Window::new(Duration::MAX), Err(QuotaError::PeriodTooLong)));
    assert_eq!(TokenBucket::new(Quota::per(1, Duration::MAX)).unwrap_err(), QuotaError::PeriodTooLong);
}

#[test]
fn a_burst_too_large_says_the_largest() {
    let quota = Quota::per(u64::MAX - 58, Duration::from_nanos(u64::MAX - 82));
    let Err(QuotaError::BurstTooLarge { most, .. }) = TokenBucket::new(quota) else {
        panic!("no tick fits both");
    };
    assert!(most > 1_000_000_000, "{most}");
    assert!(TokenBucket::new(quota.burst(most)).is_ok());
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let bucket = TokenBucket::new(Quota::per_second(5)).unwrap();
    assert!(bucket.set_quota(Quota::per_second(0)).is_err());
    assert_eq!(bucket.snapshot().capacity, 5);
    let joint = TokenBucket::all([Quota::per_second(5), Quota::per_hour(9)]).build().unwrap();
    let error = joint.set_quotas([Quota::per_second(1)]).unwrap_err();
    assert_eq!(error, QuotaError::QuotaCount { built: 2, given: 1 });
    assert_eq!(joint.snapshot().capacity, 5);
}

#[cfg(feature = "serde")]
#[test]
fn configuration_reads_and_writes_the_text() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Config {
        quota: Quota,
        window: Window,
        cost: tollgate::Cost,
    }
    let text = r#"{"quota":"100/min burst 20","window":"30s","cost":3}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    assert_eq!(config.quota, Quota::per_minute(100).burst(20));
    assert_eq!(config.window.length(), Duration::from_secs(30));
    assert_eq!(serde_json::to_string(&config).unwrap(), text);
    let error = serde_json::from_str::<Quota>("\"100/moon\"").unwrap_err().to_string();
    assert!(error.contains("moon"), "{error}");
}
