//! A model whose answers a test writes, frame by frame.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tower_throttle::Usage;

/// The channel through which calls come in.
pub(crate) type Calls = mpsc::UnboundedReceiver<Call>;

/// The model's side of the channel: clones tell the same test.
#[derive(Clone)]
pub(crate) struct Model {
    calls: mpsc::UnboundedSender<Call>,
    busy: Arc<Busy>,
}

/// The numbers of answers that are in the making: now, and the most at a time.
#[derive(Default)]
struct Busy {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A request that has reached the model.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) usage: Option<Usage>,
    head: oneshot::Sender<()>,
    frames: mpsc::UnboundedSender<Bytes>,
    gone: oneshot::Receiver<()>,
}

/// Lies in the model's future and then in its body, and tells when that is dropped.
struct Answering {
    busy: Arc<Busy>,
    _gone: oneshot::Sender<()>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.busy.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model {
    pub(crate) fn new() -> (Self, Calls) {
        let (calls, told) = mpsc::unbounded_channel();
        let busy = Arc::default();
        (Self { calls, busy }, told)
    }

    /// The most answers that were in the making at a time.
    pub(crate) fn most(&self) -> usize {
        self.busy.most.load(Ordering::SeqCst)
    }

    pub(crate) async fn answer<B>(self, request: Request<B>) -> Result<Response<Body>, Infallible> {
        let now = self.busy.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.busy.most.fetch_max(now, Ordering::SeqCst);
        let (head, begin) = oneshot::channel();
        let (frames, stream) = mpsc::unbounded_channel();
        let (dropped, gone) = oneshot::channel();
        let answering = Answering {
            busy: Arc::clone(&self.busy),
            _gone: dropped,
        };
        let call = Call {
            path: request.uri().path().to_owned(),
            usage: request.extensions().get().cloned(),
            head,
            frames,
            gone,
        };
        self.calls.send(call).expect("the test listens");
        begin.await.expect("the test gives a head or hangs up");
        let stream = UnboundedReceiverStream::new(stream).map(move |frame| {
            let _held = &answering;
            Ok::<_, Infallible>(frame)
        });
        Ok(Response::new(Body::from_stream(stream)))
    }
}

impl Call {
    /// Sends the head, and gives what the rest of the answer is written with.
    pub(crate) fn begin(self) -> Answer {
        self.head.send(()).expect("somebody waits for it");
        Answer {
            frames: self.frames,
            gone: self.gone,
            usage: self.usage,
        }
    }

    /// Waits until the client has been noticed to be gone.
    pub(crate) async fn gone(self) {
        let Self {
            head: _head, gone, ..
        } = self;
        // The sender is dropped, never used.
        let _ = gone.await;
    }
}

/// An answer whose head was sent.
pub(crate) struct Answer {
    frames: mpsc::UnboundedSender<Bytes>,
    gone: oneshot::Receiver<()>,
    pub(crate) usage: Option<Usage>,
}

impl Answer {
    pub(crate) fn write(&self, frame: &'static str) {
        let frame = Bytes::from_static(frame.as_bytes());
        self.frames.send(frame).expect("the stream is open");
    }

    /// Ends the stream, and waits until it has been dropped.
    pub(crate) async fn end(self) {
        drop(self.frames);
        let _ = self.gone.await;
    }

    /// Waits until it was dropped without having ended.
    pub(crate) async fn cut(self) {
        let Self {
            frames: _frames,
            gone,
            ..
        } = self;
        let _ = gone.await;
    }
}
