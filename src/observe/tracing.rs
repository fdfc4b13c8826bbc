//! Events of `tracing`.

#[cfg(feature = "watch")]
use tracing::error;
use tracing::{debug, info, warn};

use crate::rules::Changes;

/// Clients are to be told apart by address, and the host tells none.
pub(crate) fn no_peer_address() {
    warn!(
        "the throttle tells clients apart by address, but this request has none: all such requests share the \
         anonymous client's limits. In axum, serve `into_make_service_with_connect_info::<SocketAddr>()` and \
         enable the feature `axum`; in tonic, enable the feature `tonic`; elsewhere, put a `PeerAddr` into \
         the request's extensions"
    );
}

/// Other rules hold.
pub(crate) fn reloaded(changes: &Changes) {
    info!(
        changes = changes.len(),
        "the throttle's rules were reloaded"
    );
    for change in changes.iter() {
        debug!(limit = change.name(), "{change}");
    }
}

/// A file of rules has changed, and is not followed.
#[cfg(feature = "watch")]
pub(crate) fn not_reloaded(error: &dyn std::error::Error) {
    error!("{error}; the throttle's rules stay as they were");
}
