#![doc = include_str!("docs/client.md")]

mod guard;
mod guards;
mod retry;
mod signal;
mod tells;
mod usage;

pub use guard::{AcquireGuarded, Guard, GuardBuilder, GuardError, Guarded};
pub use guards::Guards;
pub use retry::{Repeat, RetryBudget, RetryBudgetError};
pub use signal::{Budget, Profile, Scope, Signals, Unit, Violation};
pub use tells::Tells;
pub use usage::Usage;
