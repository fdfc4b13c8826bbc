//! Slots for tests of kept requests.

use std::sync::Arc;

use super::{Admission, BoundedRequests, Origin, Permits, SharedAdmission, hold::AnswerHold};
use crate::{
    clock::Timeline,
    limit::{Limit, LimitSettings, in_flight::InFlight},
    limiter::{
        Limiter,
        limit_set::{BoundLimit, Demand, LimitSet, Storage},
        readings::LimitReadings,
    },
};

/// A cap on requests in flight, whose requests may be kept.
pub(super) struct Slots {
    origin: Arc<Origin>,
    pub(super) bounded: Arc<BoundedRequests>,
}

impl Slots {
    pub(super) fn new(cap: u64) -> Self {
        let limit = Limit::of(LimitSettings::InFlight(InFlight::new(cap)));
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
        let (demand, mut readings) = (Demand::default(), LimitReadings::default());
        let admitted = limiter.admit(limit_set, demand, 0, &mut readings);
        assert_eq!(admitted, Ok(true));
        let permits = Permits::new(&self.origin, demand, &readings);
        let admission = Admission::of_slots(permits);
        SharedAdmission::share(admission, &self.origin, &self.bounded)
    }

    /// Returns the number of slots that are held.
    pub(super) fn in_flight(&self) -> u64 {
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
