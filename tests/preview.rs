//! A preview returns the decision that would be made, and changes nothing.

#[path = "support/cases.rs"]
mod cases;

use std::{convert::Infallible, future::ready, time::Duration};

use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Decision, Limits, Quota, Rate, Rules, ThrottleLayer, Usage, decision::DecisionIn,
    usage::Estimate,
};

type Answer = Response<tower_throttle::body::ResponseBody<http_body_util::Empty<bytes::Bytes>>>;

fn request(path: &str, client: &str) -> Request<()> {
    let request = Request::get(path).header("x-api-key", client).body(());
    request.expect("a request")
}

async fn ask(layer: &ThrottleLayer, request: Request<()>) -> Answer {
    let served = |request: Request<()>| {
        if let Some(usage) = request.extensions().get::<Usage>() {
            usage.settle(3);
        }
        ready(Ok::<_, Infallible>(Response::new(
            http_body_util::Empty::new(),
        )))
    };
    let answer = layer.layer(service_fn(served)).oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

/// Returns what a decision tells of each limit, shadows last.
fn told(decision: &Decision) -> Vec<(String, u64, bool, Option<Duration>)> {
    let limits = decision.limits().chain(decision.shadow());
    let limits = limits.map(|limit| {
        let (name, remaining) = (limit.name().to_owned(), limit.remaining());
        (name, remaining, limit.is_refused(), limit.wait())
    });
    limits.collect()
}

fn rules() -> Rules {
    let chat = Limits::new()
        .rate(Rate::per_second(2).burst(3))
        .rate(Rate::per_second(1).burst(2).named("strict").shadow())
        .tokens(Rate::per_minute(60).burst(20))
        .in_flight(2);
    Rules::new()
        .total(Rate::per_second(5).burst(6))
        .route("GET /chat", chat)
        .route("GET /closed", Limits::closed())
        .route("GET /free", Limits::exempt())
        .default_route(Rate::per_second(1).burst(2))
        .estimate(Estimate::fixed(5))
        .clients(Clients::by_header("x-api-key").each(Quota::per_day(12)))
}

const PATHS: [&str; 6] = ["/chat", "/closed", "/free", "/other", "/a//b", "/chat/"];

proptest! {
    #![proptest_config(cases::cases(400))]

    /// Whatever was asked before, a preview is what the next request like it is told.
    #[test]
    fn a_preview_is_the_decision_on_the_next_request(
        steps in prop::collection::vec((0..PATHS.len(), 0..3usize, 0..900u64, any::<bool>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let layer = ThrottleLayer::builder(rules())
                .decision(DecisionIn::Response)
                .build()
                .expect("rules that hold together");
            let handle = layer.handle();
            let mut held = Vec::new();
            for (path, client, pause, holds) in steps {
                advance(Duration::from_millis(pause)).await;
                let request = request(PATHS[path], ["a", "b", "c"][client]);
                let before = handle.snapshot();
                let preview = handle.preview(&request);
                prop_assert_eq!(format!("{before:?}"), format!("{:?}", handle.snapshot()));
                let answer = ask(&layer, request).await;
                let decision = answer.extensions().get::<Decision>().expect("it is told").clone();
                prop_assert_eq!(preview.is_admitted(), decision.is_admitted());
                prop_assert_eq!(preview.retry_after(), decision.retry_after());
                prop_assert_eq!(told(&preview), told(&decision));
                if holds {
                    held.push(answer);
                } else {
                    held.clear();
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn previews_take_no_room_of_routes_and_clients() {
    let rules = Rules::new()
        .default_route(Rate::per_hour(1).burst(1))
        .clients(
            Clients::by_header("x-api-key")
                .each(Rate::per_hour(1).burst(1))
                .max_clients(8),
        );
    let layer = ThrottleLayer::builder(rules)
        .decision(DecisionIn::Response)
        .build()
        .expect("rules that hold together");
    let handle = layer.handle();
    for number in 0..3_000 {
        let decision = handle.preview(&request(&format!("/{number}"), &format!("c{number}")));
        assert!(decision.is_admitted());
    }
    // 1,024 routes have buckets of their own, and eight clients.
    for number in 0..8 {
        let client = format!("d{number}");
        let answer = ask(&layer, request(&format!("/d{number}"), &client)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(
            !handle
                .preview(&request(&format!("/d{number}"), &client))
                .is_admitted()
        );
    }
    assert_eq!(layer.overflowed(), 0, "each had a bucket of its own");
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_in_line_is_told_as_refused() {
    let limits = Limits::new()
        .rate(Rate::per_second(1).burst(1))
        .max_wait(Duration::from_secs(5));
    let rules = Rules::new().route("GET /chat", limits);
    let layer = ThrottleLayer::builder(rules)
        .decision(DecisionIn::Response)
        .build()
        .expect("rules that hold together");
    let handle = layer.handle();
    assert_eq!(
        ask(&layer, request("/chat", "a")).await.status(),
        StatusCode::OK
    );
    let preview = handle.preview(&request("/chat", "a"));
    assert!(!preview.is_admitted());
    assert_eq!(preview.retry_after(), Some(Duration::from_secs(1)));
}
