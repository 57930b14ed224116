//! The interface between a keyed limit and what keeps the states of its keys.
//!
//! A [`Store`] answers for the keys whose state it has. Two implement it: the [`Table`](super::table::Table) keeps a word
//! a key and takes no lock; the [`Map`](super::map::Map) keeps a limiter a key, whatever limiter that is
//! ([`KeyLimiter`]). [`Keys`](super::keys::Keys) makes, moves and drops states.

use super::table::{Id, SlotGrant, Spent};
use super::tiers::Tier;
use crate::algorithm::{Grant, TokenBucket};
use crate::clock::Clock;
use crate::types::{Denied, LimitStatus, Snapshot};
use crate::units::Name;

/// What is asked of a key that may have a state. `None` and `false`: its state is not in this store.
pub(super) trait Store {
    /// What is granted.
    type Grant;

    /// Takes `units` if they are left. With `keep`, the key is not dropped while the grant is out.
    fn take(&self, id: Id, tier: Tier, units: u64, keep: bool) -> Taken<Self::Grant>;
    /// Tells if `units` are left.
    fn peek(&self, id: Id, units: u64) -> Option<Result<(), Denied>>;
    fn snapshot(&self, id: Id) -> Option<Snapshot>;
    fn status(&self, id: Id, visit: &mut dyn FnMut(&LimitStatus)) -> bool;
    /// Takes `units` whether they are left or not. `false` also if the store cannot say the debt.
    fn charge(&self, id: Id, units: u64) -> bool;
    /// Gives back `units` of what a slot granted, as far as time has not restored them.
    fn give_back(&self, id: Id, slot: SlotGrant, grant: Grant, units: u64) -> bool;
}

/// The outcome of [`Store::take`].
pub(super) enum Taken<G> {
    Granted(G),
    Denied(Denied),
    /// The state of the key is not here, or must be looked at under the lock of its shard.
    Elsewhere,
}

/// A limiter that can be kept for each key.
///
/// A rate limiter is one. A limit of another kind, such as one on concurrency, becomes keyed by implementing this; the
/// last two functions are for those whose states fit a slot.
pub(crate) trait KeyLimiter: Clone + Send + Sync + 'static {
    type Clock: Clock;
    /// What all keys have in common: a clock, a queue, a name.
    type Template: Clone + Send + Sync + 'static;
    /// What differs from key to key.
    type Quota: Clone + Send + 'static;
    type Permit;

    /// A limiter with a fresh state.
    fn new(template: &Self::Template, quota: &Self::Quota) -> Self;
    fn clock(template: &Self::Template) -> &Self::Clock;
    fn name(template: &Self::Template) -> Option<&Name>;

    fn take(&self, units: u64) -> Result<Self::Permit, Denied>;
    fn peek(&self, units: u64) -> Result<(), Denied>;
    fn snapshot(&self) -> Snapshot;
    fn status(&self, visit: &mut dyn FnMut(&LimitStatus));
    fn charge(&self, units: u64);
    /// Nobody holds or waits, and the state equals a fresh one.
    fn is_fresh(&self) -> bool;
    /// Goes on under another quota, unless a change of a higher number has come before: changes that are made outside of
    /// the lock under which they were decided may overtake each other.
    fn change(&self, number: u64, quota: Self::Quota);

    /// The token bucket that this quota is, if it is one.
    fn bucket(_template: &Self::Template, _quota: &Self::Quota) -> Option<TokenBucket> {
        None
    }
    /// A limiter that goes on from the state of a slot.
    fn resume(template: &Self::Template, quota: &Self::Quota, spent: &Spent) -> Self;
    /// Gives back `units` of what was granted before [`resume`](Self::resume).
    fn give_back(&self, grant: Grant, units: u64);
}
