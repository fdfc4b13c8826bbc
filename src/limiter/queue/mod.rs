//! Wait queues: requests that wait for their limits.
//!
//! Each scope has a queue of its own: the total, each route, each client, each client on a route. All requests in it
//! are charged on the same buckets, so that none is held up by one whose turn would not help it. A request is in one
//! queue at a time and keeps its ticket, so that in any queue the earlier request is first.
//!
//! A queue is a map from tickets to waiting requests, made for the first and removed with the last. Only the first in a
//! queue tries its limits again; a request that leaves, admitted or not, wakes the next. Waiting requests hold no
//! units, so a cancelled one has nothing to give back. A request whose holder does not poll it is skipped (see
//! [`lines`]).
//!
//! # Invariants
//!
//! - No request overtakes: a request is admitted only if none is before it in any queue of its limits. The exceptions
//!   are holders that do not poll, and requests that arrive at the same moment.
//! - A wait is bounded by `max_wait` of each limit that refuses, from the request's arrival, and by the deadline of the
//!   client; places in one queue by `max_waiting`. A request that cannot be served in time, as far as is known, is
//!   refused at once.
//! - A waiting request is charged nothing. In its turn it is charged like any other, on all its limits or none.
//! - A queue holds no request alive: dropping the waiter leaves it, at any moment, and wakes the next.
//!
//! # Callers
//!
//! `engine` and its futures: they poll a waiter, set the timers that it asks for, and give it a waker. No runtime is
//! named here.
//!
//! # Wake-ups
//!
//! For a rate the first in a queue sets itself a timer. A slot that comes free wakes the first in its scope's queue,
//! and this order loses no wake-up: a request first enters the queue, which counts, and then looks at the slots; a
//! thread that frees one first frees it, and then looks at the count. Both change the count in place (with acquire and
//! release), so that one of the two sees the other. An attempt that takes a slot and gives it back, since another limit
//! refuses, frees it for any request that has looked meanwhile. A slot that was taken under rules without a queue wakes
//! the present queue.

mod lines;
mod waiter;

pub(crate) use self::{
    lines::WaitQueues,
    waiter::{Next, QueueAnswer, QueueMoment, Retry, Waiter},
};
