//! Memory that is never given back, so that it can be held without being counted.

/// Things that last as long as the process.
#[cfg(not(tollgate_loom))]
#[derive(Debug)]
pub(crate) struct Lasting<T: 'static>(&'static [T]);

/// One of them.
#[cfg(not(tollgate_loom))]
#[derive(Debug)]
pub(crate) struct LastingOne<T: 'static>(&'static T);

#[cfg(not(tollgate_loom))]
impl<T> Lasting<T> {
    pub(crate) fn new(all: impl Iterator<Item = T>) -> Self {
        Self(Box::leak(all.collect()))
    }

    #[inline]
    pub(crate) fn one(&self, index: usize) -> LastingOne<T> {
        LastingOne(&self.0[index])
    }
}

/// In a model they last as long as they are held: the next run of it cannot use those of the last.
#[cfg(tollgate_loom)]
#[derive(Debug)]
pub(crate) struct Lasting<T: 'static>(std::sync::Arc<[T]>);

#[cfg(tollgate_loom)]
#[derive(Debug)]
pub(crate) struct LastingOne<T: 'static>(std::sync::Arc<[T]>, usize);

#[cfg(tollgate_loom)]
impl<T> Lasting<T> {
    pub(crate) fn new(all: impl Iterator<Item = T>) -> Self {
        Self(all.collect())
    }

    pub(crate) fn one(&self, index: usize) -> LastingOne<T> {
        LastingOne(std::sync::Arc::clone(&self.0), index)
    }
}

#[cfg(not(tollgate_loom))]
impl<T> Clone for Lasting<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

#[cfg(tollgate_loom)]
impl<T> Clone for Lasting<T> {
    fn clone(&self) -> Self {
        Self(std::sync::Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Lasting<T> {
    type Target = [T];

    #[cfg(not(tollgate_loom))]
    #[inline]
    fn deref(&self) -> &[T] {
        self.0
    }

    #[cfg(tollgate_loom)]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> std::ops::Deref for LastingOne<T> {
    type Target = T;

    #[cfg(not(tollgate_loom))]
    #[inline]
    fn deref(&self) -> &T {
        self.0
    }

    #[cfg(tollgate_loom)]
    fn deref(&self) -> &T {
        &self.0[self.1]
    }
}
