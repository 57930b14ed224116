//! The waiters of one limit, in the order of their arrival.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use super::joint::Joint;
use super::options::Order;
use super::state::{LimitState, Load};
use crate::sync::{AtomicU64, Ordering};
use crate::types::Denied;
use crate::units::Timestamp;

/// The number of an ask in the order of arrival, over all limits of the process. A waiter is found by it.
pub(crate) type Rank = u64;

/// The rank of an ask that arrives now.
// One counter for all limits: an ask that waits for several keeps its position when it moves from one queue to another.
#[cfg(not(tollgate_loom))]
pub(super) fn next_rank() -> Rank {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: the number orders nothing but itself.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(tollgate_loom)]
pub(super) fn next_rank() -> Rank {
    loom::lazy_static! { static ref NEXT: AtomicU64 = AtomicU64::new(1); }
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One that waits.
pub(super) struct Waiter<S: LimitState> {
    pub(super) load: S::Load,
    pub(super) deadline: Option<Timestamp>,
    pub(super) who: Who,
}

/// Who is told of a grant.
pub(super) enum Who {
    /// A task, or a thread.
    One { waker: Option<Waker>, is_thread: bool },
    /// An ask to several limits. `awaited`: it tries all of them when it could be granted here; otherwise it keeps the
    /// head of this queue until another limit grants.
    Joint { joint: Arc<Joint>, awaited: bool },
}

/// What a waiter has been answered and has not yet heard.
pub(super) enum Answer<S: LimitState> {
    Granted(S::Grant, S::Load),
    Denied(Denied),
}

pub(super) struct Waiters<S: LimitState> {
    waiting: BTreeMap<Rank, Waiter<S>>,
    answered: BTreeMap<Rank, Answer<S>>,
    units: u64,
    /// Of these, the asks to several limits.
    joint: (usize, u64),
}

impl<S: LimitState> Waiters<S> {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), answered: BTreeMap::new(), units: 0, joint: (0, 0) }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn units(&self) -> u64 {
        self.units
    }

    /// The number and the units of the asks that wait for this limit alone.
    pub(super) fn alone(&self) -> (usize, u64) {
        (self.waiting.len() - self.joint.0, self.units.saturating_sub(self.joint.1))
    }

    /// The oldest ask that waits for this limit alone.
    pub(super) fn oldest_alone(&self) -> Option<Rank> {
        self.iter().find(|(_, waiter)| matches!(waiter.who, Who::One { .. })).map(|(rank, _)| rank)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The one that is served next.
    pub(super) fn next(&self, order: Order) -> Option<Rank> {
        let entry = match order {
            Order::OldestFirst => self.waiting.first_key_value(),
            Order::NewestFirst => self.waiting.last_key_value(),
        };
        entry.map(|(rank, _)| *rank)
    }

    /// An ask of this rank would be served before all that wait.
    pub(super) fn would_be_next(&self, rank: Rank, order: Order) -> bool {
        self.next(order).is_none_or(|next| match order {
            Order::OldestFirst => rank <= next,
            Order::NewestFirst => rank >= next,
        })
    }

    /// Those that wait, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, &Waiter<S>)> {
        self.waiting.iter().map(|(rank, waiter)| (*rank, waiter))
    }

    pub(super) fn get(&self, rank: Rank) -> Option<&Waiter<S>> {
        self.waiting.get(&rank)
    }

    pub(super) fn get_mut(&mut self, rank: Rank) -> Option<&mut Waiter<S>> {
        self.waiting.get_mut(&rank)
    }

    pub(super) fn push(&mut self, rank: Rank, waiter: Waiter<S>) {
        let units = waiter.load.units();
        self.units = self.units.saturating_add(units);
        if matches!(waiter.who, Who::Joint { .. }) {
            self.joint = (self.joint.0 + 1, self.joint.1.saturating_add(units));
        }
        self.waiting.insert(rank, waiter);
    }

    pub(super) fn remove(&mut self, rank: Rank) -> Option<Waiter<S>> {
        let waiter = self.waiting.remove(&rank)?;
        let units = waiter.load.units();
        let sum = |all: &mut dyn Iterator<Item = &Waiter<S>>| {
            all.fold(0_u64, |sum, waiter| sum.saturating_add(waiter.load.units()))
        };
        // Recounted once the sum has reached its bound: it does not tell then what was left out.
        self.units = match self.units {
            u64::MAX => sum(&mut self.waiting.values()),
            all => all - units,
        };
        if matches!(waiter.who, Who::Joint { .. }) {
            let is_joint = |waiter: &&Waiter<S>| matches!(waiter.who, Who::Joint { .. });
            self.joint = (
                self.joint.0 - 1,
                match self.joint.1 {
                    u64::MAX => sum(&mut self.waiting.values().filter(is_joint)),
                    all => all - units,
                },
            );
        }
        Some(waiter)
    }

    /// Keeps an answer until it is heard.
    pub(super) fn answer(&mut self, rank: Rank, answer: Answer<S>) {
        self.answered.insert(rank, answer);
    }

    pub(super) fn hear(&mut self, rank: Rank) -> Option<Answer<S>> {
        self.answered.remove(&rank)
    }
}
