//! Reading a body: from the first poll to the call of the inner service.
//!
//! ```text
//!        ┌──────────── a frame ◀───────────┐
//!        ▼                                 │
//! wait for room ──▶ wait for a frame ──────┤
//!        │                                 ├─ end ─────────────▶ facts
//!        │                                 ├─ too large,
//!        │                                 │  malformed, cut ──▶ unread
//!        └── time is over ─▶ 503           └─ time is over ────▶ 408, or 503 if it has waited for room
//! ```
//!
//! # Invariants
//!
//! - **Room before bytes.** The body is polled only while there is room for more than what is kept. A frame that is
//!   larger than that waits here, and the body is not polled until the room is there. The frame was in the host's
//!   memory anyway.
//! - **Kept bytes have room** whenever the inner service is called.
//! - **The service that was polled ready is the one that is called**, with the head as it came and the facts.
//!
//! # Cancellation
//!
//! Dropped at any point, the room goes with the body, and so does a place in the line for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use super::{
    body::{FromPeeked, Replay},
    pool::{FIRST_STEP, Room},
    settings::PeekSettings,
};
use crate::{
    facts::{BodyFacts, FactsScanner, RequestFacts, UnreadReason},
    response::BodyTimeout,
};

/// The frames after which a poll lets other tasks run, for bodies that are never pending.
const FRAMES_A_POLL: usize = 128;

/// A request whose body is being read, with the service that it is for.
pub(super) struct BodyReading<S, B: Body> {
    /// The service that was polled ready.
    service: S,
    head: Parts,
    body: Pin<Box<Replay<B>>>,
    settings: Arc<PeekSettings>,
    scanner: FactsScanner,
    /// The bytes that have arrived.
    arrived: usize,
    /// The room that the body needs if it is as long as it says.
    expected: usize,
    /// The end of the body. Kept while its last frame has no room yet.
    end: Option<ReadEnd>,
    /// The time that is left. Made when something is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
    /// True if it has waited for room.
    waited_for_room: bool,
}

/// The end of reading.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadEnd {
    /// The whole body was read.
    Whole,
    /// The rest is not read.
    Unread(UnreadReason),
}

/// The thing that a request waits for.
enum Waits {
    /// For what would time out.
    For(BodyTimeout),
    /// For nothing. Other tasks run before it goes on.
    Turn,
}

impl<S, B> BodyReading<S, B>
where
    B: Body<Data = Bytes>,
{
    /// Begins to read the body of a request. `longest` is the most bytes that it says to have.
    pub(super) fn new(
        service: S,
        request: Request<B>,
        settings: Arc<PeekSettings>,
        client: Option<u128>,
        longest: Option<u64>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let room = Room::new(Arc::clone(&settings.pool), client);
        let longest = longest.and_then(|longest| usize::try_from(longest).ok());
        let longest = longest.map_or(settings.max_body, |longest| longest.min(settings.max_body));
        Self {
            service,
            head,
            body: Replay::new(body, room),
            settings,
            scanner: FactsScanner::new(),
            arrived: 0,
            expected: PeekSettings::room_of(longest),
            end: None,
            sleep: None,
            waited_for_room: false,
        }
    }

    /// Polls until the body was read, or is not to be read any further.
    ///
    /// # Errors
    ///
    /// [`BodyTimeout`] if the time is over before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReadEnd, BodyTimeout>> {
        let missing = match self.poll_read(cx) {
            Ok(end) => return Poll::Ready(Ok(end)),
            Err(Waits::Turn) => {
                cx.waker().wake_by_ref();
                // Without any time, all is read that is there at once.
                if self.settings.body_deadline.is_zero() {
                    return Poll::Pending;
                }
                BodyTimeout::Body
            }
            Err(Waits::For(missing)) => missing,
        };
        self.waited_for_room |= missing == BodyTimeout::Room;
        // A client whose body stood in line for room is not told that it was slow.
        let missing = match self.waited_for_room {
            true => BodyTimeout::Room,
            false => missing,
        };
        self.poll_time(cx).map(|()| Err(missing))
    }

    /// Reads as far as it goes at once.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<ReadEnd, Waits> {
        for _ in 0..FRAMES_A_POLL {
            if self.poll_room(cx).is_pending() {
                return Err(Waits::For(BodyTimeout::Room));
            }
            if let Some(end) = self.end {
                return Ok(end);
            }
            match self.body.as_mut().poll_body(cx) {
                Poll::Pending => return Err(Waits::For(BodyTimeout::Body)),
                Poll::Ready(frame) => self.end = self.take(frame),
            }
        }
        Err(Waits::Turn)
    }

    /// Polls for room: for all that is kept, and for more if more is to be read.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let need = self.body.cost() + usize::from(self.end.is_none());
        let room = self.body.room();
        if need <= room {
            return Poll::Ready(());
        }
        // Twice the room, so that many steps are not needed; but no more than the body may need.
        let most = match need <= self.expected {
            true => self.expected,
            false => self.settings.room_of_largest(),
        };
        let step = room.saturating_mul(2).max(FIRST_STEP).min(most);
        self.body.as_mut().poll_room(step.max(need), cx)
    }

    /// Takes what the body has yielded. Returns the end, if it is that.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Option<ReadEnd> {
        let mut body = self.body.as_mut();
        let frame = match frame {
            None => {
                body.end();
                return Some(ReadEnd::Whole);
            }
            Some(Err(error)) => {
                body.end_with_error(error);
                return Some(ReadEnd::Unread(UnreadReason::Cut));
            }
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().ok()?;
                body.end_with_trailers(trailers);
                return Some(ReadEnd::Whole);
            }
        };
        self.arrived = self.arrived.saturating_add(data.len());
        if self.arrived > self.settings.max_body {
            body.pass_on(data);
            return Some(ReadEnd::Unread(UnreadReason::TooLarge));
        }
        self.scanner.feed(&data);
        body.as_mut().keep(data);
        if self.scanner.is_malformed() {
            return Some(ReadEnd::Unread(UnreadReason::Malformed));
        }
        body.has_ended().then_some(ReadEnd::Whole)
    }

    /// Polls until the time is over.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let time = self.settings.body_deadline;
        if time.is_zero() {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(time)));
        sleep.as_mut().poll(cx)
    }

    /// Returns the service, and the request with its facts. The room that is not needed is given back.
    pub(super) fn finish<P: FromPeeked<B>>(self, end: ReadEnd) -> (S, Request<P>) {
        let Self {
            service,
            head,
            mut body,
            settings: _,
            scanner,
            arrived,
            expected: _,
            end: _,
            sleep: _,
            waited_for_room: _,
        } = self;
        body.as_mut().finish();
        let facts = match end {
            ReadEnd::Unread(reason) => Err(reason),
            // An empty body is no document, and says nothing wrong.
            ReadEnd::Whole if arrived == 0 => Ok(RequestFacts::default()),
            ReadEnd::Whole => scanner.finish(),
        };
        let mut request = Request::from_parts(head, P::replayed(body));
        request.extensions_mut().insert(BodyFacts::new(facts));
        (service, request)
    }

    /// Ends a request whose time is over, and returns its head.
    pub(super) fn give_up(self) -> Parts {
        self.head
    }
}
