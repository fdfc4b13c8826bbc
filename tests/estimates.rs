//! R17, R23, R24: model tokens are estimated by the weights of the model that a request is for.

mod support;

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_throttle::{
    Limits, Models, Price, Prices, Rate, Rules, RulesError, Spend, ThrottleLayer,
    facts::BodyFacts,
    limit::Scope,
    usage::{BodyEstimate, Estimate},
};

use axum::body::Body;
use support::{served, throttle};

/// Four tokens of text by default, and no maximum of the answer.
const ASK: &str = r#"{"prompt":"sixteen bytes it"}"#;

fn weights() -> BodyEstimate {
    BodyEstimate::new()
}

/// Two tokens of text, and as many of the answer as are told.
fn estimate() -> Estimate {
    Estimate::from_body(weights().bytes_per_token(8).output(10))
        .model("gpt*", weights().output(20))
        .model("gpt-4o", weights().output(30))
        .model("gpt-4o-mini*", weights().bytes_per_token(2).max_output(5))
        .or(1)
}

fn limited() -> Rules {
    let tokens = Limits::new().tokens(Rate::per_hour(1).burst(1_000_000));
    Rules::new().total(tokens.max_reservation_percent(100))
}

fn rules(estimate: Estimate) -> Rules {
    limited()
        .models(Models::by_header("x-model"))
        .estimate(estimate)
}

fn request(uri: &str, model: &str, body: &str) -> Request<Body> {
    let request = Request::post(uri).header("x-model", model);
    let request = request.extension(BodyFacts::of(body.as_bytes()));
    request.body(Body::empty()).expect("a request")
}

fn left(layer: &ThrottleLayer) -> u64 {
    let limits = layer.handle().snapshot().limits;
    let total = limits.iter().find(|limit| limit.scope == Scope::Total);
    let total = total.expect("a limit of the total");
    total.remaining.expect("one for all")
}

/// Sends a request and returns the units that it reserves of the total.
async fn reserved(layer: &ThrottleLayer, request: Request<Body>) -> u64 {
    let before = left(layer);
    let service = layer.layer(served());
    let answer: Result<Response<_>, _> = service.oneshot(request).await;
    let answer = answer.expect("it never fails");
    assert_eq!(answer.status(), StatusCode::OK);
    before - left(layer)
}

#[tokio::test(start_paused = true)]
async fn the_longest_name_wins_and_others_have_the_weights_for_all() {
    let layer = throttle(rules(estimate()));
    for (model, tokens) in [
        ("gpt-4o", 2 + 30),
        ("gpt-4o-2024", 2 + 20),
        ("gpt-3", 2 + 20),
        ("gpt-4o-mini", 8 + 5),
        ("gpt-4o-mini-2024", 8 + 5),
        ("llama", 2 + 10),
        ("GPT-4o", 2 + 10),
        ("", 2 + 10),
    ] {
        assert_eq!(
            reserved(&layer, request("/", model, ASK)).await,
            tokens,
            "{model}"
        );
    }
    let asking = r#"{"prompt":"sixteen bytes it","max_tokens":400}"#;
    assert_eq!(reserved(&layer, request("/", "gpt-4o", asking)).await, 402);
    assert_eq!(
        reserved(&layer, request("/", "gpt-4o-mini", asking)).await,
        13
    );
}

/// Lines of the field that differ are not read.
#[tokio::test(start_paused = true)]
async fn a_model_that_was_not_read_has_the_dearest_weights() {
    let layer = throttle(rules(estimate()));
    let mut hidden = request("/", "gpt-4o-mini", ASK);
    let other = "llama".parse().expect("a value");
    hidden.headers_mut().append("x-model", other);
    assert_eq!(reserved(&layer, hidden).await, 8 + 30);
}

/// A body that states a fact twice is not read, and would cost one token by `or`.
#[tokio::test(start_paused = true)]
async fn a_hidden_body_has_at_least_an_answer_of_its_model() {
    let layer = throttle(rules(estimate()));
    let hidden = r#"{"stream":true,"stream":true}"#;
    for (model, tokens) in [("gpt-4o", 30), ("gpt-4o-mini", 5), ("llama", 10)] {
        assert_eq!(
            reserved(&layer, request("/", model, hidden)).await,
            tokens,
            "{model}"
        );
    }
    let by_body = limited().models(Models::from_body()).estimate(estimate());
    let layer = throttle(by_body);
    assert_eq!(
        reserved(&layer, request("/", "", hidden)).await,
        30,
        "of any model"
    );
    let named = r#"{"model":"gpt-4o-mini","prompt":"sixteen bytes it"}"#;
    assert_eq!(reserved(&layer, request("/", "", named)).await, 8 + 5);
    let layer = throttle(rules(Estimate::from_body(weights()).or(1)));
    assert_eq!(
        reserved(&layer, request("/", "gpt-4o", hidden)).await,
        1,
        "by `or` alone"
    );
}

/// The body of a request to a route with the model in its path may name any other.
#[tokio::test(start_paused = true)]
async fn a_body_does_not_choose_the_weights_of_a_model_in_the_path() {
    let rules = limited()
        .route("POST /models/{model}:generate", Limits::new())
        .route("POST /chat", Limits::new())
        .route("POST /embed", Limits::new())
        .models(
            Models::from_body()
                .or_by_path_param("model")
                .on("POST /models/{model}:generate")
                .on("POST /chat"),
        )
        .estimate(estimate());
    let layer = throttle(rules);
    let named = r#"{"model":"gpt-4o-mini","prompt":"sixteen bytes it"}"#;
    for (uri, tokens) in [
        ("/models/gpt-4o:generate", 2 + 30),
        ("/models/gpt-4o-mini:generate", 8 + 5),
        ("/chat", 8 + 5),
        ("/embed", 2 + 10),
    ] {
        assert_eq!(
            reserved(&layer, request(uri, "", named)).await,
            tokens,
            "{uri}"
        );
    }
}

/// The names of both are other ones.
#[tokio::test(start_paused = true)]
async fn prices_and_weights_are_each_found_by_their_own_names() {
    let price = |output| Price::new().input("0").output(output);
    let rules = Rules::new()
        .total(Limits::new().spend(Spend::per_month("1.00")))
        .models(Models::by_header("x-model"))
        .prices(
            Prices::new()
                .model("gpt-4o*", price("2"))
                .model("gpt-4o-mini-1", price("3"))
                .otherwise(price("1")),
        )
        .estimate(estimate());
    let layer = throttle(rules);
    for (model, price) in [
        ("gpt-4o", 30 * 2),
        ("gpt-4o-1", 20 * 2),
        ("gpt-4o-mini", 5 * 2),
        ("gpt-4o-mini-1", 5 * 3),
        ("gpt-3", 20),
        ("llama", 10),
    ] {
        assert_eq!(
            reserved(&layer, request("/", model, ASK)).await,
            price,
            "{model}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_weights_of_models() {
    let layer = throttle(rules(estimate()));
    let handle = layer.handle();
    let changed = estimate().model("llama", weights().output(7));
    let changes = handle.reload(rules(changed)).expect("proper rules");
    assert_eq!(changes.len(), 1, "{changes}");
    assert_eq!(reserved(&layer, request("/", "llama", ASK)).await, 2 + 7);
    handle.reload(rules(estimate())).expect("proper rules");
    assert_eq!(reserved(&layer, request("/", "llama", ASK)).await, 2 + 10);
}

#[test]
fn weights_that_no_request_has_are_errors_that_name_the_model() {
    let from_body = || Estimate::from_body(weights()).or(1);
    let fault = |rules: Rules| {
        ThrottleLayer::new(rules)
            .err()
            .map(|fault| fault.to_string())
    };
    let table = [
        (
            rules(from_body().model("gpt*4", weights())),
            "estimate: `gpt*4` is no name of a model; write 1 to 256 bytes",
        ),
        (
            rules(from_body().model("otherwise", weights())),
            "estimate: `otherwise` is no name of a model;",
        ),
        (
            rules(from_body().model("m*", weights()).model("m*", weights())),
            "estimate: model `m*` has weights twice; keep one of them",
        ),
        (
            rules(Estimate::by_header("x-tokens").model("m", weights())),
            "estimate: model `m` has weights of its own, but the numbers are not read from the body;",
        ),
        (
            limited().estimate(from_body().model("m", weights())),
            "estimate: model `m` has weights of its own, but the rules do not tell models apart;",
        ),
        (
            rules(Estimate::from_body(weights()).model("m", weights())),
            "estimate: read from the body, but none is set for a body that is not read;",
        ),
    ];
    for (rules, expected) in table {
        let fault = fault(rules).expect("a fault");
        assert!(fault.starts_with(expected), "{fault}");
    }
    let twice = rules(from_body().model("m", weights()).model("m", weights()));
    let fault = ThrottleLayer::new(twice).err();
    assert!(
        matches!(fault, Some(RulesError::SameEstimate { .. })),
        "{fault:?}"
    );
}
