//! Telling clients where they stand, on whatever response there is.

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
struct Shown(Vec<Standing>);

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
        if let Some(denied) = denied.filter(|denied| denied.retry_after().is_some()) {
            // What refused comes back when the client may: no earlier and no later.
            let refuser = self.0.iter_mut().filter(|standing| standing.limit.as_ref() == denied.limit());
            if let Some(refuser) = refuser.min_by_key(|standing| standing.remaining) {
                refuser.reset_after = denied.retry_after();
            }
        }
        let status = options.status;
        let refusal = Refusal { request, denied, standings: &self.0, status };
        let response = match &options.answer {
            Some(answer) => answer(&refusal),
            None => refusal.response(),
        };
        let retry_after = if refusal.is_grpc() { None } else { refusal.retry_after() };
        let (mut parts, body) = response.into_parts();
        put_retry_after(&mut parts.headers, retry_after);
        self.put(options, &mut parts);
        Response::from_parts(parts, body)
    }

    /// Adds the fields to a response.
    pub(super) fn put(&mut self, options: &Options, response: &mut response::Parts) {
        let Some(format) = options.format.filter(|_| !self.0.is_empty()) else { return };
        let inner = response.extensions.remove::<Shown>();
        let existing = match &inner {
            // What stands there is told again, with ours.
            Some(_) => Existing::Override,
            None => options.existing,
        };
        if let Some(Shown(inner)) = inner {
            self.0.splice(0..0, inner);
        }
        let clock = DefaultClock::default();
        let unix_now = match format {
            FieldFormat::XEpoch => clock.now().as_ns().saturating_add(clock.unix_ns()),
            _ => 0,
        };
        let fields = format.fields(&Told::all(&self.0), Duration::from_nanos(unix_now));
        merge(&mut response.headers, fields, existing, format.is_list());
        response.extensions.insert(Shown(std::mem::take(&mut self.0)));
    }
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
