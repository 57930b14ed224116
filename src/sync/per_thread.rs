//! What keeps threads apart: a number for each, cache lines of their own, and how many run at once.

use std::cell::Cell;

use super::{AtomicUsize, Ordering, thread_local_const};

/// A value on cache lines of its own: two, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// The index of the one of `all`, a power of two of them, that this thread uses.
#[inline]
pub(crate) fn own<T>(all: &[T]) -> usize {
    // A division would cost as much as all else.
    if all.len() == 1 { 0 } else { thread_number() & (all.len() - 1) }
}

/// A small number for this thread, given when it is first asked for.
#[inline]
fn thread_number() -> usize {
    const NONE: usize = usize::MAX;
    thread_local_const! { static NUMBER: Cell<usize> = Cell::new(NONE); }
    NUMBER.with(|number| match number.get() {
        NONE => {
            number.set(next_thread_number());
            number.get()
        }
        known => known,
    })
}

#[cold]
fn next_thread_number() -> usize {
    #[cfg(not(tollgate_loom))]
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    #[cfg(tollgate_loom)]
    loom::lazy_static! { static ref NEXT: AtomicUsize = AtomicUsize::new(0); }
    // Relaxed: only the numbers differ.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The number of threads that run at once.
#[cfg(not(tollgate_loom))]
pub(crate) fn cores() -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    // Asked once: the answer is read from files.
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get))
}

/// Models choose their threads themselves.
#[cfg(tollgate_loom)]
pub(crate) fn cores() -> usize {
    1
}
