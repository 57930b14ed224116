use std::sync::Arc;

use metrics::{SharedString, counter, gauge, histogram};

use super::Outcome;
use crate::types::{KeyStats, Reason};
use crate::units::Name;

fn label(name: &Name) -> SharedString {
    SharedString::from_shared(Arc::clone(name.shared()))
}

const fn reason_label(reason: Reason) -> &'static str {
    match reason {
        Reason::Exhausted => "exhausted",
        Reason::MustAwait => "must_await",
        Reason::QueueFull => "queue_full",
        Reason::ExceedsCapacity => "exceeds_capacity",
        Reason::Closed => "closed",
        Reason::Paused => "paused",
        Reason::Evicted => "evicted",
        Reason::TooManyKeys => "too_many_keys",
        Reason::NoTimer => "no_timer",
        Reason::NoKey => "no_key",
        Reason::NoPeer => "no_peer",
        Reason::AskedTooLong => "asked_too_long",
    }
}

pub(super) fn count(name: &Name, outcome: &Outcome<'_>) {
    match outcome {
        Outcome::Admitted { near, waited, shadowed } => {
            counter!("tollgate_admitted_total", "limit" => label(name)).increment(1);
            if *near {
                counter!("tollgate_near_total", "limit" => label(name)).increment(1);
            }
            if shadowed.is_some() {
                counter!("tollgate_shadow_refused_total", "limit" => label(name)).increment(1);
            }
            if let Some(waited) = waited {
                histogram!("tollgate_wait_seconds", "limit" => label(name)).record(waited.as_secs_f64());
            }
        }
        Outcome::Refused(denied) => {
            let reason = reason_label(denied.reason());
            counter!("tollgate_refused_total", "limit" => label(name), "reason" => reason).increment(1);
        }
        Outcome::Fault => counter!("tollgate_faults_total", "limit" => label(name)).increment(1),
    }
}

pub(super) fn keys(name: &Name, stats: KeyStats) {
    gauge!("tollgate_keys", "limit" => label(name)).set(stats.keys as f64);
    counter!("tollgate_keys_evicted_total", "limit" => label(name)).absolute(stats.evicted);
    counter!("tollgate_keys_refused_total", "limit" => label(name)).absolute(stats.refused);
}
