#[cfg(throttle_loom)]
mod loom_tests;

use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::bucket::Bucket;
use super::*;
use super::{client_table::ClientBuckets, readings::BucketReading};
use crate::limit::{Limit, LimitSettings, quota::Quota, rate::Rate};

fn limit(interval: u64, burst: u64) -> Limit {
    let rate = Rate::new(1, Duration::from_nanos(interval)).burst(burst);
    Limit::of(LimitSettings::Rate(rate))
}

fn bound(limits: &[(u64, u64)]) -> Vec<BoundLimit> {
    let limits = limits.iter();
    BoundLimit::scope(limits.map(|&(interval, burst)| limit(interval, burst)))
}

fn charges<'a>(
    limits: &'a [BoundLimit],
    costs: &'a [(usize, u64)],
) -> impl Iterator<Item = BucketCharge<'a>> + Clone {
    costs.iter().map(|&(index, cost)| BucketCharge {
        limit: &limits[index].limit,
        balance: limits[index].balance(no_memory(), 0),
        cost,
    })
}

/// A table that nobody looks into.
fn no_memory() -> &'static ClientTable {
    static NONE: OnceLock<ClientTable> = OnceLock::new();
    NONE.get_or_init(ClientTable::new)
}

fn memory(capacity: usize) -> ClientTable {
    let memory = ClientTable::new();
    memory.reserve(capacity).expect("there is as much memory");
    memory
}

/// A limit of each client, by number.
fn client_binding(number: u32, limit: Limit) -> BoundLimit {
    BoundLimit::alone(
        limit,
        Storage::Client(Arc::new(ClientBuckets::new(number, 0))),
    )
}

/// As [`super::admit`], without a reload.
fn admit<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>> + Clone,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) -> bool {
    super::admit(charges, now, clock, || (), readings).expect("no reload")
}

/// Returns whether a request of these costs is admitted by a clock that stands still.
fn take(limits: &[BoundLimit], costs: &[(usize, u64)], now: Nanos) -> bool {
    admit(
        charges(limits, costs),
        now,
        || now,
        &mut LimitReadings::default(),
    )
}

fn bucket(bound: &BoundLimit) -> &Bucket {
    match &bound.storage {
        Storage::Bucket(bucket) => bucket,
        Storage::Client(_) => unreachable!("these limits are kept in buckets of their own"),
    }
}

fn states(limits: &[BoundLimit]) -> Vec<u64> {
    limits.iter().map(|bound| bucket(bound).load()).collect()
}

proptest! {
    #[test]
    fn a_request_is_charged_on_all_its_limits_or_on_none(
        limits in prop::collection::vec((1..50u64, 0..6u64), 1..7),
        requests in prop::collection::vec(
            (0..60u64, prop::collection::btree_map(0..7usize, 0..4u64, 1..7)), 1..60),
    ) {
        let buckets = bound(&limits);
        let mut now = 0;
        for (step, costs) in requests {
            now += step;
            let costs: Vec<_> = costs.into_iter().filter(|&(index, _)| index < limits.len()).collect();
            let before = states(&buckets);
            let passes = |&(index, cost): &(usize, u64)| match &buckets[index].limit.meter {
                Some(meter) => meter.take(before[index], now, cost).is_ok(),
                None => false,
            };
            let admitted = take(&buckets, &costs, now);
            prop_assert_eq!(admitted, costs.iter().all(passes));
            let after = states(&buckets);
            for (index, (before, after)) in before.into_iter().zip(after).enumerate() {
                let charged = costs.iter().find(|&&(charged, _)| charged == index && admitted);
                let expected = charged.map_or(Ok(before), |&(_, cost)| {
                    buckets[index].limit.meter.as_ref().map_or(Ok(before), |meter| meter.take(before, now, cost))
                });
                prop_assert_eq!(Ok(after), expected, "bucket {}", index);
            }
        }
    }
}

#[test]
fn shadows_are_charged_for_what_passes_and_say_what_they_would_have_refused() {
    let buckets = bound(&[(100, 2), (100, 1)]);
    let shadowed = |admitted| {
        let mut readings = LimitReadings::default();
        let charges = charges(&buckets, &[(0, 1), (1, 1)]);
        shadow(charges, admitted, 1_000, || 1_000, &mut readings);
        let readings = readings.as_slice().iter();
        readings
            .map(|reading| (reading.state, reading.refused))
            .collect::<Vec<_>>()
    };
    assert_eq!(shadowed(false), [(0, false), (0, false)]);
    assert_eq!(shadowed(true), [(1_100, false), (1_100, false)]);
    assert_eq!(shadowed(true), [(1_200, false), (1_100, true)]);
    assert_eq!(shadowed(false), [(1_200, true), (1_100, true)]);
    assert_eq!(states(&buckets), [1_200, 1_100]);
}

#[tokio::test(start_paused = true)]
async fn a_limiter_asks_all_limits_of_a_rule_and_its_shadows_after_them() {
    let limiter = Limiter::new(Timeline::start());
    let shadow = Limit {
        shadow: true,
        ..limit(100, 1)
    };
    let limit_set = LimitSet::new("GET /", None, BoundLimit::scope([shadow, limit(100, 2)]));
    let now = limiter.now();
    let mut told = Vec::new();
    for _ in 0..3 {
        let mut readings = LimitReadings::default();
        let admitted = limiter.admit(&limit_set, Demand::default(), now, &mut readings);
        let readings = readings.as_slice().iter();
        let readings: Vec<_> = readings
            .map(|reading| (reading.state - now, reading.refused))
            .collect();
        told.push((admitted, readings));
    }
    let expected = [
        (Ok(true), vec![(100, false), (100, false)]),
        (Ok(true), vec![(200, false), (100, true)]),
        (Ok(false), vec![(200, false), (100, true)]),
    ];
    assert_eq!(told, expected);
    limiter.owe(&limit_set.limits[0], 0, 3);
    assert_eq!(bucket(&limit_set.limits[0]).load(), now + 500);
    limiter.refund(&limit_set.limits[0], 0, false, 4);
    assert_eq!(bucket(&limit_set.limits[0]).load(), now + 100);
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_shared_bucket_are_told_places_and_others_a_jitter() {
    let limiter = Limiter::new(Timeline::start());
    let route = &bound(&[(100_000, 2), (100_000, 2)])[..];
    let client = client_binding(3, limit(100_000, 2));
    let told = |bound, identity, known| {
        let demand = Demand {
            identity,
            ..Demand::default()
        };
        limiter.spread(bound, demand, known, 0, 0, (200_000, 2))
    };
    assert_eq!(told(&route[0], 1, true), 0);
    assert_eq!(told(&route[1], 1, true), 0, "a line of its own");
    assert_eq!(told(&route[0], 2, true), 200_000);
    assert_eq!(told(&route[0], 1 << 64, true), 400_000, "another client");
    assert!(
        told(&route[0], 3, false) <= 200_000,
        "a refill of the burst"
    );
    for client_number in 1..9u128 {
        let identity = client_number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        assert_eq!(
            told(&client, identity, true),
            0,
            "{client_number}: the first"
        );
        let more = [(); 4].map(|()| told(&client, identity, true));
        assert!(more.iter().all(|&more| more <= 200_000), "{more:?}");
        assert!(more.iter().any(|&other| other != more[0]), "{more:?}");
    }
    let closed = BoundLimit::alone(limit(1, 0), Storage::Bucket(Arc::new(Bucket::full(0))));
    assert_eq!(told(&closed, 1, true), 0);
}

#[test]
fn threads_on_one_bucket_admit_exactly_what_a_serial_run_would() {
    let buckets = bound(&[(1_000_000, 10_000)]);
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let ok = take(&buckets, &[(0, 1)], 7);
                    admitted.fetch_add(u64::from(ok), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(
        admitted.into_inner(),
        10_000,
        "20,000 asked, the burst is 10,000"
    );
}

#[test]
fn under_contention_a_refused_request_costs_nothing_anywhere() {
    // Two routes below one total. One is small, so that most requests to it are refused, many of
    // them only in the second pass.
    let buckets = bound(&[(1_000, 1_000_000), (1_000, 5_000), (1_000, 1_000_000)]);
    let admitted = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for thread in 0..4 {
            let (buckets, admitted) = (&buckets, &admitted);
            scope.spawn(move || {
                let route = thread % 2;
                // Different orders, so that each bucket is the one that comes too late.
                let costs = if thread < 2 {
                    [(1 + route, 1), (0, 1)]
                } else {
                    [(0, 1), (1 + route, 1)]
                };
                for _ in 0..20_000 {
                    let ok = take(buckets, &costs, 7);
                    admitted[route].fetch_add(u64::from(ok), Ordering::Relaxed);
                }
            });
        }
    });
    let [small, large] = admitted.map(AtomicU64::into_inner);
    assert_eq!(large, 40_000, "nothing stands in its way");
    assert_eq!(small, 5_000, "exactly its burst");
    let charged = |index: usize| (bucket(&buckets[index]).load() - 7) / 1_000;
    assert_eq!(
        (charged(0), charged(1), charged(2)),
        (45_000, 5_000, 40_000),
        "no charge is lost"
    );
}

/// Charges 3 of 4 units at 1,000, lets a stranger charge or not, and gives back at 1,120.
fn given_back(stranger: bool) -> u64 {
    let buckets = bound(&[(100, 4)]);
    let cost = [(0, 3)];
    let mut readings = LimitReadings::default();
    assert!(admit(
        charges(&buckets, &cost),
        1_000,
        || 1_000,
        &mut readings
    ));
    if stranger {
        assert!(take(&buckets, &[(0, 1)], 1_000), "one is left");
    }
    give_back(charges(&buckets, &cost), &mut readings, 1_000, || 1_120);
    let state = bucket(&buckets[0]).load();
    assert_eq!(readings[0].state, state, "the level is read anew");
    state
}

#[test]
fn a_roll_back_that_nobody_came_before_leaves_no_trace() {
    assert_eq!(given_back(false), 1_000);
}

/// A client's charge of 3 of 4 units at 1,000, given back at `end` after `between`: what its bucket holds
/// then, and what the level says.
fn given_back_in_the_table(
    between: impl Fn(&ClientTable),
    end: Nanos,
) -> (BucketReading, LimitReading) {
    let memory = memory(8);
    let bound = client_binding(0, limit(100, 4));
    let charge = |cost| BucketCharge {
        limit: &bound.limit,
        balance: bound.balance(&memory, CLIENT),
        cost,
    };
    let mut readings = LimitReadings::default();
    assert!(admit(
        [charge(3)].into_iter(),
        1_000,
        || 1_000,
        &mut readings
    ));
    assert_eq!(readings[0].state, 1_300);
    between(&memory);
    give_back([charge(3)].into_iter(), &mut readings, 1_000, || end);
    (bound.balance(&memory, CLIENT).peek(end), readings[0])
}

const CLIENT: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

fn charge_in_table(memory: &ClientTable, identity: u128, now: Nanos, cost: u64) -> BucketReading {
    let bound = client_binding(0, limit(100, 4));
    let meter = bound.limit.meter.expect("open");
    let balance = bound.balance(memory, identity);
    let taken = balance.take(BucketReading::default(), &meter, now, cost, || now);
    taken.expect("there is room")
}

fn peek(memory: &ClientTable, identity: u128, now: Nanos) -> BucketReading {
    let bound = client_binding(0, limit(100, 4));
    bound.balance(memory, identity).peek(now)
}

/// Returns what a client is told to have left of 4 units after a first charge, which the table makes `late` nanoseconds
/// after the decision's reading of the clock.
fn told_of_a_first_charge(late: Nanos) -> u64 {
    let memory = memory(8);
    let bound = client_binding(0, limit(100, 4));
    let charge = BucketCharge {
        limit: &bound.limit,
        balance: bound.balance(&memory, CLIENT),
        cost: 1,
    };
    let mut readings = LimitReadings::default();
    assert!(admit(
        [charge].into_iter(),
        1_000,
        || 1_000 + late,
        &mut readings
    ));
    let meter = bound.limit.meter.expect("open");
    meter
        .balance(readings[0].state, readings[0].told_at(1_000))
        .0
}

#[test]
fn a_new_client_is_told_all_that_it_has_left() {
    let late = [0, 1, 250, u64::from(u32::MAX), 1 << 40];
    assert_eq!(late.map(told_of_a_first_charge), [3, 3, 3, 3, 0]);
}

#[test]
fn a_clients_roll_back_is_whole_if_nobody_came_between() {
    let (seen, reading) = given_back_in_the_table(|_| {}, 1_120);
    assert_eq!(seen, BucketReading::own(1_000));
    assert_eq!(reading.seen(), seen, "the level is read anew");
}

#[test]
fn a_clients_roll_back_does_not_give_twice_what_time_has_refilled() {
    let stranger = |memory: &ClientTable| {
        charge_in_table(memory, CLIENT, 1_000, 1);
    };
    let (seen, reading) = given_back_in_the_table(stranger, 1_120);
    assert_eq!(seen, BucketReading::own(1_400 - 180));
    assert_eq!(reading.seen(), seen);
    let (seen, _) = given_back_in_the_table(stranger, 1_350);
    assert_eq!(
        seen,
        BucketReading::own(1_400),
        "all of it was refilled since"
    );
}

#[test]
fn a_clients_roll_back_gives_nothing_to_who_has_its_slot_now() {
    // All eight slots change hands once the charge weighs nothing any more.
    let others = || (1..=8_u128).map(|other| CLIENT.wrapping_mul(2 * other + 1));
    let crowd = |memory: &ClientTable| {
        for other in others() {
            assert_eq!(
                charge_in_table(memory, other, 1_300, 4),
                BucketReading::own(1_700)
            );
        }
    };
    let (seen, reading) = given_back_in_the_table(
        |memory| {
            crowd(memory);
            assert!(peek(memory, CLIENT, 1_300).shared, "it is gone");
        },
        1_300,
    );
    assert!(
        seen.shared && seen.state == 0,
        "an overflow bucket that nobody used"
    );
    assert_eq!(reading.seen(), seen);
    let memory = memory(8);
    charge_in_table(&memory, CLIENT, 1_000, 3);
    crowd(&memory);
    let bound = client_binding(0, limit(100, 4));
    let meter = bound.limit.meter.expect("open");
    let balance = bound.balance(&memory, CLIENT);
    balance.give_back(BucketReading::own(1_300), &meter, 1_000, 3, || 1_300);
    balance.refund(false, &meter, 1_300, 3);
    for other in others() {
        let owed = peek(&memory, other, 1_300);
        assert_eq!(owed, BucketReading::own(1_700), "it owes what it owed");
    }
}

#[test]
fn what_is_settled_on_a_share_weighs_as_on_the_share() {
    let rate = Rate::per_second(40);
    let whole = Limit::of(LimitSettings::Tokens(rate));
    for by_client in [true, false] {
        let bound = match by_client {
            true => client_binding(0, whole.clone()),
            false => BoundLimit::alone(whole.clone(), Storage::Bucket(Arc::new(Bucket::full(0)))),
        };
        let id = Some("a store's".into());
        let set = LimitSet::new("GET /", None, [BoundLimit { id, ..bound }]).share(4);
        let (memory, bound) = (memory(8), &set.limits[0]);
        let meter = bound.limit.meter.expect("open");
        let balance = bound.balance(&memory, CLIENT);
        let now = 1_000_000_000;
        let left = || meter.balance(balance.peek(now).state, now).0;
        assert_eq!(left(), 10, "a quarter of the burst");
        let taken = balance.take(balance.start(), &meter, now, 4, || now);
        assert!(taken.is_ok() && left() == 6);
        balance.owe(&meter, now, 3, || now);
        assert_eq!(left(), 3, "of a client: {by_client}");
        balance.refund(false, &meter, now, 2);
        assert_eq!(left(), 5, "of a client: {by_client}");
    }
}

/// A client's charges on two limits that it has not met yet, at 1,000, and on a total that somebody else spends
/// between the two passes. Others come in where the clock is read: at 1,000 to enter the first key, at 1,010
/// to enter the second, then to give back. Tells what the two buckets hold then.
fn refused_by_the_last_of_three(between: impl Fn(&ClientTable), end: Nanos) -> [BucketReading; 2] {
    let memory = memory(64);
    let client = |number, interval, burst| client_binding(number, limit(interval, burst));
    let total = bound(&[(1_000_000, 1)]);
    let limits = [client(0, 100, 4), client(1, 50, 5), total[0].clone()];
    let charges = limits
        .iter()
        .zip([3, 1, 1])
        .map(|(bound, cost)| BucketCharge {
            limit: &bound.limit,
            balance: bound.balance(&memory, CLIENT),
            cost,
        });
    let clock_readings = Cell::new(0);
    let clock = || {
        clock_readings.set(clock_readings.get() + 1);
        match clock_readings.get() {
            1 => 1_000,
            2 => {
                between(&memory);
                assert!(
                    take(&total, &[(0, 1)], 1_000),
                    "it was full at the first look"
                );
                1_010
            }
            _ => end,
        }
    };
    let mut readings = LimitReadings::default();
    assert!(
        !admit(charges.clone(), 1_000, clock, &mut readings),
        "the total is spent"
    );
    assert!(clock_readings.get() > 2, "both keys were entered");
    let seen: Vec<_> = charges.map(|charge| charge.balance.peek(end)).collect();
    let told: Vec<_> = readings.as_slice().iter().map(LimitReading::seen).collect();
    assert_eq!(told, seen, "every level is as it was left");
    [seen[0], seen[1]]
}

#[test]
fn who_is_refused_by_the_last_limit_gets_back_what_the_others_took() {
    let states = |between: fn(&ClientTable), end| {
        refused_by_the_last_of_three(between, end).map(|seen| seen.state)
    };
    let stranger = |memory: &ClientTable| {
        charge_in_table(memory, CLIENT, 1_000, 1);
    };
    assert_eq!(states(|_| {}, 1_010), [1_000, 1_010]);
    assert_eq!(states(|_| {}, 1_120), [1_000, 1_010], "however late");
    assert_eq!(states(stranger, 1_010), [1_400 - 290, 1_010]);
    assert_eq!(states(stranger, 1_120), [1_400 - 180, 1_010]);
    assert_eq!(
        states(stranger, 1_350),
        [1_400, 1_010],
        "all of it was refilled since"
    );
}

#[test]
fn a_roll_back_to_a_quota_is_whole_in_its_window_and_nothing_in_the_next() {
    let quota = Quota::per(8, Duration::from_nanos(1_000));
    let limit = Limit::of(LimitSettings::Quota(quota));
    // (charged 3 at, then 2 at, given back at, the state that is left): the windows end at 1,000 and 2,000.
    let table = [
        (10, Some(20), 999, 1_002),
        (10, None, 999, 1_000),
        (999, Some(999), 1_000, 1_005),
        (999, Some(1_000), 1_000, 2_002),
        (999, None, 1_000, 1_000),
    ];
    for (taken, between, end, left) in table {
        let memory = memory(8);
        let limits = BoundLimit::scope([limit.clone()]);
        for bound in [&limits[0], &client_binding(0, limit.clone())] {
            let balance = bound.balance(&memory, CLIENT);
            let charge = |cost| BucketCharge {
                limit: &limit,
                balance,
                cost,
            };
            let admit = |cost, now, readings: &mut LimitReadings| {
                admit([charge(cost)].into_iter(), now, || now, readings)
            };
            let mut readings = LimitReadings::default();
            assert!(admit(3, taken, &mut readings), "{taken}");
            if let Some(now) = between {
                assert!(admit(2, now, &mut LimitReadings::default()), "{now}");
            }
            give_back([charge(3)].into_iter(), &mut readings, taken, || end);
            let seen = balance.peek(taken);
            assert_eq!(
                seen,
                BucketReading::own(left),
                "{taken}, {between:?} and {end} in {balance:?}"
            );
            assert_eq!(readings[0].seen(), seen, "the level is read anew");
        }
    }
}

#[test]
fn a_roll_back_does_not_give_twice_what_time_has_refilled() {
    // 300 charged and 100 by the stranger; 120 refilled, 180 given back.
    assert_eq!(given_back(true), 1_400 - 180);
}
