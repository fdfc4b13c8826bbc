//! Connections of clients: HTTP/1.1 and HTTP/2 on one port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::Service;
use tower_throttle::client::PeerAddr;

use crate::BoxError;
use crate::host::{asked_to_end, no_delay};

/// The time that open answers may still take once the gateway was asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until the process is asked to end, and then what is under way.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let connections = GracefulShutdown::new();
    let mut end = std::pin::pin!(asked_to_end());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, service.clone(), &connections),
                // Too many open files, for one: the next connection may find room again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            () = &mut end => break,
        }
    }
    drop(listener);
    // Streams that last longer are cut.
    let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
}

/// Serves one connection.
fn connect<S, B>(
    mut stream: TcpStream,
    peer: SocketAddr,
    service: S,
    connections: &GracefulShutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    no_delay(&mut stream);
    // For limits of clients by address, and for what the upstream is told.
    let service = tower::util::MapRequest::new(service, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        request
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // A connection that breaks off is the client's business.
        let _ = connection.await;
    });
}
