//! The names of header fields that a throttle writes, and HTTP libraries do not know.

use http::HeaderName;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
pub(super) const THROTTLE_DEGRADED: HeaderName = HeaderName::from_static("throttle-degraded");
pub(super) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
