//! The mechanism behind every limit in this process: one state, its fast path, its queue, its timers, one future.
//!
//! * [`limit`] owns all of it: the lock, and the loop that serves the queue ([`Limit::drive`]).
//! * [`state`] is the interface that a rate, a number of slots or a guard implements: take, give back, when next.
//! * [`fast_path`] keeps the state in atomics while nobody waits, so that a decision takes no lock.
//! * [`waiting`] decides under the lock; [`queue`] keeps the waiters in order; [`timers`] sets timers; [`wake`] wakes.
//! * [`acquire`] is the future of an ask to one limit.
//! * [`joint`] lets an ask to several limits wait for all of them; [`member`] is a limit as it sees it.
//!
//! A decision: [`Limit::take`] reads the clock and asks the fast path, which answers with an [`Outcome`]. If the fast
//! path is closed (somebody waits, or the state needs the lock), the same question goes to [`waiting`] under the lock.
//! An ask that may wait joins the queue. Whatever changes the limit (a timer that fires, a release, a cancellation, a
//! new quota) drives the queue: it grants from the front, wakes exactly those, and sets the timers for the next event.
//! A waiter need not be polled for the queue to move on, so one that is leaked costs its own grant only.
//!
//! Names, options and public documentation live in `limiter`; nothing in here is public.

mod acquire;
pub(crate) mod fast_path;
mod joint;
mod limit;
mod member;
mod options;
mod queue;
mod state;
mod timers;
mod waiting;
mod wake;

pub(crate) use acquire::{Acquire, thread_waker};
pub(crate) use joint::Joint;
pub(crate) use limit::Limit;
pub use member::Members;
pub(crate) use member::Ticket;
pub(crate) use options::{Named, Options};
pub use options::{Order, Queue};
pub(crate) use queue::Rank;
#[cfg(feature = "client")]
pub(crate) use state::Load;
pub(crate) use state::{Charge, Later, LimitState, Outcome};
