//! Operating: metrics, logs, snapshots, shutdown, restarts.
//!
//! # Metrics
//!
//! The feature `metrics` counts through the facade [`metrics`](https://docs.rs/metrics). Install a recorder before the
//! throttle is built, since descriptions, units and the meters of the store are registered there.
//!
//! | metric | kind | labels | value |
//! |---|---|---|---|
//! | `throttle_admitted_total`, `throttle_refused_total` | counter | `route`, `model` | requests |
//! | `throttle_degraded_total` | counter | `route`, `model` | admitted requests that were charged to a [second budget](crate::Limits::degrade) |
//! | `throttle_limit_refused_total` | counter | `limit`, `route`, `model` | requests that this limit refused |
//! | `throttle_limit_would_refuse_total` | counter | `limit`, `route`, `model` | requests that a shadow would have refused |
//! | `throttle_wait_seconds` | histogram | `route`, `model` | seconds in a queue, of requests that had to wait |
//! | `throttle_model_unread_total` | counter | `reason` | requests whose model was not read, by an [`UnreadReason`](crate::facts::UnreadReason) |
//! | `throttle_body_timeout_total` | counter | `missing` | requests that a [peek layer](crate::peek) answered because the `body` did not arrive, or there was no `room` for it |
//! | `throttle_kept_expired_total` | counter | `route` | requests that were ended at the bound of [`Hold::keep_at_most`](crate::body::Hold::keep_at_most) |
//! | `throttle_usage_missing_total` | counter | `route`, `reason` | successful responses whose usage was not read: `encoding`, `cut`, `absent`, `malformed`, `implausible`, as in [`MissingUsage`](crate::snapshot::MissingUsage) |
//! | `throttle_store_up` | gauge | | 1 if the store answers, otherwise 0 |
//! | `throttle_store_errors_total` | counter | | calls to the store that failed or were not answered in time, [corrections](crate::guides::replicas#corrections) among them |
//! | `throttle_store_outage_total` | counter | `outcome` | requests decided without it: `admit`, `refuse`, `local` |
//!
//! The metrics of the store exist only with a store. [`Snapshot::record`](crate::snapshot::Snapshot::record) sets
//! gauges, with the labels `limit` and, for a limit of one route or model, `route` or `model`:
//!
//! | gauge | value |
//! |---|---|
//! | `throttle_limit_remaining` | requests, model tokens or slots that would be admitted at once |
//! | `throttle_limit_owed` | units owed beyond an empty bucket |
//! | `throttle_limit_in_flight` | requests in flight, for a cap |
//! | `throttle_limit_waiting` | requests in the queue |
//!
//! A limit with a balance for each client or each route has only the last gauge.
//!
//! Labels are names from the rules: `route` is a key of the rules, a template of axum's router, or `$default`; `model`
//! is there for requests that are charged [by model](crate::Models), and is a name of the rules, `otherwise` or
//! `unread`. No client chooses a label, so the number of series is bounded.
//!
//! # Logs
//!
//! The feature `tracing` writes events with the target `tower_throttle`:
//!
//! | level | message | fields |
//! |---|---|---|
//! | info | a request was refused | `limit`, `route`, `plan`, `model`, `wait_ms`, `suppressed` |
//! | info | a request was charged to a second budget | as above; `limit` would have refused, with a wait of `wait_ms` |
//! | info | the throttle's rules were reloaded | `changes`: how many; `told`: which, in at most 2,048 bytes |
//! | debug | one change of a reload | `limit` or `setting`: its name |
//! | info | the usage of model tokens was not read from an answer | `route`, `reason`, `suppressed` |
//! | warn | an answer reports an implausible number of model tokens | `route`, `reported`, `most`, `suppressed` |
//! | warn | a request was kept for longer than `keep_at_most` allows | `route`, `suppressed` |
//! | warn | the store is down; the store is up again | `error`: the cause, of the first |
//! | warn | the store cannot charge a bucket | `error`, `suppressed` |
//! | warn | a request has no address, though clients are identified by address (once) | |
//! | warn | models are read from bodies, but no layer has read the body of this request (once) | |
//! | warn | `Clients::plan_by` returned a plan that is not declared (once) | |
//! | error | a file of rules was not reloaded, with the cause; the file is no longer followed; the listener to its changes panicked | |
//! | warn | changes of a file of rules cannot be watched; the file is only polled | |
//!
//! Refusals, second budgets, missing and implausible reports, kept requests that expire and failing buckets are each
//! logged at most ten times a second; `suppressed` counts those left out since the last. `limit` holds the names of all
//! limits that refused, separated by commas. It is absent if the store could not decide or the throttle is closed, as
//! the message then says. `plan` is absent for a client without one, `model` for a request that is not charged by model,
//! and `wait_ms` if waiting does not help. The rows about a file name it in their messages (feature `watch`).
//!
//! To log requests, let the throttle insert the [`Decision`](crate::Decision) into the response's extensions. It holds
//! no text that a client chose:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_throttle::{Decision, Rate, Rules, ThrottleLayer, decision::DecisionIn};
//!
//! # async fn serve(_: Request<()>) -> Result<Response<String>, Infallible> { Ok(Response::new(String::new())) }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let throttle = ThrottleLayer::builder(Rules::new().total(Rate::per_second(1)))
//!     .decision(DecisionIn::Response)
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(throttle)
//!     .service(service_fn(serve));
//! let response = service.oneshot(Request::new(())).await?;
//! let decision = response.extensions().get::<Decision>().expect("told");
//! let outcome = if decision.is_admitted() { "admitted" } else { "refused" };
//! println!("{outcome}: {}", decision.route());
//! # Ok(())
//! # }
//! ```
//!
//! # OpenTelemetry
//!
//! Neither facade knows OpenTelemetry; a crate for each does:
//!
//! ```toml
//! metrics = "0.24"
//! metrics-opentelemetry = "0.24033"         # for metrics 0.24 and opentelemetry 0.33
//! opentelemetry = "0.33"
//! opentelemetry-appender-tracing = "0.33"
//! opentelemetry-otlp = "0.33"
//! opentelemetry_sdk = "0.33"
//! tower-throttle = { version = "0.1", features = ["metrics", "tracing"] }
//! tracing-subscriber = "0.3"
//! ```
//!
//! Call this before the throttle is built, with the exporters of `opentelemetry-otlp`:
//! `MetricExporter::builder().with_http().build()?` and `LogExporter::builder().with_http().build()?`. Any other
//! exporters do as well. Keep the providers, and call `shutdown` on both when the server ends: it sends what is left.
//!
//! ```
//! use std::error::Error;
//!
//! use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
//! use opentelemetry::metrics::MeterProvider;
//! use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
//! use opentelemetry_sdk::logs::{LogExporter, SdkLoggerProvider};
//! use opentelemetry_sdk::metrics::{SdkMeterProvider, exporter::PushMetricExporter};
//! use tracing::Level;
//! use tracing_subscriber::{filter::Targets, prelude::*};
//!
//! fn export(
//!     metric_exporter: impl PushMetricExporter,
//!     log_exporter: impl LogExporter + 'static,
//! ) -> Result<(SdkMeterProvider, SdkLoggerProvider), Box<dyn Error>> {
//!     let meters = SdkMeterProvider::builder().with_periodic_exporter(metric_exporter).build();
//!     let recorder = OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meters.meter("tower_throttle")));
//!     // The SDK's own bounds are for milliseconds.
//!     let bounds = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
//!     recorder.set_histogram_bounds(["throttle_wait_seconds"].into_iter(), &bounds);
//!     metrics::set_global_recorder(recorder)?;
//!
//!     let logs = SdkLoggerProvider::builder().with_batch_exporter(log_exporter).build();
//!     // Targets by name: what the exporter logs of itself would be exported, and logged, without end.
//!     let targets = Targets::new().with_target("tower_throttle", Level::INFO).with_target("my_server", Level::INFO);
//!     let bridge = OpenTelemetryTracingBridge::new(&logs);
//!     tracing_subscriber::registry().with(targets).with(bridge).with(tracing_subscriber::fmt::layer()).try_init()?;
//!     Ok((meters, logs))
//! }
//! # use opentelemetry_sdk::{logs::InMemoryLogExporter, metrics::InMemoryMetricExporter};
//! # use tower_throttle::{Rate, Rules, ThrottleLayer};
//! # use tower::{ServiceBuilder, ServiceExt};
//! # fn main() -> Result<(), Box<dyn Error>> {
//! # let (metric_exporter, log_exporter) = (InMemoryMetricExporter::default(), InMemoryLogExporter::default());
//! # let (meters, logs) = export(metric_exporter.clone(), log_exporter.clone())?;
//! # let throttle = ThrottleLayer::new(Rules::new().total(Rate::per_second(0)))?;
//! # let service = ServiceBuilder::new().layer(throttle).service_fn(async |_: http::Request<()>| {
//! #     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
//! # });
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # assert_eq!(runtime.block_on(service.oneshot(http::Request::new(())))?.status(), 429);
//! # meters.force_flush()?;
//! # logs.force_flush()?;
//! # let exported = metric_exporter.get_finished_metrics()?;
//! # let metrics: Vec<_> = exported[0].scope_metrics().flat_map(|scope| scope.metrics()).collect();
//! # assert!(metrics.iter().any(|metric| metric.name() == "throttle_refused_total"));
//! # assert_eq!(log_exporter.get_emitted_logs()?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! Metrics keep their names, and labels become attributes. Events become log records: the
//! message is the body, fields are attributes, the target is the scope. Tell events apart by their bodies: `tracing`
//! names them by file and line. `Snapshot::record` needs a task that calls it as often as metrics are exported, every
//! minute by default.
//!
//! The crate opens no spans. Where the server has some and `tracing-opentelemetry` exports them, a log record carries
//! the trace and span in which a request was refused.
//!
//! If a collector scrapes Prometheus endpoints anyway, `metrics-exporter-prometheus` needs no bridge.
//!
//! As of November 2026, the other bridges do less: `metrics-exporter-opentelemetry` 0.2 exports a counter of several
//! routes as several metrics and without units, and `metrics-exporter-otel` 0.3 needs opentelemetry 0.31.
//!
//! # Snapshots
//!
//! [`Handle::snapshot`](crate::Handle::snapshot) returns the balance of each limit, the requests in flight and in
//! queues, and the counts of each limit and route. It is cheap enough for once a second.
//! [`Handle::preview`](crate::Handle::preview) decides on a request without charging it.
//! [`Rules::audit`](crate::Rules::audit) compares the keys of rules with the routes of a server.
//!
//! ```
//! use tower_throttle::{Rate, Rules, ThrottleLayer};
//!
//! let throttle = ThrottleLayer::new(Rules::new().total(Rate::per_second(10)))?;
//! let handle = throttle.handle();
//! for limit in handle.snapshot().limits {
//!     println!("{}: {}, {:?} left", limit.name, limit.settings, limit.remaining);
//! }
//! # Ok::<(), tower_throttle::RulesError>(())
//! ```
//!
//! # Shut down
//!
//! A server that is told to stop finishes what it has begun, and takes nothing new. [`Handle::close`] refuses requests
//! from then on: with 503, `Retry-After: 1` and, over HTTP/1, `Connection: close`, so that a client connects anew, to
//! another replica perhaps. Requests in line are refused too; those that were admitted go on. Exempt routes stay open,
//! so that a liveness probe does not fail.
//!
//! [`Handle::close`]: crate::Handle::close
//!
//! ```
//! use axum::{Router, routing::get};
//! use tokio::{net::TcpListener, signal::ctrl_c};
//! use tower_throttle::{Rate, Rules, ThrottleLayer};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let throttle = ThrottleLayer::new(Rules::new().default_route(Rate::per_second(10)))?;
//! let handle = throttle.handle();
//! let app = Router::new().route("/", get("hello")).layer(throttle);
//! let listener = TcpListener::bind("127.0.0.1:3000").await?;
//! let shutdown = {
//!     let handle = handle.clone();
//!     async move {
//!         let _ = ctrl_c().await;
//!         handle.close();
//!     }
//! };
//! // Returns when all connections have ended.
//! axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
//! // With a store and leases: units that were not spent go back.
//! handle.return_leases().await;
//! # Ok(())
//! # }
//! ```
//!
//! A server that does not wait by itself, such as a loop over hyper's connections, builds the layer with
//! [`track_in_flight(true)`](crate::ThrottleLayerBuilder::track_in_flight) and then waits for
//! [`Handle::drained`](crate::Handle::drained), with a timeout around it.
//!
//! # Restarts
//!
//! Balances are in memory. A restart begins with full buckets, unless the limits are in a [store](super::replicas).
