//! Bounds, with threads.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::{
    scopes::{Allowed, admits, state},
    *,
};
use crate::{
    limit::LimitSettings,
    limiter::{self, balance::BalanceRef, limit_set::Storage},
};

/// The same as bounds, under contention: threads ask at a moment that stands still.
#[test]
fn threads_never_get_more_than_any_of_all_scopes_allows() {
    let rate = |burst| {
        vec![Allowed::Rate {
            interval: 1_000_000,
            burst,
        }]
    };
    let mut plan = rate(400);
    plan.push(Allowed::Quota {
        count: 350,
        window: 1 << 50,
    });
    // Without the total, 950 pass in any order, or 1,000 where client 2 spends less of its quota on `/b`; a few
    // fewer where a charge that is given back stands in somebody's way.
    let limited = [rate(900), rate(700), rate(200), plan, rate(250)];
    let state = state(&limited);
    let count = |on_a: bool, client: u64| {
        let path = if on_a { "/a" } else { "/b" };
        let passed = (0..600).filter(|_| admits(&state, client, path, 7));
        passed.count()
    };
    let work = [
        (true, 0),
        (false, 0),
        (true, 2),
        (false, 2),
        (true, 3),
        (false, 1),
    ];
    let count = &count;
    let mut passed: Vec<usize> = thread::scope(|scope| {
        let threads = work.map(|(on_a, client)| scope.spawn(move || count(on_a, client)));
        threads
            .map(|thread| thread.join().expect("no panic"))
            .into()
    });
    // A unit that one of them was about to give back may have stood in the way of the last request of another.
    for (passed, (on_a, client)) in passed.iter_mut().zip(work) {
        *passed += count(on_a, client);
    }
    let sum = |wanted: &dyn Fn(bool, u64) -> bool| -> usize {
        let counted = work.iter().zip(&passed);
        let counted = counted.filter(|((on_a, client), _)| wanted(*on_a, *client));
        counted.map(|(_, passed)| passed).sum()
    };
    assert_eq!(sum(&|_, _| true), 900, "the total is spent, and exactly");
    assert!(sum(&|on_a, _| on_a) <= 700 && sum(&|on_a, _| !on_a) <= 700);
    assert!(sum(&|_, client| client == 0) <= 200 && sum(&|_, client| client == 1) <= 200);
    assert!(sum(&|_, client| client == 2) <= 350 && sum(&|_, client| client == 3) <= 350);
    assert!(sum(&|on_a, client| on_a && client == 2) <= 250);
}

/// The owner of a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Total,
    Client {
        is_quota: bool,
        number: u32,
        bucket: Kept,
    },
}

/// The place where a client's balance lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    Own(u64),
    /// At this address.
    Overflow(usize),
}

/// Between which readings of the clock a charge was made.
#[derive(Debug, Clone, Copy)]
struct Charged {
    earliest: u64,
    latest: u64,
}

/// The sum that was charged in the half-open window that comes closest to its bound, and the bound. A charge counts
/// in a window if all of its readings lie there.
fn tightest(charged: &mut [Charged], most: impl Fn(u64) -> u64) -> (u64, u64) {
    charged.sort_unstable_by_key(|charge| charge.earliest);
    let mut tightest = (0, most(1));
    for (index, &Charged { earliest, .. }) in charged.iter().enumerate() {
        let mut latest: Vec<_> = charged[index..]
            .iter()
            .map(|charge| charge.latest)
            .collect();
        latest.sort_unstable();
        for (count, latest) in (1..).zip(latest) {
            let bound = most(latest - earliest + 1);
            if i128::from(bound) - i128::from(count)
                < i128::from(tightest.1) - i128::from(tightest.0)
            {
                tightest = (count, bound);
            }
        }
    }
    tightest
}

/// R1 on a clock that threads move on, over a table so small that its keys come and go.
///
/// A few clients ask for much and are on a plan with a quota; many ask for little, and their keys come and go in
/// what the plan leaves of the table.
#[test]
fn on_a_clock_that_threads_move_every_bucket_keeps_its_bound() {
    const INTERVAL: u64 = 100;
    const BURST: u64 = 3;
    const QUOTA: u64 = 15;
    const WINDOW: u64 = 2_000;
    const TOTAL: (u64, u64) = (4, 20);
    const SLOTS: usize = 24;
    const BUSY: u64 = 4;
    const RARE: u64 = 36;
    let rate = |(interval, burst)| Rate::new(1, Duration::from_nanos(interval)).burst(burst);
    let quota = Quota::per(QUOTA, Duration::from_nanos(WINDOW));
    let clients = Clients::by_header("x-api-key")
        .each(rate((INTERVAL, BURST)))
        .plan("busy", quota)
        .max_clients(SLOTS);
    let clients = (0..BUSY).fold(clients, |clients, client| {
        clients.member("busy", client.to_string())
    });
    let rules = Rules::new().total(rate(TOTAL)).clients(clients);
    let clock = Timeline::started_at(0);
    let state = state_of(&rules, clock);
    let memory = &state.limiter.clients;

    let time = AtomicU64::new(1);
    // For each limit of an admitted request: its bucket, and the charge.
    let ask = |client: u64, step: u64| {
        let request = Request::get("/").header("x-api-key", client).body(());
        let request = request.expect("a request");
        let mut demand = Demand::default();
        let found = state
            .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
            .expect("no reload");
        let now = time.load(Ordering::Acquire);
        let charges = found.limit_set.charges(memory, demand, now);
        // A key that is new is charged with a reading of its own, of which nobody is told here which limit made
        // it: its charge lies between the first reading and the last. All others are made with the first.
        let last = Cell::new(now);
        let read = || {
            last.set(time.load(Ordering::Acquire));
            last.get()
        };
        let mut readings = LimitReadings::default();
        let admitted = limiter::admit(charges, now, read, || (), &mut readings) == Ok(true);
        time.fetch_add(step, Ordering::AcqRel);
        if !admitted {
            return Vec::new();
        }
        let limits = found.limit_set.limits.iter().zip(readings.as_slice());
        let charged = limits.map(|(bound, reading)| {
            let whose = match &bound.storage {
                Storage::Bucket(_) => Whose::Total,
                Storage::Client(buckets) => {
                    let is_quota = matches!(bound.limit.settings, LimitSettings::Quota(_));
                    let bucket = match (reading.shared, bound.balance(memory, demand.identity)) {
                        (true, BalanceRef::Table(_, key)) => {
                            Kept::Overflow(std::ptr::from_ref(key.overflow()).addr())
                        }
                        _ => Kept::Own(client),
                    };
                    Whose::Client {
                        is_quota,
                        number: buckets.number(),
                        bucket,
                    }
                }
            };
            let latest = if whose == Whose::Total {
                now
            } else {
                last.get()
            };
            (
                whose,
                Charged {
                    earliest: now,
                    latest,
                },
            )
        });
        charged.collect()
    };
    let ask = &ask;
    let admitted: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                scope.spawn(move || {
                    // Every other request is a busy client's; time passes with each second one.
                    let turns = (0..3_000u64).flat_map(|turn| match turn % 2 {
                        0 => ask(turn / 2 % BUSY, 1),
                        _ => ask(BUSY + (turn * 7 + thread * 5) % RARE, turn / 2 % 3),
                    });
                    turns.collect::<Vec<_>>()
                })
            })
            .collect();
        let threads = threads.into_iter();
        threads
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });

    let mut buckets: HashMap<_, Vec<Charged>> = HashMap::new();
    for (whose, charged) in admitted {
        buckets.entry(whose).or_default().push(charged);
    }
    let bound =
        |interval: u64, burst: u64| move |window: u64| burst - 1 + window.div_ceil(interval);
    // Which limits came close to their bounds: the total, rates of their own, shared ones, quotas.
    let mut reached = [false; 4];
    let mut own = 0;
    for (whose, charged) in &mut buckets {
        let (kind, (count, most)) = match *whose {
            Whose::Total => (0, tightest(charged, bound(TOTAL.0, TOTAL.1))),
            Whose::Client {
                is_quota: false,
                bucket,
                ..
            } => {
                let is_own = matches!(bucket, Kept::Own(_));
                own += usize::from(is_own);
                (
                    if is_own { 1 } else { 2 },
                    tightest(charged, bound(INTERVAL, BURST)),
                )
            }
            Whose::Client { is_quota: true, .. } => {
                let mut windows: HashMap<u64, u64> = HashMap::new();
                for &Charged { earliest, latest } in &*charged {
                    if earliest / WINDOW == latest / WINDOW {
                        *windows.entry(earliest / WINDOW).or_default() += 1;
                    }
                }
                (3, (windows.into_values().max().unwrap_or(0), QUOTA))
            }
        };
        assert!(
            count <= most,
            "{whose:?}: {count} in a window that allows {most}"
        );
        reached[kind] |= count == most;
    }
    assert_eq!(
        reached, [true; 4],
        "each kind of bound is met, and so tried"
    );
    assert!(
        own > SLOTS,
        "{own} rates had one of {SLOTS} slots: some changed hands"
    );
}
