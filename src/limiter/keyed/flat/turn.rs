//! What keeps times from being mistaken on their circle, and brings slots under another quota.

use super::Flat;
use super::lines::swap;
use super::reading::Reading;
use super::word::{Head, Word};
use crate::algorithm::TokenBucket;
use crate::sync::{AtomicU64, Ordering};

impl Flat {
    /// Brings the slots of an old generation under the present one, and all of a bucket that is due up to now.
    pub(super) fn bring_up(&self, bucket: usize, now_ns: u64) {
        let line = self.words().line(bucket as u64);
        loop {
            let (version, scale) = self.readings.scale();
            let head = Head(line[0].load(Ordering::Acquire));
            let due = scale.is_due(head.turned_ns(), now_ns);
            let is_up = |slot: &AtomicU64| {
                let word = Word(slot.load(Ordering::Acquire));
                word.is_free() || word.is_away() || word.generation() == u64::from(version) & 1
            };
            if !due && line[1..].iter().all(is_up) {
                return;
            }
            let (now, before, changed) = self.readings.both(version);
            for slot in &line[1..] {
                let word = Word(slot.load(Ordering::Acquire));
                let same =
                    head.same_turn(Head(line[0].load(Ordering::Acquire))) && self.readings.is_at(version);
                if !same {
                    break;
                }
                if word.is_free() || word.is_away() {
                    continue;
                }
                let turned = head.turned_ns();
                let ahead = if word.generation() == u64::from(version) & 1 {
                    now.scale.ahead_of_old(turned, word.time(), now_ns)
                } else {
                    let ahead = before.scale.ahead_of_old(turned, word.time(), changed.as_ns());
                    now.carried(&before, ahead, changed, now_ns)
                };
                // What has expired is written as early as may be: to a clock that is read a little behind it stays expired.
                let time = match ahead {
                    0 if due => now.scale.ticks(head.turned(now_ns).turned_ns()),
                    0 => now.scale.ticks(turned),
                    _ => now.scale.time(turned, ahead, now_ns),
                };
                swap(slot, word, Word::new(word.fingerprint(), u64::from(version) & 1, time));
            }
            if due {
                let turn = |head| Some(Head(head).turned(now_ns).0);
                // Only from the turn that was read: another may have brought it further.
                let _ = line[0].fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| {
                    Head(at).same_turn(head).then(|| turn(at)).flatten()
                });
            }
        }
    }

    /// Goes on under another bucket from now. `fence` must wait until nobody is left under a shard's lock who took it
    /// before; changes must not overlap.
    pub(in crate::limiter::keyed) fn change(&self, bucket: &TokenBucket, now_ns: u64, fence: impl FnOnce()) {
        let reading = Reading::near(bucket);
        if self.readings.is_reading(&reading) {
            return fence();
        }
        self.readings.change(&reading, now_ns);
        // Who makes keys does it under a lock and by the version it reads there: after this nobody makes old ones.
        fence();
        if self.words.get().is_some() {
            (0..self.count as usize).for_each(|bucket| self.bring_up(bucket, now_ns));
        }
    }

    /// Drops a few expired slots, the next ones round and round. Returns how many.
    pub(in crate::limiter::keyed) fn sweep(&self, lines: usize, now_ns: u64) -> usize {
        let Some(words) = self.words.get() else { return 0 };
        (0..lines.min(self.count as usize))
            .map(|_| {
                let bucket = self.hand.fetch_add(1, Ordering::Relaxed) % self.count as usize;
                self.bring_up(bucket, now_ns);
                let line = words.line(bucket as u64);
                let (version, scale) = self.readings.scale();
                let head = Head(line[0].load(Ordering::Acquire));
                if head.is_pinned() || self.readings.starts_late(version) {
                    return 0;
                }
                let dropped = |slot: &&AtomicU64| {
                    let word = Word(slot.load(Ordering::Acquire));
                    let same = head.same_turn(Head(line[0].load(Ordering::Acquire)));
                    self.is_expired(word, head, version, scale, now_ns)
                        && same
                        && self.readings.is_at(version)
                        && swap(slot, word, Word::FREE)
                };
                line[1..].iter().filter(dropped).count()
            })
            .sum()
    }
}
