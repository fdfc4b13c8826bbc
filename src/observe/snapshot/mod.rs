//! Snapshots: a throttle at one moment.

#[cfg(feature = "metrics")]
mod gauges;
#[cfg(feature = "serde")]
mod serialize;

use std::sync::Arc;

use crate::{
    clock::Nanos,
    limit::{LimitSettings, Scope},
    limiter::{
        counters::Counters,
        limit_set::{BoundLimit, Storage},
        missing_reason::MissingReason,
    },
};

/// The state of a throttle at one moment: its limits, and the counts of requests. Made by
/// [`Handle::snapshot`](crate::Handle::snapshot).
///
/// With the feature `serde` a snapshot is `Serialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// All limits: the total, declared routes and clients in the order of the rules, then the limits of other routes.
    pub limits: Vec<LimitSnapshot>,
    /// All routes on which a request can be charged: the declared ones, then those that the host's router has named so
    /// far, and last all others together, as `$default`.
    pub routes: Vec<RouteSnapshot>,
    /// Charges on clients that had no room in the table; see
    /// [`ThrottleLayer::overflowed`](crate::ThrottleLayer::overflowed).
    pub overflowed: u64,
    /// Requests without a peer address although clients are identified by address: all of them share the anonymous
    /// client's limits. See [`Clients::by_address`](crate::Clients::by_address).
    pub without_address: u64,
    /// Requests for which [`Clients::plan_by`](crate::Clients::plan_by) returned an undeclared plan: they have the
    /// limits of each client.
    pub unknown_plans: u64,
    /// Requests whose model was not read: they are charged on the limits of every model, or on those of
    /// [`Models::unread`](crate::Models::unread).
    pub unread_models: u64,
}

/// One limit at one moment.
///
/// Counts start when the throttle is made; a reload keeps those of limits that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitSnapshot {
    /// The limit's name. Unique, except for limits of the default route.
    pub name: Arc<str>,
    /// The scope in which the limit holds.
    pub scope: Scope,
    /// The key of its route. `None` for the total and for clients on any route; with [`Scope::Route`], for the limits
    /// of all undeclared routes without a router template, together.
    pub route: Option<String>,
    /// The plan of the clients for whom the limit holds.
    pub plan: Option<Arc<str>>,
    /// The model, as the rules name it, or `otherwise` or `unread`. `None` for limits that hold whatever the model.
    pub model: Option<Arc<str>>,
    /// The limit's settings.
    pub settings: LimitSettings,
    /// The units that a full bucket holds: a burst, a quota's count, a cap's slots. Zero if the limit is closed.
    pub burst: u64,
    /// The requests, model tokens, millionths of a unit of money, or slots that would be admitted at once. `None` if
    /// each client or each route has a balance of its own.
    pub remaining: Option<u64>,
    /// The units owed beyond an empty bucket: after model tokens were used beyond a reservation, and after a reload
    /// with a smaller burst.
    pub owed: Option<u64>,
    /// Requests in flight, for a cap on them.
    pub in_flight: Option<u64>,
    /// Requests that wait for this limit now.
    pub waiting: u64,
    /// Admitted requests that this limit was applied to.
    pub admitted: u64,
    /// Requests that this limit has refused, alone or with others.
    pub refused: u64,
    /// Requests that this shadow would have refused.
    pub would_refuse: u64,
    /// Requests that have waited for this limit.
    pub waited: u64,
}

/// The counts of one route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteSnapshot {
    /// The route key, as in [`Decision::route`](crate::Decision::route).
    pub route: String,
    /// Admitted requests.
    pub admitted: u64,
    /// Admitted requests that no scope counted, since the route is [exempt](crate::Limits::exempt).
    pub exempt: u64,
    /// Admitted requests that were charged to a [second budget](crate::Limits::degrade).
    pub degraded: u64,
    /// Requests that were refused: by any limit, because the store could not decide, or because the throttle is closed.
    pub refused: u64,
    /// Refusals that shadows would have caused.
    pub would_refuse: u64,
    /// Requests that were ended at the bound for which their handlers kept them; see
    /// [`Hold::keep_at_most`](crate::body::Hold::keep_at_most).
    pub expired: u64,
    /// The requests whose failure was [refunded](crate::Limits::refund_failures).
    pub refunded: u64,
    /// Answers whose usage was not read, though it should have been; see
    /// [`ThrottleLayerBuilder::usage_from_answers`](crate::ThrottleLayerBuilder::usage_from_answers).
    pub missing_usage: MissingUsage,
}

/// Successful answers (status 2xx) whose usage of model tokens was not read, by reason.
///
/// Each is charged with its reservation, or with what was sent if that is more. Answers whose handler has settled the
/// [`Usage`](crate::Usage) are not counted, nor are those without a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingUsage {
    /// The answer was compressed, or of a media type that is not read.
    pub encoding: u64,
    /// The answer was cut short before its report: the client went away, or the body failed.
    pub cut: u64,
    /// The answer came to its end without a report.
    pub absent: u64,
    /// The answer had data that is not JSON, though its media type says so.
    pub malformed: u64,
    /// The report was more than the request can have used.
    pub implausible: u64,
}

impl MissingUsage {
    /// Returns the number of all of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            encoding,
            cut,
            absent,
            malformed,
            implausible,
        } = self;
        encoding + cut + absent + malformed + implausible
    }

    fn add(&mut self, counters: &Counters) {
        let count = |reason| counters.missing_usage[reason as usize].get();
        self.encoding += count(MissingReason::Encoding);
        self.cut += count(MissingReason::Cut);
        self.absent += count(MissingReason::Absent);
        self.malformed += count(MissingReason::Malformed);
        self.implausible += count(MissingReason::Implausible);
    }
}

impl RouteSnapshot {
    pub(crate) fn new(route: &str) -> Self {
        Self {
            route: route.to_owned(),
            admitted: 0,
            exempt: 0,
            degraded: 0,
            refused: 0,
            would_refuse: 0,
            expired: 0,
            refunded: 0,
            missing_usage: MissingUsage::default(),
        }
    }

    pub(crate) fn add(&mut self, counters: &Counters) {
        self.admitted += counters.admitted.get();
        self.expired += counters.expired.get();
        self.refunded += counters.refunded.get();
        self.missing_usage.add(counters);
        self.exempt += counters.exempt.get();
        self.degraded += counters.degraded.get();
        self.refused += counters.refused.get();
        self.would_refuse += counters.would_refuse.get();
    }
}

impl LimitSnapshot {
    /// A limit that nobody was counted by.
    pub(crate) fn new(bound: &BoundLimit, route: Option<&str>, plan: Option<&Arc<str>>) -> Self {
        let limit = &bound.limit;
        Self {
            name: Arc::clone(&limit.name),
            scope: limit.scope,
            route: route.map(str::to_owned),
            plan: plan.map(Arc::clone),
            model: None,
            settings: limit.settings.clone(),
            burst: limit.meter.map_or(0, |meter| meter.capacity()),
            remaining: None,
            owed: None,
            in_flight: None,
            waiting: 0,
            admitted: 0,
            refused: 0,
            would_refuse: 0,
            waited: 0,
        }
    }

    /// With the balance at `now`, where there is one for all.
    pub(crate) fn at(self, bound: &BoundLimit, now: Nanos) -> Self {
        let Storage::Bucket(bucket) = &bound.storage else {
            return self;
        };
        let (Ok(state) | Err(state)) = bucket.peek(bound.version, &bound.history);
        let (remaining, used, slots) = match &bound.limit.meter {
            Some(meter) => {
                let (remaining, _) = meter.balance(state, now);
                (remaining, meter.used(state, now), meter.is_slots())
            }
            None => (0, 0, false),
        };
        Self {
            remaining: Some(remaining),
            owed: Some(used.saturating_sub(self.burst)),
            in_flight: slots.then_some(used),
            ..self
        }
    }

    pub(crate) fn add(&mut self, counters: &Counters) {
        self.waiting += counters.waiting.get();
        self.admitted += counters.admitted.get();
        self.refused += counters.refused.get();
        self.would_refuse += counters.would_refuse.get();
        self.waited += counters.waited.get();
    }
}
