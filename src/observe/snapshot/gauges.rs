//! Snapshots through the facade `metrics`.

use metrics::{Label, gauge};

use super::{LimitSnapshot, Snapshot};

impl Snapshot {
    /// Sets a gauge of the facade `metrics` for what each limit has left, owes, has in flight and in line. To be called
    /// before a scrape, or every few seconds; the guide [Operating](crate::guides::operating) says what is counted
    /// without it.
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
