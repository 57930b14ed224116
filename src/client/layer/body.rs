//! The body of a response, the permit it is read under, and the trailers that may end it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::CONTENT_TYPE;
use ::http::response::Parts;
use ::http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project::pin_project;

use crate::client::{Guarded, Signals};
use crate::clock::Clock;

/// The body of a guarded call's response. It holds the permit until it has ended, fails or is dropped.
#[pin_project]
pub struct GuardBody<B, P, C: Clock> {
    #[pin]
    body: B,
    held: Option<Held<P, C>>,
}

struct Held<P, C: Clock> {
    permit: Guarded<P, C>,
    /// What the head said of a reply whose trailers are to say how it went.
    head: Option<Signals>,
}

impl<B: HttpBody, P, C: Clock> GuardBody<B, P, C> {
    /// The body of what was answered so, by the server that the permit is for.
    pub(in crate::client) fn answered(
        body: B,
        parts: &Parts,
        mut permit: Guarded<P, C>,
        said: Signals,
    ) -> Self {
        if !body.is_end_stream() && awaits_trailers(parts) {
            return Self::held(body, permit, Some(said));
        }
        permit.observe(&said);
        Self::held(body, permit, None)
    }

    /// The body of what somebody else answered.
    #[cfg(feature = "reqwest")]
    pub(in crate::client) fn unanswered(body: B, permit: Guarded<P, C>) -> Self {
        Self::held(body, permit, None)
    }

    fn held(body: B, permit: Guarded<P, C>, head: Option<Signals>) -> Self {
        let held = if body.is_end_stream() { None } else { Some(Held { permit, head }) };
        Self { body, held }
    }
}

/// `true` if it is a gRPC reply that has not said yet how it went.
fn awaits_trailers(parts: &Parts) -> bool {
    let content_type = parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    is_grpc && parts.status.is_success() && !parts.headers.contains_key("grpc-status")
}

impl<B: HttpBody, P, C: Clock> HttpBody for GuardBody<B, P, C> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let trailers = match &frame {
            Some(Ok(frame)) => frame.trailers_ref(),
            _ => None,
        };
        if let (Some(Held { permit, head }), Some(trailers)) = (this.held.as_mut(), trailers) {
            if let Some(head) = head.take() {
                let mut said = Signals::read_trailers(trailers);
                (said.budgets, said.bucket) = (head.budgets, head.bucket);
                permit.observe(&said);
            }
        }
        if !matches!(frame, Some(Ok(_))) || trailers.is_some() || this.body.is_end_stream() {
            *this.held = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B, P, C: Clock> fmt::Debug for GuardBody<B, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardBody").field("holds_permit", &self.held.is_some()).finish_non_exhaustive()
    }
}
