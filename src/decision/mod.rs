//! Decisions: whether a request was admitted, and the balance of each limit before and after.
//!
//! [`ThrottleLayerBuilder::decision`](crate::ThrottleLayerBuilder::decision) puts it into the extensions of the
//! request, the response, or both.

mod degraded;
mod denial;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{degraded::Degraded, denial::Denial};
use crate::{
    clock::Nanos,
    limit::{
        Limit, LimitSettings, Scope, gcra::RefusalReason, in_flight::InFlight, meter::Meter,
        quota::Quota, rate::Rate, spend::Spend,
    },
    limiter::{
        limit_set::{LimitSet, refusal},
        plain::PlainStates,
        readings::{LimitReading, LimitReadings},
    },
};

/// The decision of a throttle on one request: the limits that applied, most specific first, with their balances.
///
/// [`ThrottleLayerBuilder::decision`](crate::ThrottleLayerBuilder::decision) puts it into the extensions of the
/// request, for its handler; of the response, admitted or refused, for layers outside; or of both. By default it is put
/// nowhere.
///
/// ```
/// use tower_throttle::Decision;
///
/// fn note(response: &http::Response<()>) {
///     if let Some(decision) = response.extensions().get::<Decision>() {
///         for limit in decision.limits() {
///             println!("{}: {} of {} remain", limit.name(), limit.remaining(), limit.burst());
///         }
///     }
/// }
/// # note(&http::Response::new(()));
/// ```
#[derive(Clone)]
pub struct Decision {
    verdict: Arc<Verdict>,
}

/// The places in which a layer puts the [`Decision`] on each request, beside the header fields of its response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DecisionIn {
    /// Nowhere. This costs nothing.
    #[default]
    Nowhere,
    /// The extensions of an admitted request, for its handler. Refused requests reach no handler.
    Request,
    /// The extensions of each response, admitted or refused, for layers outside.
    Response,
    /// The extensions of both.
    Both,
}

impl DecisionIn {
    /// Tells whether requests or responses get decisions.
    #[inline(always)]
    pub(crate) fn anywhere(self) -> bool {
        self != Self::Nowhere
    }

    /// Tells whether responses get decisions.
    pub(crate) fn responses(self) -> bool {
        matches!(self, Self::Response | Self::Both)
    }
}

/// The parts of which a decision and a denial are made.
#[derive(Clone)]
struct Verdict {
    limit_set: Arc<LimitSet>,
    readings: LimitReadings,
    /// The moment of the request's arrival: earlier than `now` if the request waited in line.
    arrived: Nanos,
    now: Nanos,
    /// The longest wait of the limits that refused; `None` if the request can never pass.
    wait: Option<Nanos>,
    /// The number of the limit with the longest wait; of equals the most specific.
    binding: usize,
    /// The number of limits that refused.
    refusals: usize,
    /// The time that a refused request is told beyond the wait.
    spread: Nanos,
    admitted: bool,
    /// The cause of a refusal, if it is no limit.
    failure: Option<Failure>,
    /// The mark of a request that was admitted by a second budget.
    degraded: Option<Box<Degraded>>,
}

/// A cause of refusals that is no limit. The limits of the request were not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The store is down, and no decision is possible.
    StoreDown,
    /// The throttle is closed.
    ShuttingDown,
    /// No lease has room, and the store must not be asked. Nothing was decided.
    NoLease,
}

impl Verdict {
    /// Returns the limits that are enforced.
    fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.all().take(self.limit_set.enforced)
    }

    fn shadow(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.all().skip(self.limit_set.enforced)
    }

    fn all(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        statuses(&self.limit_set, &self.readings, self.now, self.admitted)
    }

    /// The longest wait of those that refused, as it is told.
    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.wait?.saturating_add(self.spread)))
    }
}

impl Decision {
    pub(crate) fn admitted(
        limit_set: Arc<LimitSet>,
        readings: LimitReadings,
        arrived: Nanos,
        now: Nanos,
    ) -> Self {
        Self {
            verdict: Arc::new(Verdict {
                limit_set,
                readings,
                arrived,
                now,
                wait: Some(0),
                binding: 0,
                refusals: 0,
                spread: 0,
                admitted: true,
                failure: None,
                degraded: None,
            }),
        }
    }

    /// The same decision on a request that was charged to a second budget. Nobody else has it yet.
    pub(crate) fn by_second_budget(mut self, degraded: Degraded) -> Self {
        if let Some(verdict) = Arc::get_mut(&mut self.verdict) {
            verdict.degraded = Some(Box::new(degraded));
        }
        self
    }

    /// The decision on a request that was admitted at `now`, and has left plain limits in these states.
    pub(crate) fn plain(limit_set: Arc<LimitSet>, states: PlainStates, now: Nanos) -> Self {
        let mut readings = LimitReadings::default();
        states.tell(&mut readings);
        Self::admitted(limit_set, readings, now, now)
    }

    /// Tells whether the request was admitted.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.verdict.admitted
    }

    /// Returns the refusal that a [second budget](crate::Limits::degrade) has taken the place of. `None` if the request
    /// was charged to no second budget. [`limits`](Self::limits) then lists those of the second budget.
    #[must_use]
    pub fn degraded(&self) -> Option<&Degraded> {
        self.verdict.degraded.as_deref()
    }

    /// Returns the route key that the request was charged to.
    ///
    /// A declared key is as it was written. An undeclared route has a key of method and router template if the host
    /// provides one, or else `$default`. No client chooses this text. For a request that is charged to several keys,
    /// this is the likeliest one.
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

    /// Returns the statuses of the limits that applied, the most specific first. Empty if no limit applied, if the
    /// [store could not decide](Denial::is_unavailable), or if the throttle [is closed](Denial::is_shutting_down).
    /// Shadows are listed [apart](Self::shadow).
    pub fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> {
        self.verdict.limits()
    }

    /// Returns the statuses of the shadows, the most specific first: limits that decide and refuse nobody (see
    /// [`Rate::shadow`](crate::Rate::shadow)). [`LimitStatus::is_refused`] tells those that would have refused.
    pub fn shadow(&self) -> impl Iterator<Item = LimitStatus<'_>> {
        self.verdict.shadow()
    }

    /// Returns the time for which the request waited in line before the decision; see
    /// [`Limits::max_wait`](crate::Limits::max_wait).
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.verdict.now.saturating_sub(self.verdict.arrived))
    }

    /// Returns the time until a request like this one passes if nobody else takes its place: the longest wait of the
    /// limits that refused, and more where
    /// [`ThrottleLayerBuilder::stagger_retry_after`](crate::ThrottleLayerBuilder::stagger_retry_after) adds to it.
    ///
    /// Zero if the request was admitted; `None` if it can never pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.verdict.retry_after()
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("admitted", &self.is_admitted())
            .field("route", &self.route())
            .field("limits", &self.limits().collect::<Vec<_>>())
            .field("shadow", &self.shadow().collect::<Vec<_>>())
            .finish()
    }
}

/// The status of one limit in a decision.
#[derive(Clone, Copy)]
pub struct LimitStatus<'a> {
    limit: &'a Limit,
    reading: LimitReading,
    now: Nanos,
    admitted: bool,
}

impl<'a> LimitStatus<'a> {
    /// The wait that is told for a slot. The true wait is unknown.
    const UNTIL_FREE: Duration = Duration::from_secs(1);

    /// Returns the name of the limit: `[A-Za-z0-9_]+`, as in header fields, metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.limit.name
    }

    /// Returns the scope in which the limit holds.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.limit.scope
    }

    /// Returns the settings of the limit, if it is a rate of requests.
    #[must_use]
    pub fn rate(&self) -> Option<&'a Rate> {
        match &self.limit.settings {
            LimitSettings::Rate(rate) => Some(rate),
            _ => None,
        }
    }

    /// Returns the settings of the limit, if it is a quota.
    #[must_use]
    pub fn quota(&self) -> Option<&'a Quota> {
        match &self.limit.settings {
            LimitSettings::Quota(quota) => Some(quota),
            _ => None,
        }
    }

    /// Returns the settings of the limit, if it is a rate of model tokens.
    #[must_use]
    pub fn tokens(&self) -> Option<&'a Rate> {
        match &self.limit.settings {
            LimitSettings::Tokens(rate) => Some(rate),
            _ => None,
        }
    }

    /// Returns the settings of the limit, if it is a rate of the model tokens of requests.
    #[must_use]
    pub fn input_tokens(&self) -> Option<&'a Rate> {
        match &self.limit.settings {
            LimitSettings::InputTokens(rate) => Some(rate),
            _ => None,
        }
    }

    /// Returns the settings of the limit, if it is a rate of the model tokens of answers.
    #[must_use]
    pub fn output_tokens(&self) -> Option<&'a Rate> {
        match &self.limit.settings {
            LimitSettings::OutputTokens(rate) => Some(rate),
            _ => None,
        }
    }

    /// Returns the settings of the limit, if it is an amount of money. Its units are millionths of a unit of money.
    #[must_use]
    pub fn spend(&self) -> Option<&'a Spend> {
        match &self.limit.settings {
            LimitSettings::Spend(spend) => Some(spend),
            _ => None,
        }
    }

    /// Returns whether the limit counts model tokens, of whichever kind.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.limit.settings.unit().is_tokens()
    }

    /// Returns the settings of the limit, if it is a cap on requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> Option<&'a InFlight> {
        match &self.limit.settings {
            LimitSettings::InFlight(cap) => Some(cap),
            _ => None,
        }
    }

    /// Returns the units of the request: 1, or the model tokens or millionths of money to be reserved (see
    /// [`Limits::tokens`](crate::Limits::tokens)). For a request that is too large, the whole estimate.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.reading.cost
    }

    /// Tells whether the limit is a shadow, which decides and refuses no request.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.limit.shadow
    }

    /// Returns the units of a full bucket: the burst of a rate, the count of a quota, the slots of a cap. Zero if the
    /// limit is closed.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.limit.meter.map_or(0, |meter| meter.capacity())
    }

    /// Tells whether the client shares the balance with others, because the table of clients had no room for it; see
    /// [`Clients::max_clients`](crate::Clients::max_clients).
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.reading.shared
    }

    /// Returns the units that would be admitted at once after this decision: requests of [cost](crate::Limits::cost) 1,
    /// model tokens, or free slots.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.balance().0
    }

    /// Returns the time until the bucket is full again if nothing more is charged. For a quota, the time to the end of
    /// its window. Zero if the bucket is full or the limit is closed, and for a cap on requests in flight.
    #[must_use]
    pub fn full_in(&self) -> Duration {
        let nanos = |meter: Meter| meter.full_in(self.reading.state, self.now);
        Duration::from_nanos(self.limit.meter.map_or(0, nanos))
    }

    /// Tells whether this limit refused the request, or would have refused it if the limit were no shadow.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusal().is_some()
    }

    /// Returns the time for which this limit makes the request wait: zero if the limit did not refuse, `None` if it can
    /// never admit the request, because the limit is closed or the request is too large. For a slot it is one second,
    /// because the true time is unknown.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self.refusal() {
            None => Some(Duration::ZERO),
            Some(RefusalReason::Wait(wait)) => Some(Duration::from_nanos(wait)),
            Some(RefusalReason::Busy) => Some(Self::UNTIL_FREE),
            Some(RefusalReason::Never) => None,
        }
    }

    pub(crate) fn limit(&self) -> &'a Limit {
        self.limit
    }

    /// Returns what remains, and the nanoseconds until more does. Both are zero if the limit is closed.
    pub(crate) fn balance(&self) -> (u64, u64) {
        let balance = |meter: Meter| meter.balance(self.reading.state, self.now);
        self.limit.meter.map_or((0, 0), balance)
    }

    fn refusal(&self) -> Option<RefusalReason> {
        let refused = if self.limit.shadow {
            self.reading.refused
        } else {
            !self.admitted
        };
        if !refused {
            return None;
        }
        let LimitReading { state, cost, .. } = self.reading;
        // There is room, and others wait for it.
        let busy = || self.reading.refused.then_some(RefusalReason::Busy);
        refusal(self.limit, state, self.now, cost).or_else(busy)
    }
}

impl fmt::Debug for LimitStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitStatus")
            .field("name", &self.name())
            .field("scope", &self.scope())
            .field("remaining", &self.remaining())
            .field("burst", &self.burst())
            .field("wait", &self.wait())
            .finish()
    }
}

/// The statuses of a limit set, before a [`Decision`] is made of them.
pub(crate) fn statuses<'a>(
    limit_set: &'a LimitSet,
    readings: &'a LimitReadings,
    now: Nanos,
    admitted: bool,
) -> impl Iterator<Item = LimitStatus<'a>> + Clone {
    limit_set
        .limits
        .iter()
        .zip(readings.as_slice())
        .map(move |(bound, &reading)| LimitStatus {
            limit: &bound.limit,
            reading,
            now: reading.told_at(now),
            admitted,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + 'static>() {}
        traits::<Decision>();
        traits::<Denial>();
    }
}
