//! Limits by model, which hold beside those of routes, clients and the total.

#[path = "support/mod.rs"]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode};
use tower::Layer;
use tower_throttle::{
    Clients, Limits, Models, Plan, Rate, Rules, RulesError, ThrottleLayer, body::ResponseBody,
    limit::Scope,
};

use support::{decision, hourly, request, send, served, throttle};

/// A request for a model by a client, as the field `x-model` names it.
fn ask(uri: &str, model: &str, client: &str) -> Request<Body> {
    let mut request = request("POST", uri);
    let model = HeaderValue::from_bytes(model.as_bytes()).expect("a value");
    request.headers_mut().insert("x-model", model);
    let client = HeaderValue::from_str(client).expect("a value");
    request.headers_mut().insert("x-client", client);
    request
}

/// A request whose model cannot be read.
fn unread(uri: &str) -> Request<Body> {
    let mut request = ask(uri, "", "c");
    let bytes = HeaderValue::from_bytes(b"small\xff").expect("a value");
    request.headers_mut().insert("x-model", bytes);
    request
}

async fn answer(throttle: &ThrottleLayer, request: Request<Body>) -> Response<ResponseBody<Body>> {
    send(&throttle.layer(served()), request).await
}

async fn passes(throttle: &ThrottleLayer, request: Request<Body>) -> bool {
    answer(throttle, request).await.status() == StatusCode::OK
}

/// Returns how many requests for a model pass.
async fn passing(throttle: &ThrottleLayer, model: &str, client: &str) -> usize {
    let mut count = 0;
    while count < 100 && passes(throttle, ask("/chat", model, client)).await {
        count += 1;
    }
    count
}

fn models() -> Models {
    Models::by_header("x-model")
        .model("large", hourly(2))
        .model("small*", hourly(5))
        .otherwise(hourly(1))
}

fn remaining(throttle: &ThrottleLayer, scope: Scope, model: &str) -> Option<u64> {
    let snapshot = throttle.handle().snapshot();
    let mut limits = snapshot.limits.into_iter();
    let limit = limits.find(|it| it.scope == scope && it.model.as_deref() == Some(model));
    limit.expect("a limit of the model").remaining
}

#[tokio::test(start_paused = true)]
async fn each_model_has_limits_of_its_own() {
    let throttle = throttle(Rules::new().models(models()));
    for (model, passed) in [
        ("large", 2),
        ("small-1", 5),
        ("small-2", 0),
        ("medium", 1),
        ("", 0),
    ] {
        assert_eq!(passing(&throttle, model, "c").await, passed, "{model}");
    }
    let refused = answer(&throttle, ask("/chat", "small", "c")).await;
    let decision = decision(&refused);
    let denied: Vec<_> = decision
        .limits()
        .filter(|limit| limit.is_refused())
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(
        (denied[0].scope(), decision.model()),
        (Scope::Model, Some("small*"))
    );
    assert_eq!(denied[0].name(), "model_small_2b7a2cf3");
}

#[tokio::test(start_paused = true)]
async fn all_scopes_hold_at_once_and_a_refusal_costs_none() {
    let clients =
        Clients::by_header("x-client").each(Plan::new(hourly(3)).model("large", hourly(1)));
    let rules = Rules::new()
        .total(hourly(100))
        .default_route(hourly(50))
        .models(models())
        .clients(clients);
    let throttle = throttle(rules);
    assert_eq!(
        passing(&throttle, "large", "a").await,
        1,
        "the client's on the model"
    );
    assert_eq!(passing(&throttle, "large", "b").await, 1);
    assert_eq!(
        passing(&throttle, "large", "c").await,
        0,
        "the model's for all"
    );
    assert_eq!(
        passing(&throttle, "small", "a").await,
        2,
        "the client's for all models"
    );
    assert_eq!(passing(&throttle, "small", "b").await, 2);
    assert_eq!(
        passing(&throttle, "small", "c").await,
        1,
        "the model's for all"
    );
    let snapshot = throttle.handle().snapshot();
    let total = snapshot.limits.iter().find(|it| it.scope == Scope::Total);
    assert_eq!(
        total.and_then(|it| it.remaining),
        Some(100 - 7),
        "refusals cost nothing"
    );
    assert_eq!(remaining(&throttle, Scope::Model, "small*"), Some(0));
    let answer = answer(&throttle, ask("/chat", "small", "d")).await;
    let scopes: Vec<_> = decision(&answer).limits().map(|it| it.scope()).collect();
    assert_eq!(
        scopes,
        [Scope::Client, Scope::Model, Scope::Route, Scope::Total]
    );
}

#[tokio::test(start_paused = true)]
async fn plans_have_limits_on_models_and_inherit_them() {
    let clients = Clients::by_header("x-client")
        .each(
            Plan::new(Limits::unlimited())
                .model("large", hourly(1))
                .other_models(hourly(2)),
        )
        .plan(
            "pro",
            Plan::new(Limits::unlimited()).model("large", hourly(4)),
        )
        .plan(
            "max",
            Plan::new(Limits::unlimited()).model("small*", hourly(3)),
        )
        .member("pro", "p")
        .member("max", "m");
    let models = Models::by_header("x-model")
        .model("large", Limits::new())
        .model("small*", Limits::new());
    let throttle = throttle(Rules::new().models(models).clients(clients));
    let table = [
        ("a", "large", 1),
        ("a", "small", 100),
        ("a", "medium", 2),
        ("p", "large", 4),
        ("p", "medium", 2),
        ("m", "large", 1),
        ("m", "small", 3),
    ];
    for (client, model, passed) in table {
        assert_eq!(
            passing(&throttle, model, client).await,
            passed,
            "{client} {model}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_not_read_is_charged_to_every_model() {
    let throttle = throttle(Rules::new().models(models().model("huge", Rate::per_hour(0))));
    let refused = answer(&throttle, unread("/chat")).await;
    assert_eq!(
        refused.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "one of the models is closed"
    );

    let throttle = support::throttle(Rules::new().models(models()));
    let answered = answer(&throttle, unread("/chat")).await;
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(decision(&answered).model(), Some("unread"));
    let left = |model| remaining(&throttle, Scope::Model, model);
    assert_eq!(
        [left("large"), left("small*"), left("otherwise")],
        [Some(1), Some(4), Some(0)]
    );
    assert!(
        !passes(&throttle, unread("/chat")).await,
        "the limits of others are used up"
    );
    assert_eq!(
        [left("large"), left("small*")],
        [Some(1), Some(4)],
        "all or none"
    );
    assert_eq!(throttle.handle().snapshot().unread_models, 2);

    let throttle = support::throttle(Rules::new().models(models().unread(hourly(2))));
    assert!(passes(&throttle, unread("/chat")).await);
    assert!(passes(&throttle, unread("/chat")).await);
    assert!(!passes(&throttle, unread("/chat")).await);
    assert_eq!(
        remaining(&throttle, Scope::Model, "large"),
        Some(2),
        "limits of their own"
    );
    assert_eq!(remaining(&throttle, Scope::Model, "unread"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn without_a_layer_that_reads_bodies_every_model_is_charged() {
    let models = Models::from_body()
        .model("large", hourly(2))
        .model("small", hourly(5));
    let throttle = throttle(Rules::new().models(models));
    assert_eq!(passing(&throttle, "small", "c").await, 2);
    assert_eq!(remaining(&throttle, Scope::Model, "small"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn models_hold_where_they_are_declared_however_the_path_is_spelled() {
    let rules = Rules::new()
        .default_route(hourly(1_000))
        .route("GET /health", Limits::exempt())
        .route("POST /chat", Limits::new())
        .route("POST /files/{id}", Limits::new())
        .models(models().on("POST /chat").on("POST /files/{id}"));
    let throttle = throttle(rules);
    assert!(passes(&throttle, ask("/chat", "medium", "c")).await);
    for path in [
        "/chat",
        "/chat/",
        "//chat",
        "/ch%61t",
        "/chat?x",
        "/files/1",
        "/files/%31",
    ] {
        assert!(!passes(&throttle, ask(path, "medium", "c")).await, "{path}");
    }
    for path in ["/models", "/models/", "/%6dodels", "/health"] {
        for _ in 0..3 {
            let answered = answer(&throttle, ask(path, "medium", "c")).await;
            assert_eq!(answered.status(), StatusCode::OK, "{path}");
            assert_eq!(decision(&answered).model(), None, "{path}");
        }
    }
    for _ in 0..3 {
        let mut health = ask("/health", "medium", "c");
        *health.method_mut() = http::Method::GET;
        assert!(
            passes(&throttle, health).await,
            "an exempt route has no models"
        );
    }
}

/// More paths and models than the throttle keeps limits of.
#[tokio::test(start_paused = true)]
async fn paths_that_clients_invent_have_the_limits_of_models_too() {
    let models = (0..8).fold(Models::by_header("x-model"), |models, number| {
        models.model(format!("m{number}"), hourly(1_000))
    });
    let throttle = throttle(Rules::new().default_route(hourly(8)).models(models));
    let service = throttle.layer(served());
    for turn in 0..2 {
        for model in 0..8 {
            let name = format!("m{model}");
            for path in 0..1_000 {
                let request = ask(&format!("/{path}"), &name, "c");
                let passed = send(&service, request).await.status() == StatusCode::OK;
                assert_eq!(passed, turn == 0, "{turn} {name} {path}");
            }
            assert_eq!(remaining(&throttle, Scope::Model, &name), Some(0));
        }
    }
    let snapshot = throttle.handle().snapshot();
    let admitted: u64 = snapshot.routes.iter().map(|route| route.admitted).sum();
    assert_eq!(admitted, 8_000);
    let of_models = snapshot.limits.iter().filter(|it| it.scope == Scope::Model);
    assert_eq!(of_models.map(|it| it.admitted).sum::<u64>(), 8_000);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_used_of_a_model() {
    let rules = |large: u64| {
        let models = Models::by_header("x-model")
            .model("large", hourly(large))
            .model("small", hourly(9));
        let clients = Clients::by_header("x-client")
            .each(Plan::new(Limits::unlimited()).model("small", hourly(2)));
        Rules::new()
            .default_route(hourly(99))
            .models(models)
            .clients(clients)
    };
    let throttle = throttle(rules(5));
    assert!(passes(&throttle, ask("/chat", "large", "c")).await);
    assert_eq!(passing(&throttle, "small", "c").await, 2);
    let changes = throttle
        .handle()
        .reload(rules(3))
        .expect("rules that hold together");
    let changed: Vec<_> = changes.iter().collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(
        (changed[0].scope(), changed[0].model()),
        (Scope::Model, Some("large"))
    );
    assert_eq!(
        changes.to_string(),
        "model `large`, limit `model_large`: 1 in 3600s, burst 5 => 1 in 3600s, burst 3"
    );
    assert_eq!(passing(&throttle, "large", "c").await, 2);
    assert_eq!(passing(&throttle, "small", "c").await, 0);
    assert_eq!(passing(&throttle, "small", "d").await, 2);
    let by_route = Rules::new().default_route(hourly(99)).models(
        Models::by_header("x-model")
            .model("large", hourly(3))
            .on("POST /chat"),
    );
    let error = throttle
        .handle()
        .reload(by_route)
        .expect_err("a key that is not declared");
    assert!(matches!(error, RulesError::ModelRoute { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn closures_that_name_models_run_once_for_a_request() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let models = Models::by(move |head| {
        count.fetch_add(1, Ordering::Relaxed);
        head.field("x-model")
    });
    let models = models.model("large", Limits::new().rate(hourly(50)).in_flight(9));
    let throttle = throttle(Rules::new().route("POST /chat", hourly(99)).models(models));
    for number in 1..=9 {
        assert!(passes(&throttle, ask("/chat", "large", "c")).await);
        assert_eq!(calls.load(Ordering::Relaxed), number);
    }
    let _ = throttle.handle().preview(&ask("/chat", "large", "c"));
    assert_eq!(remaining(&throttle, Scope::Model, "large"), Some(41));
}

/// The rules of a gateway in front of three vendors, with models in the paths.
fn vendors() -> Rules {
    let models = Models::by_path_param("model")
        .model("large", hourly(2))
        .model("meta/small*", hourly(3))
        .otherwise(hourly(1));
    [
        "POST /v1beta/models/{model}:generateContent",
        "POST /v1beta/models/{model}:streamGenerateContent",
        "POST /model/{model}/converse",
        "POST /openai/deployments/{model}/chat/completions",
        "POST /v1/{vendor}/chat",
    ]
    .into_iter()
    .fold(Rules::new(), |rules, key| rules.route(key, hourly(1_000)))
    .default_route(hourly(1_000))
    .models(models)
}

/// Returns the model that a request is charged by.
async fn model(throttle: &ThrottleLayer, method: &str, uri: &str) -> Option<String> {
    let answered = answer(throttle, request(method, uri)).await;
    decision(&answered).model().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn models_are_found_in_paths_as_vendors_have_them() {
    let table = [
        ("/v1beta/models/large:generateContent", "large"),
        ("/v1beta/models/large:streamGenerateContent", "large"),
        (
            "/v1beta/models/large:streamGenerateContent?alt=sse",
            "large",
        ),
        ("/v1beta/models/la%72ge:generateContent", "large"),
        ("/v1beta/models/large%3AgenerateContent", "large"),
        ("/v1beta/models/large:generate%43ontent", "large"),
        ("/model/large/converse", "large"),
        ("/model/large/converse/", "large"),
        ("//model//large/converse", "large"),
        ("/model/l%61rg%65/converse", "large"),
        ("/model/meta%2Fsmall-1/converse", "meta/small*"),
        ("/model/meta%252Fsmall-1/converse", "otherwise"),
        ("/model/larg%C3%A9/converse", "otherwise"),
        ("/model/Large/converse", "otherwise"),
        (
            "/openai/deployments/large/chat/completions?api-version=1",
            "large",
        ),
        ("/openai/deployments/large%FF/chat/completions", "unread"),
    ];
    for (path, expected) in table {
        let throttle = throttle(vendors());
        let found = model(&throttle, "POST", path).await;
        assert_eq!(found.as_deref(), Some(expected), "{path}");
    }
    // Neither another method, nor a route without the parameter, nor one without a key.
    let throttle = throttle(vendors());
    for (method, path) in [
        ("GET", "/model/large/converse"),
        ("HEAD", "/model/large/converse"),
        ("POST", "/v1/large/chat"),
        ("POST", "/model/large/invoke"),
        ("POST", "/v1beta/models/large:countTokens"),
        ("POST", "/v1beta/models/:generateContent"),
    ] {
        for _ in 0..3 {
            assert_eq!(
                model(&throttle, method, path).await,
                None,
                "{method} {path}"
            );
        }
    }
    assert_eq!(throttle.handle().snapshot().unread_models, 0);
}

#[tokio::test(start_paused = true)]
async fn all_paths_of_a_model_share_its_limits() {
    let throttle = throttle(vendors());
    let path = |path: &str| request("POST", path);
    assert!(passes(&throttle, path("/model/large/converse")).await);
    assert!(passes(&throttle, path("/v1beta/models/large:generateContent")).await);
    for spelled in [
        "/openai/deployments/large/chat/completions",
        "/v1beta/models/large%3AgenerateContent",
        "/model/%6Carge/converse",
    ] {
        assert!(!passes(&throttle, path(spelled)).await, "{spelled}");
    }
    assert!(passes(&throttle, path("/model/medium/converse")).await);
    assert!(!passes(&throttle, path("/model/other/converse")).await);
    let preview = throttle.handle().preview(&path("/model/large/converse"));
    assert_eq!(
        (preview.is_admitted(), preview.model()),
        (false, Some("large"))
    );
    assert_eq!(remaining(&throttle, Scope::Model, "meta/small*"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_names_two_models_is_charged_to_every_model() {
    let rules = || {
        let models = Models::by_path_param("m")
            .model("a", hourly(2))
            .model("a:run", hourly(3))
            .model("b/", hourly(4));
        Rules::new()
            .route("POST /{m}", hourly(100))
            .route("POST /{m}:run", hourly(100))
            .route("POST /x/{m}/y", hourly(100))
            .route("POST /rest/{m+}", hourly(100))
            .models(models)
    };
    for (path, expected) in [
        ("/a", "a"),
        ("/a:run", "a"),
        // Decoded, it ends with `:run`. As it was sent, it does not.
        ("/a%3Arun", "unread"),
        ("/a:r%75n", "unread"),
        ("/c%3Arun", "otherwise"),
        ("/x/a/y", "a"),
        ("/x//a/y", "a"),
        ("/rest/a", "a"),
        ("/rest/a:run", "a:run"),
        // A server may take the slash off.
        ("/rest/a/", "unread"),
        ("/rest/b/", "unread"),
        ("/rest/b", "otherwise"),
        ("/rest//a", "unread"),
    ] {
        let throttle = throttle(rules());
        let found = model(&throttle, "POST", path).await;
        assert_eq!(found.as_deref(), Some(expected), "{path}");
    }
    let throttle = throttle(rules());
    assert!(passes(&throttle, request("POST", "/a%3Arun")).await);
    let left = |model| remaining(&throttle, Scope::Model, model);
    assert_eq!(
        [left("a"), left("a:run"), left("b/")],
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(throttle.handle().snapshot().unread_models, 1);
}

#[tokio::test(start_paused = true)]
async fn models_in_paths_hold_on_some_routes_and_over_reloads() {
    let rules = |name: &str, key: &str| {
        Rules::new()
            .default_route(hourly(1_000))
            .route(format!("POST /a/{{{name}}}"), hourly(1_000))
            .route(format!("POST /b/{{{name}}}"), hourly(1_000))
            .models(
                Models::by_path_param(name)
                    .model("large", hourly(5))
                    .on(key),
            )
    };
    let throttle = throttle(rules("model", "POST /a/{model}"));
    for path in ["/a/large", "/b/large", "/a/large"] {
        assert!(passes(&throttle, request("POST", path)).await);
    }
    assert_eq!(remaining(&throttle, Scope::Model, "large"), Some(3));
    let changes = throttle.handle().reload(rules("id", "POST /b/{id}"));
    let changes = changes.expect("rules that hold together");
    let changes = changes.to_string();
    let told = "models, found by: path parameter `model` => path parameter `id`; \
                models, on: POST /a/{model} => POST /b/{id}";
    assert!(changes.ends_with(told), "{changes}");
    for path in ["/a/large", "/b/large"] {
        assert!(passes(&throttle, request("POST", path)).await);
    }
    assert_eq!(remaining(&throttle, Scope::Model, "large"), Some(2));
    let error = throttle.handle().reload(
        rules("id", "POST /a/{model}")
            .models(Models::by_path_param("model").model("large", hourly(5))),
    );
    let error = error.expect_err("no key has this parameter");
    assert!(
        matches!(error, RulesError::ModelParameter { .. }),
        "{error}"
    );
    assert!(passes(&throttle, request("POST", "/b/large")).await);
    assert_eq!(remaining(&throttle, Scope::Model, "large"), Some(1));
}

/// A server with two APIs: one names the model in its path, the other in its body.
#[tokio::test(start_paused = true)]
async fn some_routes_name_the_model_in_their_path_and_others_elsewhere() {
    let models = Models::by_header("x-model").or_by_path_param("model");
    let rules = Rules::new()
        .default_route(hourly(1_000))
        .route("POST /models/{model}:generate", hourly(1_000))
        .route("POST /chat", hourly(1_000))
        .route("POST /{model}", hourly(1_000))
        .models(models.model("large", hourly(2)).otherwise(hourly(9)));
    let throttle = throttle(rules);
    let model = async |path: &str, header: &str| {
        let answered = answer(&throttle, ask(path, header, "c")).await;
        decision(&answered).model().map(str::to_owned)
    };
    let (large, other) = (Some("large".to_owned()), Some("otherwise".to_owned()));
    assert_eq!(model("/chat", "large").await, large);
    assert_eq!(model("/models/large:generate", "small").await, large);
    for path in ["/chat", "/models/small:generate", "/a/b"] {
        let header = if path.contains(':') { "large" } else { "small" };
        assert_eq!(model(path, header).await, other, "{path}");
    }
    assert_eq!(remaining(&throttle, Scope::Model, "large"), Some(0));
    let refused = answer(&throttle, ask("/models/large:generate", "small", "c")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    // The path may mean either route, so that the model is not read and all models are charged.
    let unread = answer(&throttle, ask("/ch%61t", "small", "c")).await;
    assert_eq!(unread.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttle.handle().snapshot().unread_models, 1);
}

#[test]
fn models_that_cannot_hold_are_errors() {
    let header = |name: &str| Models::by_header(name);
    let plan = |plan: Plan| Clients::by_header("x-client").each(plan);
    let rules = |models: Models| Rules::new().models(models);
    let named = Limits::from(hourly(1)).named("same");
    let table = [
        (
            rules(header("x model")),
            "models: `x model` is not a valid header name; write one such as `x-model`",
        ),
        (
            rules(Models::by_path_param("deployment"))
                .route("POST /{model}", hourly(1))
                .route("POST /{model}/{deployments}", hourly(1)),
            "models: no route key has a parameter `deployment`; add one, such as `POST /models/{deployment}/chat`, or \
             correct its name",
        ),
        (
            rules(Models::by_path_param("model").on("POST /chat"))
                .route("POST /chat", hourly(1))
                .route("POST /{model}", hourly(1)),
            "models: no route key has a parameter `model`; add one, such as `POST /models/{model}/chat`, or correct its \
             name",
        ),
        (
            rules(models().model("a*b", hourly(1))),
            "models: `a*b` is no name of a model; write 1 to 256 bytes, with `*` at the end alone, such as `gpt-4o*`, \
             and neither `otherwise` nor `unread`",
        ),
        (
            rules(models().model("large", hourly(1))),
            "models: `large` is declared twice; keep one of them",
        ),
        (
            rules(models().on("POST /chat")),
            "models: route `POST /chat` has no limits in the rules; add the route, or correct its key",
        ),
        (
            rules(models()).clients(plan(Plan::new(hourly(1)).model("small", hourly(1)))),
            "each client: model `small` is not declared; declare it among the models, or correct its name",
        ),
        (
            Rules::new().clients(plan(Plan::new(hourly(1)).other_models(hourly(1)))),
            "each client: model `otherwise` is not declared; declare it among the models, or correct its name",
        ),
        (
            rules(models().model("a", named.clone()).otherwise(named)),
            "model `otherwise`: name `same` is already used by model `a`; choose another name",
        ),
        (
            rules(models().otherwise(Limits::exempt())),
            "model `otherwise`: only a declared route with a named method and a path without parameters can be \
             exempt, such as `GET /health`",
        ),
        (
            rules(models().otherwise(Limits::new().max_tokens_per_request(1))),
            "model `otherwise`: `max_tokens_per_request` is 1, but no model tokens are limited there; add `tokens`, \
             or remove `max_tokens_per_request`",
        ),
    ];
    for (rules, expected) in table {
        let error = ThrottleLayer::new(rules).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

/// Neither a model nor a plan that goes and comes back has full buckets.
#[tokio::test(start_paused = true)]
async fn what_goes_and_comes_back_keeps_what_was_used() {
    let rules = |has_both: bool| {
        let models = Models::by_header("x-model").model("small", hourly(9));
        let clients = Clients::by_header("x-client").each(Limits::unlimited());
        let (models, clients) = match has_both {
            true => {
                let plan = Plan::new(hourly(7)).model("small", hourly(3));
                let clients = clients.plan("pro", plan).member("pro", "p");
                (models.model("large", hourly(2)), clients)
            }
            false => (models, clients),
        };
        Rules::new().models(models).clients(clients)
    };
    let throttle = throttle(rules(true));
    assert_eq!(passing(&throttle, "large", "a").await, 2);
    assert_eq!(passing(&throttle, "small", "p").await, 3);
    for _ in 0..3 {
        throttle
            .handle()
            .reload(rules(false))
            .expect("rules that hold together");
        assert!(
            passes(&throttle, ask("/chat", "large", "a")).await,
            "it has no limits"
        );
    }
    let changes = throttle
        .handle()
        .reload(rules(true))
        .expect("rules that hold together");
    assert_eq!(
        changes
            .iter()
            .filter(|change| change.before().is_none())
            .count(),
        3
    );
    assert_eq!(passing(&throttle, "large", "a").await, 0);
    assert_eq!(passing(&throttle, "small", "p").await, 0);
    assert_eq!(passing(&throttle, "medium", "p").await, 4);
}
