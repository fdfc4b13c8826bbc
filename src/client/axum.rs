//! Peer addresses in axum, by `Router::into_make_service_with_connect_info`.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use http::Extensions;

pub(super) fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get().map(|&ConnectInfo(peer)| peer)
}
