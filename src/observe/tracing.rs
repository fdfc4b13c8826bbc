//! Events of `tracing`.

use std::sync::OnceLock;
#[cfg(feature = "watch")]
use std::{error::Error, path::Path};

#[cfg(feature = "watch")]
use tracing::error;
use tracing::{Level, debug, event_enabled, info, warn};

use super::sampler::Sampler;
use crate::{
    clock::{Nanos, nanos},
    decision::{Degraded, Denial, Failure},
    error::Chain,
    limiter::{
        limit_set::{BoundLimit, LimitSet},
        missing_reason::MissingReason,
    },
    rules::Changes,
    store::StoreError,
};

/// All events are the crate's, whichever of its files they come from.
const TARGET: &str = "tower_throttle";

/// Tells what one throttle has to say, whichever rules hold: of refusals, and of whatever else each request may cause,
/// no more than ten in a second.
#[derive(Debug, Default)]
pub(crate) struct Log {
    refusals: Sampler,
    degraded: Sampler,
    reports: Sampler,
    expiries: Sampler,
    missing: Sampler,
    bucket_failures: Sampler,
    unaddressed: OnceLock<()>,
    unplanned: OnceLock<()>,
    unpeeked: OnceLock<()>,
}

impl Log {
    /// A request was refused. Tells nothing that a client has sent.
    pub(crate) fn refused(&self, denial: &Denial) {
        let Some(suppressed) = self.tells_refusal(denial.now()) else {
            return;
        };
        let limits: Vec<_> = denial.violated().map(|limit| limit.name()).collect();
        let limits = limits.join(",");
        let reason = match denial.failure() {
            Some(Failure::StoreDown | Failure::NoLease) => {
                "a request was refused because the store could not decide"
            }
            Some(Failure::ShuttingDown) => "a request was refused because the throttle is closed",
            None => REFUSED,
        };
        let wait = denial.retry_after().map(nanos);
        refused(
            reason,
            &limits,
            denial.route(),
            denial.plan(),
            denial.model(),
            wait,
            suppressed,
        );
    }

    /// A request was refused at `now` by one limit of a set alone, for so long. Tells the same, without a denial.
    #[inline]
    pub(crate) fn refused_by(&self, bound: &BoundLimit, set: &LimitSet, wait: Nanos, now: Nanos) {
        if let Some(suppressed) = self.tells_refusal(now) {
            let (limit, plan) = (&bound.limit.name, set.plan.as_deref());
            let (route, model) = (&set.route, set.model.as_deref());
            refused(REFUSED, limit, route, plan, model, Some(wait), suppressed);
        }
    }

    /// A request was charged to a second budget at `now`. Told as often as refusals are.
    pub(crate) fn degraded(&self, degraded: &Degraded, set: &LimitSet, now: Nanos) {
        let is_heard = event_enabled!(
            target: TARGET,
            Level::INFO,
            message,
            limit,
            route,
            plan,
            model,
            wait_ms,
            suppressed
        );
        if !is_heard {
            return;
        }
        let Some(suppressed) = self.degraded.tells(now) else {
            return;
        };
        let wait = degraded.retry_after().map(nanos);
        info!(
            target: TARGET,
            limit = degraded.limit(),
            route = &*set.route,
            plan = set.plan.as_deref(),
            model = set.model.as_deref(),
            // Nothing: it could never pass by its first budget.
            wait_ms = wait.map(|wait| wait / 1_000_000),
            suppressed,
            "a request was charged to a second budget"
        );
    }

    /// Returns how many refusals before the one at `now` were not told; `None` if that one is not to be told either, or
    /// nobody listens.
    #[inline]
    fn tells_refusal(&self, now: Nanos) -> Option<u64> {
        // Asked by all that a filter may go by: an event, with these fields.
        let is_heard = event_enabled!(
            target: TARGET,
            Level::INFO,
            message,
            limit,
            route,
            plan,
            model,
            wait_ms,
            suppressed
        );
        if !is_heard {
            return None;
        }
        self.refusals.tells(now)
    }

    /// The usage of a request was not read from its answer. Told as often as refusals are.
    pub(crate) fn missing_usage(&self, route: &str, now: Nanos, reason: MissingReason) {
        if !event_enabled!(target: TARGET, Level::INFO, message, route, reason, suppressed) {
            return;
        }
        if let Some(suppressed) = self.missing.tells(now) {
            info!(
                target: TARGET,
                route,
                reason = reason.as_str(),
                suppressed,
                "the usage of model tokens was not read from an answer; the reservation is charged, or what was sent if \
                 that is more"
            );
        }
    }

    /// An answer has reported more model tokens than it can have used. Told as often as refusals are.
    pub(crate) fn implausible_usage(&self, route: &str, now: Nanos, reported: u64, most: u64) {
        if let Some(suppressed) = self.reports.tells(now) {
            warn!(
                target: TARGET,
                route,
                reported,
                most,
                suppressed,
                "an answer reports an implausible number of model tokens; the report is not charged"
            );
        }
    }

    /// A request was ended at the bound for which its handler kept it. Told as often as refusals are.
    pub(crate) fn expired(&self, route: &str, now: Nanos) {
        if let Some(suppressed) = self.expiries.tells(now) {
            warn!(
                target: TARGET,
                route,
                suppressed,
                "a request was kept for longer than `keep_at_most` allows; its slots are free"
            );
        }
    }

    /// Tells that the store cannot take from the buckets of a request, as often as refusals are told.
    pub(crate) fn bucket_failed(&self, error: &StoreError, now: Nanos) {
        if let Some(suppressed) = self.bucket_failures.tells(now) {
            warn!(
                target: TARGET,
                error = %Chain(error),
                suppressed,
                "the store cannot charge a bucket; its requests are decided without the store"
            );
        }
    }

    /// The store does not answer, and requests are decided without it until it does.
    #[expect(clippy::unused_self, reason = "as what else is told")]
    pub(crate) fn store_down(&self, error: &StoreError) {
        warn!(target: TARGET, error = %Chain(error), "the store is down; requests are decided without it");
    }

    /// The store answers again.
    #[expect(clippy::unused_self, reason = "as what else is told")]
    pub(crate) fn store_up(&self) {
        warn!(target: TARGET, "the store is up again");
    }

    /// A plan was named that is not declared. Told once, and without the name, which a client may have sent.
    pub(crate) fn unknown_plan(&self) {
        self.unplanned.get_or_init(|| {
            warn!(
                target: TARGET,
                "`Clients::plan_by` returned a plan that is not declared; such requests get the limits of `each`. \
                 `Snapshot::unknown_plans` counts them"
            );
        });
    }

    /// Models are to be read from bodies, and no layer reads them. Told once.
    pub(crate) fn no_body_read(&self) {
        self.unpeeked.get_or_init(|| {
            warn!(
                target: TARGET,
                "models are read from bodies, but no layer outside of the throttle has read the body of this request; all such requests \
                 are charged on the limits of every model. Add `ThrottleLayer::peek_layer` outside of the throttle"
            );
        });
    }

    /// Clients are to be told apart by address, and the host tells none. Told once.
    pub(crate) fn no_peer_address(&self) {
        self.unaddressed.get_or_init(|| {
            warn!(
                target: TARGET,
                "clients are identified by address, but this request has none; all such requests share the anonymous \
                 client's limits. In axum, serve \
                 `into_make_service_with_connect_info::<SocketAddr>()` and enable the feature `axum`; in tonic, \
                 enable the feature `tonic`; elsewhere, or if axum's `ConnectInfo` has a custom type, insert a \
                 `PeerAddr` into the request's extensions outside of the throttle"
            );
        });
    }
}

/// The message of most refusals.
const REFUSED: &str = "a request was refused";

/// Tells a refusal: by the limits that have refused, for a wait.
#[cold]
fn refused(
    reason: &str,
    limits: &str,
    route: &str,
    plan: Option<&str>,
    model: Option<&str>,
    wait: Option<Nanos>,
    suppressed: u64,
) {
    info!(
        target: TARGET,
        // Nothing: none has refused.
        limit = (!limits.is_empty()).then_some(limits),
        route,
        plan,
        model,
        // Nothing: it can never pass.
        wait_ms = wait.map(|wait| wait / 1_000_000),
        suppressed,
        "{reason}"
    );
}

/// Tells that other rules hold, in one line that does not grow with their number. Each change has a line at the level
/// of debug.
pub(crate) fn reloaded(changes: &Changes) {
    const LONGEST: usize = 2_048;
    info!(
        target: TARGET,
        changes = changes.len(),
        told = changes.within(LONGEST),
        "the throttle's rules were reloaded"
    );
    for change in changes.iter() {
        debug!(target: TARGET, limit = change.name(), "{change}");
    }
    for change in changes.settings() {
        debug!(target: TARGET, setting = change.name(), "{change}");
    }
}

/// A file of rules has changed, and is not followed.
#[cfg(feature = "watch")]
pub(crate) fn not_reloaded(error: &dyn Error) {
    error!(target: TARGET, "{error}; the throttle's rules stay as they were");
}

/// The system does not tell of changes of a file of rules any more.
#[cfg(feature = "watch")]
pub(crate) fn not_watched(path: &Path, error: &str) {
    warn!(
        target: TARGET,
        "{}: changes cannot be watched ({error}); the file is only polled",
        path.display()
    );
}

/// A listener to the changes of a file of rules has panicked.
#[cfg(feature = "watch")]
pub(crate) fn listener_panicked(path: &Path, message: &str) {
    error!(
        target: TARGET,
        "{}: the listener to its changes panicked: {message}; the file is still followed",
        path.display()
    );
}

/// A file of rules is not followed any more, though nobody has ended that.
#[cfg(feature = "watch")]
pub(crate) fn following_ended(path: &Path) {
    error!(
        target: TARGET,
        "{}: the file is no longer followed; the throttle's rules stay as they are",
        path.display()
    );
}
