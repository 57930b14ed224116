//! Streams and sinks at a limiter's pace.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, Stream};
use pin_project::pin_project;

use crate::limiter::Limiter;
use crate::types::{Ask, Error};

/// A stream or sink each of whose items waits for a permit. Made by [`PaceExt::paced`].
///
/// **At the limit** the stream is pending, or the sink not ready, until the item may go; nothing is buffered. The permit
/// is dropped as the item passes: a rate keeps its charge, so rates are what this is for.
///
/// Cancel-safe: an item is taken from the stream only once it may go.
#[pin_project]
#[must_use = "streams and sinks do nothing unless used"]
pub struct Paced<T, L: Limiter> {
    #[pin]
    inner: T,
    limiter: L,
    ask: Ask,
    #[pin]
    acquire: Option<L::Acquire>,
    permit: Option<L::Permit>,
}

/// Puts a limiter in front of a stream or a sink.
pub trait PaceExt: Sized {
    /// Passes items at the limiter's pace, each for `ask`.
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use tollgate::{Quota, TokenBucket, pace::PaceExt};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// let bucket = TokenBucket::new(Quota::per_second(1000))?;
    /// let sum = stream::iter(1..=3).paced(bucket, 1).fold(0, |sum, item| async move { sum + item.unwrap_or(0) }).await;
    /// assert_eq!(sum, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn paced<L: Limiter>(self, limiter: L, ask: impl Into<Ask>) -> Paced<Self, L> {
        Paced { inner: self, limiter, ask: ask.into(), acquire: None, permit: None }
    }
}

impl<T> PaceExt for T {}

impl<T, L: Limiter> Paced<T, L> {
    fn poll_permit(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error<L::Fault>>> {
        let mut this = self.project();
        if this.permit.is_none() {
            if this.acquire.is_none() {
                this.acquire.set(Some(this.limiter.acquire(&(), *this.ask)));
            }
            if let Some(acquire) = this.acquire.as_mut().as_pin_mut() {
                let answer = ready!(acquire.poll(cx));
                this.acquire.set(None);
                *this.permit = Some(answer?);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Ends when the stream within ends. A refusal is an item: the next poll asks again.
impl<T: Stream, L: Limiter> Stream for Paced<T, L> {
    type Item = Result<T::Item, Error<L::Fault>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(refusal) = ready!(self.as_mut().poll_permit(cx)) {
            return Poll::Ready(Some(Err(refusal)));
        }
        let this = self.project();
        let item = ready!(this.inner.poll_next(cx));
        // An end spends nothing.
        match (item, this.permit.take()) {
            (None, Some(permit)) => {
                crate::limiter::Permit::refund(permit);
                Poll::Ready(None)
            }
            (item, _) => Poll::Ready(item.map(Ok)),
        }
    }
}

/// A sink's own error, or the limiter's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the sink's error and the limiter's are all there is")]
pub enum PaceError<E, F> {
    /// The sink failed.
    Sink(E),
    /// The item may not go.
    Limiter(Error<F>),
}

impl<E: fmt::Display, F: fmt::Display> fmt::Display for PaceError<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(error) => error.fmt(f),
            Self::Limiter(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error, F: std::error::Error> std::error::Error for PaceError<E, F> {}

impl<I, T: Sink<I>, L: Limiter> Sink<I> for Paced<T, L> {
    type Error = PaceError<T::Error, L::Fault>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_permit(cx)).map_err(PaceError::Limiter)?;
        self.project().inner.poll_ready(cx).map_err(PaceError::Sink)
    }

    fn start_send(self: Pin<&mut Self>, item: I) -> Result<(), Self::Error> {
        let this = self.project();
        drop(this.permit.take());
        this.inner.start_send(item).map_err(PaceError::Sink)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.project().inner.poll_flush(cx).map_err(PaceError::Sink)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.project().inner.poll_close(cx).map_err(PaceError::Sink)
    }
}

impl<T: fmt::Debug, L: Limiter> fmt::Debug for Paced<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("inner", &self.inner).field("ask", &self.ask).finish_non_exhaustive()
    }
}
