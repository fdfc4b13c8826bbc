//! Limits for tests of kept requests.

use std::sync::Arc;

use super::{Admission, BoundedRequests, Origin, SharedAdmission, shared::AnswerHold};
use crate::{
    clock::Timeline,
    limit::{Limit, LimitSettings, in_flight::InFlight, token_demand::TokenDemand},
    limiter::{
        Limiter,
        limit_set::{BoundLimit, Demand, LimitSet, Storage},
        readings::LimitReadings,
    },
};

/// A limit whose requests may be kept.
pub(super) struct KeptLimit {
    origin: Arc<Origin>,
    pub(super) bounded: Arc<BoundedRequests>,
}

impl KeptLimit {
    /// The tokens that a request reserves.
    pub(super) const RESERVED: u64 = 2;

    /// A cap on requests in flight.
    pub(super) fn slots(cap: u64) -> Self {
        Self::new(LimitSettings::InFlight(InFlight::new(cap)))
    }

    pub(super) fn new(settings: LimitSettings) -> Self {
        let limit = Limit::of(settings);
        let limiter = Arc::new(Limiter::new(Timeline::started_at(0)));
        let limit_set = Arc::new(LimitSet::new("test", None, BoundLimit::scope([limit])));
        Self {
            origin: Origin::new(&limiter, &None, &limit_set),
            bounded: Arc::new(BoundedRequests::new()),
        }
    }

    /// Returns the hold of the answer to a request that is admitted.
    pub(super) fn admit(&self) -> AnswerHold {
        let Origin {
            limiter, limit_set, ..
        } = &*self.origin;
        let tokens = TokenDemand::undivided(Self::RESERVED);
        let demand = Demand {
            tokens,
            ..Demand::default()
        };
        let mut readings = LimitReadings::default();
        let admitted = limiter.admit(limit_set, demand, 0, &mut readings);
        assert_eq!(admitted, Ok(true));
        let admission = Admission::new(&self.origin, demand, &readings, None);
        SharedAdmission::share(admission, &self.origin, &self.bounded)
    }

    /// Returns the number of slots that are held, or of tokens that are owed.
    pub(super) fn used(&self) -> u64 {
        let [bound] = &*self.origin.limit_set.limits else {
            unreachable!("it has one limit");
        };
        let Storage::Bucket(bucket) = &bound.storage else {
            unreachable!("with a bucket of its own");
        };
        let meter = bound.limit.meter.expect("it is open");
        meter.used(bucket.load(), 0)
    }
}
