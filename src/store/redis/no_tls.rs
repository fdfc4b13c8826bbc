//! Without TLS.

/// Nothing is needed.
pub(super) fn prepare() {}
