//! The body of a response, and the permit it is sent under.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http_body::{Body as HttpBody, Frame, SizeHint};
use bytes::{Buf, Bytes};
use pin_project::pin_project;

use super::settle::Held;
use crate::limiter::Permit;

/// The body of a limited service's response: the service's own, or a refusal's.
///
/// The permit is held until the body has ended, fails or is dropped: what streams counts as in progress.
#[pin_project]
pub struct Body<B, P: Permit> {
    #[pin]
    content: Content<B>,
    held: Option<Held<P>>,
}

#[pin_project(project = ContentProjected)]
enum Content<B> {
    Served(#[pin] B),
    Refused(Option<Bytes>),
}

impl<B: HttpBody, P: Permit> Body<B, P> {
    pub(super) fn served(body: B, held: Option<Held<P>>) -> Self {
        // A server may drop a body that has nothing to send without looking at it, but need not do so soon.
        let held = held.filter(|_| !body.is_end_stream());
        Self { content: Content::Served(body), held }
    }

    pub(super) const fn plain(body: B) -> Self {
        Self { content: Content::Served(body), held: None }
    }

    pub(super) fn refused(bytes: Bytes) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self { content: Content::Refused(bytes), held: None }
    }
}

impl<B, P> HttpBody for Body<B, P>
where
    B: HttpBody,
    B::Data: From<Bytes>,
    P: Permit,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let frame = match this.content.as_mut().project() {
            ContentProjected::Refused(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes.into()))));
            }
            ContentProjected::Served(body) => ready!(body.poll_frame(cx)),
        };
        let sent = match &frame {
            Some(Ok(frame)) => frame.data_ref().map(Buf::remaining),
            _ => None,
        };
        if let (Some(held), Some(sent)) = (this.held.as_mut(), sent) {
            held.body_bytes += sent as u64;
        }
        let ended = match (&frame, this.content.project()) {
            (Some(Ok(_)), ContentProjected::Served(body)) => body.is_end_stream(),
            _ => true,
        };
        if ended {
            *this.held = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Served(body) => body.is_end_stream(),
            Content::Refused(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Served(body) => body.size_hint(),
            Content::Refused(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
        }
    }
}

impl<B, P: Permit> fmt::Debug for Body<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("holds_permit", &self.held.is_some()).finish_non_exhaustive()
    }
}
