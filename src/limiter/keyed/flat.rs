//! The state of keys that only spend: one word a key, in buckets of a cache line, found by hash alone.
//!
//! A bucket is a head and seven slots; a key lives in one of two buckets. A decision about a key that is there reads the
//! line and does one compare-exchange: nobody waits for anybody. What makes, moves or drops a key happens under the lock
//! of its shard, so that no key has two slots. Time runs on a circle; the head says when the bucket's times were last
//! brought up to now, and they are read relative to that: however long a bucket was left alone, no state comes back.
//!
//! | slot | meaning | leaves by |
//! |---|---|---|
//! | free | | compare-exchange by who makes a key |
//! | live | how much the key has spent; expired when that is nothing | compare-exchange by anyone; into away and free under the lock of its key; expired, into another's by who makes that |
//! | away | the state is in the map | under the lock of its key |
//!
//! A change of quota writes the other reading, raises the version, and then walks the slots; a word tells by its
//! generation which reading it was written under, and whoever meets an old one brings it over. No word is met again
//! under its generation: the walk ends before the next change, and the circle has moved on.

mod lines;
mod places;
mod reading;
mod readings;
#[cfg(all(test, not(tollgate_loom)))]
mod tests;
mod turn;
mod word;

use crate::algorithm::TokenBucket;
use crate::clock::Clock;
use crate::sync::{AtomicU64, AtomicUsize, OnceLock, Ordering};
use crate::units::Timestamp;
use lines::{Line, Words, find, swap};
use reading::{Reading, Says, Scale};
use readings::Readings;
use word::Head;
pub(super) use word::{Id, Word};

/// Room for each key: with seven slots to four keys two choices are enough but for a few keys in a hundred million.
const KEYS_A_LINE: usize = 4;

/// The table.
pub(super) struct Flat {
    words: OnceLock<Words>,
    count: u64,
    readings: Readings,
    hand: AtomicUsize,
}

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) line: usize,
    slot: usize,
}

/// What a look at a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Taken, under this version of the quota, then. With a pin if one was asked for.
    Go(Seat, u32, Timestamp),
    /// Not for so many nanoseconds.
    For(u64),
    /// Too little is left, and time brings nothing back.
    Spent,
    /// More than there can ever be.
    Never,
    /// It has no slot.
    Absent,
    /// Its state is in the map.
    Away,
}

/// What a look has read.
#[derive(Clone, Copy)]
struct Seen {
    scale: Scale,
    version: u32,
    head: Head,
    word: Word,
}

/// Where a key's slot was found.
struct Found<'a> {
    line: &'a Line,
    seat: Seat,
    head: Head,
    word: Word,
}

/// A live slot as it was read: what a compare-exchange needs to write it again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) seat: Seat,
    word: Word,
    head: Head,
    pub(super) version: u32,
    /// Ticks ahead of now.
    ahead: u64,
}

/// What became of making room for a key in its neighbourhood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// This slot is free: a key more.
    Free(Seat),
    /// This one's state is as a fresh one's: another key's place.
    Expired(Seat, Word),
    /// All slots are live.
    None,
}

impl Flat {
    /// For `keys` keys of this bucket; `None` if words cannot hold its states.
    pub(super) fn new(bucket: &TokenBucket, keys: usize) -> Option<Self> {
        let readings = Readings::new(&Reading::of(bucket)?);
        let count = keys.div_ceil(KEYS_A_LINE).max(2) as u64;
        let fits = count <= u64::from(u32::MAX);
        fits.then(|| Self { words: OnceLock::new(), count, readings, hand: AtomicUsize::new(0) })
    }

    fn words(&self) -> &Words {
        self.words.get_or_init(|| Words::new(self.count as usize))
    }

    /// Looks at a key and takes `units` of it if they are there. Lock-free. With `pin`, what is taken keeps the slot in
    /// its place until [`unpin`](Self::unpin).
    #[inline]
    pub(super) fn look<C: Clock>(&self, id: Id, clock: &C, units: u64, pin: bool) -> Look {
        let Some(words) = self.words.get() else { return Look::Absent };
        loop {
            let (version, scale) = self.readings.scale();
            // A slot may have been made while we looked for it: only the lock tells.
            let Some(Found { line, seat, head, word }) = self.seek(words, id) else { return Look::Absent };
            if word.is_away() {
                return Look::Away;
            }
            let seen = Seen { scale, version, head, word };
            let now = clock.now();
            let Some(says) = self.says(&seen, &line[0], now.as_ns(), units) else {
                self.bring_up(seat.line, now.as_ns());
                continue;
            };
            match says {
                Says::Go(_) if units == 0 && !pin => return Look::Go(seat, version, now),
                Says::Go(after) => {
                    let time = scale.time(head.turned_ns(), after, now.as_ns());
                    let next = Word::new(word.fingerprint(), word.generation(), time);
                    if pin && !self.pin(seat.line) {
                        return Look::Away;
                    }
                    if swap(&line[seat.slot], word, next) {
                        return Look::Go(seat, version, now);
                    }
                    if pin {
                        self.unpin(seat.line);
                    }
                }
                Says::After(Some(wait_ns)) => return Look::For(wait_ns),
                Says::After(None) => return Look::Spent,
                Says::Never => return Look::Never,
            }
        }
    }

    #[inline]
    fn seek<'a>(&self, words: &'a Words, id: Id) -> Option<Found<'a>> {
        let look_in = |bucket: u64| {
            let line = words.line(bucket);
            // Acquire, all along: the head is read before and after the slot, so that the slot is read by the turn that
            // it was written in; a compare-exchange that succeeds says that it still stands so.
            let head = Head(line[0].load(Ordering::Acquire));
            let (slot, word) = find(line, id)?;
            Some(Found { line, seat: Seat { line: bucket as usize, slot }, head, word })
        };
        look_in(id.first(self.count)).or_else(|| look_in(id.buckets(self.count).1))
    }

    /// What a slot says at a time; `None` if it must be brought up before, or looked at again.
    #[inline]
    fn says(&self, seen: &Seen, head: &AtomicU64, now_ns: u64, units: u64) -> Option<Says> {
        let Seen { scale, version, head: seen_head, word } = *seen;
        let turned_ns = seen_head.turned_ns();
        if scale.is_due(turned_ns, now_ns) || word.generation() != u64::from(version) & 1 {
            return None;
        }
        let says = scale.ask(scale.ahead(turned_ns, word.time(), now_ns), now_ns, units);
        let is_still =
            seen_head.same_turn(Head(head.load(Ordering::Acquire))) && self.readings.is_at(version);
        is_still.then_some(says)
    }

    /// The live slot of a key, brought up to now. Under the lock of its shard.
    pub(super) fn live(&self, id: Id, now_ns: u64) -> Option<Live> {
        loop {
            let (seat, word) = self.seat_of(id)?;
            if word.is_away() {
                return None;
            }
            let (version, scale) = self.readings.scale();
            let line = self.words().line(seat.line as u64);
            let head = Head(line[0].load(Ordering::Acquire));
            if scale.is_due(head.turned_ns(), now_ns) || word.generation() != u64::from(version) & 1 {
                self.bring_up(seat.line, now_ns);
                continue;
            }
            let same = word.0 == line[seat.slot].load(Ordering::Acquire)
                && head.same_turn(Head(line[0].load(Ordering::Acquire)));
            if same && self.readings.is_at(version) {
                let ahead = scale.ahead(head.turned_ns(), word.time(), now_ns);
                return Some(Live { seat, word, head, version, ahead });
            }
        }
    }

    /// The slot of a key, live or away.
    pub(super) fn seat_of(&self, id: Id) -> Option<(Seat, Word)> {
        let words = self.words.get()?;
        let (first, second) = id.buckets(self.count);
        [first, second].into_iter().find_map(|bucket| {
            find(words.line(bucket), id).map(|(slot, word)| (Seat { line: bucket as usize, slot }, word))
        })
    }

    /// The backlog of a live slot, and the bucket that counts it.
    pub(super) fn backlog(&self, live: &Live) -> (TokenBucket, u64) {
        let reading = self.readings.read(live.version);
        (reading.bucket, reading.backlog(live.ahead))
    }

    /// As a locked look at [`live`](Self::live) and its [`backlog`](Self::backlog), without the lock; `None`: only that can
    /// tell.
    pub(super) fn seen(&self, id: Id, now_ns: u64) -> Option<(TokenBucket, u64)> {
        let live = self.live(id, now_ns)?;
        let seen = self.backlog(&live);
        // Else what the version was read by may have been written anew since.
        self.readings.is_at(live.version).then_some(seen)
    }

    /// Writes a live slot again, with this backlog; fails if it is not as it was, or that is a debt.
    pub(super) fn rewrite(&self, live: &Live, backlog: u64, now_ns: u64) -> Rewrite {
        let reading = self.readings.read(live.version);
        let Some(ahead) = reading.ahead_of(backlog) else { return Rewrite::Debt };
        let time = reading.scale.time(live.head.turned_ns(), ahead, now_ns);
        let next = Word::new(live.word.fingerprint(), live.word.generation(), time);
        let slot = &self.words().line(live.seat.line as u64)[live.seat.slot];
        if swap(slot, live.word, next) { Rewrite::Done } else { Rewrite::Again }
    }

    /// Marks a live slot: its state goes to the map. Under the lock of its shard. Fails if it is not as it was.
    pub(super) fn take_away(&self, live: &Live) -> bool {
        let slot = &self.words().line(live.seat.line as u64)[live.seat.slot];
        swap(slot, live.word, Word::away(live.word.fingerprint()))
    }

    /// What keys share that share a state: their name in the map. They have both buckets and the fingerprint in common.
    pub(super) fn name(&self, id: Id) -> u64 {
        let (first, second) = id.buckets(self.count);
        id.fingerprint() << 32 | first.min(second)
    }

    pub(super) fn version(&self) -> u32 {
        self.readings.scale().0
    }
}

/// What became of writing a slot again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    Done,
    Again,
    /// It owes: that is kept in the map.
    Debt,
}

/// How a newcomer starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) version: u32,
    /// Ticks ahead of now, once it has been granted what it asks for.
    ahead: u64,
}

impl Place {
    /// The place of a mark.
    pub(super) const fn of_mark(id: Id, seat: Seat) -> Self {
        Self::Expired(seat, Word::away(id.fingerprint()))
    }

    /// Its bucket.
    pub(super) fn line(self) -> Option<usize> {
        self.slot().map(|(seat, _)| seat.line)
    }

    const fn slot(self) -> Option<(Seat, Word)> {
        match self {
            Self::Free(seat) => Some((seat, Word::FREE)),
            Self::Expired(seat, word) => Some((seat, word)),
            Self::None => None,
        }
    }
}
