//! A scraped Prometheus exporter shows what the requests did, and nothing that a client has sent.

mod common;
#[path = "support/told.rs"]
mod told;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{net::TcpListener, runtime, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, InFlight, Limits, Models, Rate, Rules, ThrottleLayer, body::Hold, store::OnOutage,
};

use common::Client as Asked;
use told::{Does, Told};

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

/// Returns the counts of what happens while `work` runs, on paused time, in the lines of a scrape.
fn scraped<F: Future<Output = ()>>(work: impl FnOnce() -> F) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let scrape = recorder.handle();
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.expect("a runtime without input and output");
    metrics::with_local_recorder(&recorder, || runtime.block_on(async { work().await }));
    scrape.render()
}

fn assert_counted(scrape: &str, expected: &[(&str, &str)]) {
    let counted = counted(scrape);
    for (what, count) in expected {
        assert_eq!(counted.get(what), Some(count), "{what} in\n{scrape}");
    }
}

#[test]
fn who_waits_and_is_refused_is_counted_with_its_wait() {
    let scrape = scraped(|| async {
        let limits = Limits::new()
            .in_flight(InFlight::new(1).named("slots"))
            .rate(Rate::per_hour(1).burst(9).named("calls"))
            .max_wait(Duration::from_secs(2));
        let rules = Rules::new().route("GET /", limits);
        let layer = ThrottleLayer::new(rules).expect("rules that hold together");
        let client = Asked::of(layer.clone());
        let held = common::hold(&layer).await;
        assert_eq!(held.status(), StatusCode::OK);
        for _ in 0..3 {
            assert!(!client.get("/").await.is_admitted());
        }
        drop(held);
        assert!(client.get("/").await.is_admitted(), "at once");
    });
    assert_counted(
        &scrape,
        &[
            ("throttle_admitted_total{route=\"GET /\"}", "2"),
            ("throttle_refused_total{route=\"GET /\"}", "3"),
            (
                "throttle_limit_refused_total{limit=\"slots\",route=\"GET /\"}",
                "3",
            ),
            (
                "throttle_limit_refused_total{limit=\"calls\",route=\"GET /\"}",
                "0",
            ),
            ("throttle_wait_seconds_count{route=\"GET /\"}", "3"),
            ("throttle_wait_seconds_sum{route=\"GET /\"}", "6"),
        ],
    );
}

#[test]
fn who_is_kept_for_too_long_is_counted() {
    let scrape = scraped(|| async {
        let limits = Limits::new().in_flight(1).keep(true);
        let rules = Rules::new().route("GET /job", limits);
        let layer = ThrottleLayer::new(rules).expect("rules that hold together");
        let (keep, kept) = std::sync::mpsc::channel();
        let serve = service_fn(move |request: Request<Empty<Bytes>>| {
            let hold = request.extensions().get::<Hold>().expect("it may be kept");
            let guard = hold.keep_at_most(Duration::ZERO);
            keep.send(guard).expect("the test goes on");
            std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
        });
        let service = layer.layer(serve);
        for _ in 0..3 {
            let request = Request::get("/job").body(Empty::new()).expect("a request");
            let answer = service.clone().oneshot(request).await;
            assert_eq!(answer.expect("no error").status(), StatusCode::OK);
        }
        assert_eq!(kept.try_iter().count(), 3);
    });
    let expected = [
        ("throttle_kept_expired_total{route=\"GET /job\"}", "2"),
        ("throttle_admitted_total{route=\"GET /job\"}", "3"),
    ];
    assert_counted(&scrape, &expected);
}

#[test]
fn answers_without_usage_are_counted_by_route_and_reason() {
    let scrape = scraped(|| async {
        let tokens = Limits::new().tokens(Rate::per_hour(1).burst(100_000));
        let rules = Rules::new().route("POST /", tokens);
        let builder = ThrottleLayer::builder(rules).usage_from_answers(true);
        let layer = builder.build().expect("rules that hold together");
        let handler = service_fn(async |request: Request<Full<Bytes>>| {
            let (head, body) = request.into_parts();
            let mut answer = Response::new(body);
            *answer.headers_mut() = head.headers;
            Ok::<_, Infallible>(answer)
        });
        let service = layer.layer(handler);
        for (content_type, body) in [
            ("application/json", "{}"),
            ("application/json", "{\"usage\":{\"total_tokens\":1}}"),
            ("application/json", "{"),
            ("text/plain", "{}"),
            ("text/plain", "{}"),
            (
                "application/json",
                "{\"usage\":{\"total_tokens\":18446744073709551615}}",
            ),
        ] {
            let request = Request::post("/").header("content-type", content_type);
            let request = request
                .body(Full::new(Bytes::from(body)))
                .expect("a request");
            let answer = service.clone().oneshot(request).await.expect("no error");
            answer.into_body().collect().await.expect("no error");
        }
        let request = Request::post("/").header("content-type", "text/event-stream");
        let request = request.body(Full::default()).expect("a request");
        drop(service.clone().oneshot(request).await.expect("no error"));
    });
    let counted = |reason: &str, count: &'static str| {
        let metric =
            format!("throttle_usage_missing_total{{route=\"POST /\",reason=\"{reason}\"}}");
        (metric, count)
    };
    let expected = [
        counted("absent", "1"),
        counted("malformed", "1"),
        counted("encoding", "2"),
        counted("implausible", "1"),
        counted("cut", "1"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(metric, count)| (metric.as_str(), *count))
        .collect();
    assert_counted(&scrape, &expected);
}

#[test]
fn admissions_by_a_second_budget_are_counted_by_route() {
    let scrape = scraped(|| async {
        let limits = Limits::from(Rate::per_hour(1).burst(2)).degrade(Rate::per_hour(1).burst(3));
        let rules = Rules::new().route("GET /", limits);
        let client = Asked::of(ThrottleLayer::new(rules).expect("rules that hold together"));
        for _ in 0..9 {
            client.get("/").await;
        }
    });
    assert_counted(
        &scrape,
        &[
            ("throttle_admitted_total{route=\"GET /\"}", "5"),
            ("throttle_degraded_total{route=\"GET /\"}", "3"),
            ("throttle_refused_total{route=\"GET /\"}", "4"),
            (
                "throttle_limit_refused_total{limit=\"get\",route=\"GET /\"}",
                "4",
            ),
        ],
    );
}

#[test]
fn models_are_told_by_the_names_of_the_rules() {
    let scrape = scraped(|| async {
        let small = Rate::per_hour(1).burst(2).named("few");
        let models = Models::from_body().model("small*", small);
        let rules = Rules::new().route("POST /", Limits::new()).models(models);
        let layer = ThrottleLayer::new(rules).expect("rules that hold together");
        let handler = service_fn(async |_: Request<_>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let service = layer.peek_layer().layer(layer.layer(handler));
        for body in [
            r#"{"model":"small-1"}"#,
            r#"{"model":"small-2"}"#,
            r#"{"model":"small-3"}"#,
            "{}",
            "{",
        ] {
            let request = Request::post("/").body(Full::new(Bytes::from(body)));
            let request = request.expect("a request");
            service.clone().oneshot(request).await.expect("no error");
        }
        let slow = BodyExt::boxed(http_body_util::StreamBody::new(tokio_stream::pending::<
            Result<http_body::Frame<Bytes>, Infallible>,
        >()));
        let slow = Request::post("/").body(slow).expect("a request");
        let handler = service_fn(async |_: Request<_>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let service = layer.peek_layer().layer(layer.layer(handler));
        service.oneshot(slow).await.expect("no error");
    });
    assert_counted(
        &scrape,
        &[
            (
                "throttle_admitted_total{route=\"POST /\",model=\"small*\"}",
                "2",
            ),
            (
                "throttle_refused_total{route=\"POST /\",model=\"small*\"}",
                "1",
            ),
            (
                "throttle_admitted_total{route=\"POST /\",model=\"otherwise\"}",
                "1",
            ),
            (
                "throttle_limit_refused_total{limit=\"few\",route=\"POST /\",model=\"unread\"}",
                "1",
            ),
            ("throttle_model_unread_total{reason=\"malformed\"}", "1"),
            ("throttle_body_timeout_total{missing=\"body\"}", "1"),
        ],
    );
    assert!(!scrape.contains("small-1"), "{scrape}");
}

#[test]
fn what_a_store_that_is_down_makes_of_requests_is_counted() {
    let share = OnOutage::Local { share: 1 };
    let modes = [
        (OnOutage::Admit, "admit", ["4", "0"]),
        (OnOutage::Refuse, "refuse", ["1", "3"]),
        (share, "local", ["3", "1"]),
    ];
    for (on_outage, outcome, [admitted, refused]) in modes {
        let scrape = |does: Does| {
            scraped(move || async move {
                let store = Told::new();
                let limits = Limits::new().rate(Rate::per_hour(1).burst(2));
                let builder = ThrottleLayer::builder(Rules::new().route("GET /", limits))
                    .on_outage(on_outage)
                    .store(store.clone());
                let client = Asked::with(builder);
                client.get("/").await;
                store.does(Does::Fails);
                for _ in 0..3 {
                    client.get("/").await;
                }
                store.does(does);
                sleep(Duration::from_secs(3)).await;
            })
        };
        let outage = format!("throttle_store_outage_total{{outcome=\"{outcome}\"}}");
        let counts = [
            (&*outage, "3"),
            ("throttle_store_errors_total", "1"),
            ("throttle_admitted_total{route=\"GET /\"}", admitted),
            ("throttle_refused_total{route=\"GET /\"}", refused),
        ];
        let down = scrape(Does::Fails);
        assert_counted(&down, &counts);
        assert_counted(&down, &[("throttle_store_up", "0")]);
        assert_counted(&scrape(Does::Answers), &[("throttle_store_up", "1")]);
    }
}

/// A recorder whose counters panic as long as that is asked for.
#[derive(Clone, Default)]
struct Panicking(Arc<AtomicBool>);

impl CounterFn for Panicking {
    fn increment(&self, _: u64) {
        assert!(!self.0.load(Relaxed), "a panic of the recorder");
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Panicking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// With fields and without, beside a limit that is not plain and without one.
#[test]
fn a_recorder_that_panics_loses_no_slot() {
    for (fields, is_plain) in [(true, true), (false, true), (true, false), (false, false)] {
        let recorder = Panicking::default();
        let slot = Limits::new().in_flight(InFlight::new(1));
        let limits = match is_plain {
            true => slot,
            false => slot.rate(Rate::per_second(9).shadow()),
        };
        metrics::with_local_recorder(&recorder, || {
            let throttle = ThrottleLayer::builder(Rules::new().total(limits))
                .rate_limit_headers(fields)
                .build()
                .expect("proper rules");
            let model = service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            let service = throttle.layer(model);
            let ask = || {
                let request = Request::get("/").body(()).expect("a request");
                let answer = pin!(service.clone().oneshot(request));
                match answer.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(answer) => answer.expect("no error").status(),
                    Poll::Pending => unreachable!("nobody waits"),
                }
            };
            recorder.0.store(true, Relaxed);
            for _ in 0..3 {
                catch_unwind(AssertUnwindSafe(ask)).expect_err("the recorder panics");
            }
            recorder.0.store(false, Relaxed);
            assert_eq!(ask(), StatusCode::OK, "fields {fields}, plain {is_plain}");
        });
    }
}

/// A recorder that counts nothing: notes what is described, and of which kind, and panics when it is asked for a counter
/// as long as it is told to.
#[derive(Default)]
struct Noting {
    described: Mutex<Vec<(String, &'static str)>>,
    panics: AtomicBool,
}

impl Noting {
    fn note(&self, name: &KeyName, kind: &'static str) {
        let described = (name.as_str().to_owned(), kind);
        self.described.lock().expect("no panic").push(described);
    }
}

impl Recorder for Noting {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.note(&name, "counter");
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.note(&name, "gauge");
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.note(&name, "histogram");
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        assert!(!self.panics.load(Relaxed), "a panic of the recorder");
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The bucket of `/b` was closed for the key that takes some of its requests, and the new rules never came: each request
/// looked for them without end.
#[test]
fn a_recorder_that_panics_in_a_reload_leaves_no_route_without_rules() {
    let recorder = Noting::default();
    metrics::with_local_recorder(&recorder, || {
        let rules = || Rules::new().default_route(Rate::per_hour(1).burst(2));
        let throttle = ThrottleLayer::new(rules()).expect("proper rules");
        let handle = throttle.handle();
        let model = service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let service = throttle.layer(model);
        let ask = || {
            let request = Request::get("/b").body(()).expect("a request");
            let answer = pin!(service.clone().oneshot(request));
            match answer.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => answer.expect("no error").status(),
                Poll::Pending => unreachable!("nobody waits"),
            }
        };
        assert_eq!(ask(), StatusCode::OK);
        recorder.panics.store(true, Relaxed);
        let next = || rules().route("HEAD /b", Rate::per_hour(1));
        catch_unwind(AssertUnwindSafe(|| handle.reload(next()))).expect_err("the recorder panics");
        recorder.panics.store(false, Relaxed);
        let snapshot = handle.snapshot();
        let mut routes = snapshot.routes.iter();
        assert!(
            routes.any(|told| told.route == "HEAD /b"),
            "the new rules hold"
        );
        assert_eq!(ask(), StatusCode::OK);
        assert_eq!(
            ask(),
            StatusCode::TOO_MANY_REQUESTS,
            "what was used stays used"
        );
        let changes = handle.reload(next()).expect("proper rules");
        assert!(changes.is_empty(), "{changes}");
    });
}

#[test]
fn the_guide_lists_each_metric_with_its_kind() {
    let recorder = Noting::default();
    let built = metrics::with_local_recorder(&recorder, || ThrottleLayer::new(Rules::new()));
    assert!(built.is_ok(), "no rules hold together");
    let guide = include_str!("../src/guides/operating.rs");
    let described = recorder.described.into_inner().expect("no panic");
    assert!(!described.is_empty());
    for (name, kind) in &described {
        let cell = format!("`{name}`");
        let row = |line: &&str| line.starts_with("//! | `") && line.contains(&cell);
        let [row] = guide.lines().filter(row).collect::<Vec<_>>()[..] else {
            panic!("one row has {name}");
        };
        // Gauges of snapshots have a table of their own.
        let is_of_snapshots = name.starts_with("throttle_limit_") && *kind == "gauge";
        assert!(
            is_of_snapshots || row.contains(&format!(" | {kind} | ")),
            "{row}"
        );
    }
    let listed = guide
        .lines()
        .filter(|line| line.starts_with("//! | `throttle_"));
    let listed: usize = listed.map(|line| line.matches("`throttle_").count()).sum();
    assert_eq!(listed, described.len(), "no row without a metric");
}
