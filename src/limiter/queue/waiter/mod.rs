//! How a request gets into a line, and what becomes of it there.

use std::{sync::Arc, task::Waker};

use super::lines::{QueuePosition, QueueTicket};
use crate::{
    clock::Nanos,
    limit::{gcra::RefusalReason, wait_policy::Patience},
    limiter::{
        Limiter, Outdated,
        bound_limit::QueueId,
        counters::Counters,
        limit_set::{BoundLimit, Demand, LimitSet},
        readings::{LimitReading, LimitReadings},
    },
};

/// What becomes of a request that asks.
#[derive(Debug)]
pub(crate) enum QueueAnswer {
    Admitted,
    Denied,
    /// It stands in line.
    Waits(Waiter),
}

/// A place in a line. Left when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    limiter: Arc<Limiter>,
    line: QueueId,
    ticket: QueueTicket,
    arrived: Nanos,
    deadline: Nanos,
    /// Of the limit that it waits for.
    counters: Arc<Counters>,
}

/// When a request asks for a place in line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueMoment {
    pub(crate) now: Nanos,
    /// The same by the clock that the balances are told by.
    pub(crate) at: Nanos,
    /// When it came.
    pub(crate) arrived: Nanos,
}

impl QueueMoment {
    /// Of a request whose balances lie in this process.
    pub(crate) fn here(now: Nanos, arrived: Nanos) -> Self {
        Self {
            now,
            at: now,
            arrived,
        }
    }
}

/// Whether a request in line asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is its turn.
    Asks(Nanos),
    /// Not before it is woken, or this moment has come.
    Stands(Nanos),
    /// It has stood there for long enough.
    Goes(Nanos),
}

/// What becomes of a request that was refused in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It asks again at this moment, and not before.
    At(Nanos),
    /// It asks again when it is woken, and no later than this.
    Woken(Nanos),
    /// It has gone over to another line.
    Elsewhere,
    /// It is refused.
    Never,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.counters.waiting.sub(1);
        let limiter = &self.limiter;
        limiter.lines.leave(self.line, self.ticket, limiter.now());
    }
}

/// One more stands in line for a limit.
fn enters(counters: &Arc<Counters>) -> Arc<Counters> {
    counters.waited.add(1);
    counters.waiting.add(1);
    Arc::clone(counters)
}

impl Limiter {
    /// As [`Limiter::admit`], with a place in line for those who may wait for what refuses them.
    ///
    /// `arrived` is when it came, and `timeout` how long the client itself will wait from then on. Whatever the answer,
    /// `readings` are left as if the request had been asked behind those in line.
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
                || self.lines.is_empty()
                || !self.is_behind(limit_set, demand);
            if free && self.admit(limit_set, demand, now, readings)? {
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

    /// What each bucket holds.
    pub(crate) fn peek(&self, limit_set: &LimitSet, demand: Demand, now: Nanos) -> LimitReadings {
        let mut readings = LimitReadings::default();
        for charge in limit_set.charges(&self.memory, demand, now) {
            readings.push(LimitReading::new(charge.place.peek(now), charge.cost));
        }
        readings
    }

    /// Whether somebody waits in a scope of the request.
    pub(crate) fn is_behind(&self, limit_set: &LimitSet, demand: Demand) -> bool {
        let now = self.now();
        let mut lines = limit_set
            .enforced()
            .map(|bound| bound.line(demand.identity));
        lines.any(|line| self.lines.has_earlier(line, QueueTicket::MAX, now))
    }

    /// A place in line, if what refuses allows it. `None` if nothing refuses any more, and nobody stands in line:
    /// what was held has come back, or who stood there has gone.
    ///
    /// `readings` are what each bucket holds, and are left as it would be if those in line had been charged.
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
        let mut longest: Option<(Nanos, QueueId, Patience, &BoundLimit)> = None;
        // At the timeout itself the client is gone.
        let mut longest_wait = timeout.map_or(Nanos::MAX, |timeout| timeout.saturating_sub(1));
        let waited = now.saturating_sub(arrived);
        let mut waits = true;
        let mut refused = false;
        for (index, bound) in limit_set.enforced().enumerate() {
            let line = bound.line(demand.identity);
            let ahead = self.lines.ahead(line, now);
            let reading = &mut readings[index];
            if let Some(meter) = bound.limit.meter.as_ref().filter(|_| ahead.requests > 0) {
                let units = if bound.limit.is_tokens() {
                    ahead.tokens
                } else {
                    ahead.requests
                };
                reading.state = meter.owe(reading.state, at, units);
            }
            let wait = match bound.limit.refusal(reading.state, at, reading.cost) {
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
            let Some(patience) = bound.limit.patience else {
                waits = false;
                continue;
            };
            longest_wait = longest_wait.min(patience.max_wait);
            if longest.is_none_or(|(longest, ..)| wait > longest) {
                longest = Some((wait, line, patience, bound));
            }
        }
        if !refused {
            return None;
        }
        let standing = longest
            .filter(|(wait, ..)| waits && wait.saturating_add(waited) <= longest_wait)
            .and_then(|(_, line, patience, bound)| {
                let most = patience.max_waiting;
                let deadline = arrived.saturating_add(longest_wait);
                let tokens = limit_set.tokens_in(line, demand);
                let ticket = self.lines.join(line, None, tokens, most, now, deadline)?;
                Some(Waiter {
                    limiter: Arc::clone(self),
                    line,
                    ticket,
                    arrived,
                    deadline,
                    counters: enters(&bound.counters),
                })
            });
        if standing.is_none() {
            self.name_refusal(limit_set, demand, at, readings);
        }
        Some(standing.map_or(QueueAnswer::Denied, QueueAnswer::Waits))
    }

    /// A denial names a limit. If no bucket refuses, it is the line in front of one that does.
    pub(crate) fn name_refusal(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        at: Nanos,
        readings: &mut LimitReadings,
    ) {
        let refuses = |(index, bound): (usize, &BoundLimit)| {
            let reading = readings[index];
            bound
                .limit
                .refusal(reading.state, at, reading.cost)
                .is_some()
        };
        if limit_set.enforced().enumerate().any(refuses) {
            return;
        }
        let now = self.now();
        let waited_for = limit_set.enforced().position(|bound| {
            let line = bound.line(demand.identity);
            bound.limit.patience.is_some() && self.lines.ahead(line, now).requests > 0
        });
        if limit_set.enforced > 0 {
            readings[waited_for.unwrap_or(0)].refused = true;
        }
    }
}

impl Waiter {
    /// Whether it is its turn to ask. `waker` is woken when that may have changed.
    pub(crate) fn next(&mut self, limit_set: &LimitSet, demand: Demand, waker: &Waker) -> Next {
        let limiter = Arc::clone(&self.limiter);
        loop {
            let now = limiter.now();
            // Entered before the limits are asked, so that what comes free after that wakes it.
            match limiter.lines.ask(self.line, self.ticket, waker, now) {
                QueuePosition::First => {}
                QueuePosition::Behind(looks) if now < self.deadline => {
                    return Next::Stands(looks.min(self.deadline));
                }
                QueuePosition::Behind(_) | QueuePosition::Gone => return Next::Goes(now),
            }
            match self.elsewhere(limit_set, demand, now) {
                None => return Next::Asks(now),
                Some(bound) if self.moves(limit_set, bound, demand, now) => {}
                Some(_) => return Next::Goes(now),
            }
        }
    }

    /// Notes that its holder asks again at this moment, without being woken: until then it is not passed over.
    pub(crate) fn asks_by(&self, due: Nanos) {
        self.limiter.lines.expect(self.line, self.ticket, due);
    }

    /// What it does, refused by what `readings` tell.
    pub(crate) fn refused(
        &mut self,
        limit_set: &LimitSet,
        demand: Demand,
        moment: QueueMoment,
        readings: &LimitReadings,
    ) -> Retry {
        let again = self.again(limit_set, demand, moment, readings);
        match again {
            Retry::At(until) => self.asks_by(until),
            Retry::Woken(_) => self.asks_by(self.deadline),
            Retry::Elsewhere | Retry::Never => {}
        }
        again
    }

    fn again(
        &mut self,
        limit_set: &LimitSet,
        demand: Demand,
        moment: QueueMoment,
        readings: &LimitReadings,
    ) -> Retry {
        let QueueMoment { now, at, .. } = moment;
        match self.why(limit_set, demand, at, readings) {
            // At the deadline itself it does not ask a second time.
            Refused::For(wait) if now.saturating_add(wait.max(1)) <= self.deadline => {
                Retry::At(now.saturating_add(wait.max(1)))
            }
            Refused::Until if now < self.deadline => Retry::Woken(self.deadline),
            Refused::Elsewhere(bound)
                if now < self.deadline && self.moves(limit_set, bound, demand, now) =>
            {
                Retry::Elsewhere
            }
            _ => Retry::Never,
        }
    }

    /// Another line of the request where somebody stands who came before it.
    fn elsewhere<'a>(
        &self,
        limit_set: &'a LimitSet,
        demand: Demand,
        now: Nanos,
    ) -> Option<&'a BoundLimit> {
        let lines = &self.limiter.lines;
        limit_set.enforced().find(|bound| {
            let line = bound.line(demand.identity);
            line != self.line && lines.has_earlier(line, self.ticket, now)
        })
    }

    /// Goes over to another line, with its ticket. `false` if it may not wait there.
    fn moves(
        &mut self,
        limit_set: &LimitSet,
        bound: &BoundLimit,
        demand: Demand,
        now: Nanos,
    ) -> bool {
        let Some(patience) = bound.limit.patience else {
            return false;
        };
        let line = bound.line(demand.identity);
        let lines = &self.limiter.lines;
        let deadline = self.arrived.saturating_add(patience.max_wait);
        let deadline = self.deadline.min(deadline);
        let (ticket, most) = (Some(self.ticket), patience.max_waiting);
        let tokens = limit_set.tokens_in(line, demand);
        let ticket = lines.join(line, ticket, tokens, most, now, deadline);
        if ticket.is_none() {
            return false;
        }
        lines.leave(self.line, self.ticket, now);
        self.line = line;
        self.counters.waiting.sub(1);
        self.counters = enters(&bound.counters);
        self.deadline = deadline;
        true
    }

    /// What has refused it, and for how long.
    fn why<'a>(
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
            match bound.limit.refusal(reading.state, at, reading.cost) {
                None => continue,
                Some(RefusalReason::Never) => return Refused::Never,
                Some(RefusalReason::Busy) => busy = true,
                Some(RefusalReason::Wait(wait)) => longest = longest.max(wait),
            }
            let line = bound.line(demand.identity);
            if line == self.line {
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

/// How a request in line is refused.
enum Refused<'a> {
    /// For so long at least.
    For(Nanos),
    /// Until it is woken.
    Until,
    /// By a scope in whose line it does not stand.
    Elsewhere(&'a BoundLimit),
    Never,
}

#[cfg(test)]
mod tests;
