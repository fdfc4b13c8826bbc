//! Nobody to tell.

use crate::rules::Changes;

pub(crate) fn no_peer_address() {}

pub(crate) fn reloaded(_: &Changes) {}

#[cfg(feature = "watch")]
pub(crate) fn not_reloaded(_: &dyn std::error::Error) {}
