//! Nobody to tell.

pub(crate) fn no_peer_address() {}
