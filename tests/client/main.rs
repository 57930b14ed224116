//! The guard of an upstream: what it promises, and simulated upstreams that put it to the test.
#![cfg(not(tollgate_loom))]

mod cancel;
mod converge;
mod guard;
mod hostile;
mod keyed;
#[cfg(feature = "contract")]
mod laws;
mod llm;
mod real;
mod retry;
mod strategy;
mod sync;
mod upstream;
