//! Asks to several limits: all of them grant at one instant, or none does.
//!
//! **Rule.**
//! 1. Nothing is taken before all limits can grant at one instant; then all are taken at that instant, under all their
//!    locks. So no limit hands out more than it promises, and a charge is dated when the whole ask is granted.
//! 2. Asks to the same limits form a [`Group`], in the order of arrival. Only the first, the *leader*, stands in the
//!    queue of a limit, in general in one: that of the first limit that refused it. Its position is by its rank.
//! 3. A limit whose head is a leader that it could grant to offers it a try ([`Group::attempt`]). If another limit
//!    refuses, the leader moves to that one's queue with its rank. Those behind it are not kept waiting.
//! 4. That alone starves: limits kept busy by others are never free at the same instant. So the leader counts how often
//!    it was *overtaken*: a limit refuses that could have granted at an earlier try, which time alone does not bring
//!    about. After [`PATIENCE`] of those it keeps the head of each limit that could grant, in the order of the limits'
//!    addresses, and waits at the first that cannot, until all can. This is the only time at which units are left idle.
//!    One order for all, so there is no deadlock; each such wait is for the next grant of one limit, so it is bounded.
//!
//! Whoever drives a limit makes the try, on any thread: a future that is leaked or never polled again costs its own
//! grant and stops nobody.
//!
//! **Locks.** A group's lock comes before those of limits; limits are locked in the order of their addresses. No group
//! is locked under a limit's lock: an offer is noted in [`Work`] and made once the limit is unlocked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::member::{LockedMember, Members, Wait};
use super::queue::{Rank, next_rank};
use super::wake::{Panicked, wake_all};
use crate::sync::{Mutex, yield_now};
use crate::types::{Denied, Reason};
use crate::units::Timestamp;

/// How often a leader is overtaken before it keeps the heads of queues.
const PATIENCE: u32 = 4;

/// An ask to several limits that waits.
pub(crate) struct Joint {
    rank: Rank,
    members: Members,
    /// By the clock of the first member.
    deadline: Option<Timestamp>,
    group: Arc<Group>,
    outcome: Mutex<Told>,
}

/// What is between the one who waits and the ones who drive.
struct Told {
    waker: Option<Waker>,
    answer: Option<Result<(), Denied>>,
}

/// The asks that wait for the same limits, in the order of arrival.
pub(crate) struct Group {
    asks: Mutex<Asks>,
}

struct Asks {
    queue: BTreeMap<Rank, Arc<Joint>>,
    /// Nobody waits any more: the limits forget this group, and newcomers make another.
    is_retired: bool,
    leader: Option<Leader>,
}

/// The progress of the first ask.
struct Leader {
    rank: Rank,
    /// For each member: the leader stands in its queue.
    stands: Vec<bool>,
    /// For each member: it could have granted at an earlier try.
    was_ready: Vec<bool>,
    overtaken: u32,
}

/// What is left to do once a limit is unlocked: asks to try, asks whose time is over, limits to drive.
#[derive(Default)]
pub(crate) struct Work {
    offers: Vec<Arc<Joint>>,
    expired: Vec<Arc<Joint>>,
    limits: Vec<Arc<dyn super::member::Driven>>,
    reviews: Vec<Arc<Group>>,
    wakes: Vec<Waker>,
    panicked: Panicked,
}

impl Work {
    /// Notes that a leader can be granted by the limit that it stands at.
    pub(super) fn offer(&mut self, joint: &Arc<Joint>) {
        self.offers.push(Arc::clone(joint));
    }

    /// Notes that the longest wait of an ask is over.
    pub(super) fn expire(&mut self, joint: &Arc<Joint>) {
        self.expired.push(Arc::clone(joint));
    }

    /// Notes that asks of a group may have to be denied.
    pub(super) fn review(&mut self, group: &Arc<Group>) {
        self.reviews.push(Arc::clone(group));
    }

    pub(super) fn wake(&mut self, wakes: Vec<Waker>) {
        let panicked = std::mem::take(&mut self.panicked);
        self.panicked = panicked.or(wake_all(wakes));
    }

    fn drive(&mut self, members: &Members) {
        self.limits.extend(members.iter().map(|member| member.as_driven()));
    }

    /// Does all that is left, and what follows from it. A panic of a waker continues afterwards.
    pub(crate) fn finish(mut self) {
        loop {
            let wakes = std::mem::take(&mut self.wakes);
            if !wakes.is_empty() {
                self.wake(wakes);
            } else if let Some(joint) = self.offers.pop() {
                let group = Arc::clone(&joint.group);
                group.attempt(&mut self);
            } else if let Some(joint) = self.expired.pop() {
                joint.withdraw(Some(Reason::Exhausted), &mut self);
            } else if let Some(group) = self.reviews.pop() {
                group.review(&mut self);
            } else if let Some(limit) = self.limits.pop() {
                limit.serve(&mut self);
            } else {
                break;
            }
        }
        self.panicked.resume();
    }
}

/// All members, locked in the order of their addresses.
fn lock_all(members: &Members) -> Vec<Box<dyn LockedMember + '_>> {
    let mut locked: Vec<_> = members.lock_order().map(|index| (index, members.get(index).lock())).collect();
    locked.sort_by_key(|(index, _)| *index);
    locked.into_iter().map(|(_, member)| member).collect()
}

impl Joint {
    /// Adds an ask to the group of those that wait for the same limits, and tries it if it is the first.
    ///
    /// `longest` is the longest wait from now; `thread` is set for a thread that waits without timers. `rank` is that of
    /// an ask that was granted before and comes back.
    pub(crate) fn enter(
        members: Members,
        longest: Option<Duration>,
        waker: &Waker,
        is_thread: bool,
        rank: Option<Rank>,
    ) -> Result<Arc<Self>, Denied> {
        let rank = rank.unwrap_or_else(next_rank);
        let ids = members.ids();
        let deadline = longest.and_then(|longest| members.first().deadline(longest));
        // A wait beyond the end of time is none.
        let longest = longest.filter(|_| deadline.is_some());
        loop {
            let group = Group::of(&members, &ids);
            let mut asks = group.asks.lock();
            if asks.is_retired {
                // Its last ask is taking it out of the limits just now.
                drop(asks);
                yield_now();
                continue;
            }
            if let Err(denied) = asks.refuse_to_wait(&members, longest, is_thread) {
                if asks.queue.is_empty() {
                    asks.retire(&ids, &mut lock_all(&members));
                }
                return Err(denied);
            }
            let told = Told { waker: Some(waker.clone()), answer: None };
            let outcome = Mutex::new(told);
            let joint = Arc::new(Self { rank, members, deadline, group: Arc::clone(&group), outcome });
            {
                let mut locked = lock_all(&joint.members);
                locked.iter_mut().for_each(|member| member.count(true, deadline.is_some()));
                if let Some(deadline) = deadline {
                    locked[0].add_deadline(deadline, rank, &joint);
                }
                if is_thread {
                    locked.iter_mut().for_each(|member| member.join_thread(rank, waker.clone()));
                }
            }
            asks.queue.insert(rank, Arc::clone(&joint));
            let mut work = Work::default();
            asks.attempt(&mut work);
            drop(asks);
            // All are driven, the first time: a deadline or a new timer may have to be set.
            work.drive(&joint.members);
            let guard = Withdraws(Some(&joint));
            work.finish();
            guard.keep();
            return Ok(joint);
        }
    }

    pub(super) const fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) const fn rank(&self) -> Rank {
        self.rank
    }

    /// The answer; `Ok` once all limits have granted. The grants are claimed by their tickets.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Denied>> {
        let mut spare = None;
        loop {
            let mut told = self.outcome.lock();
            if let Some(answer) = told.answer.take() {
                return Poll::Ready(answer);
            }
            if told.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                break;
            }
            if spare.is_some() {
                std::mem::swap(&mut told.waker, &mut spare);
                break;
            }
            // Cloned outside of the lock: it is foreign code.
            drop(told);
            spare = Some(cx.waker().clone());
        }
        // The task may have moved to another runtime since.
        let mut work = Work::default();
        if self.members.iter().any(|member| member.make_timer()) {
            work.drive(&self.members);
        }
        work.finish();
        Poll::Pending
    }

    /// Sleeps as a thread until the next event of any of the limits, then drives them.
    pub(crate) fn park(&self) {
        let until = self.members.iter().filter_map(|member| member.sleep_for(self.rank)).min();
        self.members.first().park(until);
        let mut work = Work::default();
        work.drive(&self.members);
        work.finish();
    }

    /// Gives up: leaves the queues, or gives back what was granted and not claimed.
    pub(crate) fn cancel(self: &Arc<Self>) {
        let mut work = Work::default();
        if !self.withdraw(None, &mut work) {
            self.members.iter().for_each(|member| member.give_back());
        }
        work.finish();
    }

    /// Takes the ask out of its group; with a reason it is denied. `false`: it has been answered already.
    fn withdraw(self: &Arc<Self>, reason: Option<Reason>, work: &mut Work) -> bool {
        let mut asks = self.group.asks.lock();
        if reason.is_some() {
            // The longest wait is inclusive: what can be granted at its end is.
            asks.attempt(work);
        }
        if asks.queue.remove(&self.rank).is_none() {
            return false;
        }
        let mut locked = lock_all(&self.members);
        asks.leave(self, &mut locked);
        let denied = reason.map(|reason| {
            let paused = locked.iter().position(|member| member.is_paused());
            match (reason, paused) {
                (Reason::Exhausted, Some(index)) => locked[index].deny(Reason::Paused),
                _ => locked[0].deny(reason).after(None),
            }
        });
        drop(locked);
        work.drive(&self.members);
        if let Some(denied) = denied {
            work.wakes.extend(self.answer(Err(denied)));
        }
        asks.attempt(work);
        true
    }

    fn answer(&self, answer: Result<(), Denied>) -> Option<Waker> {
        let mut told = self.outcome.lock();
        told.answer = Some(answer);
        told.waker.take()
    }
}

/// Takes an ask back whose first drive panics: nobody would hear its answer.
struct Withdraws<'a>(Option<&'a Arc<Joint>>);

impl Withdraws<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Withdraws<'_> {
    fn drop(&mut self) {
        if let Some(joint) = self.0 {
            joint.cancel();
        }
    }
}

impl Group {
    fn new() -> Self {
        Self { asks: Mutex::new(Asks { queue: BTreeMap::new(), is_retired: false, leader: None }) }
    }

    /// The group of those that wait for these limits.
    fn of(members: &Members, ids: &[usize]) -> Arc<Self> {
        let mut locked = lock_all(members);
        let known = locked[members.home()].group(ids);
        known.unwrap_or_else(|| {
            let group = Arc::new(Self::new());
            locked.iter_mut().for_each(|member| member.add_group(ids, &group));
            group
        })
    }

    /// Tries the first ask.
    fn attempt(self: &Arc<Self>, work: &mut Work) {
        self.asks.lock().attempt(work);
    }

    /// After a change for the worse of one of the limits: denies those that can never be granted.
    fn review(self: &Arc<Self>, work: &mut Work) {
        let mut asks = self.asks.lock();
        let all: Vec<_> = asks.queue.values().map(Arc::clone).collect();
        for joint in all {
            let mut locked = lock_all(&joint.members);
            let refused = locked
                .iter_mut()
                .find_map(|member| member.refuses().map(|reason| member.deny(reason)))
                .or_else(|| joint.too_late(&mut locked));
            if let Some(denied) = refused {
                asks.queue.remove(&joint.rank);
                asks.leave(&joint, &mut locked);
                drop(locked);
                work.wakes.extend(joint.answer(Err(denied)));
                work.drive(&joint.members);
            }
        }
        asks.attempt(work);
    }
}

impl Joint {
    /// The denial, if a limit alone takes longer now than the ask would wait.
    fn too_late(&self, locked: &mut [Box<dyn LockedMember + '_>]) -> Option<Denied> {
        let left = locked[0].left_until(self.deadline?);
        locked.iter_mut().find_map(|member| {
            let wait = member.wait_alone().known().filter(|wait| *wait > left)?;
            Some(member.deny(Reason::Exhausted).after(Some(wait)))
        })
    }
}

impl Asks {
    /// Denies an ask that can never be granted, or not within its longest wait, or that finds a full queue.
    fn refuse_to_wait(
        &self,
        members: &Members,
        longest: Option<Duration>,
        is_thread: bool,
    ) -> Result<(), Denied> {
        let locked = &mut lock_all(members);
        for member in locked.iter_mut() {
            if let Some(reason) = member.refuses() {
                return Err(member.deny(reason));
            }
        }
        // Behind others, an ask without a longest wait need not know when it is granted.
        let knows = longest.is_some() || self.queue.is_empty();
        let waits: Vec<Wait> = if knows {
            locked.iter_mut().map(|member| member.wait(&mut self.queue.values())).collect()
        } else {
            Vec::new()
        };
        // The member that binds longest denies.
        let binding = waits.iter().enumerate().max_by_key(|(_, wait)| **wait);
        let known = binding.and_then(|(_, wait)| wait.known());
        let is_late = |longest| waits.iter().filter_map(Wait::known).max() > Some(longest);
        if let Some((binding, wait)) = binding {
            if *wait == Wait::Never || longest.is_some_and(is_late) {
                return Err(locked[binding].deny(Reason::Exhausted).after(known));
            }
        }
        if let Some(full) = locked.iter_mut().find(|member| member.is_full()) {
            return Err(full.deny(Reason::QueueFull).after(known));
        }
        if !is_thread {
            for (index, member) in locked.iter_mut().enumerate() {
                if !member.make_timer(longest.is_some() && index == 0) {
                    return Err(member.deny(Reason::NoTimer).after(known));
                }
            }
        }
        Ok(())
    }

    /// Takes the group out of its limits.
    fn retire(&mut self, ids: &[usize], locked: &mut [Box<dyn LockedMember + '_>]) {
        self.is_retired = true;
        locked.iter_mut().for_each(|member| member.remove_group(ids));
    }

    /// Takes an ask out of the queues of limits. It is out of the group's.
    fn leave(&mut self, joint: &Joint, locked: &mut [Box<dyn LockedMember + '_>]) {
        if self.leader.as_ref().is_some_and(|leader| leader.rank == joint.rank) {
            self.leader = None;
        }
        for member in locked.iter_mut() {
            member.leave(joint.rank);
            member.count(false, joint.deadline.is_some());
            member.leave_thread(joint.rank);
        }
        if let Some(deadline) = joint.deadline {
            locked[0].remove_deadline(deadline, joint.rank);
        }
        if self.queue.is_empty() {
            self.retire(&joint.members.ids(), locked);
        }
    }

    /// Tries the first ask, and those behind it for as long as they are granted.
    fn attempt(&mut self, work: &mut Work) {
        while let Some((&rank, joint)) = self.queue.first_key_value() {
            let joint = Arc::clone(joint);
            let mut locked = lock_all(&joint.members);
            if let Some(before) = self.leader.as_ref().filter(|leader| leader.rank != rank) {
                // One that has come back stands before the one that led.
                locked.iter_mut().for_each(|member| member.leave(before.rank));
                self.leader = None;
            }
            let count = locked.len();
            let leader = self.leader.get_or_insert_with(|| Leader {
                rank,
                stands: vec![false; count],
                was_ready: vec![false; count],
                overtaken: 0,
            });
            let ready: Vec<bool> = locked.iter_mut().map(|member| member.could_grant(rank)).collect();
            if ready.iter().all(|ready| *ready) && take_all(&mut locked) {
                self.queue.remove(&rank);
                self.leave(&joint, &mut locked);
                drop(locked);
                work.wakes.extend(joint.answer(Ok(())));
                work.drive(&joint.members);
                continue;
            }
            leader.stand(&joint, &mut locked, &ready);
            drop(locked);
            work.drive(&joint.members);
            return;
        }
    }
}

/// Takes from all, or from none.
fn take_all(locked: &mut [Box<dyn LockedMember + '_>]) -> bool {
    let failed = locked.iter_mut().position(|member| !member.take());
    if let Some(failed) = failed {
        locked[..failed].iter_mut().for_each(|member| member.take_back());
    }
    failed.is_none()
}

impl Leader {
    /// After a try that failed: stands where it was refused, and once it has no patience left keeps what it could have.
    fn stand(&mut self, joint: &Arc<Joint>, locked: &mut [Box<dyn LockedMember + '_>], ready: &[bool]) {
        if self.was_ready.iter().zip(ready).any(|(was_ready, ready)| *was_ready && !ready) {
            self.overtaken += 1;
        }
        for (was_ready, ready) in self.was_ready.iter_mut().zip(ready) {
            *was_ready |= *ready;
        }
        let is_stubborn = self.overtaken >= PATIENCE;
        let mut refusing = (0..locked.len()).filter(|index| !ready[*index]);
        // Where all said yes and one did not keep its word, the first is waited at.
        let (awaited, kept) = if is_stubborn {
            let order: Vec<usize> = joint.members.lock_order().collect();
            let first = order.iter().position(|index| !ready[*index]).unwrap_or(0);
            (order[first], order[..first].to_vec())
        } else {
            (refusing.next().unwrap_or(0), Vec::new())
        };
        for (index, member) in locked.iter_mut().enumerate() {
            let stands = index == awaited || kept.contains(&index);
            if stands {
                member.stand(self.rank, joint, index == awaited);
            } else if self.stands[index] {
                member.leave(self.rank);
            }
            self.stands[index] = stands;
        }
    }
}
