//! R17, R23, R25: money is reserved and settled by the prices of models, to the millionth of a unit.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Degrade, Limits, Models, Price, Prices, Rate, Rules, RulesError, Spend, Throttle,
    ThrottleLayer, Usage,
    body::ResponseBody,
    limit::Scope,
    peek::Peeked,
    usage::{BodyEstimate, Estimate, TokenUsage},
};

use support::{
    build_in_a_month, bytes, decision, store_in_a_month, throttle_in_a_month, throttling,
};

type Inner<B> = fn(Request<B>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Inner<Body>>>;

/// Answers with the usage in the extensions, for the test to play the handler.
fn inner<B>() -> tower::util::ServiceFn<Inner<B>> {
    let serve: Inner<B> = |request| {
        let mut response = Response::new(Body::from("served"));
        if let Some(usage) = request.extensions().get::<Usage>() {
            response.extensions_mut().insert(usage.clone());
        }
        std::future::ready(Ok(response))
    };
    service_fn(serve)
}

/// Sends a request for a model with a body of so many bytes, of which four are a token.
async fn send(service: &Service, model: &str, length: u64) -> Response<ResponseBody<Body>> {
    let request = Request::post("/").header("content-length", length);
    let request = request.header("x-model", model).header("x-client", model);
    let request = request.body(Body::empty()).expect("a request");
    let answer = service.clone().oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

fn usage<B>(response: &Response<B>) -> Usage {
    let usage = response.extensions().get::<Usage>();
    usage.expect("money is limited").clone()
}

fn price(input: &'static str, output: &'static str) -> Price {
    Price::new().input(input).output(output)
}

fn prices() -> Prices {
    let small = price("1", "4").cached_input("0.10").cache_write("1.25");
    Prices::new()
        .model("small*", small)
        .model("small-2", price("2", "8"))
        .model("free", price("0", "0"))
        .otherwise(price("15", "60"))
}

/// A budget that one request may reserve whole.
fn budget(spend: Spend) -> Rules {
    let total = Limits::new().spend(spend).max_reservation_percent(100);
    Rules::new()
        .total(total)
        .models(Models::by_header("x-model"))
        .prices(prices())
}

/// Returns what the budget of the total has left, in millionths, as a snapshot has it.
fn left(layer: &ThrottleLayer) -> u64 {
    let limits = layer.handle().snapshot().limits;
    let budget = limits.iter().find(|limit| &*limit.name == "total_spend");
    budget.expect("a budget").remaining.expect("one for all")
}

#[tokio::test(start_paused = true)]
async fn a_request_is_charged_at_the_price_of_its_model() {
    let layer = throttle_in_a_month(budget(Spend::per_month("1.00")));
    let service = layer.layer(inner());
    let used = TokenUsage::new()
        .input(100)
        .cached_input(55)
        .cache_write(10)
        .output(20);
    // (model, what 400 bytes reserve, what the request costs in the end)
    let table = [
        // 100 × 1 + 55 × 0.1 + 10 × 1.25 + 20 × 4.
        ("small", 100, 198),
        ("small-1", 100, 198),
        ("small-2", 200, 490),
        ("large", 1_500, 3_675),
        ("", 1_500, 3_675),
        ("free", 1, 0),
    ];
    let mut spent = 0;
    for (model, reserved, cost) in table {
        let answer = send(&service, model, 400).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(left(&layer), 1_000_000 - spent - reserved, "{model}");
        let limit = decision(&answer).limits().next().expect("a budget");
        assert_eq!(limit.cost(), reserved, "{model}");
        assert!(limit.spend().is_some() && limit.tokens().is_none());
        assert!(usage(&answer).settle_tokens(used));
        spent += cost;
        assert_eq!(left(&layer), 1_000_000 - spent, "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_read_and_what_has_no_kind_has_the_dearest_price() {
    let layer = throttle_in_a_month(budget(Spend::per_month("1.00")).estimate(Estimate::fixed(10)));
    let service = layer.layer(inner());
    let answer = send(&service, "small", 0).await;
    assert_eq!(left(&layer), 1_000_000 - 40, "ten of output");
    assert!(usage(&answer).settle(100));
    assert_eq!(left(&layer), 1_000_000 - 400);
    // Two lines that differ: nobody knows which one counts.
    let request = Request::post("/")
        .header("x-model", "small")
        .header("x-model", "free");
    let request = request.body(Body::empty()).expect("a request");
    let answer = service.clone().oneshot(request).await.expect("no error");
    assert_eq!(left(&layer), 1_000_000 - 400 - 600, "the price of others");
    assert!(usage(&answer).settle_tokens(TokenUsage::new().input(1)));
    assert_eq!(left(&layer), 1_000_000 - 400 - 15);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_refuses_until_the_window_ends() {
    // Tokio's clock begins with the wall clock: a window may end during the first steps of the test, and not after.
    let layer = throttle_in_a_month(budget(Spend::per_day("0.001")));
    let service = layer.layer(inner());
    let answer = send(&service, "small", 400).await;
    assert!(usage(&answer).settle_tokens(TokenUsage::new().output(250)));
    assert_eq!(left(&layer), 0);
    for model in ["small", "free"] {
        let refused = send(&service, model, 4).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{model}");
        let wait = decision(&refused).retry_after().expect("a new day comes");
        assert!(wait <= Duration::from_secs(86_400), "{wait:?}");
        let body: serde_json::Value = serde_json::from_slice(&bytes(refused).await).expect("JSON");
        assert_eq!(
            body["violated-policies"],
            serde_json::json!(["total_spend"])
        );
    }
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert_eq!(left(&layer), 1_000);
    assert_eq!(send(&service, "small", 4).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_late_does_not_come_back_to_another_window() {
    let layer = throttle_in_a_month(budget(Spend::per_day("0.001")));
    let service = layer.layer(inner());
    let late = send(&service, "small", 2_000).await;
    assert_eq!(left(&layer), 500);
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let next = send(&service, "small", 1_200).await;
    assert_eq!(left(&layer), 700);
    assert!(usage(&late).settle(0));
    assert_eq!(left(&layer), 700, "it was taken from yesterday's");
    assert!(usage(&next).settle(0));
    assert_eq!(left(&layer), 1_000, "and this one from today's");
}

/// Units beyond a reservation are owed to the window in which they are counted, and come back to that alone.
#[tokio::test(start_paused = true)]
async fn what_was_owed_comes_back_to_the_window_that_it_was_owed_to() {
    let layer = throttle_in_a_month(budget(Spend::per_day("0.001")));
    let service = layer.layer(inner());
    let input = |tokens| TokenUsage::new().input(tokens);
    let [early, late] = [
        send(&service, "small", 400).await,
        send(&service, "small", 400).await,
    ];
    assert!(usage(&early).add_tokens(input(300)));
    assert_eq!(left(&layer), 1_000 - 300 - 100);
    tokio::time::advance(Duration::from_secs(86_400)).await;
    assert!(usage(&late).add_tokens(input(250)));
    assert!(usage(&early).add_tokens(input(50)));
    assert_eq!(left(&layer), 1_000 - 150 - 50);
    assert!(usage(&early).settle(0));
    assert_eq!(left(&layer), 800, "most of it was owed yesterday");
    assert!(usage(&late).settle(0));
    assert_eq!(left(&layer), 950);
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_money_is_refilled() {
    let layer = throttle_in_a_month(budget(Spend::per_second("0.0001").burst("0.001")));
    let service = layer.layer(inner());
    let answer = send(&service, "small", 4).await;
    let account = usage(&answer);
    assert_eq!(
        account.remaining(),
        250,
        "a thousand millionths at four each"
    );
    assert!(account.settle_tokens(TokenUsage::new().output(300)));
    let refused = send(&service, "small", 4).await;
    // 200 are owed, and one is asked for.
    let wait = decision(&refused).limits().next().expect("one").wait();
    assert_eq!(wait, Some(Duration::from_millis(2_010)));
    tokio::time::advance(Duration::from_millis(2_010)).await;
    assert_eq!(send(&service, "small", 4).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn each_scope_has_a_budget_of_its_own() {
    let spend = || Limits::new().spend(Spend::per_month("1.00"));
    let rules = Rules::new()
        .total(spend())
        .route("POST /", spend())
        .models(Models::by_header("x-model").model("small", spend()))
        .clients(Clients::by_header("x-client").each(spend().publish(true)))
        .prices(prices());
    let layer = throttle_in_a_month(rules);
    let service = layer.layer(inner());
    let answer = send(&service, "small", 400).await;
    assert!(usage(&answer).settle_tokens(TokenUsage::new().output(10)));
    let answer = send(&service, "small", 400).await;
    let limits: Vec<_> = decision(&answer)
        .limits()
        .map(|limit| (limit.scope(), limit.name().to_owned(), limit.remaining()))
        .collect();
    let left = 1_000_000 - 40 - 100;
    assert_eq!(
        limits,
        [
            (Scope::Client, "client_spend".to_owned(), left),
            (Scope::Model, "model_small_spend".to_owned(), left),
            (Scope::Route, "post_spend".to_owned(), left),
            (Scope::Total, "total_spend".to_owned(), left),
        ]
    );
    // Only the client's was asked to be published.
    assert_eq!(
        answer.headers()["ratelimit-policy"],
        r#""client_spend";q=1000000;w=2678400;throttle-unit="micro-units""#
    );
}

#[tokio::test(start_paused = true)]
async fn a_price_is_found_by_the_body_and_reserved_for_both_kinds() {
    let rules = Rules::new()
        .total(Limits::new().spend(Spend::per_month("1.00")))
        .models(Models::from_body())
        .prices(prices())
        .estimate(Estimate::from_body(BodyEstimate::new()).or(10));
    let layer = throttle_in_a_month(rules);
    let service = layer
        .peek_layer()
        .layer(layer.layer(inner::<Peeked<Body>>()));
    let table = [
        // 2 × 1 + 30 × 4.
        (
            r#"{"model":"small","prompt":"12345678","max_tokens":30}"#,
            122,
        ),
        (
            r#"{"model":"small-2","prompt":"12345678","max_tokens":30}"#,
            244,
        ),
        (r#"{"prompt":"12345678","max_tokens":30}"#, 1_830),
        // Not read: ten of the dearest kind of the dearest model.
        (r#"{"model":"small","model":"free"}"#, 600),
    ];
    let mut spent = 0;
    for (body, cost) in table {
        let request = Request::post("/")
            .body(Body::from(body))
            .expect("a request");
        let answer = service.clone().oneshot(request).await.expect("no error");
        assert_eq!(answer.status(), StatusCode::OK);
        spent += cost;
        assert_eq!(left(&layer), 1_000_000 - spent, "{body}");
    }
}

/// Sends a body that nobody has polled yet, and returns the status of the answer and whether it was polled.
async fn upload(layer: &ThrottleLayer) -> (StatusCode, bool) {
    let is_read = Arc::new(AtomicBool::new(false));
    let polled = Arc::clone(&is_read);
    let body = stream::once(async move {
        polled.store(true, Relaxed);
        Ok::<_, Infallible>(r#"{"model":"small","prompt":"12345678","max_tokens":30}"#)
    });
    let request = Request::post("/").body(Body::from_stream(body));
    let service = layer.peek_layer();
    let service = service.layer(layer.layer(inner::<Peeked<Body>>()));
    let answer = service.oneshot(request.expect("a request")).await;
    (answer.expect("no error").status(), is_read.load(Relaxed))
}

/// A request that a spent budget refuses is not uploaded, at any cost, unless another wait would be stated or a
/// second budget may take it.
#[tokio::test(start_paused = true)]
async fn a_spent_budget_refuses_before_the_body_is_read() {
    let rules = |limits: Limits| {
        Rules::new()
            .default_route(limits)
            .models(Models::from_body())
            .prices(prices())
            .estimate(Estimate::from_body(BodyEstimate::new()).or(10))
    };
    let whole = |limits: Limits| limits.max_reservation_percent(100);
    let day = || whole(Limits::new().spend(Spend::per_day("0.000122")));
    let second = || whole(Limits::new().spend(Spend::per_day("1")));
    let hour = Spend::per_hour("0.000122");
    // (limits, the status of the second request, whether its body is read)
    let table = [
        ("a day", day(), StatusCode::TOO_MANY_REQUESTS, false),
        (
            "a rate",
            whole(Limits::new().spend(hour)),
            StatusCode::TOO_MANY_REQUESTS,
            true,
        ),
        (
            "closed",
            whole(Limits::new().tokens(Rate::per_second(0))),
            StatusCode::TOO_MANY_REQUESTS,
            false,
        ),
        (
            "a second budget",
            day().degrade(Degrade::new(second())),
            StatusCode::OK,
            true,
        ),
        (
            "two spent ones",
            day().degrade(Degrade::new(day())),
            StatusCode::OK,
            true,
        ),
    ];
    for (name, limits, status, is_read) in table {
        let layer = throttle_in_a_month(rules(limits));
        if name != "closed" {
            assert_eq!(upload(&layer).await, (StatusCode::OK, true), "{name}");
        }
        assert_eq!(upload(&layer).await, (status, is_read), "{name}");
        if name == "two spent ones" {
            let refused = (StatusCode::TOO_MANY_REQUESTS, false);
            assert_eq!(upload(&layer).await, refused, "{name}");
        }
    }
}

/// A path that may mean a route with models and one without has the dearest price.
#[tokio::test(start_paused = true)]
async fn a_route_whose_requests_have_no_models_has_the_price_of_others() {
    let rules = Rules::new()
        .total(Limits::new().spend(Spend::per_month("1.00")))
        .route("POST /chat", Limits::new())
        .route("POST /embed", Limits::new())
        .route("POST /f/chat", Limits::new())
        .route("POST /f/{any}", Limits::new())
        .models(
            Models::by_header("x-model")
                .on("POST /chat")
                .on("POST /f/chat"),
        )
        .prices(
            Prices::new()
                .model("small", price("1", "4"))
                .model("large", price("9", "9"))
                .otherwise(price("2", "3")),
        )
        .estimate(Estimate::fixed(10));
    let layer = throttle_in_a_month(rules);
    let service = layer.layer(inner());
    let mut spent = 0;
    for (path, cost) in [
        ("/chat", 40),
        ("/embed", 30),
        ("/f/chat", 40),
        ("/f/%63hat", 90),
    ] {
        let request = Request::post(path).header("x-model", "small");
        let request = request.body(Body::empty()).expect("a request");
        drop(service.clone().oneshot(request).await.expect("no error"));
        spent += cost;
        assert_eq!(left(&layer), 1_000_000 - spent, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_spent_and_settles_by_the_prices_of_the_admission() {
    let layer = throttle_in_a_month(budget(Spend::per_month("1.00")));
    let service = layer.layer(inner());
    let old = send(&service, "small", 400).await;
    let dearer = Prices::new().otherwise(price("100", "100"));
    let rules = budget(Spend::per_month("2.00")).prices(dearer);
    let changes = layer.handle().reload(rules).expect("proper rules");
    let told = changes.to_string();
    assert!(told.contains("price of `otherwise`"), "{told}");
    assert_eq!(left(&layer), 2_000_000 - 100);
    assert!(usage(&old).settle_tokens(TokenUsage::new().output(50)));
    assert_eq!(left(&layer), 2_000_000 - 200, "at the price of before");
    let new = send(&service, "small", 400).await;
    assert_eq!(left(&layer), 2_000_000 - 200 - 10_000);
    assert!(usage(&new).settle(1));
    assert_eq!(left(&layer), 2_000_000 - 200 - 100);
}

/// A body may name a cheap model: no request is refused for the dearest price before its body is read.
#[tokio::test(start_paused = true)]
async fn a_price_that_is_found_in_the_body_refuses_nobody_before_it() {
    let total = Limits::new().spend(Spend::per_month("0.0001"));
    let rules = Rules::new()
        .total(total.max_reservation_percent(100))
        .models(Models::from_body())
        .prices(prices())
        .estimate(Estimate::fixed(10).exact());
    let layer = throttle_in_a_month(rules);
    let service = layer
        .peek_layer()
        .layer(layer.layer(inner::<Peeked<Body>>()));
    for (model, status) in [
        ("small", StatusCode::OK),
        ("large", StatusCode::TOO_MANY_REQUESTS),
        ("small", StatusCode::OK),
        ("small", StatusCode::TOO_MANY_REQUESTS),
    ] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let request = Request::post("/")
            .body(Body::from(body))
            .expect("a request");
        let answer = service.clone().oneshot(request).await.expect("no error");
        assert_eq!(answer.status(), status, "{model}");
    }
    assert_eq!(left(&layer), 100 - 2 * 40);
}

/// Lets the tasks run that tell a store what has changed.
async fn sent() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_share_a_budget_and_its_windows_in_a_store() {
    let store = store_in_a_month(512);
    let replica = || {
        let rules = budget(Spend::per_day("0.001"));
        build_in_a_month(throttling(rules).store(store.clone())).layer(inner())
    };
    let (one, other) = (replica(), replica());
    let left = |answer: &Response<ResponseBody<Body>>| {
        let mut limits = decision(answer).limits();
        limits.next().expect("a budget").remaining()
    };
    let first = send(&one, "small", 1_200).await;
    assert_eq!(left(&first), 700);
    let second = send(&other, "small", 2_000).await;
    assert_eq!(left(&second), 200, "three hundred by the other replica");
    assert!(usage(&first).settle_tokens(TokenUsage::new().output(25)));
    sent().await;
    let third = send(&other, "small", 4).await;
    assert_eq!(left(&third), 200 + 200 - 1);
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let next = send(&one, "small", 2_400).await;
    assert_eq!(left(&next), 400, "another day");
    assert!(usage(&second).settle(0) && usage(&third).settle(0));
    sent().await;
    let probe = send(&other, "small", 4).await;
    assert_eq!(left(&probe), 399, "what is settled late was yesterday's");
    assert!(usage(&next).settle(0));
    sent().await;
    assert_eq!(left(&send(&other, "small", 4).await), 998);
}

#[test]
fn faults_of_prices_and_amounts_are_errors_that_name_them() {
    let error = |rules: Rules| -> String {
        let error: RulesError = ThrottleLayer::new(rules).expect_err("a fault");
        error.to_string()
    };
    let with = |spend: Spend| budget(spend);
    let spend = || Spend::per_day("1");
    let priced = |prices: Prices| budget(spend()).prices(prices);
    let other = || Prices::new().otherwise(price("1", "1"));
    let cases = [
        (
            Rules::new().total(Limits::new().spend(spend())),
            "the total: `spend` is set, but the rules have no prices; add `prices`, or remove `spend`",
        ),
        (
            Rules::new()
                .prices(other().model("a", price("1", "1")))
                .total(Limits::new().spend(spend())),
            "prices: model `a` has a price, but the rules do not tell models apart; add `models`, or keep only \
             `otherwise`",
        ),
        (
            priced(Prices::new().model("a", price("1", "1"))),
            "prices: none is set for models that are not named; add `otherwise`",
        ),
        (
            priced(Prices::new().otherwise(Price::new().input("1"))),
            "prices: `otherwise` has no price of output; add one, or write \"0\" if it is free",
        ),
        (
            priced(other().model("a", price("1.0000001", "1"))),
            "prices: `a`: input of `1.0000001` has more than six decimals",
        ),
        (
            priced(other().model("a", price("1", "-1"))),
            "prices: `a`: output of `-1` is not a decimal number, such as `2.50`",
        ),
        (
            priced(other().model("a*b", price("1", "1"))),
            "prices: `a*b` is no name of a model; write 1 to 256 bytes, with `*` at the end alone, such as `gpt-4o*`, \
             and neither `otherwise` nor `unread`",
        ),
        (
            priced(
                other()
                    .model("a", price("1", "1"))
                    .model("a", price("2", "2")),
            ),
            "prices: `a` has two prices; keep one of them",
        ),
        (
            with(Spend::per_month("2419200000.01")),
            "the total: spend: `2419200000.01` is above 2419200000.00, the most in this window",
        ),
        (
            with(Spend::per_hour("many")),
            "the total: spend: `many` is not a decimal number, such as `2.50`",
        ),
        (
            with(Spend::per_day("1").burst("2")),
            "the total: spend: `2` is a burst, which a day, week or month does not have",
        ),
    ];
    for (rules, expected) in cases {
        assert_eq!(error(rules), expected);
    }
    let many = (0..6).fold(Limits::new(), |limits, _| limits.spend(spend()));
    let rules = Rules::new().total(many).prices(other());
    assert_eq!(
        error(rules),
        "the total: 6 amounts of money are too many; use at most 5"
    );
    // In a plan, too.
    let each = Limits::new().spend(spend());
    let rules = Rules::new().clients(Clients::by_header("x-client").each(each));
    assert!(error(rules).starts_with("each client: `spend` is set"));
}

#[tokio::test(start_paused = true)]
async fn zero_is_a_closed_budget() {
    let layer = throttle_in_a_month(budget(Spend::per_month("0")));
    let service = layer.layer(inner());
    let refused = send(&service, "free", 4).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_refuses_nobody_and_charges_nothing_it_has_no_room_for() {
    let layer = throttle_in_a_month(budget(
        Spend::per_month("0.0001").shadow().named("total_spend"),
    ));
    let service = layer.layer(inner());
    for charged in [40, 80, 80] {
        let answer = send(&service, "small", 160).await;
        assert_eq!(answer.status(), StatusCode::OK);
        drop(answer);
        assert_eq!(left(&layer), 100 - charged);
    }
}
