//! The limiter: takes all charges of a request or none, on balances in this process.
//!
//! # Modules
//!
//! A request has a [`Demand`] and is charged on a [`LimitSet`]: its bound limits in order. Each [`BoundLimit`] yields
//! one [`BucketCharge`] on a [`balance`], which is in a [`bucket`] of its scope or, for clients, in the
//! [`client_table`]. The decision keeps the balances in [`LimitReadings`]. A [`meter_history`] reads a balance that a
//! reload has left in former terms. Sets with a [`plain`] form are charged by that first: it decides most requests and
//! leaves the others untouched. A refused request may wait in a [`queue`], and a [`stagger`] may lengthen the wait of a
//! refusal. The [`second_budgets`] of a set are charged in place of limits that refuse.
//!
//! # All or nothing
//!
//! A request is charged in two passes. The first only reads: if any limit after the first would refuse, nothing has
//! been written. The second takes the charges one by one; there the first limit decides for the first time. If another
//! request got in between and a later limit refuses now, the charges taken are given back: whole, or, if a third
//! request was charged since, less the time that has passed (see [`crate::limit::gcra`] for the reason). Between the
//! two a third request may be refused that a serial order would have admitted. No request is ever admitted that it
//! would not.
//!
//! Shadows are charged after the enforced limits, each by itself: they refuse no request, and count admitted ones.
//!
//! # Invariants
//!
//! - A refused request has no charge left on an enforced limit, nor on a shadow, when [`Limiter::admit`] returns. The
//!   exception is a charge whose units a reload converts before it is given back: it stays.
//! - A decision reads the clock once, and its charges are made at that reading. A client that is new to the table is
//!   charged at a later one, which its reading states.
//! - Only [`Limiter::refund`] gives back units of an admitted request: slots when a permit is dropped, tokens when a
//!   reservation is settled. A unit of a rate or a quota is never given back once the decision stands.
//! - A decision blocks on no lock while the rules stay, except for a client that is new to the table (a stripe of it),
//!   and while requests wait in a queue (the lock of all queues). No lock is held across a decision, and none while a
//!   waker is woken.
//!
//! # Cancellation
//!
//! A decision is synchronous: within one call a request is either charged, and has its guard, or not charged. A waiting
//! request holds no charge, only a place in a queue, which it leaves when it is dropped.
//!
//! # Dependencies and callers
//!
//! The limiter uses `limit`, `clock` and `sync`, but neither HTTP, nor a runtime, nor a store. It sets no timers:
//! waiting requests are told when to try again. `engine` and its futures call it for requests, `admission` for units
//! that come back, and `store/memory`, which is a store made of a limiter.

pub(crate) mod balance;
pub(crate) mod bucket;
pub(crate) mod client_table;
pub(crate) mod counters;
pub(crate) mod limit_set;
pub(crate) mod meter_history;
pub(crate) mod missing_reason;
pub(crate) mod plain;
pub(crate) mod queue;
pub(crate) mod readings;
pub(crate) mod second_budgets;
pub(crate) mod stagger;

use std::thread;

use self::{
    bucket::Untaken,
    client_table::{ClientTable, TableKey},
    limit_set::{BoundLimit, BucketCharge, Demand, LimitSet, Storage},
    queue::WaitQueues,
    readings::{LimitReading, LimitReadings},
    stagger::{RefusedWait, Stagger},
};
use crate::{
    clock::{Instant, Nanos, Timeline},
    limit::meter::Meter,
};

/// The error of a decision by rules that no longer hold: a balance is in terms of newer settings, or has gone over to
/// other buckets. Nothing was taken. The request finds its limits in the rules in force, and is decided anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outdated;

impl Outdated {
    /// Yields the thread before the next try: the thread that reloads may be between two steps, and short of a
    /// processor.
    ///
    /// Buckets may be closed before the new rules are in force, so that a request may see several of these in a row.
    #[cold]
    pub(crate) fn pause(self) {
        thread::yield_now();
    }
}

/// All balances and queues of a throttle, or of a `MemoryStore`, and the clock that they go by.
///
/// One lives as long as its throttle, through all reloads. Balances of the total and of routes lie in the
/// [`BoundLimit`]s, not here.
#[derive(Debug)]
pub(crate) struct Limiter {
    clock: Timeline,
    /// The balances of clients. Without room until rules with clients come.
    pub(crate) clients: ClientTable,
    /// The requests that wait.
    pub(crate) queues: WaitQueues,
    /// The waits that refused callers have been told lately.
    stagger: Stagger,
}

impl Limiter {
    /// A limiter without room for clients; see [`ClientTable::reserve`].
    pub(crate) fn new(clock: Timeline) -> Self {
        Self {
            clock,
            clients: ClientTable::new(),
            queues: WaitQueues::new(),
            stagger: Stagger::new(),
        }
    }

    pub(crate) fn clock(&self) -> &Timeline {
        &self.clock
    }

    /// Reads the clock. A decision does so once, and passes the reading on.
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Reads the clock after all that this thread has loaded so far, for those who give back.
    pub(crate) fn now_ordered(&self) -> Nanos {
        self.clock.now_ordered()
    }

    /// Converts a reading of the clock to the instant of the runtime's timers.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.clock.instant(at)
    }

    /// Takes all enforced charges of a limit set at `now`, a reading of this limiter's clock, or none of them; then
    /// asks the shadows.
    ///
    /// Returns `true` if they were taken. `readings` come empty, and leave with what each bucket holds, in the order
    /// of the limits, whatever the answer.
    ///
    /// Takes no heed of queues: who may not overtake asks through [`Limiter::ask`]. Where the limits of the set are
    /// in a store, their balances here are charged all the same; the caller passes a set without them.
    ///
    /// # Errors
    ///
    /// [`Outdated`] if a reload has changed an enforced limit since the set was found. Nothing is taken then, and
    /// `readings` are to be thrown away.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        readings: &mut LimitReadings,
    ) -> Result<bool, Outdated> {
        let clock = || self.clock.now_ordered();
        if let ([only], 1) = (&*limit_set.limits, limit_set.enforced) {
            return admit_only(
                only.charge(&self.clients, demand, now),
                now,
                clock,
                readings,
            );
        }
        let charge = |bound| BoundLimit::charge(bound, &self.clients, demand, now);
        let (enforced, shadows) = limit_set.limits.split_at(limit_set.enforced);
        let gave_back = || self.wake_for_slots(limit_set, demand);
        let admitted = admit(enforced.iter().map(charge), now, clock, gave_back, readings)?;
        if !shadows.is_empty() {
            shadow(shadows.iter().map(charge), admitted, now, clock, readings);
        }
        Ok(admitted)
    }

    /// [`admit`](Self::admit) for whoever is not in a hurry: a function of its own, so that there is one copy of it and
    /// the way of most requests stays short.
    ///
    /// # Errors
    ///
    /// As [`admit`](Self::admit).
    #[inline(never)]
    pub(crate) fn admit_apart(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        readings: &mut LimitReadings,
    ) -> Result<bool, Outdated> {
        self.admit(limit_set, demand, now, readings)
    }

    /// Returns the nanoseconds that a refused request is told beyond its true `wait`, so that those that are refused
    /// together do not come back together. At most a minute.
    ///
    /// `bound` is the limit that decided the wait, in whose bucket the request met this `state` with this `cost`.
    /// Callers of the total or a route are told apart if they are `known`, that is, identified. A client's own bucket
    /// has one caller, whose requests nobody can tell apart. Charges nothing, and promises nobody a place; zero for a
    /// closed limit.
    pub(crate) fn spread(
        &self,
        bound: &BoundLimit,
        demand: Demand,
        known: bool,
        now: Nanos,
        wait: Nanos,
        (state, cost): (u64, u64),
    ) -> Nanos {
        let Some(meter) = &bound.limit.meter else {
            return 0;
        };
        let (bucket, caller) = match &bound.storage {
            Storage::Bucket(_) => {
                let caller = (demand.identity ^ demand.identity >> 64) as u64;
                (bound.hash(), known.then_some(caller))
            }
            Storage::Client(buckets) => {
                // Its last bits are the same for all clients, and the stagger goes by those.
                let hash = TableKey::hash_of(demand.identity, buckets.number());
                (hash ^ hash >> 32, None)
            }
        };
        self.stagger.more(&RefusedWait {
            bucket,
            caller,
            now,
            wait,
            step: meter.step(cost),
            refill: meter.refill(),
            full_in: match meter.is_slots() {
                true => meter.refill(),
                false => meter.full_in(state, now),
            },
        })
    }

    /// Charges `units` that were used without having been asked for, to a balance in this process: what an answer has
    /// cost beyond its reservation. Never refused; later requests wait for a debt.
    ///
    /// Reads the clock itself, since it comes long after the decision.
    pub(crate) fn owe(&self, bound: &BoundLimit, identity: u128, units: u64) {
        if let Some(meter) = &bound.limit.meter {
            let balance = bound.balance(&self.clients, identity);
            balance.owe(meter, self.now(), units, || self.clock.now());
        }
    }

    /// Gives back one slot of a limit with one bucket, as [`refund`](Self::refund): by one look and one exchange,
    /// unless the bucket was changed meanwhile, or is in other terms.
    #[inline]
    pub(crate) fn free_slot(&self, bound: &BoundLimit) {
        match &bound.storage {
            Storage::Bucket(bucket) if bucket.free_slot(bound.version) => self.came_back(bound, 0),
            _ => self.refund(bound, 0, false, 1),
        }
    }

    /// Gives back `units` that were taken before, to a balance in this process, and wakes the first who waits for
    /// them.
    ///
    /// `shared` is that of the charge's reading. The caller gives each unit back once: nothing here counts them.
    /// The order matters to [`queue`]: the units first, then the look for somebody to wake.
    ///
    /// A limit for which nobody waited when its units were taken may have a queue since a reload. A plain load tells if
    /// there are queues, so that other limits pay no exchange: who enters one in that very moment may be missed, and
    /// asks again at its next moment.
    pub(crate) fn refund(&self, bound: &BoundLimit, identity: u128, shared: bool, units: u64) {
        if let Some(meter) = &bound.limit.meter {
            let balance = bound.balance(&self.clients, identity);
            // Slots know no time.
            let now = if meter.is_slots() { 0 } else { self.now() };
            balance.refund(shared, meter, now, units);
            self.came_back(bound, identity);
        }
    }

    /// Gives back `units` as [`refund`](Self::refund), unless they were taken from a window of a quota that has ended:
    /// the next one was not charged. `charged_in` is a moment of that window; `None` if they were taken from no window.
    ///
    /// Units that a reload has carried over into a window count as taken from that one.
    pub(crate) fn refund_charged(
        &self,
        bound: &BoundLimit,
        identity: u128,
        shared: bool,
        charged_in: Option<Nanos>,
        units: u64,
    ) {
        let now = self.now();
        let has_ended = |meter: &Meter, moment| !meter.is_in_one_window(moment, now);
        let own = bound.limit.meter.as_ref().zip(charged_in);
        let is_carried = bound.history.is_past(bound.version);
        let carried = is_carried.then(|| bound.history.present_step()).flatten();
        let is_over = own.is_some_and(|(meter, charged)| has_ended(meter, charged))
            || carried.is_some_and(|step| has_ended(&step.meter, step.since));
        if !is_over {
            self.refund(bound, identity, shared, units);
        }
    }

    /// Wakes the first who waits for units that have come back to a limit.
    #[inline]
    fn came_back(&self, bound: &BoundLimit, identity: u128) {
        if bound.limit.wait_policy.is_some() || !self.queues.is_empty() {
            let queue = bound.queue(identity);
            self.queues.wake(queue, || self.now());
        }
        self.wake_heirs(bound);
    }

    /// Wakes the first who waits for the slots of a set, after an attempt has taken some and given them back. Whoever
    /// looked at them meanwhile sleeps until a slot comes free, and all may be free by now.
    ///
    /// The wait policy is not checked, since by the rules in force now requests may wait.
    #[cold]
    pub(crate) fn wake_for_slots(&self, limit_set: &LimitSet, demand: Demand) {
        for bound in limit_set.enforced().filter(|bound| bound.limit.is_slots()) {
            self.queues
                .wake(bound.queue(demand.identity), || self.now());
            self.wake_heirs(bound);
        }
    }

    /// Wakes the first of each queue, if the bucket of a limit is closed: its units came back to the buckets of other
    /// routes, whose queues are not known here.
    #[inline]
    fn wake_heirs(&self, bound: &BoundLimit) {
        if bound.is_closed() {
            self.queues.wake_all(|| self.now());
        }
    }
}

/// [`admit`] for a single charge, as many requests have: no other has to be looked at before, so that one look and one
/// exchange decide.
#[inline(always)]
fn admit_only(
    charge: BucketCharge<'_>,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) -> Result<bool, Outdated> {
    let BucketCharge {
        limit,
        balance,
        cost,
    } = charge;
    let taken = match &limit.meter {
        Some(meter) => balance.take(balance.start(), meter, now, cost, clock),
        // Closed.
        None => Err(Untaken::Refused(balance.peek(now))),
    };
    let admitted = taken.is_ok();
    match taken {
        Ok(seen) | Err(Untaken::Refused(seen)) => readings.push(LimitReading::new(seen, cost)),
        Err(Untaken::Outdated) => return Err(Outdated),
    }
    Ok(admitted)
}

/// Asks shadows, each by itself, and appends their readings. A shadow is charged for what was `admitted` and what it
/// would have admitted too, so that its bucket goes as if it were enforced alone; otherwise it is only looked at.
///
/// A shadow that has outdated terms is not asked: it refuses nobody, so nothing is decided anew for it, and nobody
/// knows what it would have done.
#[cold]
pub(crate) fn shadow<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>>,
    admitted: bool,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) {
    for charge in charges {
        let BucketCharge {
            limit,
            balance,
            cost,
        } = charge;
        let seen = balance.peek(now);
        let mut unasked = seen.outdated;
        let taken = match &limit.meter {
            Some(meter) if admitted => match balance.take(seen, meter, now, cost, &clock) {
                Ok(seen) => Ok(seen),
                Err(Untaken::Refused(seen)) => Err(seen),
                Err(Untaken::Outdated) => {
                    unasked = true;
                    Ok(seen)
                }
            },
            _ if !unasked && charge.is_refused(seen.state, now) => Err(seen),
            _ => Ok(seen),
        };
        let refused = taken.is_err();
        let (Ok(seen) | Err(seen)) = taken;
        readings.push(LimitReading {
            refused,
            unasked,
            ..LimitReading::new(seen, cost)
        });
    }
}

/// Takes all charges or none, with any clock: [`Limiter::admit`] without shadows. `store/memory` uses it for charges
/// that come without a limit set.
///
/// `charges` is run through up to three times, and yields the same each time. `readings` come empty. `gave_back` is
/// called after charges were given back that the second pass has taken, for those who have seen them.
///
/// # Errors
///
/// [`Outdated`], from either pass. Charges that the second pass has taken are given back before.
#[inline(always)]
pub(crate) fn admit<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>> + Clone,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    gave_back: impl FnOnce(),
    readings: &mut LimitReadings,
) -> Result<bool, Outdated> {
    let mut refused = false;
    for (index, charge) in charges.clone().enumerate() {
        let cost = charge.cost;
        let seen = if index == 0 {
            charge.balance.start()
        } else {
            let seen = charge.balance.peek(now);
            if seen.outdated {
                return Err(Outdated);
            }
            refused |= charge.is_refused(seen.state, now);
            seen
        };
        readings.push(LimitReading::new(seen, cost));
    }
    if refused {
        // To be told, not to decide.
        let mut charges = charges;
        if let Some(first) = charges.next() {
            readings[0].see(first.balance.peek(now));
        }
        return Ok(false);
    }
    for (index, charge) in charges.clone().enumerate() {
        let reading = &mut readings[index];
        let Some(meter) = &charge.limit.meter else {
            // Closed, and so the first: any other has refused above, before something was taken.
            reading.see(charge.balance.peek(now));
            return Ok(false);
        };
        let taken = charge
            .balance
            .take(reading.seen(), meter, now, charge.cost, &clock);
        let answer = match taken {
            Ok(seen) => {
                reading.see(seen);
                continue;
            }
            Err(Untaken::Refused(seen)) => {
                reading.see(seen);
                Ok(false)
            }
            Err(Untaken::Outdated) => Err(Outdated),
        };
        if index > 0 {
            give_back(charges.take(index), readings, now, clock);
            gave_back();
        }
        return answer;
    }
    Ok(true)
}

/// Gives back charges of a decision that failed after it had taken them, at `taken`, and replaces their readings with
/// what the buckets hold after that.
///
/// In the order in which they were taken. Each is given back by itself: between two of them another request may see one
/// balance with the charge and one without, and at worst be refused.
fn give_back<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>>,
    readings: &mut LimitReadings,
    taken: Nanos,
    clock: impl Fn() -> Nanos,
) {
    for (index, charge) in charges.enumerate() {
        let reading = &mut readings[index];
        if let Some(meter) = &charge.limit.meter {
            let seen = charge
                .balance
                .give_back(reading.seen(), meter, taken, charge.cost, &clock);
            reading.see(seen);
        }
    }
}

#[cfg(test)]
mod tests;
