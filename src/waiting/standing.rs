//! How a request gets into a line, and what becomes of it there.

use std::{sync::Arc, task::Waker};

use super::{
    Patience,
    lines::{LineId, Ticket},
};
use crate::{
    clock::Nanos,
    gcra::Refusal,
    levels::{Level, Levels},
    limiter::{Limiter, Outdated},
    rule::{Asked, Binding, Rule},
    tally::Tally,
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
        self.limiter.lines.leave(self.line, self.ticket);
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
    /// `timeout` is how long the client itself will wait. Whatever the answer, `levels` are left as if the request
    /// had been asked behind those in line.
    #[inline(always)]
    pub(crate) fn ask(
        self: &Arc<Self>,
        rule: &Rule,
        asked: Asked,
        now: Nanos,
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
            match self.queue(rule, asked, now, timeout(), levels) {
                Some(answer) => return Ok(answer),
                None => *levels = Levels::default(),
            }
        }
    }

    /// Whether somebody waits in a scope of the request.
    fn is_behind(&self, rule: &Rule, asked: Asked) -> bool {
        let mut lines = rule.enforced().map(|binding| binding.line(asked.identity));
        lines.any(|line| self.lines.has_earlier(line, Ticket::MAX))
    }

    /// A place in line, if what refuses allows it. `None` if nothing refuses any more, and nobody stands in line:
    /// what was held has come back, or who stood there has gone.
    #[cold]
    fn queue(
        self: &Arc<Self>,
        rule: &Rule,
        asked: Asked,
        now: Nanos,
        timeout: Option<Nanos>,
        levels: &mut Levels,
    ) -> Option<Answer> {
        *levels = Levels::default();
        // What each bucket would hold if those in line had been charged.
        for charge in rule.charges(&self.memory, asked) {
            levels.push(Level::new(charge.place.peek(now), charge.cost));
        }
        let mut longest: Option<(Nanos, LineId, Patience, &Binding)> = None;
        // At the timeout itself the client is gone.
        let mut bound = timeout.map_or(Nanos::MAX, |timeout| timeout.saturating_sub(1));
        let mut waits = true;
        let mut refused = false;
        for (index, binding) in rule.enforced().enumerate() {
            let line = binding.line(asked.identity);
            let ahead = self.lines.ahead(line);
            let level = &mut levels[index];
            if let Some(meter) = binding.limit.meter.as_ref().filter(|_| ahead.requests > 0) {
                let units = if binding.limit.is_tokens() {
                    ahead.tokens
                } else {
                    ahead.requests
                };
                level.state = meter.owe(level.state, now, units);
            }
            let wait = match binding.limit.refusal(level.state, now, level.cost) {
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
            .filter(|(wait, ..)| waits && *wait <= bound)
            .and_then(|(_, line, patience, binding)| {
                let most = patience.max_waiting;
                let ticket = self.lines.join(line, None, asked.tokens, most)?;
                Some(Standing {
                    limiter: Arc::clone(self),
                    line,
                    ticket,
                    arrived: now,
                    deadline: now.saturating_add(bound),
                    tally: enters(&binding.tally),
                })
            });
        if standing.is_none() {
            self.name_refusal(rule, asked, now, levels);
        }
        Some(standing.map_or(Answer::Denied, Answer::Waits))
    }

    /// A denial names a limit. If no bucket refuses, it is the line in front of one that does.
    fn name_refusal(&self, rule: &Rule, asked: Asked, now: Nanos, levels: &mut Levels) {
        let refuses = |(index, binding): (usize, &Binding)| {
            let level = levels[index];
            binding
                .limit
                .refusal(level.state, now, level.cost)
                .is_some()
        };
        if rule.enforced().enumerate().any(refuses) {
            return;
        }
        let waited_for = rule.enforced().position(|binding| {
            let line = binding.line(asked.identity);
            binding.limit.patience.is_some() && self.lines.ahead(line).requests > 0
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
            // Entered before the limits are asked, so that what comes free after that wakes it.
            let is_first = limiter.lines.is_first(self.line, self.ticket, waker);
            let now = limiter.now();
            if is_first {
                if let Some(binding) = self.elsewhere(rule, asked) {
                    if self.moves(binding, asked) {
                        continue;
                    }
                    return self.gives_up(rule, asked, now, levels);
                }
                *levels = Levels::default();
                match limiter.admit(rule, asked, now, levels) {
                    Ok(true) => return Turn::Admitted(now),
                    Ok(false) => {}
                    Err(Outdated) => return Turn::Outdated,
                }
                match self.refused(rule, asked, now, levels) {
                    Refused::For(wait) if now.saturating_add(wait) <= self.deadline => {
                        let until = now.saturating_add(wait.max(1));
                        return Turn::Later(until.min(self.deadline));
                    }
                    Refused::Until if now < self.deadline => return Turn::Later(self.deadline),
                    Refused::Elsewhere(binding)
                        if now < self.deadline && self.moves(binding, asked) =>
                    {
                        continue;
                    }
                    _ => {}
                }
                return Turn::Denied(now);
            }
            if now < self.deadline {
                return Turn::Later(self.deadline);
            }
            return self.gives_up(rule, asked, now, levels);
        }
    }

    /// Refused without having been asked again.
    fn gives_up(&self, rule: &Rule, asked: Asked, now: Nanos, levels: &mut Levels) -> Turn {
        *levels = Levels::default();
        for charge in rule.charges(&self.limiter.memory, asked) {
            levels.push(Level::new(charge.place.peek(now), charge.cost));
        }
        self.limiter.name_refusal(rule, asked, now, levels);
        Turn::Denied(now)
    }

    /// Another line of the request where somebody stands who came before it.
    fn elsewhere<'a>(&self, rule: &'a Rule, asked: Asked) -> Option<&'a Binding> {
        rule.enforced().find(|binding| {
            let line = binding.line(asked.identity);
            line != self.line && self.limiter.lines.has_earlier(line, self.ticket)
        })
    }

    /// Goes over to another line, with its ticket. `false` if it may not wait there.
    fn moves(&mut self, binding: &Binding, asked: Asked) -> bool {
        let Some(patience) = binding.limit.patience else {
            return false;
        };
        let line = binding.line(asked.identity);
        let lines = &self.limiter.lines;
        let ticket = lines.join(line, Some(self.ticket), asked.tokens, patience.max_waiting);
        if ticket.is_none() {
            return false;
        }
        lines.leave(self.line, self.ticket);
        self.line = line;
        self.tally.waiting.sub(1);
        self.tally = enters(&binding.tally);
        let deadline = self.arrived.saturating_add(patience.max_wait);
        self.deadline = self.deadline.min(deadline);
        true
    }

    /// What has refused it, and for how long.
    fn refused<'a>(
        &self,
        rule: &'a Rule,
        asked: Asked,
        now: Nanos,
        levels: &Levels,
    ) -> Refused<'a> {
        let mut here = false;
        let mut elsewhere = None;
        let mut longest = 0;
        let mut busy = false;
        for (binding, level) in rule.enforced().zip(levels.as_slice()) {
            match binding.limit.refusal(level.state, now, level.cost) {
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
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        in_flight::InFlight,
        limit::{Limit, Scope, Terms},
        meter::Meter,
    };

    /// Between the refusal and the look at the line the slot has come free: it is taken, and not refused.
    #[tokio::test(start_paused = true)]
    async fn what_comes_free_before_a_request_has_queued_is_asked_for_again() {
        let limiter = Arc::new(Limiter::new(Clock::start()));
        let limit = Limit {
            name: "slot".into(),
            is_named: true,
            scope: Scope::Route,
            terms: Terms::InFlight(InFlight::new(1)),
            meter: Meter::of_slots(1),
            published: true,
            shadow: false,
            patience: Some(Patience {
                max_wait: Nanos::MAX,
                max_waiting: 9,
            }),
        };
        let rule = Rule::new("GET /", None, Binding::scope([limit]));
        let (asked, mut levels) = (Asked::default(), Levels::default());
        let queued = limiter.queue(&rule, asked, 0, None, &mut levels);
        assert!(
            queued.is_none(),
            "the slot is free, and nobody stands in line"
        );

        let mut levels = Levels::default();
        assert_eq!(limiter.admit(&rule, asked, 0, &mut levels), Ok(true));
        let queued = limiter.queue(&rule, asked, 0, None, &mut levels);
        assert!(
            matches!(queued, Some(Answer::Waits(_))),
            "the slot is taken"
        );
        // Somebody stands in line, and goes.
        let behind = limiter.queue(&rule, asked, 0, None, &mut levels);
        assert!(matches!(behind, Some(Answer::Waits(_))));
        limiter.refund(&rule.bindings[0], 0, false, 1);
        let last = limiter.queue(&rule, asked, 0, None, &mut levels);
        assert!(matches!(last, Some(Answer::Waits(_))), "behind the others");
        drop((queued, behind, last));
        let queued = limiter.queue(&rule, asked, 0, None, &mut levels);
        assert!(queued.is_none(), "all of them are gone");
    }
}
