//! What becomes of a request that is refused: it stands in line, or goes.

use std::sync::Arc;

use super::{
    super::{By, Ended, Told},
    Step, Way,
};
use crate::{
    clock::Nanos,
    levels::Levels,
    remote::{Guess, Lent, Remote},
    waiting::{Again, Answer, Moment, Standing},
};

impl Way {
    /// What becomes of it, refused by what lies in this process.
    pub(super) fn refused_here(
        &mut self,
        standing: Option<Standing>,
        remote: &Remote,
        now: Nanos,
        levels: Levels,
    ) -> Option<Ended> {
        if self.prepared.rule.is_patient {
            // By slots: a look at all of them tells which.
            let guess = self.guess(remote, now, &Lent::default());
            return self.refused(standing, guess.at, guess.levels);
        }
        Some(Ended::Denied(Told {
            by: By::Held,
            at: now,
            levels,
            held: None,
        }))
    }

    /// What becomes of it, refused by what `levels` tell at a moment of the store's clock.
    pub(super) fn refused(
        &mut self,
        standing: Option<Standing>,
        at: Nanos,
        mut levels: Levels,
    ) -> Option<Ended> {
        let denied = |levels| {
            Some(Ended::Denied(Told {
                by: By::All,
                at,
                levels,
                held: None,
            }))
        };
        let rule = Arc::clone(&self.prepared.rule);
        if !rule.is_patient {
            return denied(levels);
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
                Some(_) => return denied(levels),
                // What refused it has come back.
                None => {
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
            Again::Denied => return denied(levels),
        };
        self.step = Step::Stands(standing, until);
        None
    }

    /// It has stood in line for long enough.
    pub(super) fn gives_up(&self, now: Nanos) -> Ended {
        let limiter = &self.state.limiter;
        let mut levels = Levels::default();
        let mut at = now;
        if let Some(remote) = limiter.remote() {
            Guess { levels, at, .. } = self.guess(remote, now, &Lent::default());
        }
        limiter.name_refusal(&self.prepared.rule, self.asked, at, &mut levels);
        Ended::Denied(Told {
            by: By::All,
            at,
            levels,
            held: None,
        })
    }
}
