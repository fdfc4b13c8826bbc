//! A Prometheus exporter that is scraped tells what the requests did, and nothing that a client has sent.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tower_throttle::{Clients, Limits, Rate, Rules, ThrottleLayer};

/// Lines of a scrape: what is counted, with its labels, and how much.
fn counted(scrape: &str) -> BTreeMap<&str, &str> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).collect()
}

#[tokio::test]
async fn a_scrape_tells_what_the_requests_did() {
    let exporter = PrometheusBuilder::new()
        .install_recorder()
        .expect("the only one");
    let slow = |burst: u64| Rate::per_hour(1).burst(burst);
    let line = Limits::new()
        // Slower than any machine is late: of three that come together two wait.
        .rate(Rate::per_minute(30).burst(1).named("line"))
        .max_wait(Duration::from_secs(9))
        .max_waiting(9);
    let chat = Limits::new()
        .rate(slow(5).named("chat"))
        .rate(slow(2).named("stricter").shadow());
    let rules = Rules::new()
        .total(Rate::per_second(1_000).burst(1_000).named("all"))
        .route("GET /chat", chat)
        .route("GET /line", line)
        .default_route(slow(1).named("other"))
        .clients(Clients::by_header("x-api-key").each(Rate::per_second(1_000)));
    let layer = ThrottleLayer::new(rules).expect("rules that hold together");
    let handle = layer.handle();
    let scraped = handle.clone();
    let app = Router::new()
        .route("/chat", get(|| async { "chat" }))
        .route("/line", get(|| async { "line" }))
        .route("/models/{id}", get(|| async { "a model" }))
        .layer(layer)
        // Outside of the throttle.
        .route(
            "/metrics",
            get(move || {
                scraped.snapshot().record();
                std::future::ready(exporter.render())
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async { axum::serve(listener, app).await });

    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let ask = |path: &str| {
        let request = Request::get(format!("http://{address}{path}"));
        let request = request.header("x-api-key", "secret-of-a-client");
        let answer = client.request(request.body(Body::empty()).expect("a request"));
        async {
            let answer = answer.await.expect("an answer");
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("a body");
            (
                status,
                String::from_utf8(body.to_bytes().into()).expect("a text"),
            )
        }
    };
    let mut statuses = Vec::new();
    for path in ["/chat"; 7].iter().chain(&[
        "/models/secret-model",
        "/models/secret-model",
        "/secret-path",
    ]) {
        statuses.push(ask(path).await.0);
    }
    let refused = statuses
        .iter()
        .filter(|status| **status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.count(), 3);
    let three = tokio::join!(ask("/line"), ask("/line"), ask("/line"));
    assert_eq!([three.0.0, three.1.0, three.2.0], [StatusCode::OK; 3]);

    // A reload goes on with the same counts.
    let rules = Rules::new()
        .route("GET /chat", slow(6).named("chat"))
        .default_route(slow(1).named("other"));
    handle.reload(rules).expect("rules that hold together");
    assert_eq!(ask("/chat").await.0, StatusCode::OK);

    let (_, scrape) = ask("/metrics").await;
    let counted = counted(&scrape);
    let model = if cfg!(feature = "axum") {
        "GET /models/{id}"
    } else {
        "$default"
    };
    let expected = [
        (
            "throttle_admitted_total{route=\"GET /chat\"}".to_owned(),
            "6",
        ),
        (
            "throttle_refused_total{route=\"GET /chat\"}".to_owned(),
            "2",
        ),
        (
            "throttle_limit_refused_total{limit=\"chat\",route=\"GET /chat\"}".to_owned(),
            "2",
        ),
        (
            "throttle_limit_refused_total{limit=\"all\",route=\"GET /chat\"}".to_owned(),
            "0",
        ),
        (
            "throttle_limit_would_refuse_total{limit=\"stricter\",route=\"GET /chat\"}".to_owned(),
            "5",
        ),
        (
            format!("throttle_limit_refused_total{{limit=\"other\",route=\"{model}\"}}"),
            "1",
        ),
        (
            "throttle_admitted_total{route=\"GET /line\"}".to_owned(),
            "3",
        ),
        (
            "throttle_wait_seconds_count{route=\"GET /line\"}".to_owned(),
            "2",
        ),
        (
            "throttle_limit_remaining{limit=\"chat\",route=\"GET /chat\"}".to_owned(),
            "0",
        ),
        (
            "throttle_limit_waiting{limit=\"chat\",route=\"GET /chat\"}".to_owned(),
            "0",
        ),
    ];
    for (what, count) in &expected {
        assert_eq!(
            counted.get(what.as_str()),
            Some(count),
            "{what} in\n{scrape}"
        );
    }
    assert!(
        scrape.contains("# TYPE throttle_admitted_total counter"),
        "{scrape}"
    );
    assert!(
        !scrape.contains("secret"),
        "something that a client has sent:\n{scrape}"
    );
    server.abort();
}
