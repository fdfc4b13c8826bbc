//! What was decided about a request, and why.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::{Nanos, nanos},
    levels::Levels,
    limit::Scope,
    rule::Rule,
    status::{LimitStatus, statuses},
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
    /// How many limits refused.
    refusals: usize,
    /// What a refused request is told beyond the wait.
    spread: Nanos,
    admitted: bool,
    /// Whether nobody could decide, since the store is down.
    unavailable: bool,
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
                refusals: 0,
                spread: 0,
                admitted: true,
                unavailable: false,
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
    /// `refuses` is told the number of each limit that does.
    pub(crate) fn new(
        rule: Arc<Rule>,
        levels: Levels,
        arrived: Nanos,
        now: Nanos,
        mut refuses: impl FnMut(usize),
    ) -> Self {
        let mut verdict = Verdict {
            rule,
            levels,
            arrived,
            now,
            wait: None,
            binding: 0,
            refusals: 0,
            spread: 0,
            admitted: false,
            unavailable: false,
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
        Self { verdict }
    }

    /// Of a request that nobody can decide on, under a rule without limits.
    pub(crate) fn unavailable(rule: Arc<Rule>, now: Nanos) -> Self {
        // Not all at once.
        const SECOND: Nanos = 1_000_000_000;
        let random = RandomState::new().hash_one(now) % (5 * SECOND);
        Self {
            verdict: Verdict {
                rule,
                levels: Levels::default(),
                arrived: now,
                now,
                wait: Some(3 * SECOND + random),
                binding: 0,
                refusals: 0,
                spread: 0,
                admitted: false,
                unavailable: true,
            },
        }
    }

    /// When it was decided.
    pub(crate) fn now(&self) -> Nanos {
        self.verdict.now
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

    /// The limits that refused, the most specific first. At least one, unless
    /// [nobody could decide](Self::is_unavailable).
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

    /// Whether nobody could decide, since the [store](crate::ThrottleLayer::store) is down and
    /// [`OnOutage::Refuse`](crate::OnOutage::Refuse) was chosen. No limit has refused then, and to come back is of use
    /// in some seconds: three to eight are told.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.verdict.unavailable
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

    /// The number of the limit that refused, if it is the only one.
    pub(crate) fn only(&self) -> Option<usize> {
        (self.verdict.refusals == 1).then_some(self.verdict.binding)
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
