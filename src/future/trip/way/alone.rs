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
    engine::RouteLimits,
    limiter::{
        Outdated,
        queue::{Answer, Turn, Waiter},
        readings::LimitReadings,
    },
    store::client::{OnOutage, StoreCall},
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
        mut standing: Waiter,
        prepared: RouteLimits,
        waker: &Waker,
    ) -> Result<Ended, Later> {
        let mut readings = LimitReadings::default();
        let turn = standing.turn(&prepared.limit_set, self.demand, waker, &mut readings);
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
            readings,
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
        demand: Option<(Box<StoreCall>, Option<Permits>, LimitReadings)>,
        standing: Option<Waiter>,
    ) -> Option<Ended> {
        let limiter = Arc::clone(&self.state.limiter);
        let now = limiter.now();
        let on_outage = self.shared.options.on_outage;
        if let Some(remote) = self.state.store.get() {
            remote.without(on_outage);
        }
        // Dropped without being kept, it gives back what the store takes for it too late.
        let (mut ask, held, readings) = match demand {
            Some((ask, held, readings)) => (Some(ask), held, Some(readings)),
            None => (None, None, None),
        };
        let prepared = match on_outage {
            OnOutage::Refuse => return Some(Ended::Unavailable),
            OnOutage::Admit => match readings {
                Some(readings) => {
                    ask.iter_mut().for_each(|ask| ask.keep());
                    return Some(Ended::Admitted(Told {
                        by: By::Held,
                        at: now,
                        readings,
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
        let mut readings = LimitReadings::default();
        let (limit_set, arrived) = (&prepared.limit_set, self.arrived);
        let timeout = || self.timeout;
        let answer = limiter.ask(limit_set, self.demand, now, arrived, timeout, &mut readings);
        if matches!(answer, Ok(Answer::Admitted)) {
            ask.iter_mut().for_each(|ask| ask.keep());
        }
        let told = Told {
            by: By::Other(prepared.clone()),
            at: now,
            readings,
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

    fn share(&self) -> Cow<'_, RouteLimits> {
        match self.shared.options.on_outage {
            OnOutage::Local { share } => self.prepared.share(share),
            OnOutage::Admit | OnOutage::Refuse => Cow::Borrowed(self.prepared.held()),
        }
    }
}
