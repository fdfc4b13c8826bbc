//! One wait queue: its places, whose turn it is, and the places that are skipped.
//!
//! A queue is a map from tickets to places. Only the first tries its limits, so a first that does not would hold up all
//! others: a future that is held without being polled, a leaked one, a stuck task. No task watches this. Each place has
//! the time at which its holder tries again, and every operation on the queue checks the others:
//!
//! - A holder that has not tried [`GRACE`] after that is woken.
//! - A holder that was woken and has not tried `GRACE` after that is *passed over*: it counts as absent. It keeps its
//!   ticket, and is in the queue again as soon as it tries.
//! - A holder that is past its deadline by `GRACE` has lost its place.
//!
//! To ensure that there are such operations, requests that are not the first set themselves a timer: the next one of
//! `GRACE`, the one after it of twice as much, and so on.
//!
//! ```text
//! join ── due + GRACE passes ──▶ woken ── GRACE passes ──▶ passed over ─┐
//!   ▲ due = when it asks next      │                         │          │ deadline + GRACE passes,
//!   └──────────── ask ─────────────┴─────────── ask ─────────┘          ▼ in any state
//!                                                                     gone
//! ```
//!
//! # Invariants
//!
//! - The *first* is the lowest ticket that is not passed over. `ask` answers `First` only if no such place is before.
//! - Whenever a place becomes first because another one leaves, is passed over or returns, it or the former first is
//!   woken: no turn is lost.
//! - `silent` and `silent_units` are the count and the units of the places that are passed over; `units` of all places.
//! - Before `sweeps` a sweep is one comparison; from then on it is a walk over the queue, which sets `sweeps` anew. A
//!   place may thus be kept up to a `GRACE` longer than it must, and never shorter.
//! - No method wakes directly: wakers are collected in `woken`, and the caller takes them out of the lock.
//!
//! Times are readings of the throttle's clock, in nanoseconds, passed in; nothing here reads it.

use std::{
    array,
    collections::BTreeMap,
    mem,
    ops::{Index, IndexMut},
    task::Waker,
};

use crate::{clock::Nanos, limit::Unit};

/// The place in the order of all that wait. Lower is earlier.
pub(crate) type QueueTicket = u64;

/// The time for which a place is kept for a holder that should have asked: 50 ms. Once before it is woken, and once
/// after.
pub(crate) const GRACE: Nanos = 50_000_000;

/// The requests that stand in front of a newcomer, and what they ask for. Those that are passed over are not among
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueAhead {
    pub(crate) requests: u64,
    /// The units that they ask for; saturate.
    pub(crate) units: QueueUnits,
}

/// The units that a request asks of the limits of a queue, by what these count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueUnits([u64; Unit::COUNT]);

impl Index<Unit> for QueueUnits {
    type Output = u64;

    fn index(&self, unit: Unit) -> &u64 {
        &self.0[unit as usize]
    }
}

impl IndexMut<Unit> for QueueUnits {
    fn index_mut(&mut self, unit: Unit) -> &mut u64 {
        &mut self.0[unit as usize]
    }
}

/// The sum of the units of many requests. Wide enough for as many as there can be.
#[derive(Debug, Clone, Copy, Default)]
struct UnitSum([u128; Unit::COUNT]);

impl UnitSum {
    fn add(&mut self, units: QueueUnits) {
        for (sum, units) in self.0.iter_mut().zip(units.0) {
            *sum += u128::from(units);
        }
    }

    fn sub(&mut self, units: QueueUnits) {
        for (sum, units) in self.0.iter_mut().zip(units.0) {
            *sum -= u128::from(units);
        }
    }

    /// Returns the units that are not among `others`.
    fn without(self, others: Self) -> QueueUnits {
        let narrow = |units: u128| u64::try_from(units).unwrap_or(u64::MAX);
        QueueUnits(array::from_fn(|unit| narrow(self.0[unit] - others.0[unit])))
    }
}

/// The position of a place, as its holder is told when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuePosition {
    /// Nobody is before it: it asks its limits now.
    First,
    /// The holder asks again when it is woken, or at this moment: those before it may have been passed over by then.
    Behind(Nanos),
    /// The place is no more: it was past its deadline, or left.
    Gone,
}

/// The queue of one scope or one client in it.
#[derive(Default)]
pub(super) struct WaitQueue {
    waiters: BTreeMap<QueueTicket, QueueEntry>,
    /// The units that all of them ask for.
    units: UnitSum,
    /// The number of those that are passed over, and what they ask for.
    silent: usize,
    silent_units: UnitSum,
    /// The moment before which nobody has to be woken, passed over or removed.
    sweeps: Nanos,
    /// Wakers to be woken outside of the lock.
    woken: Vec<Waker>,
}

/// One place in a queue.
struct QueueEntry {
    /// The units that it asks of the queue's limits.
    units: QueueUnits,
    /// The end of its wait. The holder leaves then; a sweep removes the place [`GRACE`] later.
    deadline: Nanos,
    /// The moment by which it asks again without being woken.
    due: Nanos,
    /// The moment at which it was first woken since it has asked.
    woken: Option<Nanos>,
    /// The place is passed over, until its holder asks.
    is_silent: bool,
    /// The waker of its last `ask`; `None` before the first.
    waker: Option<Waker>,
}

impl WaitQueue {
    /// The number of places, those that are passed over among them.
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Takes the wakers that are to be woken, once the lock is released.
    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    /// Counts those that are not passed over, in constant time.
    pub(super) fn ahead(&self) -> QueueAhead {
        QueueAhead {
            requests: (self.waiters.len() - self.silent) as u64,
            units: self.units.without(self.silent_units),
        }
    }

    /// Returns the first ticket that is not passed over. Walks over those that are.
    pub(super) fn first(&self) -> Option<QueueTicket> {
        let mut waiters = self.waiters.iter();
        let first = waiters.find(|(_, waiter)| !waiter.is_silent);
        first.map(|(ticket, _)| *ticket)
    }

    /// Enters a place, due at once: whoever joins asks next. A ticket from another queue may come before the first,
    /// who is woken then, to stand behind it.
    pub(super) fn join(
        &mut self,
        ticket: QueueTicket,
        units: QueueUnits,
        now: Nanos,
        deadline: Nanos,
    ) {
        let first = self.first();
        let waiter = QueueEntry {
            units,
            deadline,
            due: now,
            woken: None,
            is_silent: false,
            waker: None,
        };
        self.units.add(units);
        self.waiters.insert(ticket, waiter);
        self.sweeps_by(now.saturating_add(GRACE));
        self.stands_before(ticket, first, now);
    }

    /// Notes that the holder of a place is here, and tells where it stands. One that was passed over is in the queue
    /// again.
    ///
    /// Behind others, it is to ask again in as many `GRACE`s as there are places before it, or when the first of them
    /// that was woken is passed over; it is due then.
    pub(super) fn ask(&mut self, ticket: QueueTicket, waker: &Waker, now: Nanos) -> QueuePosition {
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
            self.silent_units.sub(waiter.units);
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

    /// Notes that the holder of a place asks again at `due`, without being woken.
    pub(super) fn expect(&mut self, ticket: QueueTicket, due: Nanos) {
        if let Some(waiter) = self.waiters.get_mut(&ticket) {
            waiter.due = due;
            self.sweeps_by(due.saturating_add(GRACE));
        }
    }

    /// Removes a place, and wakes who becomes first by that.
    pub(super) fn leave(&mut self, ticket: QueueTicket, now: Nanos) {
        let before = self.first();
        self.remove(ticket);
        if let Some(first) = self.first().filter(|first| before != Some(*first)) {
            self.call(first, now);
        }
    }

    /// Wakes the first; if all are passed over, the first of them, so that what came back is not left lying.
    pub(super) fn wake(&mut self, now: Nanos) {
        let first = self.first().or_else(|| self.waiters.keys().next().copied());
        if let Some(first) = first {
            self.call(first, now);
        }
    }

    /// Removes places past their deadline, wakes those that should have asked, passes over those that were woken and
    /// have not, and wakes who becomes first by that. Sets the moment of the next sweep.
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
                self.silent_units.add(waiter.units);
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

    /// Wakes the holder of a place. From the first wake on it has a `GRACE` to ask; further ones do not lengthen it.
    fn call(&mut self, ticket: QueueTicket, now: Nanos) {
        if let Some(waiter) = self.waiters.get_mut(&ticket) {
            waiter.woken.get_or_insert(now);
            self.woken.extend(waiter.waker.clone());
            self.sweeps_by(now.saturating_add(GRACE));
        }
    }

    /// Wakes who was `first` if a place was taken before it: it has to look after those before it from now on, and
    /// asks to set its timer.
    fn stands_before(&mut self, ticket: QueueTicket, first: Option<QueueTicket>, now: Nanos) {
        if let Some(first) = first.filter(|first| *first > ticket) {
            self.call(first, now);
        }
    }

    /// Removes a place and keeps the sums; wakes nobody.
    fn remove(&mut self, ticket: QueueTicket) {
        if let Some(waiter) = self.waiters.remove(&ticket) {
            self.units.sub(waiter.units);
            if waiter.is_silent {
                self.silent -= 1;
                self.silent_units.sub(waiter.units);
            }
        }
    }

    /// Makes the next walk of a sweep come at `moment`, at the latest.
    fn sweeps_by(&mut self, moment: Nanos) {
        self.sweeps = self.sweeps.min(moment);
    }
}
