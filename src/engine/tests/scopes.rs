//! All scopes together, against buckets that are written down by hand.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::limiter;

/// A bucket that owes nanoseconds, or counts in windows.
#[derive(Debug, Default, Clone)]
pub(super) struct Naive {
    owed: u64,
    last: u64,
    window: u64,
    count: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Allowed {
    Rate { interval: u64, burst: u64 },
    Quota { count: u64, window: u64 },
}

impl Allowed {
    pub(super) fn limits(self, limits: Limits) -> Limits {
        match self {
            Self::Rate { interval, burst } => {
                limits.rate(Rate::new(1, Duration::from_nanos(interval)).burst(burst))
            }
            Self::Quota { count, window } => {
                limits.quota(Quota::per(count, Duration::from_nanos(window)))
            }
        }
    }

    pub(super) fn admits(self, naive: &mut Naive, now: u64) -> bool {
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

    pub(super) fn charge(self, naive: &mut Naive) {
        match self {
            Self::Rate { interval, .. } => naive.owed += interval,
            Self::Quota { .. } => naive.count += 1,
        }
    }
}

pub(super) fn allowed() -> impl Strategy<Value = Allowed> {
    prop_oneof![
        (1..200u64, 1..6u64).prop_map(|(interval, burst)| Allowed::Rate { interval, burst }),
        (1..8u64, 8..600u64).prop_map(|(count, window)| Allowed::Quota { count, window }),
    ]
}

/// Total, each route, each client, the plan, and a client of the plan on the route `/a`.
pub(super) fn limited() -> impl Strategy<Value = [Vec<Allowed>; 5]> {
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
pub(super) fn all(allowed: &[Allowed]) -> Limits {
    if allowed.is_empty() {
        return Limits::unlimited();
    }
    allowed
        .iter()
        .fold(Limits::new(), |limits, allowed| allowed.limits(limits))
}

pub(super) fn state(limited: &[Vec<Allowed>; 5]) -> Arc<RuleSet> {
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
    let clock = Timeline::started_at(0);
    state_of(&rules.clients(clients), clock)
}

pub(super) fn admits(state: &RuleSet, client: u64, path: &str, now: u64) -> bool {
    let request = Request::get(path).header("x-api-key", client).body(());
    let request = request.expect("a request");
    let mut demand = Demand::default();
    let found = state
        .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
        .expect("no reload");
    let charges = found.limit_set.charges(&state.limiter.clients, demand, now);
    let readings = &mut LimitReadings::default();
    limiter::admit(charges, now, || now, || (), readings) == Ok(true)
}

proptest! {
    /// R1 and R2 over all scopes at once, against buckets written down by hand.
    #[test]
    fn all_scopes_together_admit_what_naive_buckets_would(
        limited in limited(),
        demand in prop::collection::vec((0..4u64, any::<bool>(), 0..150u64), 1..150),
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
        for (client, on_a, step) in demand {
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
