//! Samples: each runs an operation for about the given time and returns nanoseconds an operation.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

/// Operations between two readings of the clock.
const PORTION: u64 = 1_024;

/// Repeats `op` on this thread and counts the processor time.
pub fn one_thread<R>(mut op: impl FnMut() -> R) -> impl FnMut(Duration) -> f64 {
    move |span| {
        let (start, processor, mut done) = (Instant::now(), ThreadTime::now(), 0);
        while start.elapsed() < span {
            for _ in 0..PORTION {
                black_box(op());
            }
            done += PORTION;
        }
        processor.elapsed().as_nanos() as f64 / done as f64
    }
}

/// Repeats `op` as [`one_thread`] does, and checks that it both admits and refuses.
pub fn mixed(mut op: impl FnMut() -> bool) -> impl FnMut(Duration) -> f64 {
    move |span| {
        let (mut admitted, mut refused) = (0u64, 0u64);
        let nanos = one_thread(|| if op() { admitted += 1 } else { refused += 1 })(span);
        assert!(admitted > 0 && refused > admitted, "not at the limit: {admitted} admitted, {refused} refused");
        nanos
    }
}

/// Makes a subject anew with `make`, and counts only the processor time of `count` operations on it.
pub fn fresh<S>(count: u64, make: impl Fn() -> S, op: impl Fn(&S, u64)) -> impl FnMut(Duration) -> f64 {
    move |span| {
        let (start, mut spent, mut done) = (Instant::now(), Duration::ZERO, 0);
        while done == 0 || start.elapsed() < span {
            let subject = make();
            let processor = ThreadTime::now();
            for number in 0..count {
                op(&subject, number);
            }
            spent += processor.elapsed();
            done += count;
        }
        spent.as_nanos() as f64 / done as f64
    }
}

/// The output of a future that does not wait.
#[inline]
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}
