//! Telling clients where they stand, on whatever response there is.

use std::cmp::Reverse;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, response};
use bytes::Bytes;
use smallvec::SmallVec;

use super::answer::{Refusal, put_retry_after};
use super::fields::Told;
use super::layer::{Existing, Options};
use crate::clock::{Clock, DefaultClock};
use crate::types::{Denied, LimitStatus, Reason};

/// Mostly there is one limit.
type Statuses = SmallVec<[LimitStatus; 1]>;

/// Where the limits of one request stood when it was decided.
pub(super) struct Tell {
    standings: Statuses,
    /// `true` if another layer will tell of its own limits on the same response.
    inside: bool,
}

/// In the extensions of a request that has come through a layer: whatever tells further in, tells it too.
#[derive(Clone, Copy)]
struct Outside;

/// In the extensions of a response: what a layer has told, for the layer outside of it to tell together with its own.
#[derive(Clone)]
struct Shown {
    standings: Statuses,
    /// What the format it told in calls its fields.
    names: &'static [HeaderName],
    /// The fields that were there before, which are the handler's.
    own: Vec<(HeaderName, HeaderValue)>,
}

impl Tell {
    pub(super) fn new(
        options: &Options,
        request: &mut Parts,
        report: impl FnOnce(&Parts, &mut dyn FnMut(&LimitStatus)),
    ) -> Self {
        let mut standings = Statuses::new();
        if options.format.is_none() {
            return Self { standings, inside: false };
        }
        report(request, &mut |standing| {
            if standing.enforced || options.tells_shadow {
                standings.push(standing.clone());
            }
        });
        Self { standings, inside: request.extensions.insert(Outside).is_some() }
    }

    /// The response to a request that is refused; `None` when the limiter could not decide.
    pub(super) fn refused(
        mut self,
        options: &Options,
        request: &Parts,
        denied: Option<&Denied>,
    ) -> Response<Bytes> {
        let refuser = denied.and_then(|denied| self.refuser(denied));
        let wait = denied.and_then(Denied::retry_after);
        if let (Some(refuser), Some(wait)) = (refuser, wait) {
            // What refused comes back when the client may: no earlier and no later.
            self.standings[refuser].reset_after = Some(wait);
        }
        let violated = refuser.and_then(|refuser| Told::all(&self.standings[..=refuser]).pop());
        let violated = violated.map(|told| told.name);
        let standings = &self.standings;
        let refusal = Refusal { request, denied, standings, status: options.status, wait, violated };
        let (response, existing) = match &options.answer {
            Some(answer) => {
                let mut response = answer(&refusal);
                let retry_after = if refusal.is_grpc() { None } else { wait };
                put_retry_after(response.headers_mut(), retry_after);
                (response, Existing::Keep)
            }
            // It has none of them.
            None => (refusal.response_and_wait(), Existing::Append),
        };
        if self.standings.is_empty() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        self.put_beside(existing, options, &mut parts);
        Response::from_parts(parts, body)
    }

    /// Which of the limits it was: of those of its name the one that is spent the most, for the longest time.
    fn refuser(&self, denied: &Denied) -> Option<usize> {
        // Where the limit was never asked, its name may still be another's: none, say.
        if matches!(denied.reason(), Reason::NoKey | Reason::NoPeer | Reason::TooManyKeys) {
            return None;
        }
        let all = self.standings.iter().enumerate();
        let its = all.filter(|(_, standing)| standing.enforced && standing.limit.as_ref() == denied.limit());
        its.max_by_key(|(_, standing)| (Reverse(standing.remaining), standing.reset_after)).map(|(n, _)| n)
    }

    /// Adds the fields to a response.
    pub(super) fn put(self, options: &Options, response: &mut response::Parts) {
        self.put_beside(options.existing, options, response);
    }

    fn put_beside(mut self, existing: Existing, options: &Options, response: &mut response::Parts) {
        let Some(format) = options.format.filter(|_| !self.standings.is_empty()) else { return };
        let (names, headers) = (format.names(), &mut response.headers);
        // The handler's fields matter to a layer outside of this one, and where ours may not be beside them.
        let own_matter = self.inside || existing == Existing::Keep || !format.is_list();
        let own = match response.extensions.remove::<Shown>() {
            None if !own_matter => Vec::new(),
            None => all_of(names, headers),
            // In another format the inner layer's fields stay beside ours, and are not the handler's.
            Some(inner) if inner.names != names => {
                self.standings.insert_many(0, inner.standings);
                all_of(names, headers)
            }
            Some(inner) => {
                // What the inner layer has told is told again, with ours.
                names.iter().for_each(|name| drop(headers.remove(name)));
                for (name, value) in &inner.own {
                    headers.append(name, value.clone());
                }
                self.standings.insert_many(0, inner.standings);
                inner.own
            }
        };
        // Fields without names belong together: ours beside the handler's would tell of nothing.
        let may_tell = match existing {
            Existing::Append => own.is_empty() || format.is_list(),
            Existing::Keep => own.is_empty(),
            Existing::Override => true,
        };
        if may_tell {
            if existing == Existing::Override {
                names.iter().for_each(|name| drop(headers.remove(name)));
            }
            format.each(&self.standings, unix_now, &mut |name, value| {
                headers.append(name, value);
            });
        }
        if self.inside {
            response.extensions.insert(Shown { standings: self.standings, names, own });
        }
    }
}

fn all_of(names: &[HeaderName], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let values =
        |name| headers.get_all(name).iter().map(move |value| (HeaderName::clone(name), value.clone()));
    names.iter().flat_map(values).collect()
}

fn unix_now() -> Duration {
    DefaultClock::default().unix_now()
}
