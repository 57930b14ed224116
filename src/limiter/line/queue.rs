//! Who waits, in order: a linked list in a slab. Every operation is O(1), and places are used again.

use std::task::Waker;

use super::Order;
use super::gate::{Gate, Load};
use crate::decision::Denied;
use crate::units::Timestamp;

/// Of those who have not been in the line before: behind all who have.
pub(super) const NEW: u64 = u64::MAX;

/// A place in the slab. The generation tells a later tenant of the same place from this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    index: usize,
    generation: u64,
}

/// One who waits, or has been answered and not yet heard it.
pub(super) struct Waiter<G: Gate> {
    pub(super) load: G::Load,
    pub(super) deadline: Option<Timestamp>,
    pub(super) waker: Option<Waker>,
    pub(super) is_thread: bool,
    pub(super) answer: Option<Answer<G>>,
    /// Who comes back stands at the front, among those who come back by this.
    pub(super) rank: u64,
    /// Towards the front and the back of the line.
    links: (Option<usize>, Option<usize>),
}

pub(super) enum Answer<G: Gate> {
    Granted(G::Grant),
    Denied(Denied),
}

impl<G: Gate> Waiter<G> {
    pub(super) fn new(
        load: G::Load,
        deadline: Option<Timestamp>,
        waker: Waker,
        is_thread: bool,
        rank: u64,
    ) -> Self {
        Self { load, deadline, waker: Some(waker), is_thread, answer: None, rank, links: (None, None) }
    }
}

enum Place<G: Gate> {
    Free(Option<usize>),
    Taken(Waiter<G>),
}

pub(super) struct Queue<G: Gate> {
    places: Vec<(u64, Place<G>)>,
    free: Option<usize>,
    /// Oldest and newest of those who wait.
    ends: Option<(usize, usize)>,
    /// The last of those who came back.
    last_back: Option<usize>,
    len: usize,
    units: u64,
    /// Places taken by those who wait or have not yet heard.
    taken: usize,
}

impl<G: Gate> Queue<G> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: None, ends: None, last_back: None, len: 0, units: 0, taken: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn units(&self) -> u64 {
        self.units
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one to be served next.
    pub(super) fn next(&self, order: Order) -> Option<Ticket> {
        let (oldest, newest) = self.ends?;
        let index = if order == Order::OldestFirst { oldest } else { newest };
        Some(Ticket { index, generation: self.places[index].0 })
    }

    pub(super) fn oldest(&self) -> Option<Ticket> {
        self.next(Order::OldestFirst)
    }

    /// Those who wait, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiter<G>)> {
        let mut at = self.ends.map(|(oldest, _)| oldest);
        std::iter::from_fn(move || {
            let index = at?;
            let ticket = Ticket { index, generation: self.places[index].0 };
            let waiter = self.get(ticket)?;
            at = waiter.links.1;
            Some((ticket, waiter))
        })
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Waiter<G>> {
        match self.places.get(ticket.index) {
            Some((generation, Place::Taken(waiter))) if *generation == ticket.generation => Some(waiter),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Waiter<G>> {
        match self.places.get_mut(ticket.index) {
            Some((generation, Place::Taken(waiter))) if *generation == ticket.generation => Some(waiter),
            _ => None,
        }
    }

    fn at(&mut self, index: usize) -> Option<&mut Waiter<G>> {
        match &mut self.places[index].1 {
            Place::Taken(waiter) => Some(waiter),
            Place::Free(_) => None,
        }
    }

    /// Between whom one of this rank stands: they mostly come back in order.
    fn gap(&mut self, rank: u64) -> (Option<usize>, Option<usize>) {
        let Some((oldest, newest)) = self.ends else { return (None, None) };
        if rank == NEW {
            return (Some(newest), None);
        }
        let (mut before, mut after) = (self.last_back, None);
        if let Some(last) = before.and_then(|last| self.at(last)) {
            after = last.links.1;
        }
        while let Some(index) = before {
            match self.at(index) {
                Some(waiter) if waiter.rank > rank => (before, after) = (waiter.links.0, before),
                _ => break,
            }
        }
        (before, after.or_else(|| before.is_none().then_some(oldest)))
    }

    /// Puts `waiter` at the back, or in its place among those who come back.
    pub(super) fn push(&mut self, mut waiter: Waiter<G>) -> Ticket {
        self.len += 1;
        self.taken += 1;
        self.units += waiter.load.units();
        let rank = waiter.rank;
        let (before, after) = self.gap(rank);
        waiter.links = (before, after);
        let index = match self.free {
            Some(index) => {
                if let Place::Free(next) = self.places[index].1 {
                    self.free = next;
                }
                self.places[index].0 += 1;
                self.places[index].1 = Place::Taken(waiter);
                index
            }
            None => {
                self.places.push((0, Place::Taken(waiter)));
                self.places.len() - 1
            }
        };
        if let Some(before) = before.and_then(|before| self.at(before)) {
            before.links.1 = Some(index);
        }
        if let Some(after) = after.and_then(|after| self.at(after)) {
            after.links.0 = Some(index);
        }
        let (oldest, newest) = self.ends.unwrap_or((index, index));
        self.ends = Some((before.map_or(index, |_| oldest), if after.is_none() { index } else { newest }));
        if rank != NEW && before == self.last_back {
            self.last_back = Some(index);
        }
        Ticket { index, generation: self.places[index].0 }
    }

    /// Takes a waiter out of the line with its answer; it stays in the slab until it has heard. Returns whom to wake.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer<G>) -> Option<Waker> {
        self.unlink(ticket);
        let waiter = self.get_mut(ticket)?;
        waiter.answer = Some(answer);
        waiter.waker.take()
    }

    /// Takes a waiter out of the slab, and out of the line if it still waits.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter<G>> {
        if self.get(ticket)?.answer.is_none() {
            self.unlink(ticket);
        }
        let freed = Place::Free(self.free);
        let place = std::mem::replace(&mut self.places[ticket.index].1, freed);
        self.free = Some(ticket.index);
        self.taken -= 1;
        self.release_memory();
        match place {
            Place::Taken(waiter) => Some(waiter),
            Place::Free(_) => None,
        }
    }

    fn unlink(&mut self, ticket: Ticket) {
        let Some(waiter) = self.get(ticket) else { return };
        let ((before, after), units) = (waiter.links, waiter.load.units());
        if self.last_back == Some(ticket.index) {
            self.last_back = before;
        }
        self.len -= 1;
        self.units -= units;
        if let Some(before) = before {
            if let Some(waiter) = self.at(before) {
                waiter.links.1 = after;
            }
        }
        if let Some(after) = after {
            if let Some(waiter) = self.at(after) {
                waiter.links.0 = before;
            }
        }
        self.ends = match (self.ends, before, after) {
            (_, None, None) | (None, ..) => None,
            (Some((oldest, _)), Some(before), None) => Some((oldest, before)),
            (Some((_, newest)), None, Some(after)) => Some((after, newest)),
            (ends, ..) => ends,
        };
    }

    /// A line that once was long does not keep its memory.
    fn release_memory(&mut self) {
        const KEPT: usize = 64;
        if self.taken == 0 && self.places.len() > KEPT {
            self.places = Vec::new();
            self.free = None;
        }
    }
}
