//! The mark of a request that was charged to a second budget.

use std::{sync::Arc, time::Duration};

use super::LimitStatus;
use crate::limit::Scope;

/// A request that was charged to a [second budget](crate::Limits::degrade), since the limits of a scope would have
/// refused it. Lies in the request's extensions, for its handler.
///
/// ```
/// use tower_throttle::Degraded;
///
/// fn max_tokens(request: &http::Request<String>) -> u32 {
///     match request.extensions().get::<Degraded>() {
///         None => 4_096,
///         Some(_) => 256,
///     }
/// }
/// # assert_eq!(max_tokens(&http::Request::new(String::new())), 4_096);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    limit: Arc<str>,
    scope: Scope,
    wait: Option<Duration>,
}

impl Degraded {
    /// Makes the mark for a refusal that a limit decides.
    pub(crate) fn new(status: &LimitStatus<'_>) -> Self {
        Self {
            limit: Arc::clone(&status.limit().name),
            scope: status.scope(),
            wait: status.wait(),
        }
    }

    /// Returns the name of the limit that would have refused; of several the one with the longest wait.
    #[must_use]
    pub fn limit(&self) -> &str {
        &self.limit
    }

    /// Returns the scope of that limit.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the wait that the refusal would have told, without a
    /// [stagger](crate::ThrottleLayerBuilder::stagger_retry_after). `None` if the request could never have passed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + std::fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<Degraded>();
    }
}
