//! What was decided about a request, and why.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    clock::{Nanos, nanos},
    gcra::Refusal,
    in_flight::InFlight,
    levels::{Level, Levels},
    limiter::{Limit, Rule, Scope, Terms},
    meter::Meter,
    quota::Quota,
    rate::Rate,
};

/// What the throttle decided about one request.
///
/// A handler finds it in the request's extensions, a layer outside in the response's, admitted or
/// refused. It holds the limits that applied, most specific first, with their balance at that moment.
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

/// What a decision and a denial are made of.
#[derive(Clone)]
struct Verdict {
    rule: Arc<Rule>,
    levels: Levels,
    /// When the request came, which is earlier than now if it waited in line.
    arrived: Nanos,
    now: Nanos,
    /// The longest wait of the limits that refused; `None` if it can never pass.
    wait: Option<Nanos>,
    /// The limit that makes it wait so long, by its number; of equals the most specific.
    binding: usize,
    /// What a refused request is told beyond the wait.
    spread: Nanos,
    /// What the wall clock showed when this one's stood at zero: nanoseconds since the Unix epoch.
    origin: u64,
    admitted: bool,
}

impl Verdict {
    /// Of the limits that are enforced.
    fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.all().take(self.rule.enforced)
    }

    fn shadow(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.all().skip(self.rule.enforced)
    }

    fn all(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        statuses(&self.rule, &self.levels, self.now, self.admitted)
    }

    /// The longest wait of those that refused, as it is told.
    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.wait?.saturating_add(self.spread)))
    }
}

impl Decision {
    pub(crate) fn admitted(rule: Arc<Rule>, levels: Levels, arrived: Nanos, now: Nanos) -> Self {
        Self {
            verdict: Arc::new(Verdict {
                rule,
                levels,
                arrived,
                now,
                wait: Some(0),
                binding: 0,
                spread: 0,
                origin: 0,
                admitted: true,
            }),
        }
    }

    /// Whether the request was let through.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.verdict.admitted
    }

    /// The route key the request was charged to.
    ///
    /// A declared key as it was written; for a route nobody declared, the key made of method and router
    /// template where the host tells one, else `$default`. A CORS preflight that no key names is
    /// `OPTIONS preflight`. Never a string that a client chose.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.verdict.rule.route
    }

    /// The client's usage plan, where it has one.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.verdict.rule.plan.as_deref()
    }

    /// The limits that applied, the most specific first. Empty where nothing is limited. Shadows are told
    /// [apart](Self::shadow).
    pub fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> {
        self.verdict.limits()
    }

    /// What the shadows say, the most specific first: limits that decide and refuse nobody (see
    /// [`Rate::shadow`](crate::Rate::shadow)). [`LimitStatus::is_refused`] tells those that would have refused.
    pub fn shadow(&self) -> impl Iterator<Item = LimitStatus<'_>> {
        self.verdict.shadow()
    }

    /// How long the request waited in line before it was decided on; see
    /// [`Limits::max_wait`](crate::Limits::max_wait).
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.verdict.now - self.verdict.arrived)
    }

    /// How long until a request like this one passes if nobody else takes its place: the longest wait
    /// of the limits that refused, and what it is told beyond that (see
    /// [`ThrottleLayer::spread`](crate::ThrottleLayer::spread)).
    ///
    /// Zero if it was admitted; `None` if it can never pass.
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

/// A refusal: which limits refused, and when to come back.
#[derive(Clone)]
pub struct Denial {
    verdict: Verdict,
}

impl Denial {
    pub(crate) fn new(rule: Arc<Rule>, levels: Levels, arrived: Nanos, now: Nanos) -> Self {
        let mut verdict = Verdict {
            rule,
            levels,
            arrived,
            now,
            wait: None,
            binding: 0,
            spread: 0,
            origin: 0,
            admitted: false,
        };
        let mut waits = verdict.limits().map(|limit| limit.wait().map(nanos));
        let mut longest = (0, waits.next().flatten());
        // Never is the longest.
        for (index, wait) in (1..).zip(waits) {
            if longest
                .1
                .is_some_and(|longest| wait.is_none_or(|wait| wait > longest))
            {
                longest = (index, wait);
            }
        }
        (verdict.binding, verdict.wait) = longest;
        Self { verdict }
    }

    /// Says what the wall clock showed when the throttle's stood at zero.
    pub(crate) fn since(&mut self, origin: u64) {
        self.verdict.origin = origin;
    }

    /// When it was decided: nanoseconds since the Unix epoch.
    pub(crate) fn unix_now(&self) -> u64 {
        self.verdict.origin.saturating_add(self.verdict.now)
    }

    /// Tells this much more than the wait.
    pub(crate) fn spread(&mut self, more: Nanos) {
        self.verdict.spread = more;
    }

    /// The route key the request was charged to; see [`Decision::route`].
    #[must_use]
    pub fn route(&self) -> &str {
        &self.verdict.rule.route
    }

    /// The client's usage plan, where it has one.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.verdict.rule.plan.as_deref()
    }

    /// All limits that applied, those that did not refuse too, the most specific first.
    pub fn limits(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.verdict.limits()
    }

    /// The limits that refused, the most specific first. At least one.
    pub fn violated(&self) -> impl Iterator<Item = LimitStatus<'_>> + Clone {
        self.limits().filter(LimitStatus::is_refused)
    }

    /// The time after which the request passes if nobody else takes its place: the longest wait of the
    /// limits that refused, and what it is told beyond that (see
    /// [`ThrottleLayer::spread`](crate::ThrottleLayer::spread)). More than zero; `None` if it can never pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.verdict.retry_after()
    }

    /// Whether it is the server that is busy: all that refused are caps on what the total or a route may have in
    /// flight.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        // Most rules have none.
        if !self.verdict.rule.has_slots {
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

    /// The longest wait of the limits that refused; `None` if it can never pass.
    pub(crate) fn wait(&self) -> Option<Nanos> {
        self.verdict.wait
    }

    /// The number of the limit with that wait, and what was asked of it.
    pub(crate) fn binding_charge(&self) -> (usize, u64) {
        let Verdict {
            binding, levels, ..
        } = &self.verdict;
        (*binding, levels[*binding].cost)
    }

    pub(crate) fn rule(&self) -> &Rule {
        &self.verdict.rule
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

/// One limit as a decision found it, and left it.
#[derive(Clone, Copy)]
pub struct LimitStatus<'a> {
    limit: &'a Limit,
    level: Level,
    now: Nanos,
    admitted: bool,
}

impl<'a> LimitStatus<'a> {
    /// What is told of when a slot comes free.
    const UNTIL_FREE: Duration = Duration::from_secs(1);

    /// The limit's name: `[A-Za-z0-9_]+`, as in header fields, metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.limit.name
    }

    /// Where the limit holds.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.limit.scope
    }

    /// The limit's settings, if it is a rate of requests.
    #[must_use]
    pub fn rate(&self) -> Option<&'a Rate> {
        match &self.limit.terms {
            Terms::Rate(rate) => Some(rate),
            _ => None,
        }
    }

    /// The limit's settings, if it is a quota.
    #[must_use]
    pub fn quota(&self) -> Option<&'a Quota> {
        match &self.limit.terms {
            Terms::Quota(quota) => Some(quota),
            _ => None,
        }
    }

    /// The limit's settings, if it is a rate of model tokens.
    #[must_use]
    pub fn tokens(&self) -> Option<&'a Rate> {
        match &self.limit.terms {
            Terms::Tokens(rate) => Some(rate),
            _ => None,
        }
    }

    /// The limit's settings, if it is a cap on what is in flight.
    #[must_use]
    pub fn in_flight(&self) -> Option<&'a InFlight> {
        match &self.limit.terms {
            Terms::InFlight(cap) => Some(cap),
            _ => None,
        }
    }

    /// What was asked of it: 1, or the estimate where model tokens are counted.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.level.cost
    }

    /// Whether it is a shadow, which decides and refuses nobody.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.limit.shadow
    }

    /// Units that a full bucket holds: a rate's burst, a quota's count, a cap's slots. Zero if the limit is
    /// closed.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.limit.meter.map_or(0, |meter| meter.capacity())
    }

    /// Whether the balance is not this client's alone: the table of clients had no room for it (see
    /// [`Clients::max_clients`](crate::Clients::max_clients)).
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.level.shared
    }

    /// Requests that would be admitted at once, after this decision; model tokens where those are limited, and
    /// free slots of a cap.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.balance().0
    }

    /// The time until the bucket is full again if nothing more is charged: to the end of the window for a
    /// quota. Zero if it is full, or closed, and for a cap on what is in flight.
    #[must_use]
    pub fn full_in(&self) -> Duration {
        let nanos = |meter: Meter| meter.full_in(self.level.state, self.now);
        Duration::from_nanos(self.limit.meter.map_or(0, nanos))
    }

    /// Whether this limit refused the request, or would have if it were no shadow.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusal().is_some()
    }

    /// How long this limit makes the request wait: zero if it did not refuse, `None` if it can never
    /// admit it, because the limit is closed or the cost is above its burst. For a slot to come free nobody
    /// knows how long: a second is told.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self.refusal() {
            None => Some(Duration::ZERO),
            Some(Refusal::Wait(wait)) => Some(Duration::from_nanos(wait)),
            Some(Refusal::Busy) => Some(Self::UNTIL_FREE),
            Some(Refusal::Never) => None,
        }
    }

    pub(crate) fn limit(&self) -> &'a Limit {
        self.limit
    }

    /// What remains, and the nanoseconds until one more does. Both are zero if the limit is closed.
    pub(crate) fn balance(&self) -> (u64, u64) {
        let balance = |meter: Meter| meter.balance(self.level.state, self.now);
        self.limit.meter.map_or((0, 0), balance)
    }

    fn refusal(&self) -> Option<Refusal> {
        let refused = if self.limit.shadow {
            self.level.refused
        } else {
            !self.admitted
        };
        if !refused {
            return None;
        }
        self.limit
            .refusal(self.level.state, self.now, self.level.cost)
            // There is room, and others wait for it.
            .or_else(|| self.level.refused.then_some(Refusal::Busy))
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

/// The statuses of a rule's limits, before a [`Decision`] is made of them.
pub(crate) fn statuses<'a>(
    rule: &'a Rule,
    levels: &'a Levels,
    now: Nanos,
    admitted: bool,
) -> impl Iterator<Item = LimitStatus<'a>> + Clone {
    rule.bindings
        .iter()
        .zip(levels.as_slice())
        .map(move |(binding, &level)| LimitStatus {
            limit: &binding.limit,
            level,
            now,
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
