//! How a request gets into a line, and what becomes of it there.

use std::{sync::Arc, task::Waker};

use super::lines::{Place, Ticket};
use crate::{
    clock::Nanos,
    limit::{gcra::Refusal, wait_policy::Patience},
    limiter::{
        Limiter, Outdated,
        bound_limit::LineId,
        counters::Tally,
        limit_set::{Asked, Binding, Rule},
        readings::{Level, Levels},
    },
};

/// What becomes of a request that asks.
#[derive(Debug)]
pub(crate) enum Answer {
    Admitted,
    Denied,
    /// It stands in line.
    Waits(Standing),
}

/// A place in a line. Left when it is dropped.
#[derive(Debug)]
pub(crate) struct Standing {
    limiter: Arc<Limiter>,
    line: LineId,
    ticket: Ticket,
    arrived: Nanos,
    deadline: Nanos,
    /// Of the limit that it waits for.
    tally: Arc<Tally>,
}

/// When a request asks for a place in line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Nanos,
    /// The same by the clock that the balances are told by.
    pub(crate) at: Nanos,
    /// When it came.
    pub(crate) arrived: Nanos,
}

impl Moment {
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
pub(crate) enum Again {
    /// It asks again at this moment, and not before.
    Later(Nanos),
    /// It asks again when it is woken, and no later than this.
    Woken(Nanos),
    /// It has gone over to another line.
    Elsewhere,
    Denied,
}

/// What becomes of a request in line.
#[derive(Debug)]
pub(crate) enum Turn {
    Admitted(Nanos),
    Denied(Nanos),
    /// Ask again when woken, and at this moment.
    Later(Nanos),
    /// Ask by the rules that hold by now.
    Outdated,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.tally.waiting.sub(1);
        let limiter = &self.limiter;
        limiter.lines.leave(self.line, self.ticket, limiter.now());
    }
}

/// One more stands in line for a limit.
fn enters(tally: &Arc<Tally>) -> Arc<Tally> {
    tally.waited.add(1);
    tally.waiting.add(1);
    Arc::clone(tally)
}

impl Limiter {
    /// As [`Limiter::admit`], with a place in line for those who may wait for what refuses them.
    ///
    /// `arrived` is when it came, and `timeout` how long the client itself will wait from then on. Whatever the answer,
    /// `levels` are left as if the request had been asked behind those in line.
    #[inline(always)]
    pub(crate) fn ask(
        self: &Arc<Self>,
        rule: &Rule,
        asked: Asked,
        now: Nanos,
        arrived: Nanos,
        timeout: impl Fn() -> Option<Nanos>,
        levels: &mut Levels,
    ) -> Result<Answer, Outdated> {
        loop {
            let free = !rule.is_patient || self.lines.is_empty() || !self.is_behind(rule, asked);
            if free && self.admit(rule, asked, now, levels)? {
                return Ok(Answer::Admitted);
            }
            if !rule.is_patient {
                return Ok(Answer::Denied);
            }
            *levels = self.peek(rule, asked, now);
            let moment = Moment::here(now, arrived);
            match self.queue(rule, asked, moment, timeout(), levels) {
                Some(answer) => return Ok(answer),
                None => *levels = Levels::default(),
            }
        }
    }

    /// What each bucket holds.
    pub(crate) fn peek(&self, rule: &Rule, asked: Asked, now: Nanos) -> Levels {
        let mut levels = Levels::default();
        for charge in rule.charges(&self.memory, asked, now) {
            levels.push(Level::new(charge.place.peek(now), charge.cost));
        }
        levels
    }

    /// Whether somebody waits in a scope of the request.
    pub(crate) fn is_behind(&self, rule: &Rule, asked: Asked) -> bool {
        let now = self.now();
        let mut lines = rule.enforced().map(|binding| binding.line(asked.identity));
        lines.any(|line| self.lines.has_earlier(line, Ticket::MAX, now))
    }

    /// A place in line, if what refuses allows it. `None` if nothing refuses any more, and nobody stands in line:
    /// what was held has come back, or who stood there has gone.
    ///
    /// `levels` are what each bucket holds, and are left as it would be if those in line had been charged.
    #[cold]
    pub(crate) fn queue(
        self: &Arc<Self>,
        rule: &Rule,
        asked: Asked,
        moment: Moment,
        timeout: Option<Nanos>,
        levels: &mut Levels,
    ) -> Option<Answer> {
        let Moment { now, at, arrived } = moment;
        let mut longest: Option<(Nanos, LineId, Patience, &Binding)> = None;
        // At the timeout itself the client is gone.
        let mut bound = timeout.map_or(Nanos::MAX, |timeout| timeout.saturating_sub(1));
        let waited = now.saturating_sub(arrived);
        let mut waits = true;
        let mut refused = false;
        for (index, binding) in rule.enforced().enumerate() {
            let line = binding.line(asked.identity);
            let ahead = self.lines.ahead(line, now);
            let level = &mut levels[index];
            if let Some(meter) = binding.limit.meter.as_ref().filter(|_| ahead.requests > 0) {
                let units = if binding.limit.is_tokens() {
                    ahead.tokens
                } else {
                    ahead.requests
                };
                level.state = meter.owe(level.state, at, units);
            }
            let wait = match binding.limit.refusal(level.state, at, level.cost) {
                None if ahead.requests == 0 => continue,
                None | Some(Refusal::Busy) => 0,
                Some(Refusal::Wait(wait)) => wait,
                Some(Refusal::Never) => {
                    waits = false;
                    refused = true;
                    continue;
                }
            };
            refused = true;
            let Some(patience) = binding.limit.patience else {
                waits = false;
                continue;
            };
            bound = bound.min(patience.max_wait);
            if longest.is_none_or(|(longest, ..)| wait > longest) {
                longest = Some((wait, line, patience, binding));
            }
        }
        if !refused {
            return None;
        }
        let standing = longest
            .filter(|(wait, ..)| waits && wait.saturating_add(waited) <= bound)
            .and_then(|(_, line, patience, binding)| {
                let most = patience.max_waiting;
                let deadline = arrived.saturating_add(bound);
                let tokens = rule.tokens_in(line, asked);
                let ticket = self.lines.join(line, None, tokens, most, now, deadline)?;
                Some(Standing {
                    limiter: Arc::clone(self),
                    line,
                    ticket,
                    arrived,
                    deadline,
                    tally: enters(&binding.tally),
                })
            });
        if standing.is_none() {
            self.name_refusal(rule, asked, at, levels);
        }
        Some(standing.map_or(Answer::Denied, Answer::Waits))
    }

    /// A denial names a limit. If no bucket refuses, it is the line in front of one that does.
    pub(crate) fn name_refusal(&self, rule: &Rule, asked: Asked, at: Nanos, levels: &mut Levels) {
        let refuses = |(index, binding): (usize, &Binding)| {
            let level = levels[index];
            binding.limit.refusal(level.state, at, level.cost).is_some()
        };
        if rule.enforced().enumerate().any(refuses) {
            return;
        }
        let now = self.now();
        let waited_for = rule.enforced().position(|binding| {
            let line = binding.line(asked.identity);
            binding.limit.patience.is_some() && self.lines.ahead(line, now).requests > 0
        });
        if rule.enforced > 0 {
            levels[waited_for.unwrap_or(0)].refused = true;
        }
    }
}

impl Standing {
    /// When it came.
    pub(crate) fn arrived(&self) -> Nanos {
        self.arrived
    }

    /// Asks again, if it is the first in line. `waker` is woken when it is worth while to ask again.
    pub(crate) fn turn(
        &mut self,
        rule: &Rule,
        asked: Asked,
        waker: &Waker,
        levels: &mut Levels,
    ) -> Turn {
        let limiter = Arc::clone(&self.limiter);
        loop {
            let now = match self.next(rule, asked, waker) {
                Next::Asks(now) => now,
                Next::Stands(until) => return Turn::Later(until),
                Next::Goes(now) => {
                    // Refused without having been asked again.
                    *levels = limiter.peek(rule, asked, now);
                    limiter.name_refusal(rule, asked, now, levels);
                    return Turn::Denied(now);
                }
            };
            *levels = Levels::default();
            match limiter.admit(rule, asked, now, levels) {
                Ok(true) => return Turn::Admitted(now),
                Ok(false) => {}
                Err(Outdated) => return Turn::Outdated,
            }
            let moment = Moment::here(now, self.arrived);
            match self.refused(rule, asked, moment, levels) {
                Again::Later(until) | Again::Woken(until) => return Turn::Later(until),
                Again::Elsewhere => {}
                Again::Denied => return Turn::Denied(now),
            }
        }
    }

    /// Whether it is its turn to ask. `waker` is woken when that may have changed.
    pub(crate) fn next(&mut self, rule: &Rule, asked: Asked, waker: &Waker) -> Next {
        let limiter = Arc::clone(&self.limiter);
        loop {
            let now = limiter.now();
            // Entered before the limits are asked, so that what comes free after that wakes it.
            match limiter.lines.ask(self.line, self.ticket, waker, now) {
                Place::First => {}
                Place::Behind(looks) if now < self.deadline => {
                    return Next::Stands(looks.min(self.deadline));
                }
                Place::Behind(_) | Place::Gone => return Next::Goes(now),
            }
            match self.elsewhere(rule, asked, now) {
                None => return Next::Asks(now),
                Some(binding) if self.moves(rule, binding, asked, now) => {}
                Some(_) => return Next::Goes(now),
            }
        }
    }

    /// Notes that its holder asks again at this moment, without being woken: until then it is not passed over.
    pub(crate) fn asks_by(&self, due: Nanos) {
        self.limiter.lines.expect(self.line, self.ticket, due);
    }

    /// What it does, refused by what `levels` tell.
    pub(crate) fn refused(
        &mut self,
        rule: &Rule,
        asked: Asked,
        moment: Moment,
        levels: &Levels,
    ) -> Again {
        let again = self.again(rule, asked, moment, levels);
        match again {
            Again::Later(until) => self.asks_by(until),
            Again::Woken(_) => self.asks_by(self.deadline),
            Again::Elsewhere | Again::Denied => {}
        }
        again
    }

    fn again(&mut self, rule: &Rule, asked: Asked, moment: Moment, levels: &Levels) -> Again {
        let Moment { now, at, .. } = moment;
        match self.why(rule, asked, at, levels) {
            // At the deadline itself it does not ask a second time.
            Refused::For(wait) if now.saturating_add(wait.max(1)) <= self.deadline => {
                Again::Later(now.saturating_add(wait.max(1)))
            }
            Refused::Until if now < self.deadline => Again::Woken(self.deadline),
            Refused::Elsewhere(binding)
                if now < self.deadline && self.moves(rule, binding, asked, now) =>
            {
                Again::Elsewhere
            }
            _ => Again::Denied,
        }
    }

    /// Another line of the request where somebody stands who came before it.
    fn elsewhere<'a>(&self, rule: &'a Rule, asked: Asked, now: Nanos) -> Option<&'a Binding> {
        let lines = &self.limiter.lines;
        rule.enforced().find(|binding| {
            let line = binding.line(asked.identity);
            line != self.line && lines.has_earlier(line, self.ticket, now)
        })
    }

    /// Goes over to another line, with its ticket. `false` if it may not wait there.
    fn moves(&mut self, rule: &Rule, binding: &Binding, asked: Asked, now: Nanos) -> bool {
        let Some(patience) = binding.limit.patience else {
            return false;
        };
        let line = binding.line(asked.identity);
        let lines = &self.limiter.lines;
        let deadline = self.arrived.saturating_add(patience.max_wait);
        let deadline = self.deadline.min(deadline);
        let (ticket, most) = (Some(self.ticket), patience.max_waiting);
        let tokens = rule.tokens_in(line, asked);
        let ticket = lines.join(line, ticket, tokens, most, now, deadline);
        if ticket.is_none() {
            return false;
        }
        lines.leave(self.line, self.ticket, now);
        self.line = line;
        self.tally.waiting.sub(1);
        self.tally = enters(&binding.tally);
        self.deadline = deadline;
        true
    }

    /// What has refused it, and for how long.
    fn why<'a>(&self, rule: &'a Rule, asked: Asked, at: Nanos, levels: &Levels) -> Refused<'a> {
        let mut here = false;
        let mut elsewhere = None;
        let mut longest = 0;
        let mut busy = false;
        for (binding, level) in rule.enforced().zip(levels.as_slice()) {
            match binding.limit.refusal(level.state, at, level.cost) {
                None => continue,
                Some(Refusal::Never) => return Refused::Never,
                Some(Refusal::Busy) => busy = true,
                Some(Refusal::Wait(wait)) => longest = longest.max(wait),
            }
            let line = binding.line(asked.identity);
            if line == self.line {
                here = true;
            } else if elsewhere.is_none() {
                elsewhere = Some(binding);
            }
        }
        match elsewhere {
            Some(binding) if !here => Refused::Elsewhere(binding),
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
    Elsewhere(&'a Binding),
    Never,
}

#[cfg(test)]
mod tests;
