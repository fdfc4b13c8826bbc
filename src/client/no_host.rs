//! No host to ask for a peer.

use std::net::SocketAddr;

use http::Extensions;

#[inline]
pub(super) fn peer(_: &Extensions) -> Option<SocketAddr> {
    None
}
