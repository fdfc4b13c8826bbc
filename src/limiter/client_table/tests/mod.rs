#[cfg(throttle_loom)]
mod loom_tests;
mod reloaded;

use std::{
    cell::Cell,
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    limit::rate::Rate,
    limiter::{balance::BalanceRef, meter_history::MeterHistory},
};

fn meter(interval: u64, burst: u64) -> Meter {
    let rate = Rate::new(1, Duration::from_nanos(interval)).burst(burst);
    Meter::of_rate(&rate).expect("an open rate")
}

/// A table, with the limits whose balances it keeps.
struct Kept {
    memory: ClientTable,
    pages: Vec<ClientBuckets>,
    history: MeterHistory,
}

fn memory(capacity: usize) -> Kept {
    Kept::new(capacity, 1)
}

impl Kept {
    fn new(capacity: usize, limits: usize) -> Self {
        let memory = ClientTable::new();
        memory.reserve(capacity).expect("there is as much memory");
        Self {
            memory,
            pages: (0..)
                .map(|number| ClientBuckets::new(number, 0))
                .take(limits)
                .collect(),
            history: MeterHistory::new(None),
        }
    }

    fn key_of(&self, client: u64, limit: usize) -> TableKey<'_> {
        let terms = MeterTerms {
            version: 0,
            history: &self.history,
        };
        TableKey::new(identity(client), &self.pages[limit], terms)
    }

    fn key(&self, client: u64) -> TableKey<'_> {
        self.key_of(client, 0)
    }
}

impl std::ops::Deref for Kept {
    type Target = ClientTable;

    fn deref(&self) -> &ClientTable {
        &self.memory
    }
}

/// As a keyed hash would have made it.
fn identity(client: u64) -> u128 {
    let high = client.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = high.rotate_left(29).wrapping_mul(0xd134_2543_de82_ef95);
    u128::from(high) << 64 | u128::from(low)
}

fn take(
    memory: &Kept,
    client: u64,
    meter: &Meter,
    now: Nanos,
) -> Result<BucketReading, BucketReading> {
    taken(memory.take(&memory.key(client), meter, now, 1, || now))
}

fn taken(
    taken: Result<BucketReading, Untaken<BucketReading>>,
) -> Result<BucketReading, BucketReading> {
    taken.map_err(|untaken| match untaken {
        Untaken::Refused(seen) => seen,
        Untaken::Outdated => unreachable!("no reload"),
    })
}

proptest! {
    /// Whatever was given away in between: a client that never shared was treated as if the table were
    /// endless, and those that did share never got more than the overflow bucket has.
    #[test]
    fn dropping_full_buckets_loses_nothing(
        capacity in 0..40usize,
        burst in 1..4u64,
        demand in prop::collection::vec((0..30u64, 0..40u64), 1..400),
    ) {
        let memory = memory(capacity);
        let meter = meter(100, burst);
        let mut endless: HashMap<u64, u64> = HashMap::new();
        let mut overflow: HashMap<usize, u64> = HashMap::new();
        let mut now = 0;
        for (client, step) in demand {
            now += step;
            let peeked = memory.peek(&memory.key(client), now);
            let (seen, admitted) = match take(&memory, client, &meter, now) {
                Ok(seen) => (seen, true),
                Err(seen) => (seen, false),
            };
            prop_assert_eq!(peeked.shared, seen.shared, "a look tells where it will be charged");
            let state = if seen.shared {
                overflow.entry((memory.key(client).hash() >> 32) as usize % ClientBuckets::OVERFLOW).or_default()
            } else {
                endless.entry(client).or_default()
            };
            let expected = meter.take(*state, now, 1);
            prop_assert_eq!(admitted, expected.is_ok());
            if let Ok(next) = expected {
                prop_assert_eq!(seen.state, next);
                *state = next;
            }
        }
        if capacity >= 30 * 8 {
            prop_assert_eq!(memory.overflowed(), 0);
        }
    }
}

/// Rates and quotas of several limits in one table, against buckets written down by hand.
#[derive(Debug, Default, Clone)]
struct Naive {
    owed: u64,
    last: u64,
    window: u64,
    count: u64,
}

#[derive(Debug, Clone, Copy)]
enum Allowed {
    Rate { interval: u64, burst: u64 },
    Quota { count: u64, window: u64 },
    Slots { count: u64 },
}

impl Allowed {
    fn meter(self) -> Meter {
        let meter = match self {
            Self::Rate { interval, burst } => return meter(interval, burst),
            Self::Quota { count, window } => {
                let quota = crate::limit::quota::Quota::per(count, Duration::from_nanos(window));
                Meter::of_quota(&quota)
            }
            Self::Slots { count } => Meter::of_slots(count),
        };
        meter.expect("open")
    }

    fn takes(self, naive: &mut Naive, now: u64) -> bool {
        match self {
            Self::Rate { interval, burst } => {
                naive.owed = naive.owed.saturating_sub(now - naive.last);
                naive.last = now;
                let passes = naive.owed + interval <= burst * interval;
                naive.owed += if passes { interval } else { 0 };
                passes
            }
            Self::Quota { count, window } => {
                if now / window > naive.window {
                    (naive.window, naive.count) = (now / window, 0);
                }
                let passes = naive.count < count;
                naive.count += u64::from(passes);
                passes
            }
            Self::Slots { count } => {
                let passes = naive.count < count;
                naive.count += u64::from(passes);
                passes
            }
        }
    }
}

fn allowed() -> impl Strategy<Value = Allowed> {
    prop_oneof![
        (1..200u64, 1..4u64).prop_map(|(interval, burst)| Allowed::Rate { interval, burst }),
        (1..5u64, 5..300u64).prop_map(|(count, window)| Allowed::Quota { count, window }),
        (1..4u64).prop_map(|count| Allowed::Slots { count }),
    ]
}

proptest! {
    /// Each limit of each client is as if it had the table for itself, and the table were endless. Slots are
    /// given back now and then, by who has them.
    #[test]
    fn limits_of_all_kinds_lie_in_one_table_and_do_not_touch_each_other(
        capacity in 0..80usize,
        limits in prop::collection::vec(allowed(), 1..6),
        demand in prop::collection::vec((0..20u64, 0..6usize, 0..60u64, any::<bool>()), 1..400),
    ) {
        let memory = Kept::new(capacity, limits.len());
        let meters: Vec<_> = limits.iter().map(|allowed| allowed.meter()).collect();
        let mut naive: HashMap<(u64, usize, bool), Naive> = HashMap::new();
        let mut held: Vec<(u64, usize, bool)> = Vec::new();
        let mut now = 1;
        for (client, limit, step, gives_back) in demand {
            now += step;
            let limit = limit % limits.len();
                        let place = memory.key_of(client, limit);
            let meter = &meters[limit];
            // Strangers share by the key, which is the bucket's name in the reference.
            let bucket = |shared: bool| {
                let whose = if shared { (place.hash() >> 32) % ClientBuckets::OVERFLOW as u64 } else { client };
                (whose, limit, shared)
            };
            let taken = taken(memory.take(&place, meter, now, 1, || now));
            let (Ok(seen) | Err(seen)) = taken;
            let bucket = bucket(seen.shared);
            let expected = limits[limit].takes(naive.entry(bucket).or_default(), now);
            prop_assert_eq!(taken.is_ok(), expected, "{:?} of {} at {}", limits[limit], client, now);
            if meter.is_slots() {
                if taken.is_ok() {
                    held.push((client, limit, seen.shared));
                }
                let own = held.iter().position(|&(whose, of, _)| whose == client && of == limit);
                if let Some(index) = own.filter(|_| gives_back) {
                    let (_, _, shared) = held.swap_remove(index);
                    BalanceRef::Table(&memory, place).refund(shared, meter, now, 1);
                    let whose = if shared { (place.hash() >> 32) % ClientBuckets::OVERFLOW as u64 } else { client };
                    naive.entry((whose, limit, shared)).or_default().count -= 1;
                }
            }
        }
    }
}

#[test]
fn two_thirds_of_the_table_fill_before_anybody_shares() {
    for capacity in [1_024, 16_384, 131_072] {
        let memory = memory(capacity);
        let meter = meter(1_000_000, 1);
        for client in 0..capacity as u64 * 2 / 3 {
            assert!(
                take(&memory, client, &meter, 7).is_ok(),
                "{client} of {capacity}"
            );
        }
        assert_eq!(memory.overflowed(), 0, "of {capacity}");
    }
}

#[test]
fn a_flood_gets_what_slots_and_overflow_buckets_hold_and_known_clients_keep_theirs() {
    let memory = memory(800);
    let meter = meter(1_000_000, 5);
    for client in 0..100 {
        assert!(take(&memory, client, &meter, 7).is_ok());
    }
    let flood = (1_000..1_000_000).filter(|&client| take(&memory, client, &meter, 7).is_ok());
    let admitted = flood.count() as u64;
    let shared = memory.overflowed();
    assert_eq!(shared, 16 * 5, "the overflow buckets' bursts");
    assert!(admitted <= 700 + shared, "{admitted}");
    for client in 0..100 {
        let more = (0..9).filter(|_| take(&memory, client, &meter, 7).is_ok());
        assert_eq!(
            more.count(),
            4,
            "client {client} keeps what is left of its burst"
        );
    }
}

#[test]
fn threads_that_meet_on_new_and_on_given_away_slots_admit_exactly_the_bursts() {
    // So few slots that keys come and go, and time moves on after each round.
    for round in 0..40u64 {
        let memory = memory(64);
        let meter = meter(1_000, 3);
        for moment in 1..20u64 {
            let now = moment * 3_000 + round;
            let admitted: Vec<AtomicU64> = (0..12).map(|_| AtomicU64::new(0)).collect();
            thread::scope(|scope| {
                for thread in 0..4u64 {
                    let (memory, admitted, meter) = (&memory, &admitted, &meter);
                    scope.spawn(move || {
                        for turn in 0..60 {
                            let index = (turn * 7 + thread * 5) % 12;
                            // Other clients in each round: the ones before have full buckets.
                            let client = moment * 100 + index;
                            let passed = take(memory, client, meter, now).is_ok();
                            admitted[index as usize]
                                .fetch_add(u64::from(passed), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(memory.overflowed(), 0);
            for admitted in admitted {
                assert_eq!(admitted.into_inner(), 3, "each client has its burst");
            }
        }
    }
}

#[test]
fn a_new_key_is_charged_with_a_reading_of_its_own_made_under_the_lock() {
    // A thread has read 5 and was held up. Meanwhile its client has used the whole burst at 100, and at 400 its
    // bucket was full and given away. Charged at 5, the client would have its whole burst again at 400.
    let memory = memory(8);
    let meter = meter(100, 3);
    for now in [100, 100, 100] {
        assert!(take(&memory, 0, &meter, now).is_ok(), "the burst");
    }
    for stranger in 1..=8 {
        assert_eq!(
            take(&memory, stranger, &meter, 400),
            Ok(BucketReading::own(500))
        );
    }
    // One of them has become full.
    let clock = || {
        let stripes = &memory.table.get().expect("reserved").stripes;
        let held = stripes.iter().filter(|stripe| stripe.0.try_lock().is_err());
        assert_eq!(
            held.count(),
            1,
            "nobody enters this key after the clock was read"
        );
        500
    };
    let late = memory.take(&memory.key(0), &meter, 5, 1, clock);
    let seen = BucketReading::own(600).charged(500, 5);
    assert_eq!(late, Ok(seen), "as one who came at 500");
    let more = (0..9).filter(|_| take(&memory, 0, &meter, 500).is_ok());
    assert_eq!(more.count(), 2, "what is left of the burst");
}

#[test]
fn a_charge_on_a_bucket_that_was_given_away_meanwhile_is_made_anew() {
    let memory = memory(8);
    let (meter, long) = (meter(10, 1), meter(1_000_000, 1));
    for stranger in 2..9 {
        assert_eq!(
            take(&memory, stranger, &long, 5),
            Ok(BucketReading::own(1_000_005))
        );
    }
    assert_eq!(take(&memory, 0, &meter, 5), Ok(BucketReading::own(15)));
    // At 15 the slot goes to a stranger, who gives its charge back: its state is the same by chance.
    let looks = Cell::new(0);
    let charged = memory.step(
        &memory.key(0),
        15,
        || 15,
        |state, now| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                assert_eq!(state, 15);
                let left = take(&memory, 1, &meter, 15).expect("full");
                memory.give_back(&memory.key(1), left, &meter, 15, meter.weight(1), || 15);
                assert_eq!(memory.peek(&memory.key(1), 15), BucketReading::own(15));
            }
            meter.take(state, now, 1).ok()
        },
    );
    // The stranger is full again, so that its slot may be had.
    assert_eq!(charged, Ok(BucketReading::own(25)));
    assert_eq!(looks.get(), 2, "once more, as a new key");
    assert_eq!(
        memory.peek(&memory.key(0), 15),
        BucketReading::own(25),
        "it is charged, and not the stranger"
    );
}

#[test]
fn what_was_taken_from_a_shared_balance_goes_back_there() {
    // Slots for nobody, and then for all: the client has a bucket of its own when it gives back.
    let memory = memory(8);
    let (meter, long) = (meter(100, 3), meter(1_000, 1));
    for stranger in 1..=8 {
        assert_eq!(
            take(&memory, stranger, &long, 10),
            Ok(BucketReading::own(1_010))
        );
    }
    let shared = |state| BucketReading {
        shared: true,
        ..BucketReading::own(state)
    };
    let left = take(&memory, 0, &meter, 950);
    assert_eq!(left, Ok(shared(1_050)));
    assert_eq!(
        take(&memory, 0, &meter, 1_010),
        Ok(BucketReading::own(1_110))
    );
    let weight = meter.weight(1);
    memory.give_back(&memory.key(0), shared(1_050), &meter, 950, weight, || 1_010);
    assert_eq!(
        memory.peek(&memory.key(0), 1_010),
        BucketReading::own(1_110),
        "not its own"
    );
    assert_eq!(memory.key(0).overflow().load(), 950, "as it was before");
}

#[test]
fn given_back_it_is_as_if_never_charged() {
    let memory = memory(8);
    let meter = meter(100, 3);
    let first = take(&memory, 1, &meter, 50).expect("full");
    let second = take(&memory, 1, &meter, 50).expect("two are left");
    memory.give_back(&memory.key(1), second, &meter, 50, meter.weight(1), || 50);
    assert_eq!(memory.peek(&memory.key(1), 50), first);
    // Nothing is there to be given to any more.
    memory.give_back(&memory.key(2), second, &meter, 50, meter.weight(1), || 50);
    assert_eq!(memory.peek(&memory.key(2), 50), BucketReading::own(0));
}

#[test]
fn a_page_has_its_number_and_its_overflow_buckets() {
    let page = ClientBuckets::new(7, 1);
    assert_eq!(page.number(), 7);
    assert_eq!(page.overflow().len(), ClientBuckets::OVERFLOW);
}

#[test]
fn clients_limits_and_versions_have_keys_of_their_own() {
    let memory = Kept::new(8, 3);
    let keys = (0..1_000u64).flat_map(|client| (0..3).map(move |limit| (client, limit)));
    let hashes = keys.map(|(client, limit)| memory.key_of(client, limit).hash());
    let different: std::collections::HashSet<_> = hashes.collect();
    assert_eq!(different.len(), 3_000);
    assert!(
        different
            .iter()
            .all(|hash| hash & !TableKey::HASH == 0 && *hash != 0)
    );
    // Half of an identity is no identity.
    let [low, high] = [1 << 40, 1 << 100].map(|half| TableKey::hash_of(identity(0) ^ half, 0));
    assert_ne!(low, high);
    assert_ne!(low, TableKey::hash_of(identity(0), 0));
    assert_ne!(high, TableKey::hash_of(identity(0), 0));
}

#[test]
fn more_than_there_is_memory_for_is_an_error() {
    let memory = ClientTable::new();
    assert!(memory.reserve(usize::MAX).is_err());
    assert_eq!(memory.capacity(), None);
    assert!(memory.reserve(0).is_ok());
    assert_eq!(memory.capacity(), Some(0));
}
