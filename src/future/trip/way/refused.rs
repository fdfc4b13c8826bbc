//! What becomes of a request that is refused: it stands in line, or goes.

use std::sync::Arc;

use super::{
    super::{By, Ended, Told},
    Step, Way,
};
use crate::{
    clock::{Nanos, nanos},
    limiter::{
        bound_limit::Binding,
        queue::{Again, Answer, Moment, Standing},
        readings::{Level, Levels},
    },
    store::{
        Taken,
        client::{Guess, Lent, Remote},
    },
};

/// What the buckets of a refused request hold, at a moment of the store's clock.
pub(super) struct Found {
    levels: Levels,
    at: Nanos,
    /// Whether all of it is known. Else no wait is to be told from it.
    is_known: bool,
    /// Whether the store has just told it.
    is_told: bool,
}

impl Found {
    /// As the store has answered.
    pub(super) fn there(levels: Levels, at: Nanos) -> Self {
        Self {
            levels,
            at,
            is_known: true,
            is_told: true,
        }
    }

    /// As far as this process knows.
    pub(super) fn guessed(guess: Guess) -> Self {
        let Guess {
            levels,
            at,
            is_known,
            is_denied: _,
        } = guess;
        Self {
            levels,
            at,
            is_known,
            is_told: false,
        }
    }
}

impl Way {
    /// How long it waits before it asks a store again whose answer says both that it is refused and that there is
    /// room for it.
    const PAUSE: Nanos = 1_000_000;

    /// Whether it has waited for as long as it may.
    fn has_waited(&self, now: Nanos) -> bool {
        let waits = self.prepared.rule.enforced();
        let waits = waits.filter_map(|binding| binding.limit.patience);
        let waits = waits.map(|patience| patience.max_wait);
        let longest = waits.chain(self.timeout).min();
        now.saturating_sub(self.arrived) >= longest.unwrap_or(0)
    }

    /// Names the first limit that lies in the store, where that has refused a request and tells of no bucket that does.
    pub(super) fn name_refusal_there(&self, levels: &mut Levels, at: Nanos) {
        let enforced = || self.prepared.rule.enforced().enumerate();
        let refuses = |(index, binding): (usize, &Binding)| {
            let Level { state, cost, .. } = levels[index];
            binding.limit.refusal(state, at, cost).is_some()
        };
        if enforced().any(refuses) {
            return;
        }
        let first = enforced().find(|(_, binding)| binding.id.is_some());
        if let Some((index, _)) = first {
            levels[index].refused = true;
        }
    }

    /// What becomes of it, refused by what lies in this process.
    pub(super) fn refused_here(
        &mut self,
        standing: Option<Standing>,
        remote: &Remote,
        now: Nanos,
        levels: Levels,
    ) -> Option<Ended> {
        // By slots: a look at all of them tells which.
        let guess = self.guess(remote, now, &Lent::default());
        if self.prepared.rule.is_patient || guess.is_known {
            return self.refused(standing, Found::guessed(guess));
        }
        Some(Ended::Denied(Told {
            by: By::Held,
            at: now,
            levels,
            held: None,
        }))
    }

    /// What becomes of it, refused by what was found.
    pub(super) fn refused(&mut self, standing: Option<Standing>, found: Found) -> Option<Ended> {
        let Found {
            mut levels,
            at,
            is_known,
            is_told,
        } = found;
        let rule = Arc::clone(&self.prepared.rule);
        if !rule.is_patient {
            return self.denied(levels, at, is_known, None);
        }
        let limiter = &self.state.limiter;
        let moment = Moment {
            now: limiter.now(),
            at,
            arrived: self.arrived,
        };
        let before = levels.clone();
        let mut standing = match standing {
            Some(standing) => standing,
            None => match limiter.queue(&rule, self.asked, moment, self.timeout, &mut levels) {
                Some(Answer::Waits(standing)) => standing,
                Some(_) => return self.denied(levels, at, is_known, None),
                // What refused it has come back, or the store refuses what it tells to be there.
                None => {
                    if is_told {
                        if self.has_waited(moment.now) {
                            return self.denied(levels, at, is_known, None);
                        }
                        self.pauses = Some(moment.now.saturating_add(Self::PAUSE));
                    }
                    self.step = Step::Starts(None);
                    return None;
                }
            },
        };
        let until = match standing.refused(&rule, self.asked, moment, &before) {
            Again::Later(until) => until,
            Again::Woken(until) => {
                // What comes free before it has entered its waker wakes nobody: then it asks once more.
                self.pauses = self.is_entered.then_some(until);
                0
            }
            Again::Elsewhere => 0,
            Again::Denied => return self.denied(levels, at, is_known, Some(standing)),
        };
        self.step = Step::Stands(standing, until);
        None
    }

    /// Refuses it, if all buckets are known. Otherwise the store is asked for what they hold: from less than that no
    /// wait is told.
    fn denied(
        &mut self,
        levels: Levels,
        at: Nanos,
        is_known: bool,
        standing: Option<Standing>,
    ) -> Option<Ended> {
        if !is_known && !self.is_refused_here(&levels, at) && self.peeks(standing, false) {
            return None;
        }
        Some(self.tells(levels, at, is_known))
    }

    /// It has stood in line for long enough.
    pub(super) fn gives_up(&mut self, now: Nanos) -> Option<Ended> {
        let (mut levels, mut at, mut is_known) = (Levels::default(), now, true);
        if let Some(remote) = self.state.store.get() {
            Guess {
                levels,
                at,
                is_known,
                ..
            } = self.guess(remote, now, &Lent::default());
        }
        if !is_known && !self.is_refused_here(&levels, at) && self.peeks(None, true) {
            return None;
        }
        let limiter = &self.state.limiter;
        limiter.name_refusal(&self.prepared.rule, self.asked, at, &mut levels);
        Some(self.tells(levels, at, is_known))
    }

    /// What becomes of it, now that the store has told what all buckets hold.
    pub(super) fn peeked(
        &mut self,
        taken: &Taken,
        standing: Option<Standing>,
        is_over: bool,
    ) -> Option<Ended> {
        let limiter = &self.state.limiter;
        let (rule, held) = (&self.prepared.rule, &self.prepared.held().rule);
        let held = limiter.peek(held, self.asked, limiter.now());
        let balances = taken.balances.iter().copied();
        let mut levels = Remote::levels(rule, self.asked, balances, &held);
        if is_over {
            limiter.name_refusal(rule, self.asked, taken.now, &mut levels);
            return Some(self.tells(levels, taken.now, true));
        }
        self.refused(standing, Found::there(levels, taken.now))
    }

    /// Asks the store for what the buckets hold. `false` if it is down.
    fn peeks(&mut self, standing: Option<Standing>, is_over: bool) -> bool {
        let limiter = &self.state.limiter;
        let Some(remote) = self.state.store.get().filter(|remote| !remote.is_down()) else {
            return false;
        };
        let deadline = self.shared.options.store_deadline;
        let ask = remote.peek(&self.prepared.rule, self.asked, deadline);
        if let Some(standing) = &standing {
            standing.asks_by(limiter.now().saturating_add(nanos(deadline)));
        }
        self.step = Step::Peeks {
            ask: Box::new(ask),
            standing,
            is_over,
        };
        true
    }

    /// Whether a limit has refused whose balance lies in this process: it is told alone, and costs no question.
    fn is_refused_here(&self, levels: &Levels, at: Nanos) -> bool {
        let pairs = self.prepared.rule.enforced().zip(levels.as_slice());
        let mut here = pairs.filter(|(binding, _)| binding.id.is_none());
        here.any(|(binding, level)| {
            level.refused || binding.limit.refusal(level.state, at, level.cost).is_some()
        })
    }

    /// A refusal that tells all limits, or those of this process if no more is known.
    fn tells(&self, levels: Levels, at: Nanos, is_known: bool) -> Ended {
        let (by, levels) = match is_known || !self.is_refused_here(&levels, at) {
            true => (By::All, levels),
            false => {
                let mut held = Levels::default();
                let pairs = self.prepared.rule.bindings.iter().zip(levels.as_slice());
                let here = pairs.filter(|(binding, _)| binding.id.is_none());
                here.for_each(|(_, level)| held.push(*level));
                (By::Held, held)
            }
        };
        Ended::Denied(Told {
            by,
            at,
            levels,
            held: None,
        })
    }
}
