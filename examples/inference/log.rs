//! One log line for each request: method, route, status, latency and the throttle's decision.

use std::fmt;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use tower_throttle::Decision;
use tracing::{Span, info, info_span};

/// The span of a request: what is known before the answer.
///
/// The span names the route, not the path: a log must not grow a new label for every path that a stranger thinks of.
pub(crate) fn span<B>(request: &Request<B>) -> Span {
    let route = request.extensions().get::<MatchedPath>();
    info_span!(
        "request",
        method = %request.method(),
        route = route.map_or("unmatched", MatchedPath::as_str),
    )
}

/// The line itself. The throttle leaves its decision in the response, for layers outside of it.
pub(crate) fn line<B>(response: &Response<B>, latency: Duration, span: &Span) {
    info!(
        parent: span,
        status = response.status().as_u16(),
        ?latency,
        throttle = %Verdict(response.extensions().get()),
    );
}

/// A decision in a few words, such as `admitted (chat: 9 left)`.
struct Verdict<'a>(Option<&'a Decision>);

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(decision) = self.0 else {
            return f.write_str("not asked");
        };
        f.write_str(if decision.is_admitted() {
            "admitted"
        } else {
            "refused"
        })?;
        for limit in decision.limits() {
            write!(f, " ({}: {} left)", limit.name(), limit.remaining())?;
        }
        for shadow in decision.shadow().filter(|limit| limit.is_refused()) {
            write!(f, " ({} would refuse)", shadow.name())?;
        }
        match decision.retry_after() {
            Some(wait) if !decision.is_admitted() => write!(f, ", again in {wait:.2?}"),
            _ => Ok(()),
        }
    }
}
