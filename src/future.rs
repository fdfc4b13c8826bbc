//! The future of a throttled response.

// The future has one of four results: the response of the inner service as it is; the same, with the units that the
// request holds moved into its body; the same, with fields added; or an answer of the throttle. A waiting request gets
// one of these once it is decided.
//
// # States
//
// ```text
//            ┌─ admitted ─▶ call ─▶ Bare | Held | Told ─▶ response of the inner service
// Waiting ───┤
//            └─ refused ──────────▶ Rejected ───────────▶ answer of the throttle
// ```
//
// A request that is decided on arrival begins in `Bare`, `Slot`, `Held`, `Written`, `Unwritten`, `Told` or `Rejected`.
// `Bare` is the absence of any other state. The inner service's error passes in all of them.
//
// | state | holds | a poll | a drop |
// |---|---|---|---|
// | `Waiting` | service, request, [`Pending`] | asks again, then calls the service | leaves the line, gives all back |
// | `Bare` | inner future | passes the response | has nothing to give back |
// | `Slot` | inner future, a slot | passes the response, the slot in its body | frees the slot |
// | `Held` | inner future, admission | passes the response, the admission in its body | ends the admission |
// | `Written` | inner future, templates | passes the response, with fields | has nothing to give back |
// | `Unwritten` | inner future, states | passes the response, with fields of them | has nothing to give back |
// | `Told` | inner future, parts | as `Held`, with fields and decision | ends the admission, if there is one |
// | `Rejected` | answer | yields the answer | has nothing to give back |
//
// Ending an admission frees its slots and settles its model tokens. A task gives back what a store takes for a request
// that has left `Waiting`.
//
// # Invariants
//
// - **Units of a request have one owner**: this future until there is a response, then its body. Dropping
//   the owner returns them once. A handler may share what is held by a [`Hold`](crate::body::Hold).
// - **The inner service is called at most once**, and only for a request that was admitted: before this future was
//   made, or when it has waited.
// - **Errors of the inner service pass unchanged**, and end what the request holds.
// - **Slots are freed after the work.** `inner` is declared before `rest`, so that dropping the future drops the inner
//   service's future first. The next holder of the slot does not run beside that work.
//
// # Panics
//
// A panic of the inner service propagates. A panic of its call drops the ticket as the stack unwinds. A panic of its
// future leaves the admission here, until this future is dropped. A user closure that panics while the request waits
// drops the [`Pending`], which gives everything back.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    admission::{Admission, HeldSlot},
    body::{FromInner, Held, ResponseBody},
    decision::Decision,
    engine::{Admitted, Pending, Refusal, ResponseParts, Ticket},
    head::RequestHead,
    response::{
        Answer, Templates,
        fields::{UnwrittenFields, add_degraded},
        is_failure,
    },
};

pin_project! {
    /// The future of a response that passes a [`Throttle`](crate::Throttle).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner service's future and ends the request's admission, unless a
    /// [guard](crate::body::KeptRequest) keeps it: its slots are free, and its account of model tokens ends at its
    /// reservation, or at what the handler has counted if that is more. What was charged to rates and quotas stays
    /// charged, for the inner service has been called. If the request still waits, it leaves its place in line, and
    /// nothing stays charged; what a store takes for it later is given back.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        // There if it was admitted. It lies beside the rest, and not in it, so that it is moved no more than once. It
        // stays until this future is dropped, even if it has ended.
        #[pin]
        inner: Option<S::Future>,
        // `None`: the request holds nothing, and its response passes as it is. There is nothing else to be dropped.
        rest: Option<Rest<S, ReqBody>>,
    }
}

/// The state of a request, beside its inner future. See the head of this file for what a poll does in each.
enum Rest<S, ReqBody> {
    /// The request is not decided on, and there is no inner future yet.
    Waiting {
        // Taken when the decision is there. On the heap, since it has a service and a request, and few requests wait.
        waiting: Option<Box<Waiting<S, ReqBody>>>,
    },
    /// The response passes as it is. The slot moves into its body.
    Slot {
        // Taken when there is a response or an error. An error drops it.
        slot: Option<HeldSlot>,
    },
    /// The response passes as it is. The admission moves into its body.
    Held {
        // Taken when there is a response or an error. An error drops it.
        admission: Option<Admission>,
    },
    /// The response gets fields that were written beforehand.
    Written(Arc<Templates>),
    /// The response gets fields, which are written when it is there.
    Unwritten(UnwrittenFields),
    /// The response is changed. The parts are taken piece by piece when it is there.
    Told(ResponseParts),
    /// The request is refused. There is no inner future.
    Rejected {
        // Taken by the first poll.
        answer: Option<Answer>,
    },
}

impl<S, ReqBody> Rest<S, ReqBody> {
    /// The state of a request that was admitted after it has waited.
    #[inline]
    fn of(ticket: Ticket) -> Self {
        match ticket {
            Ticket::Slot(slot) => Self::Slot { slot: Some(slot) },
            Ticket::Held(admission) => Self::Held {
                admission: Some(admission),
            },
            Ticket::Written(templates, _) => Self::Written(templates),
            Ticket::Unwritten(fields, _) => Self::Unwritten(fields),
            Ticket::Told(parts) => Self::Told(parts),
        }
    }
}

/// A request that is not yet decided on, with the service it is for.
struct Waiting<S, ReqBody> {
    /// The service that was polled ready. It keeps what `poll_ready` has reserved until it is called or dropped.
    service: S,
    /// The request, which does not change before it is admitted: each attempt sees the same head.
    request: Request<ReqBody>,
    /// The place in line, or the call to a store. Taken while it is being decided on, so that a panic drops it.
    pending: Option<Box<Pending>>,
}

impl<S, ReqBody> Waiting<S, ReqBody> {
    /// Polls for the decision. Each poll of a request in line asks for its turn, whoever has woken it.
    ///
    /// # Panics
    ///
    /// After the decision, and after a poll that has panicked.
    #[cold]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Admitted, Refusal>> {
        Pending::poll(&mut self.pending, RequestHead::of(&self.request), cx)
    }
}

/// The message of the panic of a future that is polled once more: with an answer of the throttle, which was taken. With
/// an inner future, a further poll does what that future does.
const POLLED: &str = "a response future is not polled after it has finished";

impl<S, ReqBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    /// The response to an admitted request that holds nothing, and is told nothing.
    #[inline(always)]
    pub(crate) fn bare(future: S::Future) -> Self {
        Self {
            inner: Some(future),
            rest: None,
        }
    }

    /// The response to an admitted request that holds a slot. `future` comes from a call that was made while the caller
    /// held it.
    #[inline(always)]
    pub(crate) fn holding(future: S::Future, slot: HeldSlot) -> Self {
        Self {
            inner: Some(future),
            rest: Some(Rest::Slot { slot: Some(slot) }),
        }
    }

    /// The response to an admitted request. `future` comes from a call that was made while the caller held the ticket.
    #[inline(always)]
    pub(crate) fn admitted(future: S::Future, ticket: Ticket) -> Self {
        // Each apart, so that none is moved as the largest of them.
        match ticket {
            Ticket::Slot(slot) => Self::holding(future, slot),
            Ticket::Held(admission) => Self {
                inner: Some(future),
                rest: Some(Rest::Held {
                    admission: Some(admission),
                }),
            },
            Ticket::Written(templates, _) => Self {
                inner: Some(future),
                rest: Some(Rest::Written(templates)),
            },
            Ticket::Unwritten(fields, _) => Self {
                inner: Some(future),
                rest: Some(Rest::Unwritten(fields)),
            },
            Ticket::Told(parts) => Self {
                inner: Some(future),
                rest: Some(Rest::Told(parts)),
            },
        }
    }

    /// The answer to a request that is refused. A [`Rejection`](crate::response::Rejection) of the user's runs now, and
    /// not in the first poll. The request ends here.
    ///
    /// A function of its own, so that the way of an admitted request has no part in it.
    #[inline(never)]
    pub(crate) fn refused(refusal: Refusal, request: Request<ReqBody>) -> Self {
        Self {
            inner: None,
            rest: Some(Rest::Rejected {
                answer: Some(refusal.answer(request)),
            }),
        }
    }

    /// A request that waits, with the service that was polled ready for it. Before its first poll it keeps its place in
    /// line, and the store is not reached.
    pub(crate) fn pending(service: S, request: Request<ReqBody>, pending: Box<Pending>) -> Self {
        let waiting = Waiting {
            service,
            request,
            pending: Some(pending),
        };
        Self {
            inner: None,
            rest: Some(Rest::Waiting {
                waiting: Some(Box::new(waiting)),
            }),
        }
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_as(cx)
    }
}

impl<S, ReqBody, ResBody> ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    /// Polls for a response with a body of this type.
    #[inline(always)]
    pub(crate) fn poll_as<B: FromInner<ResBody>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<B>, S::Error>> {
        let mut this = self.as_mut().project();
        // Those that change no head, where the caller wants the response.
        match (this.rest, this.inner.as_mut().as_pin_mut()) {
            // ## Bare => response
            (None, Some(inner)) => {
                return inner.poll(cx).map_ok(|response| response.map(B::bare));
            }
            // ## Slot => response with a slot in its body
            (Some(Rest::Slot { slot }), Some(inner)) => {
                let result = ready!(inner.poll(cx));
                // Moved into the closure, which an error drops without having called it.
                let slot = slot.take();
                let held = slot.map(Held::Slot);
                return Poll::Ready(
                    result.map(|response| response.map(|body| B::inner(body, held))),
                );
            }
            // ## Rejected => answer of the throttle
            (Some(Rest::Rejected { answer }), _) => return Poll::Ready(Ok(respond(answer))),
            _ => {}
        }
        self.poll_rest(cx)
    }

    /// Polls in the other states.
    #[inline(never)]
    fn poll_rest<B: FromInner<ResBody>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<B>, S::Error>> {
        let mut this = self.as_mut().project();
        match this.rest {
            // ## Waiting => (Bare | Held | Told | Rejected), each of which is polled at once
            Some(Rest::Waiting { waiting }) => {
                let decided = ready!(waiting.as_mut().expect(POLLED).poll(cx));
                let Waiting {
                    mut service,
                    mut request,
                    ..
                } = *waiting.take().expect(POLLED);
                *this.rest = match decided {
                    Ok(Admitted { mut ticket, engine }) => {
                        // The ticket is on the stack while the service is called, and is dropped if that panics.
                        if let Some(ticket) = &mut ticket {
                            ticket.mark(&engine.options, request.extensions_mut());
                        }
                        this.inner.set(Some(service.call(request)));
                        ticket.map(Rest::of)
                    }
                    Err(refusal) => Some(Rest::Rejected {
                        answer: Some(refusal.answer(request)),
                    }),
                };
                self.poll_as(cx)
            }
            // ## Held => response with a guard in its body
            Some(Rest::Held { admission }) => {
                let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                let result = ready!(inner.poll(cx));
                // Moved into the closure, which an error drops without having called it.
                let admission = admission.take();
                refund_failure(result.as_ref().ok(), admission.as_ref());
                let held = admission.map(Held::Admission);
                Poll::Ready(result.map(|response| response.map(|body| B::inner(body, held))))
            }
            // ## Written => response with fields
            Some(Rest::Written(templates)) => {
                // Changed where it lies, as below.
                let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                let mut poll = inner.poll(cx);
                if let Poll::Ready(Ok(response)) = &mut poll {
                    templates.add_first_to(response.status(), response.headers_mut());
                }
                poll.map_ok(|response| response.map(B::bare))
            }
            // ## Unwritten => response with fields
            Some(Rest::Unwritten(fields)) => {
                // Changed where it lies, as below.
                let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                let mut poll = inner.poll(cx);
                if let Poll::Ready(Ok(response)) = &mut poll {
                    fields.add_to(response.status(), response.headers_mut());
                }
                poll.map_ok(|response| response.map(B::bare))
            }
            // ## Told => response with fields and decision, and a guard in its body
            Some(Rest::Told(told)) => {
                // Changed where it lies: a response is large, and each move of it costs.
                let inner = this.inner.as_mut().as_pin_mut().expect(POLLED);
                let mut poll = inner.poll(cx);
                let Poll::Ready(result) = &mut poll else {
                    return Poll::Pending;
                };
                let ResponseParts {
                    admission,
                    fields,
                    decision,
                    log,
                    degraded,
                } = told;
                let admission = admission.take();
                refund_failure(result.as_ref().ok(), admission.as_ref());
                let mut held = admission.map(Held::Admission);
                if let Ok(response) = result {
                    if let Some(fields) = fields.take() {
                        fields.add_to(response.status(), response.headers_mut());
                    }
                    if let Some(it) = degraded.take().filter(|it| it.is_told) {
                        add_degraded(&it.degraded, response.status(), response.headers_mut());
                    }
                    if let Some(decision) = decision.take() {
                        // A refusal of a throttle further in is kept, for it has made this response.
                        let inner = response.extensions().get::<Decision>();
                        if inner.is_none_or(Decision::is_admitted) {
                            response.extensions_mut().insert(decision);
                        }
                    }
                    if let Some(log) = log.take() {
                        held =
                            held.map(|held| held.read(response.status(), response.headers(), log));
                    }
                }
                poll.map_ok(|response| response.map(|body| B::inner(body, held)))
            }
            None | Some(Rest::Slot { .. } | Rest::Rejected { .. }) => {
                unreachable!("an admitted request has an inner future")
            }
        }
    }
}

/// Gives back what a failure of the inner service has cost, where the rules say so.
#[inline]
fn refund_failure<B>(response: Option<&Response<B>>, admission: Option<&Admission>) {
    if let (Some(response), Some(admission)) = (response, admission) {
        if admission.refunds() && is_failure(response.status(), response.headers()) {
            admission.fail();
        }
    }
}

/// Takes the answer of the throttle, and returns its response. Out of line, where few registers are taken.
#[inline(never)]
fn respond<ResBody, B: FromInner<ResBody>>(answer: &mut Option<Answer>) -> Response<B> {
    let answer = answer.take().expect(POLLED);
    answer.respond(B::own)
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.rest {
            Some(Rest::Waiting { .. }) => "Waiting",
            None
            | Some(
                Rest::Slot { .. }
                | Rest::Held { .. }
                | Rest::Written(_)
                | Rest::Unwritten(_)
                | Rest::Told(_),
            ) => "Admitted",
            Some(Rest::Rejected { .. }) => "Rejected",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, num::NonZero};

    use bytes::Bytes;
    use http_body_util::Empty;
    use tower::service_fn;

    use super::*;

    type EmptyResponse = Result<Response<Empty<Bytes>>, Infallible>;

    /// A future of forty bytes that is never zero, as most are.
    #[expect(dead_code, reason = "only its size counts")]
    struct Forty(NonZero<u64>, [u64; 4]);

    impl Future for Forty {
        type Output = EmptyResponse;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<EmptyResponse> {
            Poll::Pending
        }
    }

    /// Returns the bytes of a service's future, and of the one around it.
    fn sizes<S: Service<Request<()>>>(_: &S) -> (usize, usize) {
        (size_of::<S::Future>(), size_of::<ResponseFuture<S, ()>>())
    }

    /// Each of them is moved several times on the way of a request, and those of requests that hold nothing as others.
    #[test]
    fn futures_and_bodies_are_small() {
        let inner = service_fn(|_: Request<()>| Forty(NonZero::<u64>::MIN, [0; 4]));
        let (inner, future) = sizes(&inner);
        assert_eq!(inner, 40);
        assert!(future <= 152, "a future takes {future} bytes");
        // A response without a body takes 112.
        let response = size_of::<Response<ResponseBody<Empty<Bytes>>>>();
        assert!(response <= 136, "a response takes {response} bytes");
    }
}
