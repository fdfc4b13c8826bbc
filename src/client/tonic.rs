//! Peer addresses in tonic's own server.

use std::net::SocketAddr;

use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

pub(super) fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get().and_then(TcpConnectInfo::remote_addr)
}
