//! The calendar is stepped while the process runs: this test binary has a `clock_gettime` of its own, which the
//! standard library calls, and which moves the calendar by as much as a test says.
#![cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_env = "gnu",
    feature = "http",
    feature = "client"
))]
#![allow(unsafe_code, reason = "a function of the C library is replaced")]

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tollgate::algorithm::Anchor;
use tollgate::client::{Guard, Profile, Signals};
use tollgate::http::FieldFormat;
use tollgate::{Clock, FixedWindow, LimitLayer, Limiter, Quota, SystemClock, TokenBucket, Unlimited};
use tower::{Layer, Service, service_fn};

const HOURS: i64 = 3_600;

static AHEAD_S: AtomicI64 = AtomicI64::new(0);

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: i32, out: *mut Timespec) -> i32 {
    const SYS_CLOCK_GETTIME: i64 = 228;
    const CLOCK_REALTIME: i32 = 0;
    // SAFETY: the kernel writes a `Timespec` to where the caller wants it, as the function that this one replaces does.
    let code = unsafe { syscall(SYS_CLOCK_GETTIME, i64::from(clock), out) };
    if code == 0 && clock == CLOCK_REALTIME {
        // SAFETY: the caller's pointer is valid: the kernel has just written to it.
        unsafe { (*out).seconds += AHEAD_S.load(Ordering::SeqCst) };
    }
    code as i32
}

/// Steps the calendar by so many seconds, for one test at a time.
struct Calendar(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Calendar {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(&self, seconds: i64) {
        AHEAD_S.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Drop for Calendar {
    fn drop(&mut self) {
        AHEAD_S.store(0, Ordering::SeqCst);
    }
}

#[test]
fn the_system_clock_reads_the_calendar_at_each_call() {
    let calendar = Calendar::new();
    let (clock, minute) = (SystemClock::default(), Duration::from_secs(60));
    let (before, now) = (clock.unix_now(), clock.now());
    for step in [10 * HOURS, -30 * HOURS, 20 * HOURS] {
        calendar.step(step);
        let ahead = AHEAD_S.load(Ordering::SeqCst);
        let moved = clock.unix_now().as_secs_f64() - before.as_secs_f64();
        assert!((moved - ahead as f64).abs() < 60.0, "{moved} s after a step of {ahead} s");
    }
    assert!(clock.now().since(now) < minute, "the limiter's clock is not stepped");
}

#[test]
fn an_http_response_tells_its_reset_by_the_stepped_calendar() {
    let calendar = Calendar::new();
    let limit = TokenBucket::new(Quota::per_hour(1)).unwrap();
    let hello = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(String::from("hello")))));
    let mut service = LimitLayer::http(limit).fields(FieldFormat::XEpoch).layer(hello);
    let mut reset_in = || {
        let mut call = pin!(service.call(Request::new(())));
        let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("no response")
        };
        let at: i64 = response.headers()["x-ratelimit-reset"].to_str().unwrap().parse().unwrap();
        at - SystemClock::default().unix_now().as_secs() as i64
    };
    for step in [0, 10 * HOURS, -10 * HOURS] {
        calendar.step(step);
        let reset_in = reset_in();
        assert!((HOURS - 60..=HOURS + 1).contains(&reset_in), "{reset_in} s after a step of {step} s");
    }
}

/// An absolute reset 30 s ahead, from an upstream that sends no `Date`.
#[test]
fn a_guard_reads_an_absolute_reset_by_the_stepped_calendar() {
    let calendar = Calendar::new();
    for step in [0, 10 * HOURS, -10 * HOURS] {
        calendar.step(step);
        let guard = Guard::builder(Unlimited).jitter_percent(0).build().unwrap();
        let reset = (SystemClock::default().unix_now().as_secs() + 30).to_string();
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-limit", HeaderValue::from_static("100"));
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
        headers.insert("x-ratelimit-reset", HeaderValue::from_str(&reset).unwrap());
        let said = Signals::read(Profile::default(), StatusCode::OK, &headers, guard.unix());
        guard.observe(&said);
        let denied = Limiter::<()>::try_acquire(&guard, &(), 1.into()).map(drop).unwrap_err();
        let wait = denied.retry_after().unwrap().as_secs();
        assert!(wait <= 31, "held for {wait} s after a step of {step} s");
    }
}

/// A window of a day that has begun keeps its edge; the one that is made after the step has the new one.
#[test]
fn a_window_anchored_to_the_epoch_has_its_edge_by_the_stepped_calendar_once_it_is_reset() {
    let calendar = Calendar::new();
    let day = || FixedWindow::builder(Quota::per_day(1)).anchored(Anchor::Epoch).build().unwrap();
    let spent = || {
        let window = day();
        window.check(1).unwrap();
        window
    };
    let to_edge = |window: &FixedWindow| window.ready_in(1).unwrap().as_secs() as i64;
    let to_midnight = || 24 * HOURS - SystemClock::default().unix_now().as_secs() as i64 % (24 * HOURS);
    let is_near = |a: i64, b: i64| (a - b).rem_euclid(24 * HOURS) < 60 || (b - a).rem_euclid(24 * HOURS) < 60;
    let window = spent();
    let edge = to_edge(&window);
    assert!(is_near(edge, to_midnight()));
    calendar.step(10 * HOURS);
    assert!(is_near(to_edge(&window), edge), "a window that has begun keeps its edge");
    assert!(is_near(to_edge(&spent()), to_midnight()), "a new one has the edge of the calendar as it is");
    window.reset();
    window.check(1).unwrap();
    assert!(is_near(to_edge(&window), to_midnight()), "and so has one that was reset");
}
