//! One line: who stands in it, and who is passed over.
//!
//! Only the first of a line asks its limits, so a first that does not ask would hold up all others: a future that is held
//! and not polled, one that is forgotten, a task that is stuck. There is no task that watches. Each place says by when its
//! holder asks again, and everybody who works on the line has a look at the others:
//!
//! - Whoever has not asked [`GRACE`] after that is woken.
//! - Whoever was woken and has not asked `GRACE` after that is *passed over*: it counts as if it were not there. It keeps
//!   its ticket, and is in line again as soon as it asks.
//! - Whoever is past its deadline by `GRACE` has lost its place.
//!
//! So that there is somebody to look, those who are not the first set themselves a timer: the next in line one of
//! `GRACE`, the one after it of twice as much, and so on.

use std::{collections::BTreeMap, mem, task::Waker};

use crate::clock::Nanos;

/// The place in the order of all that wait. Lower is earlier.
pub(crate) type Ticket = u64;

/// For so long a place is kept free for a holder that should have asked: 50 ms.
pub(crate) const GRACE: Nanos = 50_000_000;

/// What stands before a request in a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueAhead {
    pub(crate) requests: u64,
    /// Model tokens that they ask for.
    pub(crate) tokens: u64,
}

/// Where a holder of a place stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuePosition {
    /// It is its turn.
    First,
    /// It asks again when it is woken, or at this moment: those before it may have been passed over by then.
    Behind(Nanos),
    /// It has none any more.
    Gone,
}

/// The line of one scope.
#[derive(Default)]
pub(super) struct WaitQueue {
    waiters: BTreeMap<Ticket, QueueEntry>,
    /// Of all of them. Wide enough for as many as there can be.
    tokens: u128,
    /// Those that are passed over.
    silent: usize,
    silent_tokens: u128,
    /// No earlier than this somebody has to be woken, or passed over.
    sweeps: Nanos,
    /// To be woken outside of the lock.
    woken: Vec<Waker>,
}

struct QueueEntry {
    tokens: u64,
    deadline: Nanos,
    /// When it asks again without being woken.
    due: Nanos,
    /// When it was woken, if it has not asked since.
    woken: Option<Nanos>,
    /// Whether it is passed over.
    is_silent: bool,
    /// There once it has asked.
    waker: Option<Waker>,
}

impl WaitQueue {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    pub(super) fn ahead(&self) -> QueueAhead {
        QueueAhead {
            requests: (self.waiters.len() - self.silent) as u64,
            tokens: u64::try_from(self.tokens - self.silent_tokens).unwrap_or(u64::MAX),
        }
    }

    /// The first that is not passed over.
    pub(super) fn first(&self) -> Option<Ticket> {
        let mut waiters = self.waiters.iter();
        let first = waiters.find(|(_, waiter)| !waiter.is_silent);
        first.map(|(ticket, _)| *ticket)
    }

    pub(super) fn join(&mut self, ticket: Ticket, tokens: u64, now: Nanos, deadline: Nanos) {
        let first = self.first();
        let waiter = QueueEntry {
            tokens,
            deadline,
            due: now,
            woken: None,
            is_silent: false,
            waker: None,
        };
        self.tokens += u128::from(tokens);
        self.waiters.insert(ticket, waiter);
        self.sweeps_by(now.saturating_add(GRACE));
        self.stands_before(ticket, first, now);
    }

    /// Its holder is here.
    pub(super) fn ask(&mut self, ticket: Ticket, waker: &Waker, now: Nanos) -> QueuePosition {
        let first = self.first();
        let Some(waiter) = self.waiters.get_mut(&ticket) else {
            return QueuePosition::Gone;
        };
        match &mut waiter.waker {
            Some(known) => known.clone_from(waker),
            unknown => *unknown = Some(waker.clone()),
        }
        waiter.woken = None;
        if mem::take(&mut waiter.is_silent) {
            self.silent -= 1;
            self.silent_tokens -= u128::from(waiter.tokens);
            self.stands_before(ticket, first, now);
        }
        let mut places: Nanos = 0;
        let mut passes: Option<Nanos> = None;
        let earlier = self.waiters.range(..ticket).map(|(_, waiter)| waiter);
        for waiter in earlier.filter(|waiter| !waiter.is_silent) {
            places += 1;
            let passed = waiter.woken.map(|woken| woken.saturating_add(GRACE));
            passes = passes.into_iter().chain(passed).min();
        }
        let (place, due) = match places {
            0 => (QueuePosition::First, now),
            _ => {
                let looks = now.saturating_add(places.saturating_mul(GRACE));
                let looks = passes.map_or(looks, |passes| passes.min(looks));
                (QueuePosition::Behind(looks), looks)
            }
        };
        self.expect(ticket, due);
        place
    }

    /// Its holder asks again then, without being woken.
    pub(super) fn expect(&mut self, ticket: Ticket, due: Nanos) {
        if let Some(waiter) = self.waiters.get_mut(&ticket) {
            waiter.due = due;
            self.sweeps_by(due.saturating_add(GRACE));
        }
    }

    /// Its holder goes.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Nanos) {
        let before = self.first();
        self.remove(ticket);
        if let Some(first) = self.first().filter(|first| before != Some(*first)) {
            self.call(first, now);
        }
    }

    /// Wakes the first. If all are passed over, it is the first of them.
    pub(super) fn wake(&mut self, now: Nanos) {
        let first = self.first().or_else(|| self.waiters.keys().next().copied());
        if let Some(first) = first {
            self.call(first, now);
        }
    }

    /// Wakes those who should have asked, and passes over those who were woken and have not asked.
    pub(super) fn sweep(&mut self, now: Nanos) {
        if now < self.sweeps {
            return;
        }
        let over = |waiter: &QueueEntry| now > waiter.deadline.saturating_add(GRACE);
        let gone = self.waiters.iter().filter(|(_, waiter)| over(waiter));
        let gone: Vec<_> = gone.map(|(ticket, _)| *ticket).collect();
        let before = self.first();
        for ticket in gone {
            self.remove(ticket);
        }
        let mut sweeps = Nanos::MAX;
        for waiter in self.waiters.values_mut() {
            // No more often than in each grace.
            let over = waiter.deadline.saturating_add(GRACE);
            sweeps = sweeps.min(over.saturating_add(1).max(now + GRACE));
            if waiter.is_silent {
                continue;
            }
            if waiter.woken.is_none() && waiter.due.saturating_add(GRACE) <= now {
                waiter.woken = Some(now);
                self.woken.extend(waiter.waker.clone());
            }
            let passed = match waiter.woken {
                Some(woken) => woken.saturating_add(GRACE),
                None => waiter.due.saturating_add(GRACE).max(now + GRACE),
            };
            if waiter.woken.is_some() && passed <= now {
                waiter.is_silent = true;
                self.silent += 1;
                self.silent_tokens += u128::from(waiter.tokens);
                continue;
            }
            sweeps = sweeps.min(passed);
        }
        self.sweeps = sweeps;
        // Something may have come back for whoever was passed over.
        if let Some(first) = self.first().filter(|first| before != Some(*first)) {
            self.call(first, now);
        }
    }

    /// Wakes the holder of a place, who is to ask.
    fn call(&mut self, ticket: Ticket, now: Nanos) {
        if let Some(waiter) = self.waiters.get_mut(&ticket) {
            waiter.woken.get_or_insert(now);
            self.woken.extend(waiter.waker.clone());
            self.sweeps_by(now.saturating_add(GRACE));
        }
    }

    /// A place has been taken before who was the first: who has to look after those before it from now on.
    fn stands_before(&mut self, ticket: Ticket, first: Option<Ticket>, now: Nanos) {
        if let Some(first) = first.filter(|first| *first > ticket) {
            self.call(first, now);
        }
    }

    fn remove(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.waiters.remove(&ticket) {
            self.tokens -= u128::from(waiter.tokens);
            if waiter.is_silent {
                self.silent -= 1;
                self.silent_tokens -= u128::from(waiter.tokens);
            }
        }
    }

    fn sweeps_by(&mut self, moment: Nanos) {
        self.sweeps = self.sweeps.min(moment);
    }
}
