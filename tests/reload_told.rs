//! R20: a reload reports all that it changes, each by its name, with the old and the new value.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use tower_throttle::{
    Clients, InFlight, Limits, Models, Plan, Quota, Rate, Rules,
    client::Forwarding,
    facts::MaximumMember,
    response::Dialect,
    route::CatchAll,
    rules::Undeclared,
    usage::{BodyEstimate, Estimate},
};

use self::support::throttle;

/// The lines that a reload tells.
fn told(before: Rules, after: Rules) -> Vec<String> {
    let changes = throttle(before).handle().reload(after);
    let changes = changes.expect("rules that hold together");
    let limits = changes.iter().map(ToString::to_string);
    let told: Vec<_> = limits
        .chain(changes.settings().map(ToString::to_string))
        .collect();
    assert_eq!(told.len(), changes.len());
    assert_eq!(told.is_empty(), changes.is_empty());
    match changes.is_empty() {
        true => assert_eq!(changes.to_string(), "nothing"),
        false => assert_eq!(changes.to_string(), told.join("; ")),
    }
    told
}

fn rate() -> Limits {
    Limits::new().rate(Rate::per_second(1))
}

fn clients() -> Clients {
    Clients::by_header("x-api-key").each(rate())
}

#[test]
fn every_setting_that_a_reload_changes_is_told_by_name_from_and_to() {
    let total = |limits: Limits| Rules::new().total(limits);
    let with = |clients: Clients| Rules::new().clients(clients);
    let plan = |plan: Plan| with(clients().plan("pro", plan));
    let second = Duration::from_secs(1);
    let of_models = || Rules::new().models(Models::from_body());
    let from_body = || Estimate::from_body(BodyEstimate::new().output(7));
    // (before, after, what is told)
    let table: Vec<(Rules, Rules, &[&str])> = vec![
        (
            total(rate()),
            total(rate().max_wait(second)),
            &["total, max_wait: none => 1s"],
        ),
        (
            total(rate().max_wait(2 * second).max_waiting(5)),
            total(rate().max_wait(second)),
            &[
                "total, max_wait: 2s => 1s",
                "total, max_waiting: 5 => default",
            ],
        ),
        (
            total(rate()),
            total(rate().publish(true)),
            &["total, publish: default => true"],
        ),
        (
            Rules::new().default_route(rate()),
            Rules::new()
                .default_route(rate().max_wait(second))
                .undeclared(Undeclared::Shared),
            &[
                "undeclared: per_route => shared",
                "default route, max_wait: none => 1s",
            ],
        ),
        (
            Rules::new(),
            Rules::new()
                .catch_all(CatchAll::Unrouted)
                .estimate(Estimate::fixed(7)),
            &[
                "catch_all: unmatched => unrouted",
                "estimate: a token for 4 bytes, otherwise 1 => 7 tokens",
            ],
        ),
        (
            of_models().estimate(from_body().or(8)),
            of_models().estimate(
                from_body()
                    .model("m", BodyEstimate::new().output(3).bytes_per_token(2))
                    .model("n", BodyEstimate::new())
                    .model("o", BodyEstimate::new().output(1).maximum_from([]))
                    .model(
                        "p",
                        BodyEstimate::new().maximum_from([MaximumMember::MaxTokens]),
                    )
                    .or(9),
            ),
            &[
                "estimate: from the body (output 7), otherwise 8 => from the body (output 7), otherwise 9",
                "estimate of `m`, estimate: none => bytes_per_token 2, output 3",
                "estimate of `n`, estimate: none => default weights",
                "estimate of `o`, estimate: none => output 1, maximum_from none",
                "estimate of `p`, estimate: none => maximum_from `max_tokens`",
            ],
        ),
        (
            Rules::new().default_route(rate()),
            Rules::new()
                .default_route(rate())
                .route("GET /health", Limits::exempt()),
            &["route `GET /health`, access: limited => exempt"],
        ),
        (
            Rules::new().rejection("GET /a", Dialect::OpenAi),
            Rules::new().rejection("GET /a", Dialect::Anthropic),
            &["route `GET /a`, rejection: OpenAi => Anthropic"],
        ),
        (
            total(Limits::new().rate(Rate::per_second(1).named("a"))),
            total(Limits::new().rate(Rate::per_second(1).named("b"))),
            &["total, limit `a`, name: a => b"],
        ),
        (
            Rules::new().route("GET /a", Quota::per_day(5)),
            Rules::new().route("GET /a", Quota::per_day(5).shadow()),
            &[
                "route `GET /a`, limit `get_a_daily_shadow`: 5 in a day => 5 in a day, shadow",
                "route `GET /a`, limit `get_a_daily`, name: get_a_daily => get_a_daily_shadow",
            ],
        ),
        (
            total(Limits::new().in_flight(InFlight::new(3).named("x").shadow())),
            total(Limits::new().in_flight(InFlight::new(4).named("x"))),
            &["total, limit `x`: 3 in flight, shadow => 4 in flight"],
        ),
        (
            with(clients()),
            with(
                clients()
                    .or_address()
                    .trusted_proxies(["10.0.0.0/8"])
                    .forwarding(Forwarding::Forwarded)
                    .ipv6_prefix(56),
            ),
            &[
                "clients, identified by: header `x-api-key` => header `x-api-key`, then address",
                "clients, trusted_proxies: none => 10.0.0.0/8",
                "clients, forwarding: XForwardedFor => Forwarded",
                "clients, ipv6_prefix: 64 => 56",
            ],
        ),
        (
            plan(Plan::new(rate())),
            with(
                clients()
                    .plan("pro", Plan::new(rate()))
                    .member("pro", "secret-a")
                    .member("pro", "secret-b"),
            ),
            &["plan `pro`, members: 0 => 2"],
        ),
        (
            with(clients().plan("pro", rate()).member("pro", "secret-a")),
            with(
                clients()
                    .plan("pro", rate())
                    .member("pro", "secret-b")
                    .plan_by(|_| None::<&str>),
            ),
            &[
                "clients, plan_by: none => set",
                "plan `pro`, members: 1 => 1 others",
            ],
        ),
        (
            plan(Plan::new(rate()).route("GET /a", rate())),
            plan(Plan::new(rate().max_wait(second)).route("GET /a", rate().publish(false))),
            &[
                "plan `pro`, max_wait: none => 1s",
                "plan `pro`, route `GET /a`, publish: default => false",
            ],
        ),
    ];
    for (before, after, expected) in table {
        assert_eq!(told(before.clone(), after.clone()), expected);
        assert!(
            told(before.clone(), before.clone()).is_empty(),
            "{before:?}"
        );
        assert_eq!(
            told(after.clone(), before).len(),
            expected.len(),
            "and back"
        );
        assert!(told(after.clone(), after).is_empty());
    }
}

#[test]
fn no_key_of_a_client_is_told() {
    let after = clients()
        .plan("pro", rate())
        .member("pro", "secret-a")
        .secret([7; 32]);
    let before = Rules::new();
    for line in told(before, Rules::new().clients(after)) {
        assert!(!line.contains("secret-a"), "{line}");
    }
}
