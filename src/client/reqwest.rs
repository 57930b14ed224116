//! Calls of reqwest's under a guard.

use std::borrow::Cow;
use std::time::Duration;

use ::http::{Response as HttpResponse, Uri};
use ::reqwest::{Body, Request, RequestBuilder, Response, ResponseBuilderExt, Url};

use super::layer::{GuardBody, GuardOf};
use super::{Guard, Guarded, Guards, Origin, Profile, Signals, Tells};
use crate::clock::Clock;
use crate::limiter::{Compose, Limiter};
use crate::tower::LimitError;
use crate::types::{Ask, Error};

/// What sending under a guard comes to: the response, a refusal, or the client's own error.
type Sent<F> = Result<Response, LimitError<::reqwest::Error, F>>;

impl<L, C: Clock> Guard<L, C>
where
    L: Compose + Clone,
    L::Permit: Send + Sync + 'static,
{
    /// Sends the request once it may go, and observes the response. The permit is held until the body of the response has
    /// ended or is dropped.
    ///
    /// All that is sent through one guard is one upstream's, wherever redirects lead. A redirect that the client follows
    /// by itself is not counted again.
    ///
    /// ```
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::client::Guard;
    /// use tollgate::{Quota, SlidingWindow};
    ///
    /// let guard = Guard::new(SlidingWindow::new(Quota::per_minute(100))?);
    /// let client = reqwest::Client::new();
    /// let page = guard.send(client.get("https://example.com/")).await?.text().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The guard refused, or the client failed.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it leaves the line and the request is not sent. Dropped later it keeps what it was charged,
    /// frees what it held, and nothing is learnt from it.
    pub async fn send(&self, request: RequestBuilder) -> Sent<L::Fault> {
        send(self, request).await
    }
}

impl<L, C: Clock> Guards<Origin, L, C>
where
    L: Compose + Clone + Send + Sync + 'static,
    L::Permit: Send + Sync + 'static,
{
    /// Sends the request once the guard of its origin lets it, and observes the response for the origin that it came from
    /// in the end: where redirects lead elsewhere, another server's word does not slow this one down.
    ///
    /// # Errors
    /// The guard refused, or there are as many guards as there may be, or the client failed.
    ///
    /// # Cancel safety
    /// As [`Guard::send`].
    pub async fn send(&self, request: RequestBuilder) -> Sent<L::Fault> {
        send(self, request).await
    }
}

async fn send<G: GuardOf>(guards: &G, request: RequestBuilder) -> Sent<<G::Limits as Limiter>::Fault>
where
    <G::Limits as Limiter>::Permit: Send + Sync + 'static,
{
    let (client, request) = request.build_split();
    let request = request.map_err(LimitError::Service)?;
    guarded(guards, request, |request| client.execute(request)).await
}

pub(super) async fn guarded<G, F, E>(
    guards: &G,
    request: Request,
    call: impl FnOnce(Request) -> F,
) -> Result<Response, LimitError<E, <G::Limits as Limiter>::Fault>>
where
    G: GuardOf,
    <G::Limits as Limiter>::Permit: Send + Sync + 'static,
    F: Future<Output = Result<Response, E>>,
{
    let asked = uri(request.url());
    let guard = guards.guard_of(&asked).map_err(LimitError::Denied)?;
    let permit = guard.acquire(Ask::ONE).await.map_err(|refusal| match refusal {
        Error::Denied(denied) => LimitError::Denied(denied),
        Error::Fault(fault) => LimitError::Fault(fault),
    })?;
    let response = call(request).await.map_err(LimitError::Service)?;
    Ok(observed(guards, &guard, &asked, permit, response))
}

fn observed<G: GuardOf>(
    guards: &G,
    guard: &Guard<G::Limits, G::Clock>,
    asked: &Uri,
    permit: Guarded<<G::Limits as Limiter>::Permit, G::Clock>,
    response: Response,
) -> Response
where
    <G::Limits as Limiter>::Permit: Send + Sync + 'static,
{
    let url = response.url().clone();
    let answered = uri(&url);
    let said = Signals::read(guard.profile(), response.status(), response.headers(), guard.unix());
    let (mut parts, body) = HttpResponse::<Body>::from(response).into_parts();
    let body = if guards.are_one(asked, &answered) {
        GuardBody::answered(body, &parts, permit, said)
    } else {
        // Nothing is held against a server that there is no guard for any more.
        if let Ok(other) = guards.guard_of(&answered) {
            other.observe(&said);
        }
        GuardBody::unanswered(body, permit)
    };
    // The URL is lost on the way through the types of `http`, unless it is put there so.
    if let Ok(with_url) = HttpResponse::builder().url(url).body(()) {
        parts.extensions.extend(with_url.into_parts().0.extensions);
    }
    Response::from(HttpResponse::from_parts(parts, Body::wrap(body)))
}

/// What no request can be sent to is no URL of HTTP either.
fn uri(url: &Url) -> Uri {
    url.as_str().parse().unwrap_or_default()
}

impl Tells for Response {
    fn signals(&self, profile: Profile, unix_now: Duration) -> Option<Cow<'_, Signals>> {
        Some(Cow::Owned(Signals::read(profile, self.status(), self.headers(), unix_now)))
    }
}
