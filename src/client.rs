#![doc = include_str!("docs/client.md")]

mod guard;
mod guards;
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod origin;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry;
mod signal;
mod tells;
mod usage;

pub use guard::{AcquireGuarded, Guard, GuardBuilder, GuardError, GuardPart, Guarded};
pub use guards::Guards;
pub use layer::{GuardBody, GuardFuture, GuardLayer, GuardOf, GuardService};
pub use origin::Origin;
pub use retry::{Repeat, RetryBudget, RetryBudgetError};
pub use signal::{Budget, Profile, Scope, Signals, Unit, Violation};
pub use tells::Tells;
pub use usage::Usage;
