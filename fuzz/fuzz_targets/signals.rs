//! No response makes the reading of it fail, wait or grow without bound.

#![no_main]

#[path = "../../tests/signal_bounds/mod.rs"]
mod signal_bounds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (status, headers, unix_now) = signal_bounds::response(bytes);
    signal_bounds::check(status, &headers, unix_now);
});
