//! Spreading what threads share, so that they do not meet.

use super::thread_number;

/// A value on cache lines of its own: two, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Which of `all`, a power of two of them, is this thread's.
#[inline]
pub(crate) fn own<T>(all: &[T]) -> usize {
    // A division would cost as much as all else.
    if all.len() == 1 { 0 } else { thread_number() & (all.len() - 1) }
}

/// As many stripes as threads run at once.
#[cfg(not(tollgate_loom))]
pub(crate) fn one_for_each_core() -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    // Asked once: the answer is read from files.
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get))
}

/// Models say themselves how many there are.
#[cfg(tollgate_loom)]
pub(crate) fn one_for_each_core() -> usize {
    1
}
