//! Wait queues: requests that wait for their limits.
//!
//! Each scope has a queue of its own: the total, each route, each client, each client on a route. All that stand in it
//! are charged on the same buckets, so that nobody in it is held up by somebody whose turn would help nobody else. A
//! request stands in one queue at a time; it keeps its ticket, so that in whichever queue it stands, who came first is
//! first.
//!
//! A queue is a map from tickets to who waits, made when the first comes and gone with the last. Only the first of a
//! queue asks its limits again; who leaves, admitted or not, wakes the next. Nothing is taken for those who wait, so
//! nothing has to be given back when one goes away. A place whose holder does not ask is passed over (see [`lines`]).
//!
//! # Invariants
//!
//! - Nobody overtakes: a request is admitted only if nobody stands before it in any queue of its limits. The
//!   exceptions are holders that do not ask, and requests that arrive in the same moment.
//! - A wait is bounded by `max_wait` of each limit that refuses, from the request's arrival, and by what the client
//!   itself waits; places in one queue by `max_waiting`. A request that cannot be served in time, by what is known, is
//!   refused at once.
//! - A request that waits is charged nothing. In its turn it is charged like any other, on all its limits or none.
//! - A queue holds no request alive: dropping the waiter leaves it, at any moment, and wakes the next.
//!
//! # Callers
//!
//! `engine` and its futures: they poll a waiter, set the timers it asks for, and hand it a waker. No runtime is named
//! here.
//!
//! # Who wakes whom
//!
//! For a rate the first of a queue sets itself a timer. A slot that comes free wakes the first of its scope's
//! queue, and this order loses none: who waits first enters the queue, which counts, and then looks at the slots;
//! who frees one first frees it, and then looks at the count. Both change the count in place (with acquire and
//! release), so that one of the two sees the other. An attempt that has taken a slot and gives it back, since another
//! limit refuses, frees it for whoever has looked meanwhile. A slot that was taken under rules by which nobody waited
//! wakes the queue that there is by now.

mod lines;
mod waiter;

pub(crate) use self::{
    lines::WaitQueues,
    waiter::{Next, QueueAnswer, QueueMoment, Retry, Waiter},
};
