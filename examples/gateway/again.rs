//! Requests that may be sent again.
//!
//! A server may close a connection just as a request is sent on it. The request then gets no answer, and it is unknown
//! whether it was read. It is sent again only if that is safe.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;

use crate::connector::Turns;

/// A request as it was before it was sent.
pub(crate) struct Again {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Upload,
}

impl Again {
    /// Splits a request into one to be sent and one for later.
    pub(crate) fn of(request: Request<Incoming>) -> (Request<Upload>, Self) {
        let request = request.map(Upload::new);
        let again = Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            body: request.body().clone(),
        };
        (request, again)
    }

    /// Returns the request to be sent again after an error, if its connection had answered before and has ended without
    /// a byte of an answer, and if nothing was done yet: of a body, nothing was sent; without one, its method is
    /// idempotent (RFC 9110, section 9.2.2).
    pub(crate) fn after(self, error: &Error) -> Option<Request<Upload>> {
        let is_harmless = match self.body.progress() {
            Progress::Empty => self.method.is_idempotent(),
            Progress::NotBegun => true,
            Progress::Begun => false,
        };
        if !is_harmless || !is_from_kept(error) {
            return None;
        }
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

/// Returns true if a connection that had answered before has ended without a byte of this answer.
fn is_from_kept(error: &Error) -> bool {
    let mut extensions = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    extensions.get().is_some_and(Turns::is_kept_and_unanswered)
}

/// A body that more than one request holds, until one of them begins to send it.
#[derive(Clone)]
pub(crate) struct Upload {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    body: Incoming,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Empty,
    NotBegun,
    Begun,
}

impl Upload {
    fn new(body: Incoming) -> Self {
        let progress = match body.is_end_stream() {
            true => Progress::Empty,
            false => Progress::NotBegun,
        };
        Self {
            shared: Arc::new(Mutex::new(Shared { body, progress })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Progress {
        self.lock().progress
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut shared = self.lock();
        let frame = ready!(Pin::new(&mut shared.body).poll_frame(cx));
        shared.progress = Progress::Begun;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}
