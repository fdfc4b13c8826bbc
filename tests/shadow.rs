//! R19: a shadow decides and reports. It refuses no request, delays none, and takes nothing from an enforced limit.

mod common;

use std::time::Duration;

use tower_throttle::{Decision, InFlight, Limits, Quota, Rate, Rules, ThrottleLayer, limit::Scope};

use common::Client;

fn shadows(decision: &Decision) -> Vec<(String, bool, u64)> {
    let shadows = decision.shadow();
    shadows
        .map(|limit| {
            assert!(limit.is_shadow());
            (
                limit.name().to_owned(),
                limit.is_refused(),
                limit.remaining(),
            )
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_it_would_have_refused_is_told_and_passes() {
    let limits = Limits::new()
        .rate(Rate::per_second(1).burst(5).named("enforced"))
        .rate(Rate::per_second(1).burst(2).named("stricter").shadow());
    let client = Client::new(Rules::new().route("GET /", limits));
    let told = |remaining, refused| vec![("stricter".to_owned(), refused, remaining)];
    for (remaining, refused) in [(1, false), (0, false), (0, true), (0, true), (0, true)] {
        let answer = client.get("/").await;
        assert!(answer.is_admitted());
        assert_eq!(shadows(answer.decision()), told(remaining, refused));
        assert_eq!(
            answer.decision().limits().count(),
            1,
            "the enforced one alone"
        );
        let policy = answer.header("ratelimit-policy").expect("a field");
        assert!(
            !policy.contains("stricter"),
            "clients are not told: {policy}"
        );
    }
    let refused = client.get("/").await;
    assert!(!refused.is_admitted());
    assert_eq!(
        refused.wait(),
        Some(Duration::from_secs(1)),
        "the enforced limit's"
    );
    let named: Vec<_> = refused
        .decision()
        .limits()
        .map(|limit| limit.name().to_owned())
        .collect();
    assert_eq!(named, ["enforced"]);
    // A second refills one of each; it was charged for two, not for five.
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = client.get("/").await;
    assert_eq!(shadows(answer.decision()), told(0, false));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_charged_to_it() {
    let limits = Limits::new()
        .rate(Rate::per_hour(1).burst(1))
        .rate(Rate::per_hour(1).burst(3).named("trial").shadow());
    let client = Client::new(Rules::new().route("GET /", limits));
    for _ in 0..9 {
        client.get("/").await;
    }
    assert_eq!(
        shadows(client.get("/").await.decision()),
        [("trial".to_owned(), false, 2)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_shadow_alone_limits_nobody_and_each_kind_has_one() {
    let limits = Limits::new()
        .quota(Quota::per_day(1).named("day").shadow())
        .tokens(Rate::per_minute(1).named("model").shadow())
        .in_flight(InFlight::new(1).named("slots").shadow())
        .max_wait(Duration::from_secs(60));
    let client = Client::new(Rules::new().total(limits));
    for refused in [false, true, true] {
        let start = client.get("/").await;
        assert!(start.is_admitted());
        assert_eq!(start.decision().waited(), Duration::ZERO);
        let told = shadows(start.decision());
        // The slot came back with the response.
        let expected = [("day", refused), ("model", refused), ("slots", false)];
        let told: Vec<_> = told
            .iter()
            .map(|(name, refused, _)| (name.as_str(), *refused))
            .collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_with_shadows_alone_still_inherits_what_is_enforced() {
    let rules = Rules::new()
        .default_route(Rate::per_hour(1).burst(2))
        .route(
            "GET /trial",
            Rate::per_hour(1).burst(1).named("trial").shadow(),
        )
        .route(
            "GET /free",
            Limits::unlimited().rate(Rate::per_hour(1).named("free").shadow()),
        );
    let client = Client::new(rules);
    let mut passed = Vec::new();
    for path in ["/trial", "/free", "/other"] {
        let mut count = 0;
        for _ in 0..9 {
            count += usize::from(client.get(path).await.is_admitted());
        }
        passed.push((path, count));
    }
    assert_eq!(passed, [("/trial", 2), ("/free", 9), ("/other", 2)]);
    let told = client.get("/free").await;
    let limits: Vec<_> = told
        .decision()
        .shadow()
        .map(|limit| limit.scope())
        .collect();
    assert_eq!(limits, [Scope::Route]);
    assert!(told.decision().shadow().all(|limit| limit.is_refused()));
}

#[test]
fn a_closed_route_has_nothing_beside_it_that_is_enforced() {
    let rules = |limits| ThrottleLayer::new(Rules::new().total(limits)).map(|_| ());
    assert!(rules(Limits::closed().rate(Rate::per_second(1).shadow())).is_ok());
    let error = rules(Limits::closed().in_flight(1)).expect_err("a contradiction");
    assert_eq!(
        error.to_string(),
        "the total: a limit cannot be combined with `closed`; keep one of them"
    );
}
