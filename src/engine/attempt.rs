//! What an attempt to decide on a request works with, and what it comes to.
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
    client::RequestHead,
    clock::Nanos,
    limiter::{limit_set::Demand, queue::Waiter, readings::LimitReadings},
    store::{
        StoreError, Taken,
        client::{LeaseWaiter, StoreCall},
    },
};

/// What an attempt has come to. What the limits hold is left in its [`Outcome`](super::outcome::Outcome).
pub(super) enum Ruling {
    Admit,
    Deny,
    /// Nobody can decide: the store is down.
    Unavailable,
    Wait(Wait),
}

/// One attempt to decide on a request: what was found of it.
pub(super) struct Attempt<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) rules: &'a Arc<RuleSet>,
    pub(super) limits: &'a RouteLimits,
    pub(super) demand: Demand,
    pub(super) arrived: Nanos,
    pub(super) head: RequestHead<'a>,
}

/// How far a request has come that is not yet decided on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Its place in line. Left when it is dropped.
    pub(super) waiter: Option<Waiter>,
    /// When it asks the store by itself, whoever else asks for a lease: once for all of its turns.
    pub(super) lease_until: Option<Nanos>,
    /// Whether whoever polls it is woken when its turn comes.
    pub(super) is_entered: bool,
    /// Whether it is decided without the store from now on.
    pub(super) is_alone: bool,
}

/// The answer of a store.
pub(super) type Reply = Result<Taken, StoreError>;

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// Its turn in line, or nothing at all.
    Turn {
        /// It asks its limits no earlier, even if it is woken.
        not_before: Nanos,
        /// It is polled again at this moment, or when it is woken.
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
    /// What the buckets hold, to tell the wait of a refusal.
    Peek {
        call: Box<StoreCall>,
        /// Whether it has waited for long enough, and does not stand in line again.
        is_over: bool,
    },
}

impl Wait {
    /// It asks again at once.
    pub(super) fn again() -> Self {
        Self::in_line(0)
    }

    /// It asks again at a moment, or when it is woken.
    pub(super) fn in_line(until: Nanos) -> Self {
        Self::in_line_until(0, until)
    }

    /// It is polled again at `until`, or when it is woken, and asks its limits at `not_before` at the earliest.
    pub(super) fn in_line_until(not_before: Nanos, until: Nanos) -> Self {
        Self::Turn { not_before, until }
    }
}

/// What a request has taken in this process while it asks the store.
#[derive(Debug)]
pub(super) struct LocalCharges {
    /// None where no limit is a cap.
    pub(super) permits: Option<Permits>,
    /// One for each limit whose balance lies here.
    pub(super) readings: LimitReadings,
}
