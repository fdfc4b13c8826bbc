//! Snapshots through the facade `metrics`.

use metrics::{Label, gauge};

use super::{LimitSnapshot, Snapshot};

impl Snapshot {
    /// Sets gauges of the facade `metrics` for each limit: remaining and owed units, requests in flight and waiting.
    /// Call it before a scrape, or every few seconds. The guide [Operating](crate::guides::operating) lists the metrics
    /// that need no call.
    pub fn record(&self) {
        for limit in &self.limits {
            limit.record();
        }
    }
}

impl LimitSnapshot {
    #[expect(clippy::cast_precision_loss, reason = "what the facade takes")]
    fn record(&self) {
        let mut labels = vec![Label::new("limit", self.name.to_string())];
        if let Some(route) = &self.route {
            labels.push(Label::new("route", route.clone()));
        }
        if let Some(model) = &self.model {
            labels.push(Label::new("model", model.to_string()));
        }
        let readings = [
            ("throttle_limit_remaining", self.remaining),
            ("throttle_limit_owed", self.owed),
            ("throttle_limit_in_flight", self.in_flight),
            ("throttle_limit_waiting", Some(self.waiting)),
        ];
        for (name, reading) in readings {
            if let Some(reading) = reading {
                gauge!(name, labels.iter()).set(reading as f64);
            }
        }
    }
}
