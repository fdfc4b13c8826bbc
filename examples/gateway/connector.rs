//! Connections to the upstream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tower::util::MapResponse;

/// How long an unused connection is kept. Servers close theirs after five seconds (uvicorn, Node.js) or more, and a
/// request that is sent while they do so is lost.
const KEEP_IDLE: Duration = Duration::from_secs(4);

pub(crate) type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Stream>;

pub(crate) fn client<B>(
    configure: impl FnOnce(&mut Builder) -> &mut Builder,
) -> Client<Connector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let connector = connector.map_response(Stream::new as fn(_) -> _);
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_idle_timeout(KEEP_IDLE)
        .pool_timer(TokioTimer::new());
    configure(&mut builder).build(connector)
}

/// A mark on a connection that has answered before. It is among the extensions of its responses and errors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl Answered {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection with its mark.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    answered: Answered,
}

impl Stream {
    fn new(io: TokioIo<TcpStream>) -> Self {
        Self {
            io,
            answered: Answered::default(),
        }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(&mut self.get_mut().io)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.answered.clone())
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
