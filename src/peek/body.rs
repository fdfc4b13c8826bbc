//! The body of a request behind a peek layer.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{kept::Kept, pool::Room};

pin_project! {
    /// The body of a request that passed a [`Peek`](super::Peek).
    ///
    /// Either the body itself, untouched, or a body that was read before. The latter yields the same bytes, trailers
    /// and error in the same order, and then goes on with what was not read. Its frames may be cut elsewhere, and empty
    /// ones are left out.
    ///
    /// The size and the end are told as the body itself would have told them. So a proxy frames the request as it came:
    /// a body without a length is not given one.
    pub struct Peeked<B>
    where
        B: Body,
    {
        #[pin]
        kind: PeekedKind<B>,
    }
}

pin_project! {
    #[project = PeekedProj]
    enum PeekedKind<B>
    where
        B: Body,
    {
        Empty,
        Untouched { #[pin] body: B },
        // On the heap from the first read on: a body that was polled is not moved.
        Replayed { replay: Pin<Box<Replay<B>>> },
    }
}

pin_project! {
    /// A body of which the first part was read and is kept.
    pub(super) struct Replay<B>
    where
        B: Body,
    {
        #[pin]
        body: B,
        kept: Kept,
        next: AfterKept<B::Error>,
        room: Room,
        // The largest size as the body told it at first, less what was handed on.
        upper: Option<u64>,
    }
}

/// The frames after the kept part.
#[derive(Debug)]
enum AfterKept<E> {
    /// The rest of the body.
    Body,
    /// The frame by which the body turned out to be too large, and the rest.
    Data(Bytes),
    /// Trailers.
    Trailers(HeaderMap),
    /// The error by which the body was cut.
    Error(E),
    /// The end, which the body has told by a poll alone.
    End,
}

/// A body type for requests whose bodies `B` may have been read.
pub(super) trait FromPeeked<B: Body> {
    /// Makes a body that passes as it is.
    fn untouched(body: B) -> Self;

    /// Makes a body of one that was read.
    fn replayed(replay: Pin<Box<Replay<B>>>) -> Self;
}

impl<B: Body> FromPeeked<B> for Peeked<B> {
    #[inline(always)]
    fn untouched(body: B) -> Self {
        Self {
            kind: PeekedKind::Untouched { body },
        }
    }

    fn replayed(replay: Pin<Box<Replay<B>>>) -> Self {
        Self {
            kind: PeekedKind::Replayed { replay },
        }
    }
}

/// An empty body, whatever `B` is.
impl<B: Body> Default for Peeked<B> {
    fn default() -> Self {
        Self {
            kind: PeekedKind::Empty,
        }
    }
}

impl<B> Body for Peeked<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            PeekedProj::Empty => Poll::Ready(None),
            PeekedProj::Untouched { body } => body.poll_frame(cx),
            PeekedProj::Replayed { replay } => replay.as_mut().poll_frame(cx),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.kind {
            PeekedKind::Empty => true,
            PeekedKind::Untouched { body } => body.is_end_stream(),
            PeekedKind::Replayed { replay } => replay.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            PeekedKind::Empty => SizeHint::with_exact(0),
            PeekedKind::Untouched { body } => body.size_hint(),
            PeekedKind::Replayed { replay } => replay.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for Peeked<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            PeekedKind::Empty => "Empty",
            PeekedKind::Untouched { .. } => "Untouched",
            PeekedKind::Replayed { .. } => "Replayed",
        };
        f.debug_tuple("Peeked").field(&kind).finish()
    }
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes>,
{
    /// Begins to read a body, of which nothing was polled.
    pub(super) fn new(body: B, room: Room) -> Pin<Box<Self>> {
        Box::pin(Self {
            upper: body.size_hint().upper(),
            body,
            kept: Kept::default(),
            next: AfterKept::Body,
            room,
        })
    }

    /// Polls the body itself.
    pub(super) fn poll_body(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    /// Tells whether the body itself says that nothing comes any more.
    pub(super) fn has_ended(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Polls until the room is `to` bytes.
    pub(super) fn poll_room(self: Pin<&mut Self>, to: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.project().room.poll_grow(to, cx)
    }

    /// The bytes of room.
    pub(super) fn room(&self) -> usize {
        self.room.held()
    }

    /// The room that the kept part needs.
    pub(super) fn cost(&self) -> usize {
        self.kept.cost()
    }

    pub(super) fn keep(self: Pin<&mut Self>, data: Bytes) {
        self.project().kept.push(data);
    }

    /// Puts the frame after the kept part. It is not kept, and needs no room.
    pub(super) fn pass_on(self: Pin<&mut Self>, data: Bytes) {
        *self.project().next = AfterKept::Data(data);
    }

    pub(super) fn end_with_trailers(self: Pin<&mut Self>, trailers: HeaderMap) {
        *self.project().next = AfterKept::Trailers(trailers);
    }

    pub(super) fn end_with_error(self: Pin<&mut Self>, error: B::Error) {
        *self.project().next = AfterKept::Error(error);
    }

    pub(super) fn end(self: Pin<&mut Self>) {
        *self.project().next = AfterKept::End;
    }

    /// Ends reading, and gives back the room that is not needed.
    pub(super) fn finish(self: Pin<&mut Self>) {
        let this = self.project();
        this.kept.finish();
        this.room.shrink(this.kept.cost());
    }
}

impl<B> Body for Replay<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = if let Some(piece) = this.kept.pop() {
            this.room.shrink(this.kept.cost());
            Some(Ok(Frame::data(piece)))
        } else {
            match mem::replace(this.next, AfterKept::Body) {
                AfterKept::Data(data) => Some(Ok(Frame::data(data))),
                AfterKept::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                AfterKept::Error(error) => Some(Err(error)),
                AfterKept::Body => ready!(this.body.poll_frame(cx)),
                AfterKept::End => {
                    *this.next = AfterKept::End;
                    None
                }
            }
        };
        if let (Some(Ok(frame)), Some(upper)) = (&frame, this.upper) {
            let length = frame.data_ref().map_or(0, |data| size(data.len()));
            *upper = upper.saturating_sub(length);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let is_next = matches!(self.next, AfterKept::Body) && self.kept.len() == 0;
        is_next && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.next {
            AfterKept::Body | AfterKept::Trailers(_) | AfterKept::Error(_) => {
                self.body.size_hint().lower()
            }
            AfterKept::Data(data) => size(data.len()).saturating_add(self.body.size_hint().lower()),
            AfterKept::End => 0,
        };
        let lower = size(self.kept.len()).saturating_add(rest);
        let mut hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = self.upper {
            hint.set_upper(upper.max(lower));
        }
        hint
    }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
