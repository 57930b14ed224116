#![doc = include_str!("docs/client.md")]

mod signal;

pub use signal::{Budget, Profile, Scope, Signals, Unit, Violation};
