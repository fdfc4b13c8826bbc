//! A stand-in for `tls` without that feature.

/// Does nothing: without TLS no provider of cryptography is needed.
pub(super) fn prepare() {}
