//! The body of a response: the inner service's, or the throttle's own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pub use crate::admission::{Hold, KeptRequest};
use crate::{
    admission::{Admission, HeldSlot},
    response::AnswerBody,
    usage::{ReportListener, UsageReader},
};

pin_project! {
    /// The body of a response that passed a [`Throttle`](crate::Throttle).
    ///
    /// Either the inner service's body, forwarded frame by frame, or the answer to a refused request. The request's
    /// admission lasts as long as the inner body: to the end of the data, the trailers or an error, or until the body
    /// is dropped. A [`KeptRequest`] holds it longer.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: Guarded<B, Held> },
        // Its data is not empty. `None`: nothing is left of it.
        Own { answer: Option<AnswerBody> },
    }
}

/// A body type for responses of a throttle whose inner service has bodies `B`.
pub(crate) trait FromInner<B> {
    /// Makes the body of an admitted request that holds nothing.
    fn bare(body: B) -> Self;

    /// Makes the body of an admitted request that holds something until it ends.
    fn inner(body: B, held: Option<Held>) -> Self;

    /// Makes the body of a refused request from an answer whose head was taken.
    fn own(answer: AnswerBody) -> Self;
}

impl<B> FromInner<B> for ResponseBody<B> {
    #[inline(always)]
    fn bare(body: B) -> Self {
        Self::inner(body, None)
    }

    #[inline(always)]
    fn inner(body: B, held: Option<Held>) -> Self {
        let guard = held;
        Self {
            kind: Kind::Inner {
                body: Guarded { body, guard },
            },
        }
    }

    fn own(answer: AnswerBody) -> Self {
        let answer = (!answer.data().is_empty()).then_some(answer);
        Self {
            kind: Kind::Own { answer },
        }
    }
}

/// An empty body, whatever `B` is.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self {
            kind: Kind::Own { answer: None },
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Own { answer } => {
                let data = answer.take().map(AnswerBody::into_data);
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { answer } => answer.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { answer } => {
                let length = answer.as_ref().map_or(0, |answer| answer.data().len());
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
        }
    }
}

pin_project! {
    /// A body that releases a guard as soon as it has ended, and at the latest when it is dropped.
    #[derive(Debug)]
    struct Guarded<B, G> {
        #[pin]
        body: B,
        guard: Option<G>,
    }
}

/// A guard that observes the data of a body, and its end.
trait Guard {
    fn data(&mut self, data: &[u8]);

    /// Notes that the body came to its end. A body whose guard is dropped instead was cut short.
    fn complete(self);
}

/// The things that a response holds until it ends.
#[derive(Debug)]
pub(crate) enum Held {
    /// One slot.
    Slot(HeldSlot),
    /// The admission alone.
    Admission(Admission),
    /// The admission, and the reader of the usage that the response reports.
    Read(Box<ReadAdmission>),
}

/// An admission whose response reports what it has used. Dropped, it settles: a truncated response may still have
/// reported usage.
#[derive(Debug)]
pub(crate) struct ReadAdmission {
    /// Taken when it has settled.
    reader: Option<UsageReader>,
    admission: Admission,
}

impl Held {
    /// Reads the usage that the response with this status and these header fields reports as well.
    #[cold]
    pub(crate) fn read(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        listener: Arc<dyn ReportListener>,
    ) -> Self {
        match self {
            Self::Admission(admission) => Self::Read(Box::new(ReadAdmission {
                reader: Some(UsageReader::new(status, headers, listener)),
                admission,
            })),
            held => held,
        }
    }
}

impl Guard for Held {
    #[inline]
    fn data(&mut self, data: &[u8]) {
        if let Self::Read(read) = self {
            if let Some(reader) = &mut read.reader {
                reader.read(data);
            }
        }
    }

    fn complete(self) {
        match self {
            Self::Slot(slot) => drop(slot),
            Self::Admission(admission) => admission.complete(),
            Self::Read(mut read) => {
                read.settle(true);
                read.admission.complete();
            }
        }
    }
}

impl ReadAdmission {
    /// Settles, after the body has `ended` or was cut short.
    fn settle(&mut self, ended: bool) {
        if let (Some(reader), Some(reservation)) =
            (self.reader.take(), self.admission.reservation())
        {
            self.admission.close();
            reader.settle(reservation, ended);
        }
    }
}

impl Drop for ReadAdmission {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl<B, G> Body for Guarded<B, G>
where
    B: Body<Data = Bytes>,
    G: Guard,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let poll = this.body.as_mut().poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(guard)) = (&poll, this.guard.as_mut()) {
            if let Some(data) = frame.data_ref() {
                guard.data(data);
            }
        }
        let ended = match &poll {
            Poll::Pending => false,
            // A server that has sent the declared number of bytes does not poll again, so the end is detected here.
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) => {
                *this.guard = None;
                false
            }
            Poll::Ready(None) => true,
        };
        if let Some(guard) = this.guard.take_if(|_| ended) {
            guard.complete();
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::Waker,
    };

    use http::Response;

    use super::*;
    use crate::response::Answer;

    /// Tells how it went: whether it was completed, or is gone at least.
    #[derive(Debug, Default, Clone)]
    struct Watch(Arc<[AtomicBool; 2]>);

    #[derive(Debug)]
    struct Watched(Watch);

    impl Watch {
        fn completed(&self) -> bool {
            self.0[0].load(Ordering::Relaxed)
        }

        fn gone(&self) -> bool {
            self.0[1].load(Ordering::Relaxed)
        }
    }

    impl Guard for Watched {
        fn data(&mut self, data: &[u8]) {
            assert_eq!(data, b"x", "each frame is seen");
        }

        fn complete(self) {
            self.0.0[0].store(true, Ordering::Relaxed);
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            assert!(!self.0.gone(), "once");
            self.0.0[1].store(true, Ordering::Relaxed);
        }
    }

    /// Plays back what it is given; pending where that is `None`. Knows its end if there is nothing more.
    struct Script(VecDeque<Option<Result<Frame<Bytes>, &'static str>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.0.pop_front() {
                Some(Some(frame)) => Poll::Ready(Some(frame)),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn data() -> Option<Result<Frame<Bytes>, &'static str>> {
        Some(Ok(Frame::data(Bytes::from_static(b"x"))))
    }

    /// A body that plays `script`, and a way to see what becomes of its guard.
    fn guarded(
        script: impl IntoIterator<Item = Option<Result<Frame<Bytes>, &'static str>>>,
    ) -> (Guarded<Script, Watched>, Watch) {
        let watch = Watch::default();
        let body = Guarded {
            body: Script(script.into_iter().collect()),
            guard: Some(Watched(watch.clone())),
        };
        (body, watch)
    }

    #[test]
    fn the_guard_goes_at_each_end_and_not_before() {
        let trailers = || Some(Ok(Frame::trailers(HeaderMap::new())));
        let more = || Some(Err("never asked for"));
        // (what ends it, what it plays, at which poll, whether it came to its end)
        let table = [
            ("end of data", vec![data(), None, data(), None], 5, true),
            ("trailers", vec![data(), None, trailers(), more()], 3, true),
            ("error", vec![data(), Some(Err("broken")), more()], 2, false),
            ("no frame at all", vec![], 1, true),
            (
                "a last frame that is known to be",
                vec![data(), None, data()],
                3,
                true,
            ),
        ];
        for (end, script, polls, completed) in table {
            let (mut body, watch) = guarded(script);
            let mut cx = Context::from_waker(Waker::noop());
            for poll in 1..=polls {
                assert!(!watch.gone(), "{end}: gone before poll {poll}");
                let _ = Pin::new(&mut body).poll_frame(&mut cx);
            }
            assert!(watch.gone(), "{end}: still held");
            assert_eq!(watch.completed(), completed, "{end}");
        }
    }

    #[test]
    fn the_guard_goes_with_a_body_dropped_in_midstream() {
        let (mut body, watch) = guarded([data(), data()]);
        let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(!watch.gone());
        drop(body);
        assert!(watch.gone() && !watch.completed());
    }

    #[test]
    fn an_own_body_tells_its_length_and_end() {
        type Own = ResponseBody<http_body_util::Empty<Bytes>>;
        let own = |data| {
            Answer::new(Response::new(Bytes::from_static(data)))
                .respond(Own::own)
                .into_body()
        };
        let mut body = own(b"refused");
        assert_eq!(body.size_hint().exact(), Some(7));
        assert!(!body.is_end_stream());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut cx),
            Poll::Ready(Some(Ok(_)))
        ));
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut cx),
            Poll::Ready(None)
        ));
        assert!(Own::default().is_end_stream());
        assert!(own(b"").is_end_stream());
    }

    #[test]
    fn auto_traits() {
        fn traits<T: Send + Sync + Unpin + 'static>() {}
        traits::<ResponseBody<http_body_util::Full<Bytes>>>();
        fn error<B: Body<Error = Infallible>>() {}
        error::<ResponseBody<http_body_util::Full<Bytes>>>();
    }
}
