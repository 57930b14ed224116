//! What only hashes of one's own choice can show: keys that share a slot.

use super::lines::LINE;
use super::*;
use crate::algorithm::FromQuota;
use crate::clock::ManualClock;
use crate::units::Quota;

const LINES: u64 = 100;

fn flat(quota: Quota) -> Flat {
    Flat::new(&TokenBucket::from_quota(quota).unwrap(), LINES as usize * KEYS_A_LINE).unwrap()
}

fn new_key(flat: &Flat, id: Id, units: u64) -> bool {
    let start = flat.start(0, units).unwrap();
    flat.seat(id, flat.place(id, 0, false), start, 0).is_some()
}

/// A hash of this fingerprint whose first bucket this is.
fn id(fingerprint: u64, bucket: u64) -> Id {
    let high = ((bucket << 32) / LINES + 1) << 32;
    let id = Id { hash: high | fingerprint };
    assert_eq!((id.fingerprint(), id.buckets(LINES).0), (fingerprint, bucket));
    id
}

/// Seen to fail on: a second bucket by the hash alone.
#[test]
fn keys_of_one_fingerprint_have_both_buckets_in_common_or_none() {
    for fingerprint in [1, 7, 1 << 20, (1 << 21) - 1] {
        for bucket in 0..LINES {
            let (first, second) = id(fingerprint, bucket).buckets(LINES);
            let twin = id(fingerprint, second);
            assert_eq!(twin.buckets(LINES), (second, first));
            let flat = flat(Quota::per_second(1));
            assert_eq!(flat.name(twin), flat.name(id(fingerprint, bucket)));
        }
    }
}

#[test]
fn keys_that_share_a_slot_share_what_is_left() {
    let flat = flat(Quota::per_second(1).burst(5));
    let one = id(77, 3);
    let twin = id(77, one.buckets(LINES).1);
    assert!(new_key(&flat, one, 3));
    let clock = ManualClock::new();
    let Look::Go(..) = flat.look(twin, &clock, 2, false) else { panic!("two are left") };
    assert_eq!(flat.look(one, &clock, 1, false), Look::For(1_000_000_000));
    assert_eq!(flat.look(twin, &clock, 1, false), Look::For(1_000_000_000));
    // Another of that fingerprint, elsewhere, shares nothing.
    let stranger =
        (0..LINES).map(|bucket| id(77, bucket)).find(|id| flat.name(*id) != flat.name(one)).unwrap();
    assert_eq!(flat.look(stranger, &clock, 1, false), Look::Absent);
}

#[test]
fn a_neighbourhood_that_is_full_of_live_keys_gives_none_away() {
    let flat = flat(Quota::per_second(1).burst(5));
    let all: Vec<Id> =
        (1..40_000).map(|fingerprint| id(fingerprint, 9)).filter(|id| id.buckets(LINES).1 == 10).collect();
    let slots = 2 * (LINE - 1);
    assert!(all.len() > slots);
    for (n, id) in all.iter().enumerate() {
        assert_eq!(new_key(&flat, *id, 5), n < slots);
    }
    for id in &all[..slots] {
        assert!(matches!(flat.look(*id, &ManualClock::new(), 1, false), Look::For(_)));
    }
    assert_eq!(flat.place(all[slots], 4_999_999_999, false), Place::None);
    assert!(matches!(flat.place(all[slots], 5_000_000_000, false), Place::Expired(..)));
    // A permit out of one of its keys keeps all of a bucket in place.
    assert!(flat.pin(9) && flat.pin(10));
    assert_eq!(flat.place(all[slots], 5_000_000_000, false), Place::None);
    assert_eq!(flat.sweep(LINES as usize, 5_000_000_000), 0);
    flat.unpin(9);
    assert_eq!(flat.sweep(LINES as usize, 5_000_000_000), LINE - 1);
}

/// Written by one who was held up between the clock and the slot, for longer than a bucket may be left alone.
#[test]
fn a_time_that_no_one_could_have_written_is_nothing() {
    let scale = flat(Quota::per_second(1).burst(5)).readings.scale().1;
    let head = 10 * reading::CIRCLE;
    for late in [1, 2, 3] {
        let time = scale.ticks(head).wrapping_sub(late * (reading::CIRCLE / 64));
        assert_eq!(scale.ahead(head, time & (reading::CIRCLE - 1), head), 0);
    }
}

/// What has expired is not as a newcomer is that starts with less.
#[test]
fn keys_that_start_with_less_keep_their_places() {
    let flat = flat(Quota::per_second(1).burst(5).initial(3));
    let one = id(7, 3);
    assert!(new_key(&flat, one, 1));
    assert_eq!(flat.sweep(LINES as usize, 10_000_000_000), 0);
    let full: Vec<Id> = (8..40_000).map(|fingerprint| id(fingerprint, 3)).collect();
    let neighbours = full.iter().filter(|id| id.buckets(LINES) == (3, one.buckets(LINES).1));
    let seated = neighbours.clone().filter(|id| new_key(&flat, **id, 1)).count();
    assert!(seated < neighbours.count());
    assert!(flat.seat_of(one).is_some());
}

#[test]
fn a_gap_in_which_the_circle_wraps_in_its_word_is_a_gap() {
    let scale = flat(Quota::per(16, std::time::Duration::from_nanos(1_001)).burst(5)).readings.scale().1;
    assert_eq!(scale.mul, 16);
    let time = scale.time(0, 1_000, 0) & (reading::CIRCLE - 1);
    assert_eq!(scale.ahead_of_old(0, time, 0), 1_000);
    assert_eq!(scale.ahead_of_old(0, time, 1 << 60), 0);
}
