//! What happens under the lock. Nothing here wakes, sleeps or reads a clock.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;
use std::time::Duration;

use super::gate::{Gate, Later, Load};
use super::queue::{Answer, NEW, Queue, Ticket, Waiter};
use super::timers::Timers;
use super::{Line, Order};
use crate::algorithm::When;
use crate::clock::{Clock, Timer};
use crate::decision::{Denied, Reason, Snapshot};
use crate::units::{Name, Timestamp};

/// How many are woken with one hold of the lock.
const BATCH: usize = 128;

pub(super) struct Inner<G: Gate, T> {
    pub(super) gate: G,
    pub(super) line: Line,
    pub(super) name: Option<Name>,
    pub(super) queue: Queue<G>,
    pub(super) door_open: bool,
    pub(super) closed: bool,
    pub(super) paused: bool,
    /// The latest time seen: the clock does not run backwards in here.
    pub(super) latest: Timestamp,
    /// Asks that do not wait for ever, by when they stop.
    deadlines: BTreeSet<(Timestamp, Ticket)>,
    /// Threads that wait. The first of them sleeps only until the next event and moves the line then.
    threads: VecDeque<Ticket>,
    /// When the line has to be moved next, as last told to timers and to the first thread.
    pub(super) next_event: Option<Timestamp>,
    leader_changed: bool,
    pub(super) timers: Timers<T>,
}

/// One look at the line by a newcomer.
pub(super) enum Entry<G: Gate> {
    Granted(G::Grant),
    Denied(Denied),
    Queued { ticket: Ticket, must_drive: bool },
}

/// What a waiter hears that asks again.
pub(super) enum Heard<G: Gate> {
    Answered(Option<Answer<G>>),
    Waits { timed: bool },
    NeedsWaker,
}

impl<G: Gate, T: Timer> Inner<G, T> {
    pub(super) fn new(gate: G, line: Line, name: Option<Name>, now: Timestamp) -> Self {
        Self {
            gate,
            line,
            name,
            queue: Queue::new(),
            door_open: false,
            closed: false,
            paused: false,
            latest: now,
            deadlines: BTreeSet::new(),
            threads: VecDeque::new(),
            next_event: None,
            leader_changed: false,
            timers: Timers::new(),
        }
    }

    /// Whether nobody needs the lock to be asked for.
    pub(super) const fn may_open(&self) -> bool {
        self.queue.is_empty() && !self.closed && !self.paused
    }

    fn denied(&self, reason: Reason, wait: Option<Duration>) -> Denied {
        Denied::new(reason).after(wait).by(self.name.clone())
    }

    /// When `load` could go if it joined the line now, at the front or at the back.
    fn later(&mut self, now: Timestamp, load: G::Load, at_front: bool) -> Later {
        if at_front || self.queue.is_empty() || self.line.order == Order::NewestFirst {
            return self.gate.behind(now, 0, &mut std::iter::empty(), load);
        }
        let ahead = self.queue.units();
        let mut each = self.queue.iter().map(|(_, waiter)| waiter.load);
        self.gate.behind(now, ahead, &mut each, load)
    }

    fn wait(&mut self, now: Timestamp, load: G::Load) -> Option<Duration> {
        match self.later(now, load, false) {
            Later::At(at) if !self.paused => Some(at.since(now)),
            _ => None,
        }
    }

    /// Why the ask cannot even wait, if so.
    fn refuse_always(&mut self, now: Timestamp, load: G::Load) -> Option<Reason> {
        if self.closed { Some(Reason::Closed) } else { self.gate.refuses(now, load) }
    }

    /// Takes the load if it may go now. The reason tells whether waiting would help.
    fn take(&mut self, now: Timestamp, load: G::Load) -> Result<(), Reason> {
        if let Some(reason) = self.refuse_always(now, load) {
            return Err(reason);
        }
        if load.units() == 0 {
            return Ok(());
        }
        if self.paused {
            return Err(Reason::Paused);
        }
        let first = self.queue.is_empty() || self.line.order == Order::NewestFirst;
        if first && self.gate.take(now, load).is_ok() { Ok(()) } else { Err(Reason::Exhausted) }
    }

    /// The refusal for `reason`, with the wait that would help where one is known.
    fn tell(&mut self, now: Timestamp, load: G::Load, reason: Reason) -> Denied {
        let may_tell = matches!(reason, Reason::Exhausted | Reason::LineFull | Reason::AskedTooLong);
        let wait = if may_tell { self.wait(now, load) } else { None };
        self.denied(reason, wait)
    }

    /// Takes the load, or tells when it could go.
    pub(super) fn take_or_tell(&mut self, now: Timestamp, load: G::Load) -> Result<G::Grant, Denied> {
        match self.take(now, load) {
            Ok(()) => Ok(self.gate.grant(now, load)),
            Err(reason) => Err(self.tell(now, load, reason)),
        }
    }

    /// When the ask could go, without asking for it.
    pub(super) fn ready_in(&mut self, now: Timestamp, load: G::Load) -> Result<Duration, Denied> {
        match self.refuse_always(now, load) {
            Some(reason) => return Err(self.tell(now, load, reason)),
            None if load.units() == 0 => return Ok(Duration::ZERO),
            None if self.paused => return Err(self.denied(Reason::Paused, None)),
            None => {}
        }
        self.wait(now, load).ok_or_else(|| self.denied(Reason::Exhausted, None))
    }

    /// Takes what is asked for, or joins the line: then the newcomer is taken too.
    pub(super) fn enter<C: Clock<Timer = T>>(
        &mut self,
        now: Timestamp,
        newcomer: &mut Option<Waiter<G>>,
        clock: &C,
        wakes: &mut Vec<Waker>,
    ) -> Entry<G> {
        let Some(Waiter { load, deadline, is_thread, rank, .. }) = *newcomer else {
            unreachable!("a newcomer enters once")
        };
        let reason = match self.take(now, load) {
            Ok(()) => return Entry::Granted(self.gate.grant(now, load)),
            Err(reason) => reason,
        };
        if let Some(denied) = self.refuse_to_wait(now, load, deadline, rank, reason) {
            return Entry::Denied(denied);
        }
        let mut new_timer = false;
        if (G::TIMED || deadline.is_some()) && !is_thread {
            match self.timers.make(clock) {
                Some(new) => new_timer = new,
                None => {
                    let wait = self.wait(now, load);
                    return Entry::Denied(self.denied(Reason::NoTimer, wait));
                }
            }
        }
        self.evict_for(load.units(), wakes);
        let deadline = deadline.map(|deadline| self.grace(deadline));
        let Some(mut waiter) = newcomer.take() else { unreachable!("a newcomer enters once") };
        waiter.deadline = deadline;
        let ticket = self.queue.push(waiter);
        self.gate.joined(now, load);
        if rank != NEW {
            self.gate.left(); // what was found behind it
        }
        let serves_first = self.queue.next(self.line.order) == Some(ticket);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ticket));
        }
        if is_thread {
            self.threads.push_back(ticket);
        }
        let first_deadline = self.deadlines.first().is_some_and(|(_, first)| *first == ticket);
        Entry::Queued { ticket, must_drive: serves_first || first_deadline || new_timer || !wakes.is_empty() }
    }

    fn refuse_to_wait(
        &mut self,
        now: Timestamp,
        load: G::Load,
        deadline: Option<Timestamp>,
        rank: u64,
        reason: Reason,
    ) -> Option<Denied> {
        let units = load.units();
        let in_time = deadline.is_none_or(|deadline| now < deadline);
        let waits = matches!(reason, Reason::Exhausted | Reason::Paused) && in_time;
        let full = rank == NEW && units > self.line.limit.saturating_sub(self.queue.units());
        let refused = if !waits {
            Some(reason)
        } else if full && (self.line.order == Order::OldestFirst || units > self.line.limit) {
            Some(Reason::LineFull)
        } else if self.paused {
            None
        } else if deadline.is_some() || self.queue.is_empty() {
            // Behind others, an ask that waits for as long as it takes need not be told for how long.
            match self.later(now, load, rank != NEW) {
                Later::At(at) if deadline.is_some_and(|deadline| at > deadline) => Some(reason),
                Later::Never => Some(reason),
                _ => None,
            }
        } else {
            None
        };
        refused.map(|reason| self.tell(now, load, reason))
    }

    /// Sets the timers for the next event. Whether that is due already.
    pub(super) fn arm(&mut self, waker: impl FnOnce() -> Waker) -> bool {
        if self.queue.is_empty() {
            self.timers.clear();
        }
        self.timers.arm(self.next_event, waker)
    }

    /// A grant happens at a whole nanosecond, and a bucket that is full until then keeps no credit for the part before
    /// it: each ask ahead can cost one. Who was let in line because it would be in time is not sent away for that.
    fn grace(&self, deadline: Timestamp) -> Timestamp {
        let ahead = if G::TIMED && !self.paused { self.queue.len() as u64 } else { 0 };
        deadline.after(Duration::from_nanos(ahead))
    }

    fn evict_for(&mut self, units: u64, wakes: &mut Vec<Waker>) {
        let evicts = self.line.order == Order::NewestFirst;
        while evicts && self.queue.units().saturating_add(units) > self.line.limit {
            let Some(oldest) = self.queue.oldest() else { return };
            let denied = self.denied(Reason::Evicted, None);
            wakes.extend(self.answer(oldest, Answer::Denied(denied)));
        }
    }

    /// Takes `ticket` out of the line with an answer.
    fn answer(&mut self, ticket: Ticket, answer: Answer<G>) -> Option<Waker> {
        self.forget(ticket);
        self.queue.answer(ticket, answer)
    }

    /// Takes `ticket` off the lists beside the queue.
    fn forget(&mut self, ticket: Ticket) {
        let Some(waiter) = self.queue.get(ticket).filter(|waiter| waiter.answer.is_none()) else { return };
        self.gate.left();
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if waiter.is_thread {
            self.leader_changed |= self.threads.front() == Some(&ticket);
            self.threads.retain(|thread| *thread != ticket);
        }
    }

    /// What the waiter behind `ticket` has been answered, or what is missing for it to be woken.
    ///
    /// Wakers are cloned and dropped outside the lock: both run foreign code.
    pub(super) fn hear(&mut self, ticket: Ticket, waker: &Waker, spare: &mut Option<Waker>) -> Heard<G> {
        match self.queue.get_mut(ticket) {
            Some(waiter) if waiter.answer.is_some() => {
                Heard::Answered(self.queue.remove(ticket).and_then(|waiter| waiter.answer))
            }
            Some(waiter) if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) => {
                if spare.is_none() {
                    return Heard::NeedsWaker;
                }
                std::mem::swap(&mut waiter.waker, spare);
                Heard::Waits { timed: G::TIMED || waiter.deadline.is_some() }
            }
            Some(waiter) => Heard::Waits { timed: G::TIMED || waiter.deadline.is_some() },
            None => Heard::Answered(None),
        }
    }

    /// Takes the waiter behind `ticket` out, granted or not. Returns its waker, to be dropped outside the lock.
    pub(super) fn leave(&mut self, now: Timestamp, ticket: Ticket) -> Option<Waiter<G>> {
        self.forget(ticket);
        let waiter = self.queue.remove(ticket)?;
        if let Some(Answer::Granted(grant)) = waiter.answer {
            self.gate.give_back(now, grant, waiter.load);
        }
        Some(waiter)
    }

    /// Admits whoever may go, refuses whoever has waited for too long, and finds the next time to look.
    /// Returns whether there is more to do than fits one hold of the lock.
    pub(super) fn admit(&mut self, now: Timestamp, wakes: &mut Vec<Waker>) -> bool {
        let next = loop {
            let mut next = None;
            while let Some(ticket) = self.queue.next(self.line.order).filter(|_| !self.paused) {
                if wakes.len() >= BATCH {
                    return true;
                }
                let Some(load) = self.queue.get(ticket).map(|waiter| waiter.load) else { break };
                match self.gate.take(now, load) {
                    Ok(()) => {
                        let grant = self.gate.grant(now, load);
                        wakes.extend(self.answer(ticket, Answer::Granted(grant)));
                    }
                    Err(Later::At(at)) => {
                        next = Some(at);
                        break;
                    }
                    Err(Later::Release | Later::Never) => break,
                }
            }
            match self.deadlines.first() {
                Some((deadline, ticket)) if *deadline <= now => {
                    if wakes.len() >= BATCH {
                        return true;
                    }
                    let ticket = *ticket;
                    let reason = if self.paused { Reason::Paused } else { Reason::Exhausted };
                    let denied = self.denied(reason, None);
                    wakes.extend(self.answer(ticket, Answer::Denied(denied)));
                }
                Some((deadline, _)) => break Some(next.map_or(*deadline, |at| at.min(*deadline))),
                None => break next,
            }
        };
        if next != self.next_event || self.leader_changed {
            self.leader_changed = false;
            let leader = self.threads.front().and_then(|ticket| self.queue.get(*ticket));
            wakes.extend(leader.and_then(|waiter| waiter.waker.clone()));
        }
        self.next_event = next;
        false
    }

    /// After a change for the worse: refuses at once those whose longest wait can no longer be kept, and when there is
    /// less capacity than there was those who ask for more, wherever they stand.
    pub(super) fn recheck(&mut self, now: Timestamp, capacity_before: u64, wakes: &mut Vec<Waker>) {
        if self.gate.capacity() < capacity_before {
            let waiting: Vec<_> = self.queue.iter().map(|(ticket, waiter)| (ticket, waiter.load)).collect();
            for (ticket, load) in waiting {
                if let Some(reason) = self.gate.refuses(now, load) {
                    let denied = self.tell(now, load, reason);
                    wakes.extend(self.answer(ticket, Answer::Denied(denied)));
                }
            }
        }
        if self.deadlines.is_empty() || self.paused || self.line.order == Order::NewestFirst {
            return;
        }
        let Some(mut plan) = self.gate.plan() else { return };
        let mut late = Vec::new();
        for (ticket, waiter) in self.queue.iter() {
            let deadline = waiter.deadline.unwrap_or(Timestamp::MAX);
            if self.gate.plan_next(&mut plan, now, waiter.load, deadline).is_none()
                && waiter.deadline.is_some()
            {
                late.push(ticket);
            }
        }
        for ticket in late {
            let denied = self.denied(Reason::Exhausted, None);
            wakes.extend(self.answer(ticket, Answer::Denied(denied)));
        }
    }

    pub(super) fn close(&mut self, wakes: &mut Vec<Waker>) {
        self.closed = true;
        while let Some(ticket) = self.queue.oldest() {
            let denied = self.denied(Reason::Closed, None);
            wakes.extend(self.answer(ticket, Answer::Denied(denied)));
        }
    }

    /// Whether the thread behind `ticket` moves the line, and until when it may sleep.
    pub(super) fn sleep_until(&self, ticket: Ticket) -> Option<Timestamp> {
        self.next_event.filter(|_| self.threads.front() == Some(&ticket))
    }

    pub(super) fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        let balance = self.gate.balance(now);
        Snapshot {
            capacity: self.gate.capacity(),
            remaining: balance.remaining,
            debt: balance.debt,
            reset_after: match balance.full {
                When::At(at) => Some(at.since(now)),
                When::Never => None,
            },
            waiting: self.queue.len(),
            waiting_units: self.queue.units(),
        }
    }
}
