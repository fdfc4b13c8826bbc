//! Inheritance of plans, and their routes, as it is documented.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{
    scopes::{Allowed, Naive, admits},
    *,
};

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
    /// Inheritance of plans and of their routes, against the rules as they are documented.
    #[test]
    fn plans_inherit_and_their_routes_hold_as_documented(
        each in written_plan(),
        plans in [written_plan(), written_plan()],
        demand in prop::collection::vec((0..6u64, 0..3usize, 0..150u64), 1..120),
    ) {
        let clients = Clients::by_header("x-api-key").each(plan(&each));
        let clients = ["one", "two"].into_iter().zip(&plans).fold(clients, |clients, (name, written)| {
            clients.plan(name, plan(written))
        });
        // Two clients without a plan, and two on each.
        let members = [("one", "2"), ("one", "3"), ("two", "4"), ("two", "5")];
        let clients = members.into_iter().fold(clients, |clients, (name, key)| clients.member(name, key));
        let clock = Timeline::started_at(0);
        let state = state_of(&Rules::new().clients(clients), clock);

        let mut naive: HashMap<(u64, Option<usize>, usize), Naive> = HashMap::new();
        let mut now = 0;
        for (client, path, step) in demand {
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
