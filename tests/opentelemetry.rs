//! OpenTelemetry's SDK exports the metrics and events of a throttle, through the bridges that the guide Operating shows.

mod common;

use std::{collections::BTreeMap, time::Duration};

use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use opentelemetry::{
    KeyValue,
    logs::{AnyValue, Severity},
    metrics::MeterProvider,
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::{
    logs::{InMemoryLogExporter, SdkLogRecord, SdkLoggerProvider},
    metrics::{
        InMemoryMetricExporter, SdkMeterProvider, Temporality,
        data::{AggregatedMetrics, Metric, MetricData},
    },
};
use tower_throttle::{InFlight, Limits, Rate, Rules, ThrottleLayer};
use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt};

use common::Client;

/// Bounds of a histogram of waits, in seconds.
const BOUNDS: [f64; 3] = [0.5, 2.5, 10.0];

/// A series: its attributes, as `key=value` in order.
type Series<T> = BTreeMap<String, T>;

fn series<'a, T>(points: impl Iterator<Item = (Vec<&'a KeyValue>, T)>) -> Series<T> {
    let points = points.map(|(attributes, value)| {
        let attributes = attributes
            .iter()
            .map(|it| format!("{}={}", it.key, it.value));
        let mut attributes: Vec<_> = attributes.collect();
        attributes.sort();
        (attributes.join(" "), value)
    });
    let mut all = Series::new();
    for (attributes, value) in points {
        let other = all.insert(attributes.clone(), value);
        assert!(other.is_none(), "two series of {attributes}");
    }
    all
}

fn counts(metric: &Metric) -> Series<u64> {
    let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else {
        panic!("{metric:?} is no counter");
    };
    assert!(sum.is_monotonic());
    assert_eq!(sum.temporality(), Temporality::Cumulative);
    series(
        sum.data_points()
            .map(|it| (it.attributes().collect(), it.value())),
    )
}

fn gauges(metric: &Metric) -> Series<f64> {
    let AggregatedMetrics::F64(MetricData::Gauge(gauge)) = metric.data() else {
        panic!("{metric:?} is no gauge");
    };
    series(
        gauge
            .data_points()
            .map(|it| (it.attributes().collect(), it.value())),
    )
}

/// The buckets and the sum of each series of a histogram.
fn waits(metric: &Metric) -> Series<(Vec<u64>, f64)> {
    let AggregatedMetrics::F64(MetricData::Histogram(histogram)) = metric.data() else {
        panic!("{metric:?} is no histogram");
    };
    series(histogram.data_points().map(|it| {
        assert_eq!(it.bounds().collect::<Vec<_>>(), BOUNDS);
        (
            it.attributes().collect(),
            (it.bucket_counts().collect(), it.sum()),
        )
    }))
}

fn expected<T: Clone>(of: &[(&str, T)]) -> Series<T> {
    of.iter()
        .map(|(attributes, value)| ((*attributes).to_owned(), value.clone()))
        .collect()
}

/// The attributes of a record but for its text.
fn attributes(record: &SdkLogRecord) -> BTreeMap<&str, AnyValue> {
    let attributes = record.attributes_iter();
    attributes
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn counts_gauges_waits_and_events_arrive() {
    let (metric_exporter, log_exporter) = (
        InMemoryMetricExporter::default(),
        InMemoryLogExporter::default(),
    );
    let meters = SdkMeterProvider::builder()
        .with_periodic_exporter(metric_exporter.clone())
        .build();
    let recorder =
        OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meters.meter("tower_throttle")));
    recorder.set_histogram_bounds(["throttle_wait_seconds"].into_iter(), &BOUNDS);
    metrics::set_global_recorder(recorder).expect("the only one");
    let logs = SdkLoggerProvider::builder()
        .with_batch_exporter(log_exporter.clone())
        .build();
    let bridge = OpenTelemetryTracingBridge::new(&logs);
    let filter = Targets::new().with_target("tower_throttle", Level::INFO);
    let bridge = bridge.with_filter(filter);
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(bridge));

    let per_minute = |burst: u64| Rate::per_minute(1).burst(burst);
    let chat = Limits::new()
        .rate(per_minute(3).named("chat"))
        .rate(per_minute(1).named("stricter").shadow());
    let line = Limits::new()
        .in_flight(InFlight::new(2).named("slots"))
        .rate(Rate::per_second(1).burst(1).named("line"))
        .max_wait(Duration::from_secs(9));
    let rules = Rules::new()
        .total(Rate::per_second(1_000).burst(1_000).named("all"))
        .route("POST /chat", chat)
        .route("GET /line", line)
        .default_route(per_minute(2).named("other"));
    let client = Client::with(ThrottleLayer::builder(rules).stagger_retry_after(false));
    for _ in 0..5 {
        client.request(http::Method::POST, "/chat").await;
    }
    for _ in 0..3 {
        client.get("/secret").await;
    }
    // The second waits a second.
    tokio::join!(client.get("/line"), client.get("/line"));
    client.handle().snapshot().record();
    let rules = Rules::new().default_route(per_minute(4).named("other"));
    let changes = client
        .handle()
        .reload(rules)
        .expect("rules that hold together");

    meters.force_flush().expect("exported");
    let exported = metric_exporter.get_finished_metrics().expect("no panic");
    let exported = exported.last().expect("one export");
    let scopes: Vec<_> = exported.scope_metrics().collect();
    let [scope] = *scopes else {
        panic!("{scopes:?}");
    };
    assert_eq!(scope.scope().name(), "tower_throttle");
    let named = |name| {
        let mut found = scope.metrics().filter(|metric| metric.name() == name);
        let metric = found.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(found.next().is_none(), "{name} twice");
        assert!(!metric.description().is_empty(), "{name}");
        metric
    };

    let admitted = named("throttle_admitted_total");
    assert_eq!(admitted.description(), "Requests that were let through");
    assert_eq!(admitted.unit(), "1");
    let by_route = [
        ("route=$default", 2),
        ("route=GET /line", 2),
        ("route=POST /chat", 3),
    ];
    assert_eq!(counts(admitted), expected(&by_route));
    let by_route = [
        ("route=$default", 1),
        ("route=GET /line", 0),
        ("route=POST /chat", 2),
    ];
    assert_eq!(counts(named("throttle_refused_total")), expected(&by_route));
    let by_limit = [
        ("limit=all route=$default", 0),
        ("limit=all route=GET /line", 0),
        ("limit=all route=POST /chat", 0),
        ("limit=chat route=POST /chat", 2),
        ("limit=line route=GET /line", 0),
        ("limit=other route=$default", 1),
        ("limit=slots route=GET /line", 0),
    ];
    assert_eq!(
        counts(named("throttle_limit_refused_total")),
        expected(&by_limit)
    );
    let shadows = [("limit=stricter route=POST /chat", 4)];
    assert_eq!(
        counts(named("throttle_limit_would_refuse_total")),
        expected(&shadows)
    );

    let wait = named("throttle_wait_seconds");
    assert_eq!(wait.unit(), "s");
    let waited = (vec![0, 1, 0, 0], 1.0);
    assert_eq!(waits(wait), expected(&[("route=GET /line", waited)]));

    let remaining = named("throttle_limit_remaining");
    // In units of `1` it would be a ratio.
    assert_eq!(remaining.unit(), "");
    let remaining = gauges(remaining);
    assert_eq!(remaining["limit=chat route=POST /chat"], 0.0);
    assert_eq!(remaining["limit=slots route=GET /line"], 2.0);

    logs.force_flush().expect("exported");
    let records = log_exporter.get_emitted_logs().expect("no panic");
    let refused = |limit: &'static str, route: &'static str| {
        let attributes = [
            ("limit", AnyValue::from(limit)),
            ("route", AnyValue::from(route)),
            ("suppressed", AnyValue::from(0)),
            ("wait_ms", AnyValue::from(60_000)),
        ];
        ("a request was refused", BTreeMap::from(attributes))
    };
    let reloaded = [
        (
            "changes",
            AnyValue::from(i64::try_from(changes.len()).expect("few")),
        ),
        ("told", AnyValue::from(changes.to_string())),
    ];
    let mut records = records.iter().map(|it| &it.record);
    for (body, told) in [
        refused("chat", "POST /chat"),
        refused("chat", "POST /chat"),
        refused("other", "$default"),
        (
            "the throttle's rules were reloaded",
            BTreeMap::from(reloaded),
        ),
    ] {
        let record = records.next().expect("a record");
        assert_eq!(record.target().map(|it| &**it), Some("tower_throttle"));
        assert_eq!(record.severity_number(), Some(Severity::Info));
        assert_eq!(record.body(), Some(&AnyValue::from(body)));
        assert_eq!(attributes(record), told);
    }
    let more: Vec<_> = records.collect();
    assert!(more.is_empty(), "{more:?}");
}
