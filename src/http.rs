#![doc = include_str!("docs/http.md")]
//!
//! # The map
//!
//! | file | what it is about |
//! |---|---|
//! | `layer`, `service`, `future`, `body` | the way of a request; the permit goes from one to the next |
//! | `settle` | what it turns out to have cost |
//! | `key`, `client_ip`, `peer` | what it is counted by |
//! | `answer`, `problem`, `grpc` | what it is answered when it is refused |
//! | `fields`, `tell` | what clients are told on every response |
//! | `memo` | what of it is the same as before |

mod answer;
mod body;
mod client_ip;
mod fields;
mod future;
mod grpc;
mod key;
mod layer;
mod memo;
mod peer;
mod problem;
mod service;
mod settle;
mod tell;

pub use answer::Refusal;
pub use body::Body;
pub use client_ip::{Client, ClientIp, ClientTextError, Source, TrustError};
pub use fields::{FieldFormat, FieldItem, FieldsError, Told, parse_items};
pub use future::{HttpFuture, Shadowed};
pub use key::{Extension, Fingerprint, Header, Host, Method, Path, Route, RoutePattern, Secret};
pub use layer::{Existing, HttpLayer};
pub use peer::{Peer, PeerAddr};
pub use service::HttpLimit;
pub use settle::{Charge, Settle};
