//! Counts through the facade `metrics`, by route and by limit and by nothing that a client sends.

use metrics::{
    Counter, Gauge, Histogram, Label, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};

use crate::{
    clock::Nanos,
    limiter::{limit_set::LimitSet, missing_reason::MissingReason},
};

/// The counters of one rule's requests: bound once to the recorder, so that counting looks nothing up.
#[derive(Clone)]
pub(crate) struct Meters {
    admitted: Counter,
    refused: Counter,
    /// The requests that each limit has refused, or would have refused as a shadow.
    by_limit: Box<[Counter]>,
    /// The admitted requests that were charged to a second budget. `None`: these limits are of no second budget.
    degraded: Option<Counter>,
    wait: Histogram,
}

impl Meters {
    pub(crate) fn of(limit_set: &LimitSet) -> Self {
        let route = || {
            let route = Label::new("route", limit_set.route.to_string());
            let model = limit_set.model.iter();
            let model = model.map(|model| Label::new("model", model.to_string()));
            [route].into_iter().chain(model).collect::<Vec<_>>()
        };
        let by_limit = limit_set.limits.iter().map(|bound| {
            let name = match bound.limit.shadow {
                false => "throttle_limit_refused_total",
                true => "throttle_limit_would_refuse_total",
            };
            let mut labels = vec![Label::new("limit", bound.limit.name.to_string())];
            labels.append(&mut route());
            counter!(name, labels)
        });
        Self {
            admitted: counter!("throttle_admitted_total", route()),
            refused: counter!("throttle_refused_total", route()),
            by_limit: by_limit.collect(),
            degraded: limit_set
                .is_degraded
                .then(|| counter!("throttle_degraded_total", route())),
            wait: histogram!("throttle_wait_seconds", route()),
        }
    }

    #[inline]
    pub(crate) fn admitted(&self) {
        self.admitted.increment(1);
    }

    pub(crate) fn refused(&self) {
        self.refused.increment(1);
    }

    /// Counts an admitted request that was charged to a second budget.
    pub(crate) fn degraded(&self) {
        if let Some(degraded) = &self.degraded {
            degraded.increment(1);
        }
    }

    /// Counts a request that a limit has refused, or a shadow would have refused.
    pub(crate) fn by_limit(&self, index: usize) {
        self.by_limit[index].increment(1);
    }

    /// Records the time for which a request has stood in line.
    #[expect(clippy::float_arithmetic, reason = "what the facade takes")]
    pub(crate) fn waited(&self, wait: Nanos) {
        self.wait.record(wait as f64 / 1e9);
    }
}

/// Counts an answer whose usage was not read.
pub(crate) fn missing_usage(route: &str, reason: MissingReason) {
    let (route, reason) = (route.to_owned(), reason.as_str());
    counter!("throttle_usage_missing_total", "route" => route, "reason" => reason).increment(1);
}

/// Counts a request that was ended at the bound for which its handler kept it.
pub(crate) fn expired(route: &str) {
    counter!("throttle_kept_expired_total", "route" => route.to_owned()).increment(1);
}

/// Counts a request whose model was not read.
pub(crate) fn unread_model(reason: &'static str) {
    counter!("throttle_model_unread_total", "reason" => reason).increment(1);
}

/// Counts a request whose body was not there in time, since its client was slow or there was no room for it.
pub(crate) fn body_timed_out(missing: &'static str) {
    counter!("throttle_body_timeout_total", "missing" => missing).increment(1);
}

/// The meters of the store: its failures, the requests that are decided without it, and whether it is up.
#[derive(Clone)]
pub(crate) struct StoreMeters {
    errors: Counter,
    up: Gauge,
    admitted: Counter,
    refused: Counter,
    local: Counter,
}

impl StoreMeters {
    pub(crate) fn new() -> Self {
        let without = |outcome| counter!("throttle_store_outage_total", "outcome" => outcome);
        let up = gauge!("throttle_store_up");
        up.set(1.0);
        Self {
            errors: counter!("throttle_store_errors_total"),
            up,
            admitted: without("admit"),
            refused: without("refuse"),
            local: without("local"),
        }
    }

    pub(crate) fn failed(&self) {
        self.errors.increment(1);
    }

    pub(crate) fn is_up(&self, up: bool) {
        self.up.set(if up { 1.0 } else { 0.0 });
    }

    pub(crate) fn admitted(&self) {
        self.admitted.increment(1);
    }

    pub(crate) fn refused(&self) {
        self.refused.increment(1);
    }

    pub(crate) fn local(&self) {
        self.local.increment(1);
    }
}

impl std::fmt::Debug for StoreMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreMeters").finish_non_exhaustive()
    }
}

/// Says what is counted. Once for each throttle; the same words each time.
pub(crate) fn describe() {
    let counters = [
        ("throttle_admitted_total", "Requests that were let through"),
        ("throttle_refused_total", "Requests that were refused"),
        (
            "throttle_degraded_total",
            "Requests that were let through by a second budget",
        ),
        (
            "throttle_limit_refused_total",
            "Requests that a limit has refused, alone or with others",
        ),
        (
            "throttle_limit_would_refuse_total",
            "Requests that a shadow would have refused",
        ),
        (
            "throttle_usage_missing_total",
            "Answers that should have reported their usage, and were charged without",
        ),
        (
            "throttle_kept_expired_total",
            "Requests that were ended since their handlers kept them for too long",
        ),
        (
            "throttle_model_unread_total",
            "Requests whose model was not read",
        ),
        (
            "throttle_body_timeout_total",
            "Requests that were answered since their body was not read in time",
        ),
        (
            "throttle_store_errors_total",
            "Calls to the store that failed or were not answered in time",
        ),
        (
            "throttle_store_outage_total",
            "Requests that were decided without the store",
        ),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_histogram!(
        "throttle_wait_seconds",
        Unit::Seconds,
        "Time in line of requests that had to wait"
    );
    let gauges = [
        (
            "throttle_limit_remaining",
            "Requests, model tokens or slots that would be admitted at once",
        ),
        ("throttle_limit_owed", "What is owed beyond an empty bucket"),
        ("throttle_limit_in_flight", "Requests in flight"),
        ("throttle_limit_waiting", "Requests in line"),
        ("throttle_store_up", "Whether the store answers"),
    ];
    for (name, what) in gauges {
        // No unit: a gauge in units of one is a ratio to OpenTelemetry, and Prometheus has it as `…_ratio`.
        describe_gauge!(name, what);
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}
