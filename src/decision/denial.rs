//! Refusals: the limits that refused a request, and the wait.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use super::{Decision, Failure, LimitStatus, Verdict};
use crate::{
    clock::{Nanos, RuntimeClock, Timeline, nanos},
    limit::Scope,
    limiter::{limit_set::LimitSet, readings::LimitReadings},
};

/// A refusal: which limits refused, and when to come back.
#[derive(Clone)]
pub struct Denial {
    verdict: Verdict,
    /// The clock that tells moments.
    clock: Option<RuntimeClock>,
}

impl Denial {
    /// `refuses` is told the number of each limit that does.
    pub(crate) fn new(
        limit_set: Arc<LimitSet>,
        readings: LimitReadings,
        arrived: Nanos,
        now: Nanos,
        mut refuses: impl FnMut(usize),
    ) -> Self {
        let mut verdict = Verdict {
            limit_set,
            readings,
            arrived,
            now,
            wait: None,
            binding: 0,
            refusals: 0,
            spread: 0,
            admitted: false,
            failure: None,
        };
        // Never is the longest.
        let mut longest = (0, Some(0));
        let mut refusals = 0;
        for (index, limit) in verdict.limits().enumerate() {
            let wait = limit.wait().map(nanos);
            if wait != Some(0) {
                refuses(index);
                refusals += 1;
            }
            let (_, most) = longest;
            if most.is_some_and(|most| wait.is_none_or(|wait| wait > most)) {
                longest = (index, wait);
            }
        }
        (verdict.binding, verdict.wait) = longest;
        verdict.refusals = refusals;
        Self {
            verdict,
            clock: None,
        }
    }

    /// The denial of a request on whose limits nobody has decided, under a rule without limits.
    pub(crate) fn failed(
        failure: Failure,
        limit_set: Arc<LimitSet>,
        arrived: Nanos,
        now: Nanos,
    ) -> Self {
        const SECOND: Nanos = 1_000_000_000;
        let wait = match failure {
            // Not all at once.
            Failure::StoreDown => 3 * SECOND + RandomState::new().hash_one(now) % (5 * SECOND),
            // Another replica may answer at once, and who comes back to this one has to connect anew.
            Failure::ShuttingDown => SECOND,
        };
        Self {
            verdict: Verdict {
                limit_set,
                readings: LimitReadings::default(),
                arrived,
                now,
                wait: Some(wait),
                binding: 0,
                refusals: 0,
                spread: 0,
                admitted: false,
                failure: Some(failure),
            },
            clock: None,
        }
    }

    /// Returns the moment of the decision.
    pub(crate) fn now(&self) -> Nanos {
        self.verdict.now
    }

    /// Tells moments by this clock.
    pub(crate) fn by(&mut self, clock: &Timeline) {
        self.clock = Some(*clock.runtime());
    }

    /// The moment of the wall clock, to which waits are added where a moment is told.
    pub(crate) fn wall(&self) -> Nanos {
        self.clock.as_ref().map_or(self.now(), RuntimeClock::wall)
    }

    /// Tells this much more than the wait.
    pub(crate) fn spread(&mut self, more: Nanos) {
        self.verdict.spread = more;
    }

    /// The route key the request was charged to; see [`Decision::route`].
    #[must_use]
    pub fn route(&self) -> &str {
        &self.verdict.limit_set.route
    }

    /// The client's usage plan, where it has one.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.verdict.limit_set.plan.as_deref()
    }

    /// All limits that applied, those that did not refuse too, the most specific first.
    pub fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.verdict.limits()
    }

    /// The limits that refused, the most specific first. At least one, unless
    /// [nobody could decide](Self::is_unavailable) or the throttle [is closed](Self::is_shutting_down).
    pub fn violated(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.limits().filter(LimitStatus::is_refused)
    }

    /// Returns the wait that is told: after it the request passes if nobody else takes its place.
    ///
    /// The longest wait of the limits that refused, and more where
    /// [`ThrottleLayerBuilder::stagger_retry_after`](crate::ThrottleLayerBuilder::stagger_retry_after) adds to it. More
    /// than zero; `None` if the request can never pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.verdict.retry_after()
    }

    /// Tells whether nobody could decide, since the [store](crate::ThrottleLayerBuilder::store) is down and
    /// [`OnOutage::Refuse`](crate::store::OnOutage::Refuse) was chosen. No limit has refused then, and to come back is
    /// of use in some seconds: three to eight are told.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.failure() == Some(Failure::StoreDown)
    }

    /// Tells whether the throttle was [closed](crate::Handle::close), since the server is shutting down. No limit has
    /// refused then. One second is told: another replica may answer at once.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.failure() == Some(Failure::ShuttingDown)
    }

    /// Returns the cause of the refusal, if it is no limit.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.verdict.failure
    }

    /// Tells whether the server is busy: all limits that refused are caps on what the total or a route may have in
    /// flight.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        // Most rules have none.
        if !self.verdict.limit_set.has_slots {
            return false;
        }
        self.violated().all(|status| {
            let server = matches!(status.scope(), Scope::Total | Scope::Route);
            server && status.limit().is_slots() && status.limit().meter.is_some()
        })
    }

    /// The limit that refused with the longest wait, or that can never pass; of equals the most specific.
    pub(crate) fn binding(&self) -> Option<LimitStatus<'_>> {
        self.limits().nth(self.verdict.binding)
    }

    /// The number of the limit that refused, if it is the only one.
    pub(crate) fn only(&self) -> Option<usize> {
        (self.verdict.refusals == 1).then_some(self.verdict.binding)
    }

    /// The longest wait of the limits that refused; `None` if it can never pass.
    pub(crate) fn wait(&self) -> Option<Nanos> {
        self.verdict.wait
    }

    /// The number of the limit with that wait, the state of its bucket, and what was asked of it.
    pub(crate) fn binding_charge(&self) -> (usize, (u64, u64)) {
        let Verdict {
            binding, readings, ..
        } = &self.verdict;
        let reading = readings[*binding];
        (*binding, (reading.state, reading.cost))
    }

    pub(crate) fn limit_set(&self) -> &LimitSet {
        &self.verdict.limit_set
    }
}

impl From<Denial> for Decision {
    fn from(denial: Denial) -> Self {
        Self {
            verdict: Arc::new(denial.verdict),
        }
    }
}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denial")
            .field("route", &self.route())
            .field("violated", &self.violated().collect::<Vec<_>>())
            .finish()
    }
}
