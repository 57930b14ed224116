//! Places for keys: made, marked, kept and given up. All but pins under the lock of the key's shard.

use super::lines::{Line, swap};
use super::reading::{Says, Scale};
use super::word::{Head, Word};
use super::{Flat, Id, Look, Place, Seat, Start};
use crate::algorithm::TokenBucket;
use crate::sync::Ordering;

impl Flat {
    /// A place for a key that has none; where `full`, one of another key if there is any. Under the lock of its shard.
    pub(in crate::limiter::keyed) fn place(&self, id: Id, now_ns: u64, full: bool) -> Place {
        let words = self.words();
        let (first, second) = id.buckets(self.count);
        for bucket in [first, second] {
            self.bring_up(bucket as usize, now_ns);
        }
        let places =
            [first, second].map(|bucket| self.place_in(bucket as usize, words.line(bucket), now_ns, full));
        // The first bucket as long as it has room to spare, so that most looks end there; then the emptier of the two.
        let [(one, one_left), (two, two_left)] = places;
        match (one, two) {
            (Place::Free(_), Place::Expired(..)) if full => two,
            (Place::Expired(..), Place::Free(_)) if !full => two,
            (Place::None, two) => two,
            (one, Place::None) => one,
            (one, _) if one_left > 2 || one_left >= two_left => one,
            (_, two) => two,
        }
    }

    /// A place in one bucket, and how many there are.
    fn place_in(&self, bucket: usize, line: &Line, now_ns: u64, full: bool) -> (Place, usize) {
        let (version, scale) = self.readings.scale();
        let head = Head(line[0].load(Ordering::Acquire));
        let keeps = head.is_pinned() || self.readings.starts_late(version);
        let (mut place, mut left) = (Place::None, 0);
        for (slot, word) in line.iter().enumerate().skip(1) {
            let word = Word(word.load(Ordering::Acquire));
            let seat = Seat { line: bucket, slot };
            if word.is_free() {
                left += 1;
                if place == Place::None || !full && matches!(place, Place::Expired(..)) {
                    place = Place::Free(seat);
                }
            } else if !keeps && self.is_expired(word, head, version, scale, now_ns) {
                left += 1;
                if place == Place::None || full && matches!(place, Place::Free(_)) {
                    place = Place::Expired(seat, word);
                }
            }
        }
        let same = head.same_turn(Head(line[0].load(Ordering::Acquire))) && self.readings.is_at(version);
        if same { (place, left) } else { (Place::None, 0) }
    }

    pub(super) fn is_expired(&self, word: Word, head: Head, version: u32, scale: Scale, now_ns: u64) -> bool {
        !word.is_free()
            && !word.is_away()
            && word.generation() == u64::from(version) & 1
            && scale.ahead(head.turned_ns(), word.time(), now_ns) == 0
    }

    /// How a newcomer starts that asks for `units`, or why it is refused.
    pub(in crate::limiter::keyed) fn start(&self, now_ns: u64, units: u64) -> Result<Start, Look> {
        loop {
            let (version, scale) = self.readings.scale();
            let late = self.readings.read(version).late;
            if self.readings.is_at(version) {
                return match scale.ask(late, now_ns, units) {
                    Says::Go(ahead) => Ok(Start { version, ahead }),
                    Says::After(Some(wait_ns)) => Err(Look::For(wait_ns)),
                    Says::After(None) => Err(Look::Spent),
                    Says::Never => Err(Look::Never),
                };
            }
        }
    }

    /// Seats a newcomer, who starts so, in a place found for it: whether that was still to be had.
    pub(in crate::limiter::keyed) fn seat(
        &self,
        id: Id,
        place: Place,
        start: Start,
        now_ns: u64,
    ) -> Option<Seat> {
        let (seat, before) = place.slot()?;
        self.write(id, seat, before, start, now_ns)
    }

    fn write(&self, id: Id, seat: Seat, before: Word, start: Start, now_ns: u64) -> Option<Seat> {
        let line = self.words().line(seat.line as u64);
        let head = Head(line[0].load(Ordering::Acquire));
        let (version, scale) = self.readings.scale();
        if version != start.version || scale.is_due(head.turned_ns(), now_ns) {
            return None;
        }
        let time = scale.time(head.turned_ns(), start.ahead, now_ns);
        let word = Word::new(id.fingerprint(), u64::from(version) & 1, time);
        swap(&line[seat.slot], before, word).then_some(seat)
    }

    /// Marks a place found for a key whose state is in the map.
    pub(in crate::limiter::keyed) fn mark(&self, id: Id, place: Place) -> Option<Seat> {
        let (seat, before) = place.slot()?;
        let slot = &self.words().line(seat.line as u64)[seat.slot];
        swap(slot, before, Word::away(id.fingerprint())).then_some(seat)
    }

    /// Puts the state of a key into a place, or back in place of its mark, if it owes nothing. Under the lock of its
    /// shard.
    pub(in crate::limiter::keyed) fn bring_back(
        &self,
        id: Id,
        place: Place,
        bucket: &TokenBucket,
        backlog: u64,
        now_ns: u64,
    ) -> bool {
        let Some((seat, before)) = place.slot() else { return false };
        self.bring_up(seat.line, now_ns);
        let reading = loop {
            let (version, _) = self.readings.scale();
            let reading = self.readings.read(version);
            if self.readings.is_at(version) {
                break Some((version, reading)).filter(|(_, reading)| reading.bucket == *bucket);
            }
        };
        let Some((version, reading)) = reading else { return false };
        let Some(ahead) = reading.ahead_of(backlog) else { return false };
        self.write(id, seat, before, Start { version, ahead }, now_ns).is_some()
    }

    /// Takes a mark off: the key has gone. Under the lock of its shard.
    pub(in crate::limiter::keyed) fn unmark(&self, seat: Seat) {
        self.words().line(seat.line as u64)[seat.slot].store(Word::FREE.0, Ordering::Release);
    }

    /// Keeps the slots of a bucket in their places; a bucket has so many pins and no more.
    pub(in crate::limiter::keyed) fn pin(&self, line: usize) -> bool {
        let head = &self.words().line(line as u64)[0];
        if !Head(head.load(Ordering::Relaxed)).may_pin() {
            return false;
        }
        // Before the compare-exchange of the slot: who finds the slot as it was before that has seen no pin, and who
        // finds it as it is after that sees this one.
        let before = Head(head.fetch_add(Head::PIN, Ordering::AcqRel));
        debug_assert!(before.may_pin(), "threads are fewer than pins");
        true
    }

    pub(in crate::limiter::keyed) fn unpin(&self, line: usize) {
        self.words().line(line as u64)[0].fetch_sub(Head::PIN, Ordering::AcqRel);
    }

    /// Whether permits of keys of this bucket are out.
    pub(in crate::limiter::keyed) fn is_pinned(&self, seat: Seat) -> bool {
        Head(self.words().line(seat.line as u64)[0].load(Ordering::Acquire)).is_pinned()
    }
}
