//! Refusals: the limits that refused a request, and the wait.

use std::{
    error::Error,
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

/// A refusal: the limits that refused, and the wait. A [`Rejection`](crate::response::Rejection) makes the answer of it.
///
/// ```
/// use http::{Response, StatusCode, request::Parts};
/// use tower_throttle::{Denial, Rate, Rules, ThrottleLayer};
///
/// fn reject(denial: &Denial, _: &Parts) -> Response<String> {
///     let names: Vec<_> = denial.violated().map(|limit| limit.name()).collect();
///     let mut answer = Response::new(format!("refused by {}", names.join(", ")));
///     *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
///     answer
/// }
///
/// let rules = Rules::new().default_route(Rate::per_second(10));
/// let throttle = ThrottleLayer::builder(rules).rejection(reject).build()?;
/// # let _ = throttle;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
#[derive(Clone)]
pub struct Denial {
    verdict: Verdict,
    /// The clock that tells moments.
    clock: Option<RuntimeClock>,
}

impl Denial {
    /// Makes a denial. `refuses` is called with the number of each limit that has refused.
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
            degraded: None,
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

    /// Makes the denial of a request whose limits were not asked. `limit_set` is the bare one.
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
            // The store may be asked at once.
            Failure::NoLease => SECOND / 1_000,
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
                degraded: None,
            },
            clock: None,
        }
    }

    /// Returns the moment of the decision.
    pub(crate) fn now(&self) -> Nanos {
        self.verdict.now
    }

    /// Sets the clock for moments that are told.
    pub(crate) fn by(&mut self, clock: &Timeline) {
        self.clock = Some(*clock.runtime());
    }

    /// Returns the present moment of the wall clock, for waits that are told as moments.
    pub(crate) fn wall(&self) -> Nanos {
        self.clock.as_ref().map_or(self.now(), RuntimeClock::wall)
    }

    /// Adds this to the wait that is told.
    pub(crate) fn spread(&mut self, more: Nanos) {
        self.verdict.spread = more;
    }

    /// Returns the route key that the request was charged to; see [`Decision::route`].
    #[must_use]
    pub fn route(&self) -> &str {
        &self.verdict.limit_set.route
    }

    /// Returns the usage plan of the client, if it has one.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.verdict.limit_set.plan.as_deref()
    }

    /// Returns the model that the request was charged to, as the rules name it: a name or its beginning with `*`,
    /// `otherwise`, or `unread`. `None` if it was charged to no model. No client chooses this text.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.verdict.limit_set.model.as_deref()
    }

    /// Returns the statuses of all limits that applied, the most specific first, those that did not refuse included.
    pub fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.verdict.limits()
    }

    /// Returns the statuses of the limits that refused, the most specific first. Empty if the
    /// [store could not decide](Self::is_unavailable), if it [has to](Self::needs_store), or if the throttle
    /// [is closed](Self::is_shutting_down).
    pub fn violated(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.limits().filter(LimitStatus::is_refused)
    }

    /// Returns the wait that is told. After it, an equal request passes if no other request has taken its place.
    ///
    /// The longest wait of the limits that refused, and more where
    /// [`ThrottleLayerBuilder::stagger_retry_after`](crate::ThrottleLayerBuilder::stagger_retry_after) adds to it. More
    /// than zero; `None` if the request can never pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.verdict.retry_after()
    }

    /// Tells whether the store could not decide: the [store](crate::ThrottleLayerBuilder::store) is down, and
    /// [`OnOutage::Refuse`](crate::store::OnOutage::Refuse) was chosen. No limit has refused then. The wait that is
    /// told is three to eight seconds, chosen at random.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.failure() == Some(Failure::StoreDown)
    }

    /// Tells whether the throttle was [closed](crate::Handle::close), because the server is shutting down. No limit has
    /// refused then. The wait that is told is one second; another replica may answer at once.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.failure() == Some(Failure::ShuttingDown)
    }

    /// Tells whether only the [store](crate::ThrottleLayerBuilder::store) can decide:
    /// [`Handle::try_acquire`](crate::Handle::try_acquire) has found no [lease](crate::ThrottleLayerBuilder::lease) with
    /// room, and asks no store. No limit has refused then, and nothing is counted.
    /// [`Handle::acquire`](crate::Handle::acquire) asks the store. The wait that is told is one millisecond.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        self.failure() == Some(Failure::NoLease)
    }

    /// Returns the cause of the refusal, if it is no limit.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.verdict.failure
    }

    /// Tells whether the server is busy: all limits that refused are caps on requests in flight, of the total, a
    /// route or a model.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        // Most rules have none.
        if !self.verdict.limit_set.has_slots {
            return false;
        }
        self.violated().all(|status| {
            let server = matches!(status.scope(), Scope::Total | Scope::Route | Scope::Model);
            server && status.limit().is_slots() && status.limit().meter.is_some()
        })
    }

    /// Returns the limit that refused with the longest wait, or forever; of equals the most specific.
    pub(crate) fn binding(&self) -> Option<LimitStatus<'_>> {
        self.limits().nth(self.verdict.binding)
    }

    /// Returns the number of the limit that refused, if it is the only one.
    pub(crate) fn only(&self) -> Option<usize> {
        (self.verdict.refusals == 1).then_some(self.verdict.binding)
    }

    /// Returns the longest wait of the limits that refused; `None` if the request can never pass.
    pub(crate) fn wait(&self) -> Option<Nanos> {
        self.verdict.wait
    }

    /// Returns the number of the limit with that wait, the state of its bucket, and the cost of the request there.
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

/// Tells which limits have refused and when to come back, for logs. Clients get the answer of a
/// [`Rejection`](crate::response::Rejection).
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.failure() {
            Some(Failure::StoreDown) => "refused because the store could not decide",
            Some(Failure::ShuttingDown) => "refused because the throttle is closed",
            Some(Failure::NoLease) => "not decided, since no lease has room",
            None => "refused by",
        };
        f.write_str(reason)?;
        for (index, limit) in self.violated().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} `{}`", limit.name())?;
        }
        match self.retry_after() {
            Some(wait) => write!(f, "; retry after {wait:?}"),
            None => f.write_str("; it can never pass"),
        }
    }
}

impl Error for Denial {}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denial")
            .field("route", &self.route())
            .field("violated", &self.violated().collect::<Vec<_>>())
            .finish()
    }
}
