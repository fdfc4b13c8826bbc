//! The decision about a request, and its reasons.

mod denial;
pub(crate) mod limit_status;

use std::{fmt, sync::Arc, time::Duration};

pub use self::denial::Denial;
use self::limit_status::{LimitStatus, statuses};
use crate::{
    clock::Nanos,
    limiter::{limit_set::LimitSet, readings::LimitReadings},
};

/// The throttle's decision about one request.
///
/// A handler finds the decision in the request's extensions, a layer outside finds it in the response's, admitted or
/// refused. A decision holds the limits that applied, most specific first, with their balance at that moment.
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

/// The parts of which a decision and a denial are made.
#[derive(Clone)]
struct Verdict {
    limit_set: Arc<LimitSet>,
    readings: LimitReadings,
    /// The moment at which the request came: earlier than `now` if the request waited in line.
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
    /// True if nobody could decide, since the store is down.
    unavailable: bool,
}

impl Verdict {
    /// Of the limits that are enforced.
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
                unavailable: false,
            }),
        }
    }

    /// Tells whether the request was let through.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.verdict.admitted
    }

    /// The route key the request was charged to.
    ///
    /// A declared key as it was written; for a route nobody declared, the key made of method and router
    /// template where the host tells one, else `$default`. Never a string that a client chose. Of a request that is
    /// charged to several keys, the likeliest.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.verdict.limit_set.route
    }

    /// The client's usage plan, where it has one.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.verdict.limit_set.plan.as_deref()
    }

    /// The limits that applied, the most specific first. Empty where nothing is limited. Shadows are told
    /// [apart](Self::shadow).
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
        Duration::from_nanos(self.verdict.now - self.verdict.arrived)
    }

    /// Returns the time until a request like this one passes if nobody else takes its place: the longest wait of the
    /// limits that refused, and more where [`ThrottleLayer::spread`](crate::ThrottleLayer::spread) adds to it.
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
