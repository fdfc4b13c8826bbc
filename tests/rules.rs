//! R10: bad rules are an error at build time that names the setting at fault and the remedy.

use std::time::Duration;

use tower_throttle::{
    Clients, InFlight, Limits, Plan, Quota, Rate, Rules, RulesError, ThrottleLayer,
};

fn error(rules: Rules) -> RulesError {
    let shown = format!("{rules:?}");
    match ThrottleLayer::new(rules) {
        Ok(_) => panic!("accepted {shown}"),
        Err(error) => {
            assert_eq!(
                format!("{error:?}"),
                error.to_string(),
                "as `unwrap` shows it"
            );
            error
        }
    }
}

#[test]
fn a_bad_route_key_is_named_with_what_to_write_instead() {
    let table = [
        ("", "such as `POST /v1/chat`"),
        ("GET", "such as `POST /v1/chat`"),
        ("/chat", "such as `POST /v1/chat`"),
        (" /chat", "such as `POST /v1/chat`"),
        ("GET ", "such as `POST /v1/chat`"),
        ("default", "`$default`"),
        ("get /chat", "in capitals"),
        ("G\u{c9}T /chat", "`G\u{c9}T` is not a method"),
        ("any /chat", "`ANY` for all"),
        ("GET chat", "does not begin with `/`"),
        ("GET http://host/chat", "does not begin with `/`"),
        ("GET  /chat", "one space"),
        (
            "POST,GET /chat",
            "`POST,GET` is not a method; write one in capitals",
        ),
        ("GET /users/<id>", "path contains '<'"),
        (
            "GET /{id:[0-9]+}",
            "parameter `{id:[0-9]+}` has no valid name",
        ),
        ("GET /chat ", "path contains ' '"),
        ("GET /chat?x=1", "path contains '?'"),
        ("GET /chat#x", "path contains '#'"),
        ("GET /a\nb", "path contains '\\n'"),
        ("GET /{}", "parameter `{}` has no valid name"),
        ("GET /{+}", "parameter `{+}` has no valid name"),
        ("GET /{*}", "parameter `{*}` has no valid name"),
        ("GET /{*a+}", "parameter `{*a+}` has no valid name"),
        (
            "GET /{a}{b}",
            "segment `{a}{b}`: a parameter begins its segment",
        ),
        ("GET /{a}-{b}", "segment `{a}-{b}`"),
        ("GET /{a+}:generate", "segment `{a+}:generate`"),
        ("GET /{a}+", "segment `{a}+`"),
        ("GET /{{a}}", "parameter `{{a}}` has no valid name"),
        ("GET /{a}/{a}", "parameter `a` is used twice"),
        ("GET /{a}/{a+}", "parameter `a` is used twice"),
        (
            "GET /x{a}",
            "segment `x{a}`: a parameter begins its segment",
        ),
        ("GET /{a", "segment `{a`"),
        ("GET /:id", "segment `:id`"),
        ("GET /*rest", "segment `*rest`"),
        (
            "GET /{proxy+}/x",
            "greedy parameter `{proxy+}` is not the last segment",
        ),
        (
            "GET /{*rest}/",
            "greedy parameter `{*rest}` is not the last segment",
        ),
    ];
    for (key, expected) in table {
        let error = error(Rules::new().route(key, Rate::per_second(1))).to_string();
        assert!(
            error.starts_with(&format!("route key `{key}`: ")),
            "{error}"
        );
        assert!(error.contains(expected), "{key:?}: {error}");
    }
}

#[test]
fn two_keys_for_one_route_are_both_named() {
    for (first, second) in [
        ("GET /a", "GET /a"),
        ("$default", "$default"),
        ("ANY /{a}", "ANY /{b}"),
        ("GET /x/{a}/y/{b}", "GET /x/{b}/y/{a}"),
        ("GET /{proxy+}", "GET /{*rest}"),
        ("GET /%63hat", "GET /chat"),
        ("GET /caf\u{e9}", "GET /caf%c3%a9"),
    ] {
        let rules = Rules::new()
            .route(first, Rate::per_second(1))
            .route("GET /other", Limits::new());
        let error = error(rules.route(second, Rate::per_second(2)));
        let expected =
            format!("route keys `{first}` and `{second}` mean the same route; keep one of them");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn keys_that_only_look_alike_stand_beside_each_other() {
    let keys = [
        "GET /a",
        "POST /a",
        "ANY /a",
        "GET /a/",
        "GET /A",
        "GET /{a}",
        "GET /{a+}",
        "GET /a/{b}",
        "GET //",
        "GET /a%2Fb",
        "$default",
    ];
    let rules = keys.iter().fold(Rules::new(), |rules, key| {
        rules.route(key, Rate::per_second(1))
    });
    assert!(ThrottleLayer::new(rules).is_ok());
}

#[test]
fn a_bad_name_is_named_with_its_place() {
    let long = "a b";
    for name in ["", "a-b", long, "caf\u{e9}", "\"", "a\nb"] {
        let table = [
            (
                Rules::new().total(Rate::per_second(1).named(name)),
                "the total",
            ),
            (
                Rules::new().default_route(Limits::new().named(name)),
                "the default route",
            ),
            (
                Rules::new().route("GET /x", Rate::per_second(1).named(name)),
                "route `GET /x`",
            ),
        ];
        for (rules, place) in table {
            let error = error(rules).to_string();
            assert!(
                error.starts_with(&format!("{place}: name `{name}`: a name has 1 to 64 of")),
                "{error}"
            );
        }
    }
}

#[test]
fn a_name_of_more_than_64_characters_is_an_error_wherever_it_is_given() {
    let clients = |limits: Limits| Clients::by_bearer().each(limits);
    let rules = |name: &str| {
        let name = name.to_owned();
        let named = Limits::new().rate(Rate::per_second(1).named(name.clone()));
        let plan = Plan::new(Rate::per_second(1)).route("GET /x", named.clone());
        [
            (Rules::new().total(named.clone()), "the total"),
            (
                Rules::new().default_route(Limits::new().named(name.clone())),
                "the default route",
            ),
            (
                Rules::new().route(
                    "GET /x",
                    Limits::new().quota(Quota::per_day(1).named(name.clone())),
                ),
                "route `GET /x`",
            ),
            (
                Rules::new().route(
                    "GET /x",
                    Limits::new().in_flight(InFlight::new(1).named(name.clone())),
                ),
                "route `GET /x`",
            ),
            (Rules::new().clients(clients(named)), "each client"),
            (
                Rules::new().clients(clients(Rate::per_second(1).into()).plan("pro", plan)),
                "plan `pro`, route `GET /x`",
            ),
            (
                Rules::new().clients(clients(Rate::per_second(1).into()).plan(name, Limits::new())),
                "clients, plan",
            ),
        ]
    };
    let at_most = "a".repeat(64);
    for (rules, place) in rules(&at_most) {
        assert!(ThrottleLayer::new(rules).is_ok(), "{place}: 64 characters");
    }
    for length in [65, 10_000] {
        for (rules, place) in rules(&"a".repeat(length)) {
            assert_eq!(
                error(rules).to_string(),
                format!("{place}: name `{at_most}…` has {length} characters; use at most 64"),
            );
        }
    }
}

#[test]
fn a_name_given_twice_is_an_error_and_a_made_up_one_gives_way() {
    let rules = Rules::new()
        .total(Rate::per_second(1).named("x"))
        .route("GET /x", Rate::per_second(1).named("x"));
    assert_eq!(
        error(rules).to_string(),
        "route `GET /x`: name `x` is already used by the total; choose another name"
    );
    let rules = Rules::new()
        .total(Rate::per_second(1).named("get_x"))
        .route("GET /x", Rate::per_second(1))
        .route("GET /y", Rate::per_second(1).named("client"))
        .clients(Clients::by_bearer().each(Rate::per_second(1)));
    assert!(ThrottleLayer::new(rules).is_ok());
}

#[test]
fn rates_that_cannot_be_kept_are_named_with_their_place() {
    let rules = Rules::new().route("GET /x", Rate::new(5, Duration::ZERO));
    assert_eq!(
        error(rules).to_string(),
        "route `GET /x`: a rate of 5 has a period of zero; give a period above zero"
    );
    let century = Duration::from_secs(100 * 365 * 86_400);
    for (rate, fits) in [
        (Rate::new(1, century), true),
        (Rate::new(1, century).burst(2), false),
        (Rate::new(1, Duration::MAX), false),
        (Rate::per_hour(1).burst(1 << 20), true),
        (Rate::per_hour(1).burst(u64::MAX), false),
        (Rate::per_second(u64::MAX), false),
        (Rate::per_second(u64::MAX).burst(1), true),
        (
            Rate::new(u64::MAX, Duration::from_nanos(1)).burst(1 << 62),
            true,
        ),
        (Rate::new(0, century).burst(u64::MAX), true),
    ] {
        let built = ThrottleLayer::new(Rules::new().default_route(rate.clone()));
        assert_eq!(built.is_ok(), fits, "{rate:?}");
        if let Err(error) = built {
            assert!(
                error
                    .to_string()
                    .starts_with("the default route: a burst of "),
                "{error}"
            );
        }
    }
}

#[test]
fn limits_that_say_two_things_are_an_error() {
    for (limits, access) in [
        (Limits::unlimited(), "unlimited"),
        (Limits::closed(), "closed"),
    ] {
        let rules = Rules::new().route("GET /x", limits.rate(Rate::per_second(1)));
        let expected =
            format!("route `GET /x`: a limit cannot be combined with `{access}`; keep one of them");
        assert_eq!(error(rules).to_string(), expected);
    }
}
