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
    Clients, Denial, Limits, Plan, Quota, Rate, Rules, clock::Clock, levels::Levels, limit::Terms,
    limiter, rule::Home, store::Place,
};

/// Seconds since the Unix epoch at 23:59:50 UTC, ten seconds before the window of a quota ends, the days
/// of the next window, and what day it is.
type End = (u64, fn(u64) -> Quota, u64, &'static str);

const ENDS: [End; 7] = [
    (1_795_478_390, Quota::per_day, 1, "2026-11-23, a Monday"),
    (1_835_481_590, Quota::per_day, 1, "2028-02-29, into March"),
    (1_795_996_790, Quota::per_week, 7, "2026-11-29, a Sunday"),
    (1_796_083_190, Quota::per_month, 31, "2026-11-30"),
    (
        1_798_761_590,
        Quota::per_month,
        31,
        "2026-12-31, into January",
    ),
    (
        1_803_859_190,
        Quota::per_month,
        31,
        "2027-02-28, no leap year",
    ),
    (
        1_835_481_590,
        Quota::per_month,
        31,
        "2028-02-29, a leap year",
    ),
];

fn state_of(rules: &Rules, clock: Clock) -> Arc<State> {
    let live = Live::new(rules, clock).expect("proper rules");
    Arc::clone(&live.state())
}

/// The wait if it is refused.
fn ask(state: &State, key: &str) -> Result<(), Option<Duration>> {
    let request = Request::get("/").header("x-api-key", key).body(());
    let request = request.expect("a request");
    let (found, asked) = state.asked(&request).expect("no reload");
    let now = state.limiter.now();
    let mut levels = Levels::default();
    if state.limiter.admit(&found.rule, asked, now, &mut levels) == Ok(true) {
        return Ok(());
    }
    Err(Denial::new(Arc::clone(&found.rule), levels, now, now, |_| ()).retry_after())
}

#[tokio::test(start_paused = true)]
async fn a_quota_starts_anew_exactly_when_its_window_ends() {
    for (start, quota, days, what) in ENDS {
        let clock = Clock::started_at(start * 1_000_000_000);
        let clients = Clients::by_header("x-api-key").each(quota(2));
        let rules = Rules::new().clients(clients);
        let state = state_of(&rules, clock);

        let ten = Duration::from_secs(10);
        let refused = |wait| Err(Some(wait));
        assert_eq!(
            [ask(&state, "a"), ask(&state, "a")],
            [Ok(()), Ok(())],
            "{what}"
        );
        assert_eq!(ask(&state, "a"), refused(ten), "{what}");
        assert_eq!(ask(&state, "b"), Ok(()), "{what}: another client's own");
        tokio::time::advance(ten - Duration::from_nanos(1_000_000)).await;
        assert_eq!(
            ask(&state, "a"),
            refused(Duration::from_millis(1)),
            "{what}"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(
            [ask(&state, "a"), ask(&state, "a")],
            [Ok(()), Ok(())],
            "{what}: anew"
        );
        let window = Duration::from_secs(days * 24 * 60 * 60);
        assert_eq!(
            ask(&state, "a"),
            refused(window),
            "{what}: to the end of the next"
        );
        assert_eq!(
            [ask(&state, "b"), ask(&state, "b")],
            [Ok(()), Ok(())],
            "{what}"
        );
        assert_eq!(
            ask(&state, "b"),
            refused(window),
            "{what}: nothing is carried over"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_asks_for_its_own_variants() {
    let clock = Clock::started_at(0);
    let clients = Clients::by_header("x-api-key")
        .each(Plan::new(Limits::closed()).route("GET /", Limits::unlimited()))
        .plan(
            "closed",
            Plan::new(Limits::new()).route("GET /", Limits::closed()),
        )
        .member("closed", "a");
    let state = state_of(&Rules::new().clients(clients), clock);
    assert_eq!(ask(&state, "a"), Err(None));
    assert_eq!(ask(&state, "b"), Ok(()));
}

/// A bucket that owes nanoseconds, or counts in windows.
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
}

impl Allowed {
    fn limits(self, limits: Limits) -> Limits {
        match self {
            Self::Rate { interval, burst } => {
                limits.rate(Rate::new(1, Duration::from_nanos(interval)).burst(burst))
            }
            Self::Quota { count, window } => {
                limits.quota(Quota::per(count, Duration::from_nanos(window)))
            }
        }
    }

    fn admits(self, naive: &mut Naive, now: u64) -> bool {
        match self {
            Self::Rate { interval, burst } => {
                naive.owed = naive.owed.saturating_sub(now - naive.last);
                naive.last = now;
                naive.owed + interval <= burst * interval
            }
            Self::Quota { count, window } => {
                if now / window > naive.window {
                    *naive = Naive {
                        window: now / window,
                        ..Naive::default()
                    };
                }
                naive.count < count
            }
        }
    }

    fn charge(self, naive: &mut Naive) {
        match self {
            Self::Rate { interval, .. } => naive.owed += interval,
            Self::Quota { .. } => naive.count += 1,
        }
    }
}

fn allowed() -> impl Strategy<Value = Allowed> {
    prop_oneof![
        (1..200u64, 1..6u64).prop_map(|(interval, burst)| Allowed::Rate { interval, burst }),
        (1..8u64, 8..600u64).prop_map(|(count, window)| Allowed::Quota { count, window }),
    ]
}

/// Total, each route, each client, the plan, and a client of the plan on the route `/a`.
fn limited() -> impl Strategy<Value = [Vec<Allowed>; 5]> {
    let some = || prop::collection::vec(allowed(), 0..3);
    (
        some(),
        some(),
        some(),
        prop::collection::vec(allowed(), 2..4),
        some(),
    )
        .prop_map(|(total, route, each, plan, on_route)| [total, route, each, plan, on_route])
}

/// Limits that say nothing would inherit.
fn all(allowed: &[Allowed]) -> Limits {
    if allowed.is_empty() {
        return Limits::unlimited();
    }
    allowed
        .iter()
        .fold(Limits::new(), |limits, allowed| allowed.limits(limits))
}

fn state(limited: &[Vec<Allowed>; 5]) -> Arc<State> {
    let [total, route, each, plan, on_route] = limited;
    let rates = plan
        .iter()
        .any(|allowed| matches!(allowed, Allowed::Rate { .. }));
    let quotas = plan
        .iter()
        .any(|allowed| matches!(allowed, Allowed::Quota { .. }));
    let mut pro = Plan::new(all(plan));
    if !on_route.is_empty() {
        pro = pro.route("GET /a", all(on_route));
    }
    // A plan inherits whichever of the two it leaves out: then it is not what the reference has.
    let each = if rates && quotas {
        all(each)
    } else {
        Limits::unlimited()
    };
    let clients = Clients::by_header("x-api-key").each(each).plan("pro", pro);
    let clients = clients.member("pro", "2").member("pro", "3");
    let rules = Rules::new().total(all(total)).default_route(all(route));
    let clock = Clock::started_at(0);
    state_of(&rules.clients(clients), clock)
}

fn admits(state: &State, client: u64, path: &str, now: u64) -> bool {
    let request = Request::get(path).header("x-api-key", client).body(());
    let request = request.expect("a request");
    let (found, asked) = state.asked(&request).expect("no reload");
    let charges = found.rule.charges(&state.limiter.memory, asked);
    limiter::admit(charges, now, || now, &mut Levels::default()) == Ok(true)
}

proptest! {
    /// R1 and R2 over all scopes at once, against buckets written down by hand.
    #[test]
    fn all_scopes_together_admit_what_naive_buckets_would(
        limited in limited(),
        asked in prop::collection::vec((0..4u64, any::<bool>(), 0..150u64), 1..150),
    ) {
        let state = state(&limited);
        let [total, route, each, plan, on_route] = &limited;
        let both = [false, true].map(|quota| {
            plan.iter().any(|allowed| matches!(allowed, Allowed::Quota { .. }) == quota)
        });
        let nothing = Vec::new();
        let each = if both == [true, true] { each } else { &nothing };
        let mut naive: HashMap<(usize, u64, usize), Naive> = HashMap::new();
        let mut now = 0;
        for (client, on_a, step) in asked {
            now += step;
            let path = if on_a { "/a" } else { "/b" };
            let mut charged = vec![(0, 0, total), (1, u64::from(on_a), route)];
            match client {
                0 | 1 => charged.push((2, client, each)),
                _ => {
                    charged.push((3, client, plan));
                    if on_a {
                        charged.push((4, client, on_route));
                    }
                }
            }
            let charged: Vec<_> = charged
                .into_iter()
                .flat_map(|(scope, whose, allowed)| {
                    let numbered = allowed.iter().enumerate();
                    numbered.map(move |(index, &allowed)| ((scope, whose, index), allowed))
                })
                .collect();
            let mut expected = true;
            for (bucket, allowed) in &charged {
                expected &= allowed.admits(naive.entry(*bucket).or_default(), now);
            }
            if expected {
                for (bucket, allowed) in &charged {
                    allowed.charge(naive.entry(*bucket).or_default());
                }
            }
            prop_assert_eq!(admits(&state, client, path, now), expected, "{} on {} at {}", client, path, now);
        }
    }
}

/// Limits as somebody wrote them.
#[derive(Debug, Clone)]
enum Written {
    Unlimited,
    Closed,
    Some {
        rates: Vec<Allowed>,
        quotas: Vec<Allowed>,
    },
}

impl Written {
    fn limits(&self) -> Limits {
        match self {
            Self::Unlimited => Limits::unlimited(),
            Self::Closed => Limits::closed(),
            Self::Some { rates, quotas } => {
                let all = rates.iter().chain(quotas);
                all.fold(Limits::new(), |limits, allowed| allowed.limits(limits))
            }
        }
    }

    /// With what it leaves out taken from `base`, as the documentation of `Limits` has it: rates are one field,
    /// quotas another; and who says nothing at all has whatever the other has.
    fn over(&self, base: &Self) -> Self {
        let Self::Some { rates, quotas } = self else {
            return self.clone();
        };
        if rates.is_empty() && quotas.is_empty() {
            return base.clone();
        }
        let (base_rates, base_quotas) = match base {
            Self::Some { rates, quotas } => (rates.clone(), quotas.clone()),
            Self::Unlimited | Self::Closed => (Vec::new(), Vec::new()),
        };
        let or = |own: &Vec<_>, base| if own.is_empty() { base } else { own.clone() };
        Self::Some {
            rates: or(rates, base_rates),
            quotas: or(quotas, base_quotas),
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    let rate = (1..200u64, 1..6u64).prop_map(|(interval, burst)| Allowed::Rate { interval, burst });
    let quota = (1..8u64, 8..600u64).prop_map(|(count, window)| Allowed::Quota { count, window });
    let some = (
        prop::collection::vec(rate, 0..3),
        prop::collection::vec(quota, 0..3),
    )
        .prop_map(|(rates, quotas)| Written::Some { rates, quotas });
    prop_oneof![1 => Just(Written::Unlimited), 1 => Just(Written::Closed), 6 => some]
}

/// A plan: what holds everywhere, and perhaps on `/a` and on `/b`.
type WrittenPlan = (Written, [Option<Written>; 2]);

fn written_plan() -> impl Strategy<Value = WrittenPlan> {
    let on_route = || prop::option::of(written());
    (written(), [on_route(), on_route()])
}

fn plan((limits, routes): &WrittenPlan) -> Plan {
    let routes = ["GET /a", "GET /b"].into_iter().zip(routes);
    let written = routes.filter_map(|(key, limits)| Some((key, limits.as_ref()?)));
    written.fold(Plan::new(limits.limits()), |plan, (key, limits)| {
        plan.route(key, limits.limits())
    })
}

proptest! {
    /// What plans inherit and what their routes say, against the rules as they are documented.
    #[test]
    fn plans_inherit_and_their_routes_hold_as_documented(
        each in written_plan(),
        plans in [written_plan(), written_plan()],
        asked in prop::collection::vec((0..6u64, 0..3usize, 0..150u64), 1..120),
    ) {
        let clients = Clients::by_header("x-api-key").each(plan(&each));
        let clients = ["one", "two"].into_iter().zip(&plans).fold(clients, |clients, (name, written)| {
            clients.plan(name, plan(written))
        });
        // Two clients without a plan, and two on each.
        let members = [("one", "2"), ("one", "3"), ("two", "4"), ("two", "5")];
        let clients = members.into_iter().fold(clients, |clients, (name, key)| clients.member(name, key));
        let clock = Clock::started_at(0);
        let state = state_of(&Rules::new().clients(clients), clock);

        let mut naive: HashMap<(u64, Option<usize>, usize), Naive> = HashMap::new();
        let mut now = 0;
        for (client, path, step) in asked {
            now += step;
            let class = usize::try_from(client / 2).expect("small");
            let (limits, routes) = match class {
                0 => each.clone(),
                plan => {
                    let (limits, routes) = &plans[plan - 1];
                    let route = |index: usize| match (&routes[index], &each.1[index]) {
                        (Some(own), Some(base)) => Some(own.over(base)),
                        (own, base) => own.as_ref().or(base.as_ref()).cloned(),
                    };
                    (limits.over(&each.0), [route(0), route(1)])
                }
            };
            let on_route = routes.get(path).cloned().flatten();
            // On a route where a client is not limited, its requests do not count for it.
            let holds = match on_route {
                Some(Written::Unlimited) => vec![],
                Some(on_route) => vec![(None, limits), (Some(path), on_route)],
                None => vec![(None, limits)],
            };
            let mut expected = true;
            let mut charged = Vec::new();
            for (scope, written) in holds {
                match written {
                    Written::Unlimited => {}
                    Written::Closed => expected = false,
                    Written::Some { rates, quotas } => {
                        let all = rates.into_iter().chain(quotas).enumerate();
                        charged.extend(all.map(|(index, allowed)| ((client, scope, index), allowed)));
                    }
                }
            }
            for (bucket, allowed) in &charged {
                expected &= allowed.admits(naive.entry(*bucket).or_default(), now);
            }
            if expected {
                for (bucket, allowed) in &charged {
                    allowed.charge(naive.entry(*bucket).or_default());
                }
            }
            let path = ["/a", "/b", "/c"][path];
            prop_assert_eq!(admits(&state, client, path, now), expected, "{} on {} at {}", client, path, now);
        }
    }
}

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
    let passed: Vec<usize> = thread::scope(|scope| {
        let threads = work.map(|(on_a, client)| scope.spawn(move || count(on_a, client)));
        threads
            .map(|thread| thread.join().expect("no panic"))
            .into()
    });
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

/// Whose a balance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Total,
    Client {
        is_quota: bool,
        number: u32,
        bucket: Kept,
    },
}

/// Where a client's balance lies.
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

/// How much was charged in the half-open window that comes closest to its bound, and the bound. A charge counts
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
    let clock = Clock::started_at(0);
    let state = state_of(&rules, clock);
    let memory = &state.limiter.memory;

    let time = AtomicU64::new(1);
    // For each limit of an admitted request: its bucket, and the charge.
    let ask = |client: u64, step: u64| {
        let request = Request::get("/").header("x-api-key", client).body(());
        let request = request.expect("a request");
        let (found, asked) = state.asked(&request).expect("no reload");
        let charges = found.rule.charges(memory, asked);
        let now = time.load(Ordering::Acquire);
        // A key that is new is charged with a reading of its own, of which nobody is told here which limit made
        // it: its charge lies between the first reading and the last. All others are made with the first.
        let last = Cell::new(now);
        let read = || {
            last.set(time.load(Ordering::Acquire));
            last.get()
        };
        let mut levels = Levels::default();
        let admitted = limiter::admit(charges, now, read, &mut levels) == Ok(true);
        time.fetch_add(step, Ordering::AcqRel);
        if !admitted {
            return Vec::new();
        }
        let bindings = found.rule.bindings.iter().zip(levels.as_slice());
        let charged = bindings.map(|(binding, level)| {
            let whose = match &binding.home {
                Home::Bucket(_) => Whose::Total,
                Home::Client(page) => {
                    let is_quota = matches!(binding.limit.terms, Terms::Quota(_));
                    let bucket = match (level.shared, binding.place(memory, asked.identity)) {
                        (true, Place::Table(_, key)) => {
                            Kept::Overflow(std::ptr::from_ref(key.overflow()).addr())
                        }
                        _ => Kept::Own(client),
                    };
                    Whose::Client {
                        is_quota,
                        number: page.number(),
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
    // What came how close to its bound: the total, rates of their own, shared ones, quotas.
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
