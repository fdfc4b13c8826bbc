//! What becomes of a request that is refused: it stands in line, or goes.

use std::sync::Arc;

use super::{
    super::{By, Ended, Told},
    Step, Way,
};
use crate::{
    clock::{Nanos, nanos},
    limiter::{
        bound_limit::BoundLimit,
        queue::{Again, Answer, QueueMoment, Waiter},
        readings::{LimitReading, LimitReadings},
    },
    store::{
        Taken,
        client::{CachedView, LeasedUnits, StoreClient},
    },
};

/// What the buckets of a refused request hold, at a moment of the store's clock.
pub(super) struct Found {
    readings: LimitReadings,
    at: Nanos,
    /// Whether all of it is known. Else no wait is to be told from it.
    is_known: bool,
    /// Whether the store has just told it.
    is_told: bool,
}

impl Found {
    /// As the store has answered.
    pub(super) fn there(readings: LimitReadings, at: Nanos) -> Self {
        Self {
            readings,
            at,
            is_known: true,
            is_told: true,
        }
    }

    /// As far as this process knows.
    pub(super) fn guessed(guess: CachedView) -> Self {
        let CachedView {
            readings,
            at,
            is_known,
            is_denied: _,
        } = guess;
        Self {
            readings,
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
        let waits = self.prepared.limit_set.enforced();
        let waits = waits.filter_map(|bound| bound.limit.patience);
        let waits = waits.map(|patience| patience.max_wait);
        let longest = waits.chain(self.timeout).min();
        now.saturating_sub(self.arrived) >= longest.unwrap_or(0)
    }

    /// Names the first limit that lies in the store, where that has refused a request and tells of no bucket that does.
    pub(super) fn name_refusal_there(&self, readings: &mut LimitReadings, at: Nanos) {
        let enforced = || self.prepared.limit_set.enforced().enumerate();
        let refuses = |(index, bound): (usize, &BoundLimit)| {
            let LimitReading { state, cost, .. } = readings[index];
            bound.limit.refusal(state, at, cost).is_some()
        };
        if enforced().any(refuses) {
            return;
        }
        let first = enforced().find(|(_, bound)| bound.id.is_some());
        if let Some((index, _)) = first {
            readings[index].refused = true;
        }
    }

    /// What becomes of it, refused by what lies in this process.
    pub(super) fn refused_here(
        &mut self,
        standing: Option<Waiter>,
        remote: &StoreClient,
        now: Nanos,
        readings: LimitReadings,
    ) -> Option<Ended> {
        // By slots: a look at all of them tells which.
        let guess = self.guess(remote, now, &LeasedUnits::default());
        if self.prepared.limit_set.is_patient || guess.is_known {
            return self.refused(standing, Found::guessed(guess));
        }
        Some(Ended::Denied(Told {
            by: By::Held,
            at: now,
            readings,
            held: None,
        }))
    }

    /// What becomes of it, refused by what was found.
    pub(super) fn refused(&mut self, standing: Option<Waiter>, found: Found) -> Option<Ended> {
        let Found {
            mut readings,
            at,
            is_known,
            is_told,
        } = found;
        let limit_set = Arc::clone(&self.prepared.limit_set);
        if !limit_set.is_patient {
            return self.denied(readings, at, is_known, None);
        }
        let limiter = &self.state.limiter;
        let moment = QueueMoment {
            now: limiter.now(),
            at,
            arrived: self.arrived,
        };
        let before = readings.clone();
        let mut standing = match standing {
            Some(standing) => standing,
            None => {
                match limiter.queue(&limit_set, self.demand, moment, self.timeout, &mut readings) {
                    Some(Answer::Waits(standing)) => standing,
                    Some(_) => return self.denied(readings, at, is_known, None),
                    // What refused it has come back, or the store refuses what it tells to be there.
                    None => {
                        if is_told {
                            if self.has_waited(moment.now) {
                                return self.denied(readings, at, is_known, None);
                            }
                            self.pauses = Some(moment.now.saturating_add(Self::PAUSE));
                        }
                        self.step = Step::Starts(None);
                        return None;
                    }
                }
            }
        };
        let until = match standing.refused(&limit_set, self.demand, moment, &before) {
            Again::Later(until) => until,
            Again::Woken(until) => {
                // What comes free before it has entered its waker wakes nobody: then it asks once more.
                self.pauses = self.is_entered.then_some(until);
                0
            }
            Again::Elsewhere => 0,
            Again::Denied => return self.denied(readings, at, is_known, Some(standing)),
        };
        self.step = Step::Stands(standing, until);
        None
    }

    /// Refuses it, if all buckets are known. Otherwise the store is asked for what they hold: from less than that no
    /// wait is told.
    fn denied(
        &mut self,
        readings: LimitReadings,
        at: Nanos,
        is_known: bool,
        standing: Option<Waiter>,
    ) -> Option<Ended> {
        if !is_known && !self.is_refused_here(&readings, at) && self.peeks(standing, false) {
            return None;
        }
        Some(self.tells(readings, at, is_known))
    }

    /// It has stood in line for long enough.
    pub(super) fn gives_up(&mut self, now: Nanos) -> Option<Ended> {
        let (mut readings, mut at, mut is_known) = (LimitReadings::default(), now, true);
        if let Some(remote) = self.state.store.get() {
            CachedView {
                readings,
                at,
                is_known,
                ..
            } = self.guess(remote, now, &LeasedUnits::default());
        }
        if !is_known && !self.is_refused_here(&readings, at) && self.peeks(None, true) {
            return None;
        }
        let limiter = &self.state.limiter;
        limiter.name_refusal(&self.prepared.limit_set, self.demand, at, &mut readings);
        Some(self.tells(readings, at, is_known))
    }

    /// What becomes of it, now that the store has told what all buckets hold.
    pub(super) fn peeked(
        &mut self,
        taken: &Taken,
        standing: Option<Waiter>,
        is_over: bool,
    ) -> Option<Ended> {
        let limiter = &self.state.limiter;
        let (limit_set, held) = (&self.prepared.limit_set, &self.prepared.held().limit_set);
        let held = limiter.peek(held, self.demand, limiter.now());
        let balances = taken.balances.iter().copied();
        let mut readings = StoreClient::readings(limit_set, self.demand, balances, &held);
        if is_over {
            limiter.name_refusal(limit_set, self.demand, taken.now, &mut readings);
            return Some(self.tells(readings, taken.now, true));
        }
        self.refused(standing, Found::there(readings, taken.now))
    }

    /// Asks the store for what the buckets hold. `false` if it is down.
    fn peeks(&mut self, standing: Option<Waiter>, is_over: bool) -> bool {
        let limiter = &self.state.limiter;
        let Some(remote) = self.state.store.get().filter(|remote| !remote.is_down()) else {
            return false;
        };
        let deadline = self.shared.options.store_deadline;
        let ask = remote.peek(&self.prepared.limit_set, self.demand, deadline);
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
    fn is_refused_here(&self, readings: &LimitReadings, at: Nanos) -> bool {
        let pairs = self.prepared.limit_set.enforced().zip(readings.as_slice());
        let mut here = pairs.filter(|(bound, _)| bound.id.is_none());
        here.any(|(bound, reading)| {
            reading.refused
                || bound
                    .limit
                    .refusal(reading.state, at, reading.cost)
                    .is_some()
        })
    }

    /// A refusal that tells all limits, or those of this process if no more is known.
    fn tells(&self, readings: LimitReadings, at: Nanos, is_known: bool) -> Ended {
        let (by, readings) = match is_known || !self.is_refused_here(&readings, at) {
            true => (By::All, readings),
            false => {
                let mut held = LimitReadings::default();
                let pairs = self
                    .prepared
                    .limit_set
                    .limits
                    .iter()
                    .zip(readings.as_slice());
                let here = pairs.filter(|(bound, _)| bound.id.is_none());
                here.for_each(|(_, reading)| held.push(*reading));
                (By::Held, held)
            }
        };
        Ended::Denied(Told {
            by,
            at,
            readings,
            held: None,
        })
    }
}
