//! What only chosen hashes can show: keys that share a slot.

use super::alloc::Vacancy;
use super::bucket::WORDS;
use super::*;
use crate::algorithm::FromQuota;
use crate::clock::ManualClock;
use crate::units::Quota;

const BUCKETS: u64 = 100;

fn table(quota: Quota) -> Table<ManualClock> {
    let bucket = TokenBucket::from_quota(quota).unwrap();
    Table::new(&bucket, BUCKETS as usize * KEYS_A_BUCKET, ManualClock::new(), None).unwrap()
}

fn new_key(table: &Table<ManualClock>, id: Id, units: u64) -> bool {
    let mark = table.vacancy(id, 0, false).and_then(|vacancy| table.mark(id, vacancy));
    mark.is_some_and(|mark| table.insert(id, mark, Timestamp::ZERO, units, false).is_some())
}

fn take(table: &Table<ManualClock>, id: Id, units: u64) -> Option<Result<(), Denied>> {
    match table.take(id, Tier::DEFAULT, units, false) {
        Taken::Granted(_) => Some(Ok(())),
        Taken::Denied(denied) => Some(Err(denied)),
        Taken::Elsewhere => None,
    }
}

fn pin(bucket: usize) -> Place {
    Place { bucket, slot: 1 }
}

fn wait(taken: Option<Result<(), Denied>>) -> Option<std::time::Duration> {
    taken.unwrap().unwrap_err().retry_after()
}

/// A hash of this fingerprint whose first bucket this is.
fn id(fingerprint: u64, bucket: u64) -> Id {
    let id = Id::of_slot(fingerprint, bucket, BUCKETS);
    assert_eq!((id.fingerprint(), id.buckets(BUCKETS).0), (fingerprint, bucket));
    id
}

/// Seen to fail on: a second bucket by the hash alone.
#[test]
fn keys_of_one_fingerprint_have_both_buckets_in_common_or_none() {
    for fingerprint in [1, 7, 1 << 20, (1 << 21) - 1] {
        for bucket in 0..BUCKETS {
            let (first, second) = id(fingerprint, bucket).buckets(BUCKETS);
            let twin = id(fingerprint, second);
            assert_eq!(twin.buckets(BUCKETS), (second, first));
            assert_eq!(twin.neighbourhood(BUCKETS), id(fingerprint, bucket).neighbourhood(BUCKETS));
        }
    }
}

#[test]
fn keys_that_share_a_slot_share_what_is_left() {
    let table = table(Quota::per_second(1).burst(5));
    let one = id(77, 3);
    let twin = id(77, one.buckets(BUCKETS).1);
    assert!(new_key(&table, one, 3));
    assert_eq!(take(&table, twin, 2), Some(Ok(())), "two are left");
    assert_eq!(wait(take(&table, one, 1)), Some(std::time::Duration::from_secs(1)));
    assert_eq!(wait(take(&table, twin, 1)), Some(std::time::Duration::from_secs(1)));
    // Another of that fingerprint, elsewhere, shares nothing.
    let mut all = (0..BUCKETS).map(|bucket| id(77, bucket));
    let stranger = all.find(|id| id.neighbourhood(BUCKETS) != one.neighbourhood(BUCKETS)).unwrap();
    assert_eq!(take(&table, stranger, 1), None);
    // Whatever is found in a bucket has the name of its keys.
    let mut found = Vec::new();
    table.live_ids(|id| found.push(id.neighbourhood(BUCKETS)));
    assert_eq!(found, [one.neighbourhood(BUCKETS)]);
}

#[test]
fn a_neighbourhood_that_is_full_of_live_keys_gives_none_away() {
    let table = table(Quota::per_second(1).burst(5));
    let all: Vec<Id> =
        (1..40_000).map(|fingerprint| id(fingerprint, 9)).filter(|id| id.buckets(BUCKETS).1 == 10).collect();
    let slots = 2 * (WORDS - 1);
    assert!(all.len() > slots);
    for (n, id) in all.iter().enumerate() {
        assert_eq!(new_key(&table, *id, 5), n < slots);
    }
    for id in &all[..slots] {
        assert!(wait(take(&table, *id, 1)).is_some());
    }
    assert_eq!(table.vacancy(all[slots], 4_999_999_999, false), None);
    assert!(matches!(table.vacancy(all[slots], 5_000_000_000, false), Some(Vacancy::Expired(..))));
    // A permit out of one of its keys keeps all of a bucket in place.
    assert!(table.pin(pin(9)) && table.pin(pin(10)));
    assert_eq!(table.vacancy(all[slots], 5_000_000_000, false), None);
    assert_eq!(table.sweep(BUCKETS as usize, 5_000_000_000), 0);
    table.unpin(pin(9));
    assert_eq!(table.sweep(BUCKETS as usize, 5_000_000_000), WORDS - 1);
}

/// Written by one who was held up between the clock and the slot, for longer than a bucket may be left alone.
#[test]
fn a_time_that_no_one_could_have_written_is_nothing() {
    let encoding = table(Quota::per_second(1).burst(5)).quotas.encoding().1;
    let head = 10 * encoding::CIRCLE;
    for late in [1, 2, 3] {
        let time = encoding.time(head, 0, head).wrapping_sub(late * (encoding::CIRCLE / 64));
        assert_eq!(encoding.ahead(head, time & (encoding::CIRCLE - 1), head), 0);
    }
}

/// What has expired is not as a newcomer is that starts with less.
#[test]
fn keys_that_start_with_less_keep_their_places() {
    let table = table(Quota::per_second(1).burst(5).initial(3));
    let one = id(7, 3);
    assert!(new_key(&table, one, 1));
    assert_eq!(table.sweep(BUCKETS as usize, 10_000_000_000), 0);
    let full: Vec<Id> = (8..40_000).map(|fingerprint| id(fingerprint, 3)).collect();
    let neighbours = full.iter().filter(|id| id.buckets(BUCKETS) == (3, one.buckets(BUCKETS).1));
    let seated = neighbours.clone().filter(|id| new_key(&table, **id, 1)).count();
    assert!(seated < neighbours.count());
    assert!(table.snapshot(one).is_some());
}

#[test]
fn a_gap_in_which_the_circle_wraps_in_its_word_is_a_gap() {
    let quota = Quota::per(16, std::time::Duration::from_nanos(1_001)).burst(5);
    let encoding = table(quota).quotas.encoding().1;
    assert_eq!(encoding.mul, 16);
    let time = encoding.time(0, 1_000, 0) & (encoding::CIRCLE - 1);
    assert_eq!(encoding.ahead_of_old(0, time, 0), 1_000);
    assert_eq!(encoding.ahead_of_old(0, time, 1 << 60), 0);
}

/// The forms that the page of `Keyed` names.
#[test]
fn quotas_have_the_form_that_is_documented() {
    let has_slots = |quota: Quota| {
        let bucket = TokenBucket::from_quota(quota).unwrap();
        Table::new(&bucket, 10, ManualClock::new(), None).is_some()
    };
    for count in 1..=16 {
        for times in (0..6).map(|power| 10_u64.pow(power)) {
            assert!(has_slots(Quota::per_second(count * times).burst(count * times * 60)));
            assert!(has_slots(Quota::per_minute(count * times)));
        }
    }
    for count in (1..=200).chain([250, 500, 1_000, 5_000, 10_000]) {
        assert!(has_slots(Quota::per_hour(count)), "{count} an hour");
    }
    for count in (1..=500).chain([1_000]) {
        assert!(has_slots(Quota::per_day(count)), "{count} a day");
    }
    for burst in 1..=440 {
        for unit_ns in [270_000_001, 86_400_000_000_007, 2_629_800_000_000_000, 1_000_000_007] {
            let quota = Quota::per(17, std::time::Duration::from_nanos(17 * unit_ns + 1)).burst(burst);
            assert!(has_slots(quota), "{quota}");
        }
    }
    assert!(has_slots(Quota::per_day(10_000).burst(100)) && has_slots(Quota::once(1_000_000)));
    for quota in
        [Quota::per_second(17), Quota::per_second(99), Quota::per_second(101), Quota::per_day(10_000)]
    {
        assert!(!has_slots(quota), "{quota}");
    }
}

/// The rate in slots is lower than that of the quota by at most one part in 2·10⁹, and never higher.
#[test]
fn what_slots_count_is_the_quota_within_what_is_promised() {
    let spans =
        [1_000_000_u64, 1_000_000_000, 60_000_000_000, 3_600_000_000_000, 86_400_000_000_000, 1 << 52];
    let mut coarse = 0;
    for (span, count) in spans.into_iter().flat_map(|span| (1..3_000).map(move |count| (span, count))) {
        let quota = Quota::per(count, std::time::Duration::from_nanos(span));
        let bucket = TokenBucket::from_quota(quota).unwrap();
        let Some(SlotQuota { encoding, .. }) = SlotQuota::of(&bucket) else { continue };
        // Ticks of a unit, times the units: those of the span, times the rate's error.
        let ticks = u128::from(encoding.unit) * u128::from(count) << encoding.shift;
        let due = u128::from(span) * u128::from(encoding.mul);
        assert!(ticks >= due && (ticks - due) * 2_000_000_000 <= due, "{quota}");
        coarse += u64::from(ticks > due);
    }
    assert!(coarse > 1_000);
}
