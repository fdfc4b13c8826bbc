//! Lines of requests that wait for their limits.
//!
//! Each scope has a line of its own: the total, each route, each client, each client on a route. All that stand
//! in it are charged on the same buckets, so that nobody in it is held up by somebody whose turn would help
//! nobody else. A request stands in one line at a time; it keeps its ticket, so that in whichever line it stands,
//! who came first is first.
//!
//! A line is a map from tickets to who waits, made when the first comes and gone with the last. Only the first
//! of a line asks its limits again; who leaves, admitted or not, wakes the next. Nothing is taken for those who
//! wait, so nothing has to be given back when one goes away. A place whose holder does not ask is passed over (see
//! [`lines`]).
//!
//! # Who wakes whom
//!
//! For a rate the first of a line sets itself a timer. A slot that comes free wakes the first of its scope's
//! line, and this order loses none: who waits first enters the line, which counts, and then looks at the slots;
//! who frees one first frees it, and then looks at the count. Both change the count in place (with acquire and
//! release), so that one of the two sees the other.

mod lines;
mod waiter;

pub(crate) use self::{
    lines::WaitQueues,
    waiter::{Again, Answer, Next, QueueMoment, Turn, Waiter},
};
