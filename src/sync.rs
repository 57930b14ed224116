//! The one switch between the standard library's primitives and loom's.

#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(tollgate_loom))]
use std::sync::{Mutex as Inner, MutexGuard};

#[cfg(tollgate_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(tollgate_loom)]
use loom::sync::{Mutex as Inner, MutexGuard};

/// What keys are hashed with: the standard library's SipHash-1-3 under a random secret, so that nobody can choose keys
/// that meet in one place. Models, which run again and again, do without the secret.
#[cfg(not(tollgate_loom))]
pub(crate) use std::hash::RandomState;
#[cfg(tollgate_loom)]
pub(crate) type RandomState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

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
