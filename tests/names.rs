//! R22: a limit has one name, which no other rule changes.

#[path = "support/mod.rs"]
mod support;

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;
use tower_throttle::{Clients, InFlight, Limits, Plan, Quota, Rate, Rules, limit::Scope};

use self::support::throttle;

/// The scope of a limit, its route, plan and terms in words, and its name.
type Named = ((Scope, Option<String>, Option<String>, String), String);

fn names(rules: Rules) -> Vec<Named> {
    let limits = throttle(rules).handle().snapshot().limits;
    let named = limits.into_iter().map(|limit| {
        let plan = limit.plan.map(|plan| plan.to_string());
        let terms = limit.settings.to_string();
        (
            (limit.scope, limit.route, plan, terms),
            limit.name.to_string(),
        )
    });
    named.collect()
}

fn in_order(rules: Rules) -> Vec<String> {
    names(rules).into_iter().map(|(_, name)| name).collect()
}

#[test]
fn an_unnamed_limit_is_named_after_its_route_key_and_kind() {
    let chat = Limits::new()
        .rate(Rate::per_hour(900))
        .rate(Rate::per_second(9))
        .rate(Rate::per_second(5).shadow())
        .quota(Quota::per_day(1_000))
        .quota(Quota::per_day(500).shadow())
        .quota(Quota::per(9, Duration::from_secs(90)))
        .tokens(Rate::per_minute(90_000))
        .in_flight(8);
    let pro = Plan::new(Quota::per_month(9)).route("POST /v1/chat", Rate::per_second(3));
    let rules = Rules::new()
        .total(Limits::new().in_flight(3))
        .default_route(Rate::per_second(1))
        .route("POST /v1/chat", chat)
        .route("GET /pets/{id}", Rate::per_second(1))
        .route("GET /like/default", Limits::new())
        .route("$default", Rate::per_second(7))
        .clients(
            Clients::by_bearer()
                .each(Rate::per_second(1))
                .plan("pro", pro),
        );
    assert_eq!(
        in_order(rules),
        [
            "total_in_flight",
            "post_v1_chat_per_hour",
            "post_v1_chat",
            "post_v1_chat_shadow",
            "post_v1_chat_daily",
            "post_v1_chat_daily_shadow",
            "post_v1_chat_per_90s",
            "post_v1_chat_tokens",
            "post_v1_chat_in_flight",
            "get_pets__id",
            "default",
            "catch_all",
            "client",
            "pro",
            "pro_monthly",
            "pro_post_v1_chat",
            "default",
        ]
    );
}

#[test]
fn a_name_that_was_given_is_kept_and_told_apart_by_kind() {
    let chat = Limits::new()
        .rate(Rate::per_hour(900))
        .rate(Rate::per_second(9))
        .tokens(Rate::per_minute(90_000).named("budget"))
        .in_flight(8)
        .named("chat");
    let slots = Limits::new()
        .in_flight(8)
        .in_flight(InFlight::new(4).shadow());
    let rules = Rules::new()
        .route("POST /chat", chat)
        .route("POST /slots", slots.named("gpu"));
    assert_eq!(
        in_order(rules),
        [
            "chat_per_hour",
            "chat",
            "budget",
            "chat_in_flight",
            "gpu",
            "gpu_in_flight_shadow"
        ]
    );
}

#[test]
fn a_made_up_name_gives_way_to_one_that_was_given_and_both_orders_are_one() {
    let (x, y) = (Rate::per_second(1), Rate::per_second(2).named("get_x"));
    let one = Rules::new()
        .route("GET /x", x.clone())
        .route("GET /y", y.clone());
    let other = Rules::new().route("GET /y", y).route("GET /x", x);
    let (one, mut other) = (in_order(one), in_order(other));
    other.reverse();
    assert_eq!(one, other);
    assert!(one[0].starts_with("get_x_") && one[1] == "get_x", "{one:?}");
}

const KEYS: [&str; 14] = [
    "GET /a",
    "GET /a/b",
    "GET /a-b",
    "GET /a_b",
    "GET /a/{b}",
    "GET /a/{b+}",
    "GET /A",
    "GET /a/tokens",
    "GET /a/2",
    "ANY /a",
    "POST /a",
    "$default",
    "GET /",
    "GET //a",
];

fn limits() -> impl Strategy<Value = Limits> {
    let rate = (1..4_u64, 0..3_usize).prop_map(|(count, period)| {
        let periods = [1, 60, 3_600].map(Duration::from_secs);
        Rate::new(count, periods[period])
    });
    let shadowed = (rate.clone(), any::<bool>()).prop_map(|(rate, shadow)| match shadow {
        true => rate.shadow(),
        false => rate,
    });
    let rates = prop::collection::vec(shadowed, 0..3);
    let counts = (
        prop::collection::vec(1..3_u64, 0..3),
        prop::collection::vec(rate, 0..2),
        prop::option::of(1..3_u64),
    );
    (rates, counts).prop_map(|(rates, (quotas, tokens, slots))| {
        let limits = rates.into_iter().fold(Limits::new(), Limits::rate);
        let quotas = quotas.into_iter().map(Quota::per_day);
        let limits = quotas.fold(limits, Limits::quota);
        let limits = tokens.into_iter().fold(limits, Limits::tokens);
        slots.into_iter().fold(limits, Limits::in_flight)
    })
}

fn rules(routes: &[(&str, Limits)], on_plan: &[(&str, Limits)]) -> Rules {
    let plan = Plan::new(Rate::per_second(1));
    let plan = on_plan
        .iter()
        .fold(plan, |plan, (key, limits)| plan.route(*key, limits.clone()));
    let clients = Clients::by_bearer().each(Rate::per_second(2));
    let rules = Rules::new().clients(clients.plan("get", plan));
    routes.iter().fold(rules, |rules, (key, limits)| {
        rules.route(*key, limits.clone())
    })
}

proptest! {
    /// Inserting, removing and reordering rules changes no other limit's name, and no two limits have the same.
    #[test]
    fn no_other_rule_changes_the_name_of_a_limit(
        all in prop::collection::vec(limits(), KEYS.len()),
        on_plan in prop::collection::vec(limits(), KEYS.len()),
        order in Just((0..KEYS.len()).collect::<Vec<_>>()).prop_shuffle(),
        fewer in prop::collection::vec(any::<bool>(), KEYS.len()),
    ) {
        let pick = |from: &[Limits], index: usize| (KEYS[index], from[index].clone());
        let whole: Vec<_> = (0..KEYS.len()).collect();
        let some: Vec<_> = order.into_iter().filter(|index| fewer[*index]).collect();
        let build = |indices: &[usize]| {
            let routes: Vec<_> = indices.iter().map(|index| pick(&all, *index)).collect();
            let plans: Vec<_> = indices.iter().map(|index| pick(&on_plan, *index)).collect();
            names(rules(&routes, &plans))
        };
        let whole = build(&whole);
        let distinct: HashSet<_> = whole.iter().map(|(_, name)| name).collect();
        prop_assert_eq!(distinct.len(), whole.len(), "{:?}", whole);
        // Limits of one place that are wholly equal cannot be told apart.
        let whole: HashSet<_> = whole.into_iter().collect();
        for limit in build(&some) {
            prop_assert!(whole.contains(&limit), "{:?} of {:?}", limit, whole);
        }
    }
}
