#![doc = include_str!("docs/intro.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

mod units;

mod types;

pub mod algorithm;

pub mod clock;

mod sync;

mod core;

mod limiter;

mod combine;

#[cfg(feature = "contract")]
pub mod contract;

#[cfg(feature = "futures")]
pub mod pace;

#[cfg(feature = "tower")]
mod service;

#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "http")]
pub mod http;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "rules")]
pub mod rules;

pub use clock::{Clock, DefaultClock, ManualClock, SystemClock};
pub use combine::*;
pub use limiter::*;
#[cfg(feature = "tower")]
pub use tower::{LimitError, LimitLayer};
pub use types::{Ask, Denied, Error, KeyStats, LimitStatus, Policy, Reason, Snapshot};
pub use units::{Cost, Name, NameError, Quota, QuotaError, QuotaTextError, Timestamp, Window};

#[cfg(all(doctest, feature = "axum", feature = "reqwest", feature = "tokio", feature = "tower"))]
#[doc = include_str!("../README.md")]
mod readme {}
