//! What becomes of a request while the store is down.

use std::{borrow::Cow, sync::Arc, task::Waker};

use http::Request;

use super::{
    super::{By, Ended, Told},
    Step, Way,
};
use crate::{
    admission::Permits,
    clock::Nanos,
    engine::Prepared,
    limiter::{
        Outdated,
        queue::{Answer, Standing, Turn},
        readings::Levels,
    },
    store::client::{Ask, OnOutage},
};

/// When a request in line asks again.
#[derive(Debug)]
pub(super) enum Later {
    /// At this moment, or when it is woken.
    At(Nanos),
    /// At once, by other rules.
    Now,
}

impl Way {
    /// Asks for what this process decides alone, from its place in line.
    pub(super) fn turn_alone<B>(
        &mut self,
        request: &Request<B>,
        mut standing: Standing,
        prepared: Prepared,
        waker: &Waker,
    ) -> Result<Ended, Later> {
        let mut levels = Levels::default();
        let turn = standing.turn(&prepared.rule, self.asked, waker, &mut levels);
        let (at, is_admitted) = match turn {
            Turn::Admitted(at) => (at, true),
            Turn::Denied(at) => (at, false),
            Turn::Later(until) => {
                self.step = Step::Alone(standing, prepared);
                return Err(Later::At(until));
            }
            Turn::Outdated => {
                Outdated.pause();
                self.follow(request);
                let prepared = self.share().into_owned();
                self.step = Step::Alone(standing, prepared);
                return Err(Later::Now);
            }
        };
        let told = Told {
            by: By::Other(prepared),
            at,
            levels,
            held: None,
        };
        Ok(match is_admitted {
            true => Ended::Admitted(told),
            false => Ended::Denied(told),
        })
    }

    /// Goes on without the store. It may have asked, may hold its slots, and may stand in line.
    pub(super) fn alone<B>(
        &mut self,
        request: &Request<B>,
        asked: Option<(Box<Ask>, Option<Permits>, Levels)>,
        standing: Option<Standing>,
    ) -> Option<Ended> {
        let limiter = Arc::clone(&self.state.limiter);
        let now = limiter.now();
        let on_outage = self.shared.options.on_outage;
        if let Some(remote) = self.state.store.get() {
            remote.without(on_outage);
        }
        // Dropped without being kept, it gives back what the store takes for it too late.
        let (mut ask, held, levels) = match asked {
            Some((ask, held, levels)) => (Some(ask), held, Some(levels)),
            None => (None, None, None),
        };
        let prepared = match on_outage {
            OnOutage::Refuse => return Some(Ended::Unavailable),
            OnOutage::Admit => match levels {
                Some(levels) => {
                    ask.iter_mut().for_each(|ask| ask.keep());
                    return Some(Ended::Admitted(Told {
                        by: By::Held,
                        at: now,
                        levels,
                        held,
                    }));
                }
                None => self.prepared.held().clone(),
            },
            OnOutage::Local { .. } => self.share().into_owned(),
        };
        drop(held);
        if let Some(standing) = standing {
            // It keeps its place.
            self.step = Step::Alone(standing, prepared);
            return None;
        }
        let mut levels = Levels::default();
        let (rule, arrived) = (&prepared.rule, self.arrived);
        let timeout = || self.timeout;
        let answer = limiter.ask(rule, self.asked, now, arrived, timeout, &mut levels);
        if matches!(answer, Ok(Answer::Admitted)) {
            ask.iter_mut().for_each(|ask| ask.keep());
        }
        let told = Told {
            by: By::Other(prepared.clone()),
            at: now,
            levels,
            held: None,
        };
        match answer {
            Ok(Answer::Admitted) => Some(Ended::Admitted(told)),
            Ok(Answer::Denied) => Some(Ended::Denied(told)),
            Ok(Answer::Waits(standing)) => {
                self.step = Step::Alone(standing, prepared);
                None
            }
            Err(outdated) => {
                outdated.pause();
                self.follow(request);
                self.step = Step::Starts(None);
                None
            }
        }
    }

    fn share(&self) -> Cow<'_, Prepared> {
        match self.shared.options.on_outage {
            OnOutage::Local { share } => self.prepared.share(share),
            OnOutage::Admit | OnOutage::Refuse => Cow::Borrowed(self.prepared.held()),
        }
    }
}
