//! An attempt to decide on a request: its parts, and its end.
//!
//! An [`Attempt`] borrows what was found of the request and changes none of it. [`Progress`] is what lasts from one
//! attempt to the next while the request waits: its place in line above all, which is left when it is dropped. A
//! [`Ruling`] is the end of one attempt.
//!
//! Made by `decide` for a request that has arrived, and by `pending` for one that waits.

use std::sync::Arc;

use super::{Engine, route_limits::RouteLimits, rule_set::RuleSet};
use crate::{
    admission::Permits,
    clock::Nanos,
    head::RequestHead,
    limiter::{limit_set::Demand, queue::Waiter, readings::LimitReadings},
    store::{
        StoreError, Taken,
        client::{LeaseWaiter, StoreCall},
    },
};

/// The end of one attempt. Readings of the limits are left in its [`Outcome`](super::outcome::Outcome).
pub(super) enum Ruling {
    /// All limits have room, and are charged.
    Admit,
    /// A limit refuses, and the request may not wait for it.
    Deny,
    /// Nobody can decide: the store is down.
    Unavailable,
    /// The decision is made later.
    Wait(Wait),
}

/// The parts of one attempt: what was found of the request.
pub(super) struct Attempt<'a> {
    pub(super) engine: &'a Arc<Engine>,
    /// The rules that decide.
    pub(super) rules: &'a Arc<RuleSet>,
    /// The limits that the request is charged on by these rules.
    pub(super) limits: &'a RouteLimits,
    /// The client, and the cost.
    pub(super) demand: Demand,
    /// The moment at which the request came, by the clock of this process.
    pub(super) arrived: Nanos,
    pub(super) head: RequestHead<'a>,
}

/// The progress of a request that is not yet decided on: what lasts from one attempt to the next.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A place in line. Left when it is dropped.
    pub(super) waiter: Option<Waiter>,
    /// The moment from which the request waits for no lease that somebody else asks for. Set in its first turn, for all
    /// of them.
    pub(super) lease_until: Option<Nanos>,
    /// True if its waker is in the queue: set by a turn, and cleared by each poll.
    pub(super) is_entered: bool,
    /// True if the request is decided without the store from now on.
    pub(super) is_alone: bool,
}

/// The answer of a store.
pub(super) type Reply = Result<Taken, StoreError>;

/// The event that a request waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// A turn in line. For a request that stands in none, a moment.
    Turn {
        /// The earliest moment at which limits are asked, even if the request is woken before.
        not_before: Nanos,
        /// The moment of the next look, unless the request is woken before. Zero: at once.
        until: Nanos,
    },
    /// A lease that somebody else has asked for.
    Lease(LeaseWaiter),
    /// The answer of the store.
    Store {
        call: Box<StoreCall>,
        // On the heap, as what is moved with each decision is large otherwise.
        held: Box<LocalCharges>,
    },
    /// The balances of all buckets in the store, from which a refusal tells its wait.
    Peek {
        call: Box<StoreCall>,
        /// True if the request has waited for long enough. It is refused when they are known.
        is_over: bool,
    },
}

impl Wait {
    /// Returns a wait that is over at once.
    pub(super) fn again() -> Self {
        Self::in_line(0)
    }

    /// Returns a wait that is over at a moment, or when the request is woken.
    pub(super) fn in_line(until: Nanos) -> Self {
        Self::in_line_until(0, until)
    }

    /// Returns a wait that is over at `until`, or when the request is woken. Limits are asked at `not_before` at the
    /// earliest.
    pub(super) fn in_line_until(not_before: Nanos, until: Nanos) -> Self {
        Self::Turn { not_before, until }
    }
}

/// The charges that a request has made in this process while it asks the store.
#[derive(Debug)]
pub(super) struct LocalCharges {
    /// None where no limit is a cap.
    pub(super) permits: Option<Permits>,
    /// One for each limit whose balance lies here.
    pub(super) readings: LimitReadings,
}
