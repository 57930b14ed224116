#![doc = include_str!("docs/intro.md")]
#![cfg_attr(docsrs, feature(doc_auto_cfg))]
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

mod units;

mod decision;

pub mod algorithm;

pub mod clock;

mod sync;

mod limiter;

#[cfg(feature = "contract")]
pub mod contract;

#[cfg(feature = "futures")]
pub mod pace;

#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "http")]
pub mod http;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "rules")]
pub mod rules;

#[cfg(feature = "tokio")]
pub use clock::TokioClock;
pub use clock::{Clock, DefaultClock, ManualClock, SystemClock};
pub use decision::{Ask, Denied, Error, Policy, Reason, Snapshot, Standing};
pub use limiter::*;
#[cfg(feature = "tower")]
pub use tower::{LimitError, LimitLayer};
pub use units::{Cost, Name, NameError, Quota, QuotaError, QuotaTextError, Timestamp, Window};

#[cfg(all(doctest, feature = "axum", feature = "reqwest", feature = "tokio", feature = "tower"))]
#[doc = include_str!("../README.md")]
mod readme {}
