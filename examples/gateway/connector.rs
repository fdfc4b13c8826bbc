//! Connections to the upstream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tower::util::MapResponse;

/// The time for which an unused connection is kept. Servers close theirs after five seconds (uvicorn, Node.js) or more,
/// and a request that is sent while a server does so is lost.
const KEEP_IDLE: Duration = Duration::from_secs(4);

pub(crate) type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> TokioIo<Stream>>;

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

/// The number of times that a connection turned from reading to writing, or back. Its responses and errors carry it
/// among their extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<AtomicUsize>);

impl Turns {
    fn wrote(&self) {
        if self.0.load(Ordering::Relaxed) % 2 == 0 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) {
        if self.0.load(Ordering::Relaxed) % 2 == 1 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns true if the peer has answered before, and not a byte since something was written last.
    pub(crate) fn is_kept_and_unanswered(&self) -> bool {
        let turns = self.0.load(Ordering::Relaxed);
        turns > 2 && turns % 2 == 1
    }
}

/// A connection that counts its turns.
pub(crate) struct Stream {
    tcp: TcpStream,
    turns: Turns,
}

impl Stream {
    fn new(io: TokioIo<TcpStream>) -> TokioIo<Self> {
        TokioIo::new(Self {
            tcp: io.into_inner(),
            turns: Turns::default(),
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.tcp.connected().extra(self.turns.clone())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.turns.read();
        }
        poll
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.turns.wrote();
        Pin::new(&mut self.tcp).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.turns.wrote();
        Pin::new(&mut self.tcp).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
