//! The one switch between the standard library's primitives and loom's.

pub(crate) mod per_thread;

#[cfg(not(tollgate_loom))]
use std::sync::Mutex as Inner;
#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::MutexGuard;
#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::OnceLock;
#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(tollgate_loom))]
pub(crate) use std::thread::yield_now;

/// A thread-local made at compile time.
#[cfg(not(tollgate_loom))]
macro_rules! thread_local_const {
    (static $name:ident: $type:ty = $init:expr;) => {
        std::thread_local! { static $name: $type = const { $init } }
    };
}
#[cfg(tollgate_loom)]
macro_rules! thread_local_const {
    (static $name:ident: $type:ty = $init:expr;) => {
        loom::thread_local! { static $name: $type = $init; }
    };
}
pub(crate) use thread_local_const;

/// Stays away from what is shared for a moment.
#[cfg(not(tollgate_loom))]
#[cold]
pub(crate) fn spin(times: u32) {
    (0..times).for_each(|_| std::hint::spin_loop());
}

#[cfg(tollgate_loom)]
pub(crate) fn spin(_times: u32) {
    yield_now();
}

#[cfg(tollgate_loom)]
use loom::sync::Mutex as Inner;
#[cfg(tollgate_loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(tollgate_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(tollgate_loom)]
pub(crate) use loom::thread::yield_now;

/// What keys are hashed with: the standard library's SipHash-1-3 under a random secret, so that nobody can choose keys
/// that meet in one place. Models, which run again and again, do without the secret.
#[cfg(not(tollgate_loom))]
pub(crate) use std::hash::RandomState;
#[cfg(tollgate_loom)]
pub(crate) type RandomState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// The standard library's, with what loom must see of it: whoever finds the value also sees how it was made.
#[cfg(tollgate_loom)]
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_set: AtomicBool,
    value: std::sync::OnceLock<T>,
}

#[cfg(tollgate_loom)]
impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_set.load(Ordering::Acquire) {
            let value = self.value.get_or_init(make);
            self.is_set.store(true, Ordering::Release);
            return value;
        }
        self.value.get_or_init(|| unreachable!("it is set"))
    }
}

/// A mutex that a panic elsewhere does not poison: what it guards is consistent whenever foreign code may run.
#[derive(Debug)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The guard, if it can be had now.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}
