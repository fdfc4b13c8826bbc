//! Settings of a layer, apart from its rules: what it tells, in which form, and what it does while a store is down.
//!
//! Set while a layer is built, they are the same for all of its requests and all rules that follow each other.
//! The rules alone say on which limits a request is charged.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    decision::DecisionIn,
    response::{Dialect, Protocol, Rejection},
    store::client::OnOutage,
};

/// Those for whom an engine decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The service, on a request that is to be answered.
    #[default]
    Request,
    /// A handle, on work without an answer, which may wait.
    Permit,
    /// A handle, on work without an answer, which is decided at once and without a call to the store.
    PermitAtOnce,
}

/// Settings of a layer, apart from its rules.
#[derive(Clone)]
pub(crate) struct Options {
    /// True if admitted responses carry the fields of the IETF's draft.
    pub(crate) rate_limit_headers: bool,
    /// The places in which the decision is put. Without it and `rate_limit_headers`, most requests make no allocation.
    pub(crate) decision: DecisionIn,
    /// True if requests that are refused together are told different waits.
    pub(crate) stagger_retry_after: bool,
    /// True if answers are read for their reports of model tokens.
    pub(crate) usage_from_answers: bool,
    /// The framing of refusals. It may have all requests count as gRPC.
    pub(crate) protocol: Protocol,
    /// True if gRPC refusals tell a wait in `grpc-retry-pushback-ms`.
    pub(crate) grpc_retry_pushback: bool,
    /// The answer given by code of the user, for routes without one of their own. `None`: the built-in one.
    pub(crate) rejection: Option<Arc<dyn Rejection>>,
    /// The dialect whose fields admitted responses carry beside the IETF's. Asked of `rejection` once, when that is
    /// set.
    pub(crate) dialect: Dialect,
    /// True if the dialect has fields of its own. Most have none.
    pub(crate) tells_more: bool,
    /// The decision on requests while the store is down.
    pub(crate) on_outage: OnOutage,
    /// The longest time of a call to the store, by tokio's clock. After that, the store counts as down. Zero: only an
    /// immediate answer is in time.
    pub(crate) store_deadline: Duration,
    /// The units of each limit that a lease takes from the store. 0 and 1: only those of the request.
    pub(crate) lease: u64,
    /// True if requests in flight are counted.
    pub(crate) track_in_flight: bool,
    /// Those for whom the engine decides. Set by no user.
    pub(crate) asker: Asker,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate_limit_headers: true,
            decision: DecisionIn::default(),
            stagger_retry_after: false,
            usage_from_answers: false,
            protocol: Protocol::default(),
            grpc_retry_pushback: false,
            rejection: None,
            dialect: Dialect::Problem,
            tells_more: false,
            on_outage: OnOutage::default(),
            store_deadline: Duration::from_millis(25),
            lease: 0,
            track_in_flight: false,
            asker: Asker::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate_limit_headers,
            decision,
            stagger_retry_after,
            usage_from_answers,
            protocol,
            grpc_retry_pushback,
            rejection,
            dialect,
            tells_more: _,
            on_outage,
            store_deadline,
            lease,
            track_in_flight,
            asker: _,
        } = self;
        f.debug_struct("Options")
            .field("rate_limit_headers", rate_limit_headers)
            .field("decision", decision)
            .field("stagger_retry_after", stagger_retry_after)
            .field("dialect", dialect)
            .field("on_outage", on_outage)
            .field("store_deadline", store_deadline)
            .field("lease", lease)
            .field("track_in_flight", track_in_flight)
            .field("usage_from_answers", usage_from_answers)
            .field("protocol", protocol)
            .field("grpc_retry_pushback", grpc_retry_pushback)
            .field(
                "rejection",
                &rejection.as_ref().map(|_| format_args!("<fn>")),
            )
            .finish()
    }
}
