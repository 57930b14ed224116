//! Telling clients where they stand, on whatever response there is.

use std::cmp::Reverse;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, Response, response};
use bytes::Bytes;

use super::answer::{Refusal, put_retry_after};
use super::fields::{FieldFormat, Told};
use super::layer::{Existing, Options};
use crate::clock::{Clock, DefaultClock};
use crate::decision::{Denied, Standing};
use crate::limiter::Limiter;

/// Where the limits of one request stood when it was decided.
pub(super) struct Tell(Vec<Standing>);

/// In the extensions of a response: what a layer has told, for a layer outside of it to tell together with its own.
#[derive(Clone)]
struct Shown {
    standings: Vec<Standing>,
    /// The fields that were there before, which are the handler's.
    own: HeaderMap,
}

impl Tell {
    pub(super) fn new<L: Limiter<Parts>>(limiter: &L, options: &Options, request: &Parts) -> Self {
        let mut standings = Vec::new();
        if options.format.is_some() {
            limiter.report(request, &mut |standing| {
                if standing.enforced || options.tells_shadow {
                    standings.push(standing.clone());
                }
            });
        }
        Self(standings)
    }

    /// The response to a request that is refused; `None` when the limiter could not decide.
    pub(super) fn refused(
        mut self,
        options: &Options,
        request: &Parts,
        denied: Option<&Denied>,
    ) -> Response<Bytes> {
        let refuser = denied.and_then(|denied| self.refuser(denied));
        if let (Some(refuser), Some(wait)) = (refuser, denied.and_then(Denied::retry_after)) {
            // What refused comes back when the client may: no earlier and no later.
            self.0[refuser].reset_after = Some(wait);
        }
        let violated = refuser.and_then(|refuser| Told::all(&self.0).into_iter().nth(refuser));
        let violated = violated.map(|told| told.name);
        let refusal = Refusal { request, denied, standings: &self.0, status: options.status, violated };
        let (response, existing) = match &options.answer {
            Some(answer) => (answer(&refusal), Existing::Keep),
            None => (refusal.response(), Existing::Override),
        };
        let retry_after = if refusal.is_grpc() { None } else { refusal.retry_after() };
        let (mut parts, body) = response.into_parts();
        put_retry_after(&mut parts.headers, retry_after);
        self.put_beside(existing, options, &mut parts);
        Response::from_parts(parts, body)
    }

    /// Which of the limits it was: of those of its name the one that is spent the most, for the longest time.
    fn refuser(&self, denied: &Denied) -> Option<usize> {
        let its = self.0.iter().enumerate().filter(|(_, standing)| standing.limit.as_ref() == denied.limit());
        its.max_by_key(|(_, standing)| (Reverse(standing.remaining), standing.reset_after)).map(|(n, _)| n)
    }

    /// Adds the fields to a response.
    pub(super) fn put(&mut self, options: &Options, response: &mut response::Parts) {
        self.put_beside(options.existing, options, response);
    }

    fn put_beside(&mut self, existing: Existing, options: &Options, response: &mut response::Parts) {
        let Some(format) = options.format.filter(|_| !self.0.is_empty()) else { return };
        let inner = response.extensions.remove::<Shown>();
        if let Some(inner) = &inner {
            self.0.splice(0..0, inner.standings.iter().cloned());
        }
        let clock = DefaultClock::default();
        let unix_now = match format {
            FieldFormat::XEpoch => clock.now().as_ns().saturating_add(clock.unix_ns()),
            _ => 0,
        };
        let fields = format.fields(&Told::all(&self.0), Duration::from_nanos(unix_now));
        let own = inner.map_or_else(|| the_same(&fields, &response.headers), |inner| inner.own);
        for name in fields.keys() {
            response.headers.remove(name);
            own.get_all(name).iter().for_each(|value| {
                response.headers.append(name, value.clone());
            });
        }
        merge(&mut response.headers, fields, existing, format.is_list());
        response.extensions.insert(Shown { standings: std::mem::take(&mut self.0), own });
    }
}

/// Those of `headers` that `fields` has too.
fn the_same(fields: &HeaderMap, headers: &HeaderMap) -> HeaderMap {
    let mut same = HeaderMap::new();
    for name in fields.keys() {
        headers.get_all(name).iter().for_each(|value| {
            same.append(name, value.clone());
        });
    }
    same
}

fn merge(headers: &mut HeaderMap, fields: HeaderMap, existing: Existing, is_list: bool) {
    let has_own = fields.keys().any(|name| headers.contains_key(name));
    for (name, value) in fields {
        let Some(name) = name else { continue };
        match existing {
            Existing::Append if is_list => {
                headers.append(name, value);
            }
            // Fields of one format belong together: ours beside the handler's would tell of nothing.
            Existing::Append | Existing::Keep if has_own => {}
            _ => {
                headers.insert(name, value);
            }
        }
    }
}
