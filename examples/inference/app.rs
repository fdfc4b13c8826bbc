//! The limits, and the order of the layers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_throttle::{
    Clients, InFlight, Limits, Models, Plan, Price, Prices, Rate, Rules, Spend, ThrottleLayer,
    client::ClientKey,
    facts::MaximumMember,
    peek::Peeked,
    response::{Dialect, EXPOSE_HEADERS},
    rules::Undeclared,
    usage::{BodyEstimate, Estimate},
};

use crate::guard::{self, ApiKey, Caller};
use crate::openai::{SMALL_MODEL, TEXT_MODEL};
use crate::pace::{per_minute, per_second};
use crate::{
    anthropic,
    api::{self, ServedModels},
    error, gemini, log,
};

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// The time within which a response has to begin.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The number of answers that the model writes at a time.
const SLOTS: u64 = 4;

/// The slots of the model: an answer holds its slot until its last token is sent. Some requests may wait half a second
/// for one; a request that comes then, or waits in vain, is told that the server is busy.
pub(crate) fn slots() -> Limits {
    Limits::new()
        .in_flight(InFlight::new(SLOTS).named("model"))
        .max_wait(Duration::from_millis(500))
        .max_waiting(64)
}

/// The prompt, and the most that a handler writes unless it is asked for less, by a member that one of the APIs has.
fn body_estimate() -> BodyEstimate {
    BodyEstimate::new().output(256).maximum_from([
        MaximumMember::MaxTokens,
        MaximumMember::MaxCompletionTokens,
        MaximumMember::GenerationConfig,
    ])
}

/// The rate of each route, and each client's share of the model: tokens of chats, and `budget` of money an hour.
pub(crate) fn rules(budget: &str) -> Rules {
    let gemini = Limits::new().rate(per_minute(60).burst(10));
    Rules::new()
        .total(slots())
        .route(
            "POST /v1/chat/completions",
            Limits::new()
                .rate(per_minute(60).burst(10).named("chat"))
                // A shadow of half the rate: its refusals are logged, and refuse no request.
                .rate(per_minute(30).burst(5).named("stricter").shadow()),
        )
        // Each key has a budget of money, and one of model tokens for chats: a request reserves some, and settles them
        // when its cost is known (see `api.rs`).
        .clients(
            Clients::by_extension(|caller: &Caller| ClientKey::from(&*caller.0))
                .or_address()
                .each(
                    Plan::new(Spend::per_hour(budget).named("budget")).route(
                        "POST /v1/chat/completions",
                        Limits::new()
                            .tokens(Rate::per_minute(60_000).named("tokens"))
                            .publish(false),
                    ),
                ),
        )
        // A million tokens of input and of output. Embeddings have the price of all others.
        .prices(
            Prices::new()
                .model(TEXT_MODEL, Price::new().input("0.50").output("1.50"))
                .model(SMALL_MODEL, Price::new().input("0.10").output("0.30"))
                .otherwise(Price::new().input("1.00").output("3.00")),
        )
        .estimate(Estimate::from_body(body_estimate()).or(2_000))
        // All clients share what a model does in a minute. The name of the model is in the body, which a layer outside
        // has read, or in Gemini's path.
        .models(
            Models::from_body()
                .or_by_path_param("model")
                .on("POST /v1/chat/completions")
                .on("POST /v1/completions")
                .on("POST /v1/messages")
                .on("POST /v1/models/{model}:generateContent")
                .on("POST /v1/models/{model}:streamGenerateContent")
                .model(
                    TEXT_MODEL,
                    Limits::new()
                        .tokens(Rate::per_minute(120_000).named("ngram"))
                        .publish(false),
                )
                .model(SMALL_MODEL, per_minute(90).burst(6).named("small"))
                .otherwise(per_minute(30).burst(2).named("others")),
        )
        .route(
            "POST /v1/completions",
            per_minute(60).burst(10).named("completions"),
        )
        .route(
            "POST /v1/embeddings",
            per_second(20).burst(40).named("embeddings"),
        )
        .route(
            "POST /v1/messages",
            per_minute(60).burst(10).named("messages"),
        )
        .rejection("POST /v1/messages", Dialect::Anthropic)
        .route("POST /v1/models/{model}:generateContent", gemini.clone())
        .route("POST /v1/models/{model}:streamGenerateContent", gemini)
        .route("GET /health", Limits::exempt())
        // Everything else, unknown paths included, shares one bucket.
        .default_route(per_second(10).burst(20))
        .undeclared(Undeclared::Shared)
}

/// The routes, and around them the layers: a request passes these from top to bottom, a response
/// from bottom to top.
pub(crate) fn app(models: ServedModels, key: ApiKey, throttle: ThrottleLayer) -> Router {
    let layers = ServiceBuilder::new()
        // 1. Sees every request and every answer, the refused ones too.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(log::span)
                .on_response(log::line),
        )
        // 2. Browsers may read a refusal only if it carries the CORS headers. Preflights end here.
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::GET, Method::POST])
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(EXPOSE_HEADERS.to_vec()),
        )
        // 3. Strangers are turned away before they can spend anybody's budget.
        .layer(from_fn_with_state(key, guard::require_key))
        // 4. Reads the model and the length of the prompt, unless the throttle refuses in any case.
        .layer(throttle.peek_layer())
        // 5. The throttle: what it refuses costs no more than this.
        .layer(throttle)
        // Middleware of axum takes axum's body. (With the feature `axum`, `peek_layer().for_axum()` hands it on.)
        .layer(MapRequestLayer::new(|request: Request<Peeked<Body>>| {
            request.map(Body::new)
        }))
        // 6. A request that turns out to be invalid has been counted all the same, and costs no tokens.
        .layer(from_fn(api::settle_unserved))
        .layer(map_response(error::in_openai_shape))
        .layer(from_fn(guard::require_json))
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        // 7. Times the head of the response only: a stream that has begun may run on.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            TIMEOUT,
        ));

    Router::new()
        .route("/v1/chat/completions", post(api::chat_completions))
        .route("/v1/completions", post(api::completions))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/embeddings", post(api::embeddings))
        .route("/v1/models", get(api::models))
        .route(
            "/v1/models/{id}",
            get(api::model).post(gemini::generate_content),
        )
        .route("/health", get(api::health))
        .layer(layers)
        .with_state(Arc::new(models))
}
