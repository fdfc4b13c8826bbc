//! Logs, metrics and snapshots, for operators.

use std::sync::Arc;

#[cfg(feature = "tracing")]
#[path = "tracing.rs"]
mod log;
#[cfg(not(feature = "tracing"))]
#[path = "silent.rs"]
mod log;
#[cfg(feature = "tracing")]
mod sampler;
pub(crate) mod snapshot;

pub(crate) use self::log::{Log, reloaded};
#[cfg(feature = "watch")]
pub(crate) use self::log::{following_ended, listener_panicked, not_reloaded, not_watched};

#[cfg(feature = "metrics")]
#[path = "metrics.rs"]
mod meters;
#[cfg(not(feature = "metrics"))]
#[path = "unmetered.rs"]
mod meters;

use self::meters::StoreMeters;
pub(crate) use self::meters::{Meters, body_timed_out, describe, unread_model};
use crate::{
    clock::Nanos,
    limiter::missing_reason::MissingReason,
    store::client::{Event, OnOutage},
    usage::ReportListener,
};

impl ReportListener for Log {
    fn missing(&self, route: &str, now: Nanos, reason: MissingReason) {
        meters::missing_usage(route, reason);
        self.missing_usage(route, now, reason);
    }

    fn implausible(&self, route: &str, now: Nanos, reported: u64, most: u64) {
        meters::missing_usage(route, MissingReason::Implausible);
        self.implausible_usage(route, now, reported, most);
    }
}

impl Log {
    /// Notes that a request on this route was ended at the bound for which its handler kept it.
    pub(crate) fn ended_at_bound(&self, route: &str, now: Nanos) {
        meters::expired(route);
        self.expired(route, now);
    }
}

/// Tells what becomes of the store.
#[derive(Debug)]
pub(crate) struct StoreWatch {
    log: Arc<Log>,
    meters: StoreMeters,
}

impl StoreWatch {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self {
            log,
            meters: StoreMeters::new(),
        }
    }

    pub(crate) fn told(&self, event: &Event<'_>) {
        match event {
            Event::Failed(error, now) => {
                self.meters.failed();
                // An outage is told once, when it begins.
                if !error.is_unavailable() {
                    self.log.bucket_failed(error, *now);
                }
            }
            Event::Down(error) => {
                self.meters.is_up(false);
                self.log.store_down(error);
            }
            Event::Up => {
                self.meters.is_up(true);
                self.log.store_up();
            }
            Event::Without(OnOutage::Admit) => self.meters.admitted(),
            Event::Without(OnOutage::Refuse) => self.meters.refused(),
            Event::Without(OnOutage::Local { .. }) => self.meters.local(),
        }
    }
}
