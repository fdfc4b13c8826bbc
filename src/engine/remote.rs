//! The part of a decision that is about balances in a store.
//!
//! A request is charged in this process on what lies here (slots, and limits that are closed), and in the store on the
//! rest. In this order it finds out whether it needs to ask the store at all:
//!
//! 1. The store is down: [`OnOutage`] says what is done.
//! 2. All units that it needs there are leased: it is decided here.
//! 3. It stands behind others, or is known to be refused: it waits in line, or is refused.
//! 4. Somebody else asks for a lease of the same bucket: it waits for that for a moment.
//! 5. It takes what lies here, and asks.
//!
//! # Invariants
//!
//! - **Units of a lease that a request has spent go back unless it is admitted**, at once or with its question.
//! - **Slots are held while the store is asked**, and are free while the request waits in line.
//! - **A wait is told from all balances** while the store is up. If some are unknown, it is asked for what they hold
//!   before a refusal is told; unless a limit refuses whose balance lies here, which is told alone.
//! - **A request that was decided without the store once is not decided with it again**: its wait in line stays bounded
//!   whatever the store does.

use std::{mem, sync::Arc};

use super::{
    attempt::{Attempt, LocalCharges, Progress, Reply, Ruling, Wait},
    outcome::{Applied, Outcome},
};
use crate::{
    admission::Permits,
    clock::{Nanos, nanos},
    limiter::{
        Outdated,
        queue::{QueueAnswer, QueueMoment, Retry},
        readings::LimitReadings,
    },
    store::client::{CachedView, LeaseWaiter, LeasedUnits, OnOutage, StoreCall, StoreClient},
};

impl<'a> Attempt<'a> {
    /// Returns the store, if the request is charged on limits whose balances lie there.
    #[inline(always)]
    pub(super) fn store(&self) -> Option<&'a Arc<StoreClient>> {
        let store = self.rules.store.get();
        store.filter(|_| self.limits.limit_set.is_shared)
    }

    /// Returns the limits that it is decided by, `is_alone` or with the store.
    pub(super) fn applied(&self, is_alone: bool) -> Applied {
        match self.engine.options.on_outage {
            _ if !is_alone => Applied::All,
            OnOutage::Local { share } => Applied::Share(share),
            OnOutage::Admit | OnOutage::Refuse => Applied::Held,
        }
    }

    /// Asks all limits, some of whose balances lie in the store. The order of its steps is told at the head of this
    /// file.
    ///
    /// Comes back at once. If the store has to be asked, the question is made and what lies here is taken; both are
    /// driven, or given back, by whoever holds the [`Wait`].
    ///
    /// # Errors
    ///
    /// [`Outdated`] if other rules have come. Units of leases have gone back then, and a place in line is kept.
    #[inline(never)]
    pub(super) fn ask_store(
        &self,
        store: &Arc<StoreClient>,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        if progress.is_alone || store.is_down() {
            return self.ask_alone(store, None, now, progress, outcome);
        }
        let limiter = &self.rules.limiter;
        let limit_set = &self.limits.limit_set;
        let is_behind = progress.waiter.is_none()
            && limit_set.is_patient
            && !limiter.lines.is_empty()
            && limiter.is_behind(limit_set, self.demand);
        let lease = self.engine.options.lease;
        let leased = match lease {
            0 | 1 => LeasedUnits::default(),
            _ if is_behind => LeasedUnits::default(),
            _ => store.spend_leased(limit_set, self.demand, now),
        };
        if leased.is_all() {
            let held = match self.take_held(store, &leased, now)? {
                Ok(held) => held,
                Err(held) => return Ok(self.refused_here(store, held, now, progress, outcome)),
            };
            let (readings, at) =
                store.leased_readings(limit_set, self.demand, &leased, &held.readings, now);
            (*outcome.readings, outcome.at) = (readings, at);
            outcome.permits = held.permits;
            return Ok(Ruling::Admit);
        }
        let view = self.cached_view(store, now, &leased);
        if is_behind || (view.is_denied && view.is_known) {
            store.put_back(&leased);
            return Ok(self.refused(view.into(), progress, outcome));
        }
        let deadline = self.engine.options.store_deadline;
        let until = *progress
            .lease_until
            .get_or_insert_with(|| now.saturating_add(LeaseWaiter::longest_wait(deadline)));
        // The store answers no later than that, or it is given up.
        if let Some(waiter) = &progress.waiter {
            waiter.asks_by(now.saturating_add(nanos(deadline)).max(until));
        }
        if let Some(lease) = store.lease_waiter(&leased, until).filter(|_| now < until) {
            store.put_back(&leased);
            return Ok(Ruling::Wait(Wait::Lease(lease)));
        }
        let held = match self.take_held(store, &leased, now)? {
            Ok(held) => held,
            Err(held) => return Ok(self.refused_here(store, held, now, progress, outcome)),
        };
        let call = store.ask(limit_set, self.demand, deadline, lease, leased);
        Ok(Ruling::Wait(Wait::Store {
            call: Box::new(call),
            held,
        }))
    }

    /// Takes what lies in this process, or returns what is there if it refuses. Then, and if other rules hold, the
    /// units of leases go back.
    fn take_held(
        &self,
        store: &StoreClient,
        leased: &LeasedUnits,
        now: Nanos,
    ) -> Result<Result<Box<LocalCharges>, LimitReadings>, Outdated> {
        let limits = self.limits.held();
        let limiter = &self.rules.limiter;
        let mut readings = LimitReadings::default();
        let admitted = limiter.admit_apart(&limits.limit_set, self.demand, now, &mut readings);
        if admitted != Ok(true) {
            store.put_back(leased);
        }
        if !admitted? {
            return Ok(Err(readings));
        }
        let permits = || Permits::new(&limits.origin, self.demand, &readings);
        Ok(Ok(Box::new(LocalCharges {
            permits: limits.limit_set.has_slots.then(permits),
            readings,
        })))
    }

    /// Returns what is known at `now` of all buckets.
    fn cached_view(&self, store: &StoreClient, now: Nanos, leased: &LeasedUnits) -> CachedView {
        let memory = &self.rules.limiter.memory;
        store.cached_view(&self.limits.limit_set, self.demand, now, memory, leased)
    }

    /// Goes on with the answer of the store, to the question that `wait` has asked.
    ///
    /// Admitted: what was taken here goes over to the ticket. Refused: it is freed before anything else is looked at,
    /// so that slots refuse nobody while the request stands in line. No answer in time: the request goes on alone.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if the request goes on alone and other rules have come. A question that failed is given up then.
    pub(super) fn heard(
        &self,
        wait: Wait,
        reply: &Reply,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let (limiter, limit_set) = (&self.rules.limiter, &self.limits.limit_set);
        let Ok(taken) = reply else {
            let failed = match wait {
                Wait::Store { call, held } => Some(Failed { call, held }),
                _ => None,
            };
            let Some(store) = self.rules.store.get() else {
                return Ok(Ruling::Unavailable);
            };
            return self.ask_alone(store, failed, limiter.now(), progress, outcome);
        };
        let readings = |held: &LimitReadings| {
            let balances = taken.balances.iter().copied();
            StoreClient::readings(limit_set, self.demand, balances, held)
        };
        let peek_held = || limiter.peek(&self.limits.held().limit_set, self.demand, limiter.now());
        let is_peek = matches!(wait, Wait::Peek { .. });
        let is_over = match wait {
            // Shadows refuse nobody, whatever the store says.
            Wait::Store { held, .. } if taken.is_admitted || !self.may_be_refused_there() => {
                (*outcome.readings, outcome.at) = (readings(&held.readings), taken.now);
                outcome.permits = held.permits;
                return Ok(Ruling::Admit);
            }
            Wait::Peek { is_over, .. } => is_over,
            // Its slots are free while it waits, and refuse nobody.
            other => {
                drop(other);
                false
            }
        };
        let mut readings = readings(&peek_held());
        if is_over {
            limiter.name_refusal(limit_set, self.demand, taken.now, &mut readings);
            return Ok(self.deny(readings, taken.now, true, outcome));
        }
        if !is_peek {
            self.name_refusal_there(&mut readings, taken.now);
        }
        let found = RefusedReadings {
            readings,
            at: taken.now,
            is_known: true,
            is_told: true,
        };
        Ok(self.refused(found, progress, outcome))
    }

    /// Goes on without the store, from now on and for all turns to come. A question may have `failed`.
    ///
    /// What that takes too late stays taken if the request passes here, and is given back if not.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if other rules have come.
    fn ask_alone(
        &self,
        store: &Arc<StoreClient>,
        failed: Option<Failed>,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Result<Ruling, Outdated> {
        let on_outage = self.engine.options.on_outage;
        if !mem::replace(&mut progress.is_alone, true) {
            store.report_without(on_outage);
        }
        outcome.applied = self.applied(true);
        // Dropped without being kept, it gives back what the store takes for it too late.
        let mut call = match (on_outage, failed) {
            (OnOutage::Refuse, _) => return Ok(Ruling::Unavailable),
            (OnOutage::Admit, Some(Failed { mut call, held })) => {
                call.keep();
                (*outcome.readings, outcome.at) = (held.readings, now);
                outcome.permits = held.permits;
                return Ok(Ruling::Admit);
            }
            (_, Some(Failed { call, .. })) => {
                if progress.waiter.is_some() {
                    // It keeps its place.
                    return Ok(Ruling::Wait(Wait::again()));
                }
                Some(call)
            }
            (_, None) => None,
        };
        let limits = outcome.applied.of(self.limits);
        let ruling = self.ask_here(&limits, now, progress, outcome)?;
        if let (Ruling::Admit, Some(call)) = (&ruling, &mut call) {
            call.keep();
        }
        Ok(ruling)
    }

    /// Goes on with a request that is refused by what lies in this process.
    fn refused_here(
        &self,
        store: &StoreClient,
        held: LimitReadings,
        now: Nanos,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        // By slots: a look at all of them tells which.
        let view = self.cached_view(store, now, &LeasedUnits::default());
        if self.limits.limit_set.is_patient || view.is_known {
            return self.refused(view.into(), progress, outcome);
        }
        (outcome.applied, *outcome.readings) = (Applied::Held, held);
        outcome.at = now;
        Ruling::Deny
    }

    /// How long a request waits before it asks a store again whose answer says both that it is refused and that there
    /// is room for it.
    const PAUSE: Nanos = 1_000_000;

    /// Tells whether it has waited for as long as it may.
    fn has_waited(&self, now: Nanos) -> bool {
        let waits = self.limits.limit_set.enforced();
        let waits = waits.filter_map(|bound| bound.limit.patience);
        let waits = waits.map(|patience| patience.max_wait);
        let longest = waits.chain(self.timeout()).min();
        now.saturating_sub(self.arrived) >= longest.unwrap_or(0)
    }

    /// Tells whether an enforced limit lies in the store.
    fn may_be_refused_there(&self) -> bool {
        let mut enforced = self.limits.limit_set.enforced();
        enforced.any(|bound| bound.id.is_some())
    }

    /// Names the first limit that lies in the store, where that has refused a request and tells of no bucket that does.
    fn name_refusal_there(&self, readings: &mut LimitReadings, at: Nanos) {
        let enforced = || self.limits.limit_set.enforced().enumerate();
        let refuses = enforced().any(|(index, bound)| {
            let reading = readings[index];
            let refusal = bound.limit.refusal(reading.state, at, reading.cost);
            refusal.is_some()
        });
        let mut there = enforced().filter(|(_, bound)| bound.id.is_some());
        if let Some((index, _)) = there.next().filter(|_| !refuses) {
            readings[index].refused = true;
        }
    }

    /// Goes on with a request that is refused by what was found: it stands in line, or goes.
    fn refused(
        &self,
        found: RefusedReadings,
        progress: &mut Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        let RefusedReadings {
            mut readings,
            at,
            is_known,
            is_told,
        } = found;
        let limit_set = &self.limits.limit_set;
        if !limit_set.is_patient {
            return self.deny_or_peek(readings, at, is_known, progress, outcome);
        }
        let limiter = &self.rules.limiter;
        let moment = QueueMoment {
            now: limiter.now(),
            at,
            arrived: self.arrived,
        };
        let before = readings.clone();
        let timeout = self.timeout();
        let waiter = match &mut progress.waiter {
            Some(waiter) => waiter,
            none => match limiter.queue(limit_set, self.demand, moment, timeout, &mut readings) {
                Some(QueueAnswer::Waits(waiter)) => none.insert(waiter),
                Some(_) => return self.deny_or_peek(readings, at, is_known, progress, outcome),
                None if is_told && self.has_waited(moment.now) => {
                    return self.deny_or_peek(readings, at, is_known, progress, outcome);
                }
                // The store refuses what it tells to be there.
                None if is_told => {
                    let until = moment.now.saturating_add(Self::PAUSE);
                    return Ruling::Wait(Wait::in_line(until));
                }
                // What refused it has come back.
                None => return Ruling::Wait(Wait::again()),
            },
        };
        match waiter.refused(limit_set, self.demand, moment, &before) {
            // Whatever the store tells to be there, it is not asked again at once.
            Retry::At(until) if is_told => {
                let earliest = moment.now.saturating_add(Self::PAUSE);
                Ruling::Wait(Wait::in_line_until(until.max(earliest), 0))
            }
            Retry::At(until) => Ruling::Wait(Wait::in_line_until(until, 0)),
            // What comes free before it has entered its waker wakes nobody: then it asks once more.
            Retry::Woken(until) if progress.is_entered => Ruling::Wait(Wait::in_line(until)),
            Retry::Woken(_) | Retry::Elsewhere => Ruling::Wait(Wait::again()),
            Retry::Never => self.deny_or_peek(readings, at, is_known, progress, outcome),
        }
    }

    /// Refuses it, if all buckets are known. Otherwise the store is asked for what they hold: from less than that no
    /// wait is told.
    fn deny_or_peek(
        &self,
        readings: LimitReadings,
        at: Nanos,
        is_known: bool,
        progress: &Progress,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        if !is_known && !self.is_refused_here(&readings, at) {
            if let Some(wait) = self.peek(progress, false) {
                return Ruling::Wait(wait);
            }
        }
        self.deny(readings, at, is_known, outcome)
    }

    /// Refuses it, since it has stood in line for long enough.
    pub(super) fn gives_up(&self, now: Nanos, outcome: &mut Outcome<'_>) -> Ruling {
        let limiter = &self.rules.limiter;
        let Some(store) = self.rules.store.get() else {
            return self.deny(LimitReadings::default(), now, true, outcome);
        };
        let view = self.cached_view(store, now, &LeasedUnits::default());
        let RefusedReadings {
            mut readings,
            at,
            is_known,
            is_told: _,
        } = view.into();
        if !is_known && !self.is_refused_here(&readings, at) {
            if let Some(wait) = self.peek(&Progress::default(), true) {
                return Ruling::Wait(wait);
            }
        }
        limiter.name_refusal(&self.limits.limit_set, self.demand, at, &mut readings);
        self.deny(readings, at, is_known, outcome)
    }

    /// Asks the store for what the buckets hold. `None` if it is down.
    fn peek(&self, progress: &Progress, is_over: bool) -> Option<Wait> {
        let store = self.rules.store.get().filter(|store| !store.is_down())?;
        let deadline = self.engine.options.store_deadline;
        let call = store.peek(&self.limits.limit_set, self.demand, deadline);
        if let Some(waiter) = &progress.waiter {
            let now = self.rules.limiter.now();
            waiter.asks_by(now.saturating_add(nanos(deadline)));
        }
        Some(Wait::Peek {
            call: Box::new(call),
            is_over,
        })
    }

    /// Returns whether a limit has refused whose balance lies in this process: it is told alone, and costs no question.
    fn is_refused_here(&self, readings: &LimitReadings, at: Nanos) -> bool {
        let pairs = self.limits.limit_set.enforced().zip(readings.as_slice());
        let mut here = pairs.filter(|(bound, _)| bound.id.is_none());
        here.any(|(bound, reading)| {
            let refusal = bound.limit.refusal(reading.state, at, reading.cost);
            reading.refused || refusal.is_some()
        })
    }

    /// Refuses it. All limits are told, or those of this process if no more is known.
    fn deny(
        &self,
        readings: LimitReadings,
        at: Nanos,
        is_known: bool,
        outcome: &mut Outcome<'_>,
    ) -> Ruling {
        outcome.at = at;
        if is_known || !self.is_refused_here(&readings, at) {
            *outcome.readings = readings;
            return Ruling::Deny;
        }
        outcome.applied = Applied::Held;
        let pairs = self.limits.limit_set.limits.iter().zip(readings.as_slice());
        let here = pairs.filter(|(bound, _)| bound.id.is_none());
        here.for_each(|(_, reading)| outcome.readings.push(*reading));
        Ruling::Deny
    }
}

/// A question that the store has not answered, or not in time.
struct Failed {
    call: Box<StoreCall>,
    held: Box<LocalCharges>,
}

/// What the buckets of a refused request hold, at a moment of the store's clock.
struct RefusedReadings {
    readings: LimitReadings,
    at: Nanos,
    /// Whether all of it is known. Else no wait is to be told from it.
    is_known: bool,
    /// Whether the store has just told it.
    is_told: bool,
}

impl From<CachedView> for RefusedReadings {
    fn from(cached_view: CachedView) -> Self {
        let CachedView {
            readings,
            at,
            is_known,
            is_denied: _,
        } = cached_view;
        Self {
            readings,
            at,
            is_known,
            is_told: false,
        }
    }
}
