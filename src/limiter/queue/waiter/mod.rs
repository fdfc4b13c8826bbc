//! Waiters: a request enters a queue, tries again, and leaves.
//!
//! A request that is refused for now joins the queue of the limit with the longest wait. When it is first there it
//! tries all its limits again; if a limit of another scope refuses, it moves to that scope's queue with its ticket. It
//! leaves when it is admitted, refused at its deadline, or dropped.
//!
//! # Invariants
//!
//! - A [`Waiter`] is one place in one queue, and one in `waiting` of the limit that it waits for. Both end with it in
//!   every case: `Drop` leaves the queue, which wakes the next.
//! - No charge is held while waiting. An admission in turn is [`Limiter::admit`], as for a request that has just
//!   arrived.
//! - The deadline only moves closer: it is the arrival plus the least `max_wait` of the limits met so far, and no later
//!   than the client's own deadline. No clock and no store extends it.
//! - The waker is entered before the limits are read, and every answer that makes it wait has a moment for the caller's
//!   timer: a lost wake-up costs time, never the turn.
//!
//! # Cancellation
//!
//! A waiter may be dropped between any two calls. Once its request was admitted, dropping it only leaves the queue: the
//! charge belongs to the admission that the caller makes of it.
//!
//! # Callers
//!
//! `engine/decide`, at each stage of a request. It charges balances itself, here or in a store, and passes in their
//! states, with a [`QueueMoment`] that has both clocks.

use std::{sync::Arc, task::Waker};

use super::lines::{QueuePosition, QueueTicket, QueueUnits};
use crate::{
    clock::Nanos,
    limit::{Unit, gcra::RefusalReason, wait_policy::WaitPolicy},
    limiter::{
        Limiter, Outdated,
        counters::Counters,
        limit_set::QueueId,
        limit_set::{BoundLimit, Demand, LimitSet},
        readings::{LimitReading, LimitReadings},
    },
};

/// The answer to a request that asks and may wait.
#[derive(Debug)]
pub(crate) enum QueueAnswer {
    Admitted,
    Denied,
    /// The request stands in a queue.
    Waits(Waiter),
}

/// A request's place in a queue. Left when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    limiter: Arc<Limiter>,
    /// The queue in which it stands now.
    queue: QueueId,
    /// A ticket, which it keeps in every queue.
    ticket: QueueTicket,
    /// The moment at which the request came, from which every `max_wait` counts.
    arrived: Nanos,
    /// The moment from which it waits no longer. As the first of its queue it may ask once more then.
    deadline: Nanos,
    /// The counters of the limit that it waits for.
    counters: Arc<Counters>,
}

/// The moment at which a request asks for a place in a queue, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueMoment {
    /// The moment by the throttle's clock, by which queues and deadlines go.
    pub(crate) now: Nanos,
    /// The same moment by the clock of the balances: the store's, if they lie there.
    pub(crate) at: Nanos,
    /// The moment at which the request came, by the throttle's clock.
    pub(crate) arrived: Nanos,
}

impl QueueMoment {
    /// The moment of a request whose balances lie in this process.
    pub(crate) fn here(now: Nanos, arrived: Nanos) -> Self {
        Self {
            now,
            at: now,
            arrived,
        }
    }
}

/// The next step of a request in a queue, with the moment at which it was decided or until which it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The turn has come, at this moment.
    Asks(Nanos),
    /// The request stands there until it is woken, or this moment has come.
    Stands(Nanos),
    /// The request leaves, refused: its deadline has passed, or it may not wait where it would have to.
    Goes(Nanos),
}

/// The step after a refusal in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The request asks again at this moment, and not before.
    At(Nanos),
    /// The request asks again when it is woken, and no later than this.
    Woken(Nanos),
    /// The request has gone over to another queue, and finds out at once whether it is the first there.
    Elsewhere,
    /// The request is refused.
    Never,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.counters.waiting.sub(1);
        let limiter = &self.limiter;
        limiter.queues.leave(self.queue, self.ticket, limiter.now());
    }
}

/// Counts one more that waits for a limit, now and in all.
fn count_waiter(counters: &Arc<Counters>) -> Arc<Counters> {
    counters.waited.add(1);
    counters.waiting.add(1);
    Arc::clone(counters)
}

impl Limiter {
    /// Decides like [`Limiter::admit`], but overtakes nobody that waits, and gives a place in a queue to a request
    /// that may wait for what refuses it.
    ///
    /// `arrived` is the moment at which it came, and `timeout` the nanoseconds that the client itself waits from then
    /// on. `readings` come empty. Refused or waiting, they leave as if the requests ahead had been charged before.
    ///
    /// Where no limit of the set has a wait policy this is `admit`, and where nobody waits anywhere, one load more.
    ///
    /// # Errors
    ///
    /// [`Outdated`] as of `admit`: nothing is taken, and no place.
    #[inline(always)]
    pub(crate) fn ask(
        self: &Arc<Self>,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        arrived: Nanos,
        timeout: impl Fn() -> Option<Nanos>,
        readings: &mut LimitReadings,
    ) -> Result<QueueAnswer, Outdated> {
        loop {
            let free = !limit_set.is_patient
                || self.queues.is_empty()
                || !self.is_behind(limit_set, demand);
            if free && self.admit_apart(limit_set, demand, now, readings)? {
                return Ok(QueueAnswer::Admitted);
            }
            if !limit_set.is_patient {
                return Ok(QueueAnswer::Denied);
            }
            *readings = self.peek(limit_set, demand, now);
            let moment = QueueMoment::here(now, arrived);
            match self.queue(limit_set, demand, moment, timeout(), readings) {
                Some(answer) => return Ok(answer),
                None => *readings = LimitReadings::default(),
            }
        }
    }

    /// Returns what each bucket of a limit set holds, shadows included, without a charge.
    pub(crate) fn peek(&self, limit_set: &LimitSet, demand: Demand, now: Nanos) -> LimitReadings {
        let mut readings = LimitReadings::default();
        for charge in limit_set.charges(&self.clients, demand, now) {
            readings.push(LimitReading::new(charge.balance.peek(now), charge.cost));
        }
        readings
    }

    /// Returns whether somebody waits in a queue of the request's enforced limits. Sweeps those queues.
    pub(crate) fn is_behind(&self, limit_set: &LimitSet, demand: Demand) -> bool {
        let now = self.now();
        let mut lines = limit_set
            .enforced()
            .map(|bound| bound.queue(demand.identity));
        lines.any(|queue| self.queues.has_earlier(queue, QueueTicket::MAX, now))
    }

    /// Gives a refused request a place in a queue, if each limit that refuses allows it to wait and the wait that is
    /// known ends in time. `None` if nothing refuses any more, and nobody stands in a queue: what was held has come
    /// back, or who stood there has gone. The caller decides anew then.
    ///
    /// `readings` are what each bucket holds, and are left as it would be if the requests ahead had been charged.
    ///
    /// The queue is that of the longest wait. A request ahead of it in another queue does not matter yet: it goes over
    /// there when its turn comes. No place is given if `max_waiting` stand there.
    #[cold]
    pub(crate) fn queue(
        self: &Arc<Self>,
        limit_set: &LimitSet,
        demand: Demand,
        moment: QueueMoment,
        timeout: Option<Nanos>,
        readings: &mut LimitReadings,
    ) -> Option<QueueAnswer> {
        let QueueMoment { now, at, arrived } = moment;
        let mut longest: Option<(Nanos, QueueId, WaitPolicy, &BoundLimit)> = None;
        // At the timeout itself the client is gone.
        let mut longest_wait = timeout.map_or(Nanos::MAX, |timeout| timeout.saturating_sub(1));
        let waited = now.saturating_sub(arrived);
        let mut waits = true;
        let mut refused = false;
        for (index, bound) in limit_set.enforced().enumerate() {
            let queue = bound.queue(demand.identity);
            let ahead = self.queues.ahead(queue, now);
            let reading = &mut readings[index];
            if let Some(meter) = bound.limit.meter.as_ref().filter(|_| ahead.requests > 0) {
                let units = match bound.limit.settings.unit() {
                    Unit::Slots => ahead.requests,
                    unit => ahead.units[unit],
                };
                reading.state = meter.owe(reading.state, at, units);
            }
            let wait = match bound.refusal(reading.state, at, reading.cost) {
                None if ahead.requests == 0 => continue,
                None | Some(RefusalReason::Busy) => 0,
                Some(RefusalReason::Wait(wait)) => wait,
                Some(RefusalReason::Never) => {
                    waits = false;
                    refused = true;
                    continue;
                }
            };
            refused = true;
            let Some(wait_policy) = bound.limit.wait_policy else {
                waits = false;
                continue;
            };
            longest_wait = longest_wait.min(wait_policy.max_wait);
            if longest.is_none_or(|(longest, ..)| wait > longest) {
                longest = Some((wait, queue, wait_policy, bound));
            }
        }
        if !refused {
            return None;
        }
        let waiter = longest
            .filter(|(wait, ..)| waits && wait.saturating_add(waited) <= longest_wait)
            .and_then(|(_, queue, wait_policy, bound)| {
                let most = wait_policy.max_waiting;
                let deadline = arrived.saturating_add(longest_wait);
                let units = units_in(limit_set, queue, demand);
                let ticket = self.queues.join(queue, None, units, most, now, deadline)?;
                Some(Waiter {
                    limiter: Arc::clone(self),
                    queue,
                    ticket,
                    arrived,
                    deadline,
                    counters: count_waiter(&bound.counters),
                })
            });
        if waiter.is_none() {
            self.name_refusal(limit_set, demand, at, readings);
        }
        Some(waiter.map_or(QueueAnswer::Denied, QueueAnswer::Waits))
    }

    /// Marks the limit that a denial is to name, if by `readings` no bucket refuses: the first that has requests
    /// waiting in front of it, or else the first of all.
    pub(crate) fn name_refusal(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        at: Nanos,
        readings: &mut LimitReadings,
    ) {
        let refuses = |(index, bound): (usize, &BoundLimit)| {
            let reading = readings[index];
            bound.refusal(reading.state, at, reading.cost).is_some()
        };
        if limit_set.enforced().enumerate().any(refuses) {
            return;
        }
        let now = self.now();
        let waited_for = limit_set.enforced().position(|bound| {
            let queue = bound.queue(demand.identity);
            bound.limit.wait_policy.is_some() && self.queues.ahead(queue, now).requests > 0
        });
        if limit_set.enforced > 0 {
            readings[waited_for.unwrap_or(0)].refused = true;
        }
    }
}

impl Waiter {
    /// Returns the moment at which it leaves, admitted or not.
    pub(crate) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Returns whether it is its turn to ask, and goes over to a queue in which somebody stands who came before it.
    ///
    /// `waker` is woken when the answer may have changed. Past the deadline it is never asked to wait longer.
    pub(crate) fn next(&mut self, limit_set: &LimitSet, demand: Demand, waker: &Waker) -> Next {
        let limiter = Arc::clone(&self.limiter);
        loop {
            let now = limiter.now();
            // Entered before the limits are asked, so that what comes free after that wakes it.
            match limiter.queues.ask(self.queue, self.ticket, waker, now) {
                QueuePosition::First => {}
                QueuePosition::Behind(looks) if now < self.deadline => {
                    return Next::Stands(looks.min(self.deadline));
                }
                QueuePosition::Behind(_) | QueuePosition::Gone => return Next::Goes(now),
            }
            match self.other_queue(limit_set, demand, now) {
                None => return Next::Asks(now),
                Some(bound) if self.move_to(limit_set, bound, demand, now) => {}
                Some(_) => return Next::Goes(now),
            }
        }
    }

    /// Notes that its holder asks again at this moment without being woken, as while a store is asked: until then it
    /// is not passed over.
    pub(crate) fn asks_by(&self, due: Nanos) {
        self.limiter.queues.expect(self.queue, self.ticket, due);
    }

    /// Tells what it does, refused by what `readings` hold, and notes by when it asks again.
    pub(crate) fn refused(
        &mut self,
        limit_set: &LimitSet,
        demand: Demand,
        moment: QueueMoment,
        readings: &LimitReadings,
    ) -> Retry {
        let retry = self.retry(limit_set, demand, moment, readings);
        match retry {
            Retry::At(until) => self.asks_by(until),
            Retry::Woken(_) => self.asks_by(self.deadline),
            Retry::Elsewhere | Retry::Never => {}
        }
        retry
    }

    fn retry(
        &mut self,
        limit_set: &LimitSet,
        demand: Demand,
        moment: QueueMoment,
        readings: &LimitReadings,
    ) -> Retry {
        let QueueMoment { now, at, .. } = moment;
        match self.reason(limit_set, demand, at, readings) {
            // At the deadline itself it does not ask a second time.
            Refused::For(wait) if now.saturating_add(wait.max(1)) <= self.deadline => {
                Retry::At(now.saturating_add(wait.max(1)))
            }
            Refused::Until if now < self.deadline => Retry::Woken(self.deadline),
            Refused::Elsewhere(bound)
                if now < self.deadline && self.move_to(limit_set, bound, demand, now) =>
            {
                Retry::Elsewhere
            }
            _ => Retry::Never,
        }
    }

    /// Finds a limit in whose queue, not its own, somebody stands who came before it.
    fn other_queue<'a>(
        &self,
        limit_set: &'a LimitSet,
        demand: Demand,
        now: Nanos,
    ) -> Option<&'a BoundLimit> {
        let lines = &self.limiter.queues;
        limit_set.enforced().find(|bound| {
            let queue = bound.queue(demand.identity);
            queue != self.queue && lines.has_earlier(queue, self.ticket, now)
        })
    }

    /// Goes over to the queue of another limit, with its ticket. Returns `false`, and stays, if it may not wait there,
    /// or if there is no room.
    ///
    /// Enters there before it leaves here, so that it is never in no queue. Its deadline comes nearer if that limit
    /// allows less.
    fn move_to(
        &mut self,
        limit_set: &LimitSet,
        bound: &BoundLimit,
        demand: Demand,
        now: Nanos,
    ) -> bool {
        let Some(wait_policy) = bound.limit.wait_policy else {
            return false;
        };
        let queue = bound.queue(demand.identity);
        let lines = &self.limiter.queues;
        let deadline = self.arrived.saturating_add(wait_policy.max_wait);
        let deadline = self.deadline.min(deadline);
        let (ticket, most) = (Some(self.ticket), wait_policy.max_waiting);
        let units = units_in(limit_set, queue, demand);
        let ticket = lines.join(queue, ticket, units, most, now, deadline);
        if ticket.is_none() {
            return false;
        }
        lines.leave(self.queue, self.ticket, now);
        self.queue = queue;
        self.counters.waiting.sub(1);
        self.counters = count_waiter(&bound.counters);
        self.deadline = deadline;
        true
    }

    /// Finds what has refused it: a limit of another queue only if none of its own refuses, and otherwise the longest
    /// wait.
    fn reason<'a>(
        &self,
        limit_set: &'a LimitSet,
        demand: Demand,
        at: Nanos,
        readings: &LimitReadings,
    ) -> Refused<'a> {
        let mut here = false;
        let mut elsewhere = None;
        let mut longest = 0;
        let mut busy = false;
        for (bound, reading) in limit_set.enforced().zip(readings.as_slice()) {
            match bound.refusal(reading.state, at, reading.cost) {
                None => continue,
                Some(RefusalReason::Never) => return Refused::Never,
                Some(RefusalReason::Busy) => busy = true,
                Some(RefusalReason::Wait(wait)) => longest = longest.max(wait),
            }
            let queue = bound.queue(demand.identity);
            if queue == self.queue {
                here = true;
            } else if elsewhere.is_none() {
                elsewhere = Some(bound);
            }
        }
        match elsewhere {
            Some(bound) if !here => Refused::Elsewhere(bound),
            _ if longest > 0 => Refused::For(longest),
            _ if busy => Refused::Until,
            // Between two looks it has come free.
            _ => Refused::For(0),
        }
    }
}

/// Returns the units that a request asks of the limits of a queue: the most, if they ask for different numbers, and
/// zero where none counts. Requests behind it add them to the balance that they see.
fn units_in(limit_set: &LimitSet, queue: QueueId, demand: Demand) -> QueueUnits {
    let mut units = QueueUnits::default();
    let here = limit_set.enforced();
    for bound in here.filter(|bound| bound.queue(demand.identity) == queue) {
        // Requests themselves are counted for slots.
        if !bound.limit.is_slots() {
            let most = &mut units[bound.limit.settings.unit()];
            *most = bound.cost(demand).max(*most);
        }
    }
    units
}

/// The reason for which a request in a queue was refused.
enum Refused<'a> {
    /// For so many nanoseconds at least, by a limit of its queue or several.
    For(Nanos),
    /// Until it is woken: by slots, which come free when they do.
    Until,
    /// By a limit in whose queue it does not stand, and by none of its own.
    Elsewhere(&'a BoundLimit),
    Never,
}

#[cfg(test)]
mod tests;
