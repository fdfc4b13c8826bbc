use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{Clients, Denial, Limits, Plan, Quota, Rate, Rules, levels::Levels, limiter};

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

/// The wait if it is refused.
fn ask(state: &State, key: &str) -> Result<(), Option<Duration>> {
    let request = Request::get("/").header("x-api-key", key).body(());
    let request = request.expect("a request");
    let (found, asked) = state.asked(&request);
    let now = state.limiter.now();
    let mut levels = Levels::default();
    if state.limiter.admit(&found.rule, asked, now, &mut levels) {
        return Ok(());
    }
    Err(Denial::new(Arc::clone(&found.rule), levels, now, now).retry_after())
}

#[tokio::test(start_paused = true)]
async fn a_quota_starts_anew_exactly_when_its_window_ends() {
    for (start, quota, days, what) in ENDS {
        let clock = Clock::started_at(start * 1_000_000_000);
        let clients = Clients::by_header("x-api-key").each(quota(2));
        let rules = Rules::new().clients(clients);
        let compiled = rules.compile(&clock).expect("proper rules");
        let state = State::new(compiled, clock).expect("proper rules");

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
    let compiled = Rules::new()
        .clients(clients)
        .compile(&clock)
        .expect("proper rules");
    let state = State::new(compiled, clock).expect("proper rules");
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

fn state(limited: &[Vec<Allowed>; 5]) -> State {
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
    let compiled = rules
        .clients(clients)
        .compile(&clock)
        .expect("proper rules");
    State::new(compiled, clock).expect("proper rules")
}

fn admits(state: &State, client: u64, path: &str, now: u64) -> bool {
    let request = Request::get(path).header("x-api-key", client).body(());
    let request = request.expect("a request");
    let (found, asked) = state.asked(&request);
    let charges = found.rule.charges(&state.limiter.memory, asked);
    limiter::admit(charges, now, || now, &mut Levels::default())
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
        prop::collection::vec(rate, 0..2),
        prop::collection::vec(quota, 0..2),
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
        let compiled = Rules::new().clients(clients).compile(&clock).expect("proper rules");
        let state = State::new(compiled, clock).expect("proper rules");

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

/// Threads on a clock that they move on, over a table so small that its keys come and go.
#[test]
fn on_a_clock_that_threads_move_every_bucket_keeps_its_bound() {
    const INTERVAL: u64 = 50;
    const BURST: u64 = 3;
    const QUOTA: u64 = 40;
    const WINDOW: u64 = 2_000;
    const TOTAL: (u64, u64) = (7, 20);
    let each = Limits::new()
        .rate(Rate::new(1, Duration::from_nanos(INTERVAL)).burst(BURST))
        .quota(Quota::per(QUOTA, Duration::from_nanos(WINDOW)));
    // Sixteen slots for 24 clients with two buckets each. A quota stays to the end of its window, so that some
    // have to share.
    let clients = Clients::by_header("x-api-key").each(each).max_clients(16);
    let total = Rate::new(1, Duration::from_nanos(TOTAL.0)).burst(TOTAL.1);
    let rules = Rules::new().total(total).clients(clients);
    let clock = Clock::started_at(0);
    let compiled = rules.compile(&clock).expect("proper rules");
    let state = State::new(compiled, clock).expect("proper rules");

    let time = AtomicU64::new(1);
    // (read before, read after, client, which balances are shared)
    let ask = |client: u64| {
        let request = Request::get("/").header("x-api-key", client).body(());
        let (found, asked) = state.asked(&request.expect("a request"));
        let charges = found.rule.charges(&state.limiter.memory, asked);
        let now = time.load(Ordering::Acquire);
        let mut levels = Levels::default();
        let admitted = limiter::admit(charges, now, || time.load(Ordering::Acquire), &mut levels);
        let after = time.fetch_add(client % 3, Ordering::AcqRel);
        let shared = [levels[0].shared, levels[1].shared];
        admitted.then_some((now, after, client, shared))
    };
    let ask = &ask;
    let admitted: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                scope.spawn(move || {
                    let turns = (0..3_000u64).filter_map(|turn| ask((turn * 7 + thread * 5) % 24));
                    turns.collect::<Vec<_>>()
                })
            })
            .collect();
        let admitted = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        admitted.flatten().collect()
    });

    // A charge was made at a reading between the two that were taken around it: the total's at the first, a
    // client's perhaps later, for a key that is new reads the clock anew. So whatever was charged from `start` to
    // `end` for certain is what began after the one and was over before the other.
    let assert_bound = |name: &str, times: &mut Vec<(u64, u64)>, most: &dyn Fn(u64) -> u64| {
        times.sort_unstable();
        for (index, &(start, _)) in times.iter().enumerate() {
            let mut ends: Vec<_> = times[index..].iter().map(|&(_, end)| end).collect();
            ends.sort_unstable();
            for (count, end) in (1..).zip(ends) {
                let bound = most(end - start + 1);
                assert!(
                    count <= bound,
                    "{name}: {count} from {start} to {end}, {bound} may be"
                );
            }
        }
    };
    let rate = |interval: u64, burst: u64| move |window: u64| burst - 1 + window.div_ceil(interval);
    let mut total: Vec<_> = admitted.iter().map(|&(now, ..)| (now, now)).collect();
    assert!(total.len() > 1_000, "{} were admitted", total.len());
    assert_bound("total", &mut total, &rate(TOTAL.0, TOTAL.1));
    let mut owned = 0;
    for client in 0..24 {
        let own = |which: usize| {
            let own = admitted
                .iter()
                .filter(move |(_, _, of, shared)| *of == client && !shared[which]);
            own.map(|&(now, after, ..)| (now, after))
                .collect::<Vec<_>>()
        };
        owned += own(0).len();
        assert_bound("rate", &mut own(0), &rate(INTERVAL, BURST));
        let mut windows: HashMap<u64, u64> = HashMap::new();
        for (now, after) in own(1) {
            if now / WINDOW == after / WINDOW {
                *windows.entry(now / WINDOW).or_default() += 1;
            }
        }
        assert!(windows.values().all(|&count| count <= QUOTA), "{windows:?}");
    }
    let shared = |which: usize| {
        let shared = admitted
            .iter()
            .filter(move |(_, _, _, shared)| shared[which]);
        shared
            .map(|&(now, after, ..)| (now, after))
            .collect::<Vec<_>>()
    };
    assert!(
        owned > 0 && !shared(0).is_empty(),
        "some have a place and some share"
    );
    // Sixteen overflow buckets.
    let overflow = |window| 16 * rate(INTERVAL, BURST)(window);
    assert_bound("overflow", &mut shared(0), &overflow);
}
