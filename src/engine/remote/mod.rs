//! Decisions that need balances in a store.
//!
//! A request is charged in this process on local limits (slots, and limits that are closed), and in the store on the
//! rest. These steps find out, in order, whether the store must be asked:
//!
//! 1. If the store is down, [`OnOutage`] decides.
//! 2. If all needed units are leased, the request is decided here.
//! 3. If the request is behind others in a queue, or known to be refused, it waits in the queue or is refused.
//! 4. If another request is asking for a lease of the same bucket, it waits briefly for that lease.
//! 5. Otherwise it takes its local charges, and asks the store.
//!
//! | the request then | leased units | slots | units taken in the store |
//! |---|---|---|---|
//! | is admitted | stay spent | move to the ticket | stay taken |
//! | waits in a queue, or is refused | are put back | are free | none |
//! | waits for a lease | are put back | are not taken yet | none |
//! | waits for the store | go with the call | are held | stated in the reply |
//! | goes on without a reply | are put back | are free, and taken again | come back, unless it is admitted at once |
//!
//! Work that may not wait ([`Asker::PermitAtOnce`](super::options::Asker)) ends after the first three steps.
//!
//! With [`OnOutage::Admit`] a request whose call has failed keeps its slots, and passes.
//!
//! # Invariants
//!
//! - **Spent units of a lease go back unless the request is admitted**, at once or with its call.
//! - **Slots are held while the store is asked**, and are free while the request waits in a queue.
//! - **A request that was decided without the store once is never decided with it again**: its wait in a queue stays
//!   bounded whatever the store does.

mod refused;

use std::{mem, sync::Arc};

use self::refused::RefusedReadings;
use super::{
    outcome::{Applied, Outcome},
    pending::{Attempt, LocalCharges, Progress, Reply, Ruling, Wait},
};
use crate::{
    admission::Permits,
    clock::{Nanos, nanos},
    decision::Failure,
    limiter::{Outdated, readings::LimitReadings},
    store::client::{CachedView, LeaseWaiter, LeasedUnits, OnOutage, StoreCall, StoreClient},
};

impl<'a> Attempt<'a> {
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
            && !limiter.queues.is_empty()
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
            if self.asks_at_once() {
                return Ok(self.refused_at_once(view.into(), outcome));
            }
            return Ok(self.refused(view.into(), progress, outcome));
        }
        if self.asks_at_once() {
            store.put_back(&leased);
            return Ok(Ruling::Fail(Failure::NoLease));
        }
        let deadline = self.engine.options.store_deadline;
        let until = *progress
            .lease_until
            .get_or_insert_with(|| now.saturating_add(LeaseWaiter::longest_wait(deadline)));
        // The store answers no later than that, or it is given up. Noted before the call is made, so that nobody passes
        // the request over while it asks.
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

    /// Takes what lies in this process, or returns what is there (the inner error) if it refuses. Then, and if other
    /// rules hold, the units of leases go back.
    ///
    /// Slots are taken before the store is called: a request that they refuse is not charged there.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if other rules have come. Nothing is taken then.
    fn take_held(
        &self,
        store: &StoreClient,
        leased: &LeasedUnits,
        now: Nanos,
    ) -> Result<Result<Box<LocalCharges>, LimitReadings>, Outdated> {
        let limits = self.limits.held();
        let limiter = &self.rules.limiter;
        let mut readings = LimitReadings::default();
        let ask = |readings: &mut LimitReadings| {
            *readings = LimitReadings::default();
            limiter.admit_apart(&limits.limit_set, self.demand, now, readings)
        };
        let mut admitted = ask(&mut readings);
        if admitted == Ok(false) && self.has_ended_lost(now) {
            admitted = ask(&mut readings);
        }
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

    /// Returns what is known at `now` of all buckets, without a call. Those of `leased` units are seen as if these
    /// were at hand.
    fn cached_view(&self, store: &StoreClient, now: Nanos, leased: &LeasedUnits) -> CachedView {
        let memory = &self.rules.limiter.clients;
        store.cached_view(&self.limits.limit_set, self.demand, now, memory, leased)
    }

    /// Returns whether an enforced limit lies in the store. Without one, the store is asked for its shadows alone.
    fn may_be_refused_there(&self) -> bool {
        let mut enforced = self.limits.limit_set.enforced();
        enforced.any(|bound| bound.id.is_some())
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
            let Some(store) = &self.rules.store else {
                return Ok(Ruling::Fail(Failure::StoreDown));
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
    /// If the store takes units too late, they stay taken if the request passes here, and are given back if not.
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
        // Dropped without being kept, it gives back what the store takes for it too late. Slots of a failed question
        // are free at the end of this match, before the limits of this process are asked for them.
        let mut call = match (on_outage, failed) {
            (OnOutage::Refuse, _) => return Ok(Ruling::Fail(Failure::StoreDown)),
            (OnOutage::Admit, Some(Failed { mut call, held })) => {
                call.keep();
                (*outcome.readings, outcome.at) = (held.readings, now);
                outcome.permits = held.permits;
                return Ok(Ruling::Admit);
            }
            (_, Some(Failed { call, .. })) => {
                if progress.waiter.is_some() {
                    // The request keeps its place.
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
}

/// A question that the store has not answered, or not in time.
struct Failed {
    /// The question, which may still be on its way.
    call: Box<StoreCall>,
    /// The charges that were made here before it was asked.
    held: Box<LocalCharges>,
}
