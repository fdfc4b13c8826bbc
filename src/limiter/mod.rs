//! Admission: all charges of a request, or none.
//!
//! A request is looked at twice. The first pass only reads: if any limit after the first would refuse,
//! nothing has been written anywhere. The second pass takes the charges one by one, and the first is
//! where its own limit is asked. If another request got in between and a later limit refuses now, what
//! was taken is given back: whole, or, if a third request was charged since, less the time that has passed
//! (see [`crate::limit::gcra`] for why). Between the two a third request may be refused that a serial order would
//! have let in. None is ever admitted that it would not.

pub(crate) mod balance;
pub(crate) mod bound_limit;
pub(crate) mod bucket;
pub(crate) mod client_table;
pub(crate) mod counters;
mod group;
pub(crate) mod limit_set;
pub(crate) mod meter_history;
pub(crate) mod queue;
pub(crate) mod readings;
pub(crate) mod stagger;

use std::thread;

use self::client_table::{ClientTable, TableKey};
use self::{
    bucket::Untaken,
    limit_set::{BoundLimit, BucketCharge, Demand, LimitSet, Storage},
    queue::WaitQueues,
    readings::{LimitReading, LimitReadings},
    stagger::{Stagger, ToldWait},
};
use crate::clock::{Clock, Instant, Nanos};

/// Other rules hold by now than those that a request was to be decided by. Nothing was taken: it is to be decided anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outdated;

impl Outdated {
    /// Whoever puts other rules into place may be between two steps, and short of a processor.
    #[cold]
    pub(crate) fn pause(self) {
        thread::yield_now();
    }
}

/// Takes charges, with a clock of its own.
#[derive(Debug)]
pub(crate) struct Limiter {
    clock: Clock,
    /// Where balances of clients are kept.
    pub(crate) memory: ClientTable,
    pub(crate) lines: WaitQueues,
    spread: Stagger,
}

impl Limiter {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            memory: ClientTable::new(),
            lines: WaitQueues::new(),
            spread: Stagger::new(),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// A point in time as the runtime's timers have it.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.clock.instant(at)
    }

    /// Takes all charges of a rule at `now`, a reading of this limiter's clock, or none of them. Shadows are
    /// asked after that, each by itself.
    ///
    /// Says whether they were taken, and leaves in `readings` what each bucket holds after it.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        readings: &mut LimitReadings,
    ) -> Result<bool, Outdated> {
        let clock = || self.clock.now();
        if let ([only], 1) = (&*limit_set.limits, limit_set.enforced) {
            return admit_only(only.charge(&self.memory, demand, now), now, clock, readings);
        }
        let charge = |bound| BoundLimit::charge(bound, &self.memory, demand, now);
        let (enforced, shadows) = limit_set.limits.split_at(limit_set.enforced);
        let admitted = admit(enforced.iter().map(charge), now, clock, readings)?;
        if !shadows.is_empty() {
            shadow(shadows.iter().map(charge), admitted, now, clock, readings);
        }
        Ok(admitted)
    }

    /// The nanoseconds that a refused request is told beyond the `wait` for the limit that refused it, whose bucket is
    /// in this `state`.
    ///
    /// Callers of a shared bucket are told apart if they are `known`. A client's own bucket has one caller, whose
    /// requests nobody can tell apart.
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
        let (bucket, caller) = match &bound.home {
            Storage::Bucket(_) => {
                let caller = (demand.identity ^ demand.identity >> 64) as u64;
                (bound.hash(), known.then_some(caller))
            }
            Storage::Client(page) => {
                // Its last bits are the same for all clients.
                let hash = TableKey::hash_of(demand.identity, page.number());
                (hash ^ hash >> 32, None)
            }
        };
        self.spread.more(&ToldWait {
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

    /// Charges `units` that were used without having been asked for, to a balance in this process.
    pub(crate) fn owe(&self, bound: &BoundLimit, identity: u128, units: u64) {
        if let Some(meter) = &bound.limit.meter {
            let place = bound.place(&self.memory, identity);
            place.owe(meter, self.now(), units, || self.clock.now());
        }
    }

    /// Gives back `units` that were taken before, to a balance in this process; `shared` says whether to one that strangers
    /// share.
    pub(crate) fn refund(&self, bound: &BoundLimit, identity: u128, shared: bool, units: u64) {
        if let Some(meter) = &bound.limit.meter {
            let place = bound.place(&self.memory, identity);
            // Slots know no time.
            let now = if meter.is_slots() { 0 } else { self.now() };
            place.refund(shared, meter, now, units);
            if bound.limit.patience.is_some() {
                let line = bound.line(identity);
                self.lines.wake(line, || self.now());
            }
            // It came back to the buckets of other routes, whose lines are not known here.
            if bound.is_closed() {
                self.lines.wake_all(|| self.now());
            }
        }
    }
}

/// [`admit`] for a single charge, as many requests have: no other has to be looked at before.
#[inline(always)]
fn admit_only(
    charge: BucketCharge<'_>,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) -> Result<bool, Outdated> {
    let BucketCharge { limit, place, cost } = charge;
    let taken = match &limit.meter {
        Some(meter) => place.take(place.start(), meter, now, cost, clock),
        // Closed.
        None => Err(Untaken::Refused(place.peek(now))),
    };
    let admitted = taken.is_ok();
    match taken {
        Ok(seen) | Err(Untaken::Refused(seen)) => readings.push(LimitReading::new(seen, cost)),
        Err(Untaken::Outdated) => return Err(Outdated),
    }
    Ok(admitted)
}

/// What shadows say, each by itself: they are charged for what is admitted and what they would have admitted
/// too.
#[cold]
pub(crate) fn shadow<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>>,
    admitted: bool,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) {
    for BucketCharge { limit, place, cost } in charges {
        let seen = place.peek(now);
        let taken = match &limit.meter {
            Some(meter) if admitted => match place.take(seen, meter, now, cost, &clock) {
                Ok(seen) => Ok(seen),
                Err(Untaken::Refused(seen)) => Err(seen),
                // Nothing was taken, so that nothing may be given back.
                Err(Untaken::Outdated) => Err(seen),
            },
            _ => limit
                .refusal(seen.state, now, cost)
                .map_or(Ok(seen), |_| Err(seen)),
        };
        let refused = taken.is_err();
        let (Ok(seen) | Err(seen)) = taken;
        readings.push(LimitReading {
            refused,
            ..LimitReading::new(seen, cost)
        });
    }
}

/// [`Limiter::admit`] with any clock.
#[inline(always)]
pub(crate) fn admit<'a>(
    charges: impl Iterator<Item = BucketCharge<'a>> + Clone,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    readings: &mut LimitReadings,
) -> Result<bool, Outdated> {
    let mut refused = false;
    for (index, charge) in charges.clone().enumerate() {
        let cost = charge.cost;
        let seen = if index == 0 {
            charge.place.start()
        } else {
            let seen = charge.place.peek(now);
            if seen.outdated {
                return Err(Outdated);
            }
            refused |= charge.limit.refusal(seen.state, now, cost).is_some();
            seen
        };
        readings.push(LimitReading::new(seen, cost));
    }
    if refused {
        // To be told, not to decide.
        let mut charges = charges;
        if let Some(first) = charges.next() {
            readings[0].see(first.place.peek(now));
        }
        return Ok(false);
    }
    for (index, charge) in charges.clone().enumerate() {
        let reading = &mut readings[index];
        let Some(meter) = &charge.limit.meter else {
            // Closed, and so the first: any other has refused above, before something was taken.
            reading.see(charge.place.peek(now));
            return Ok(false);
        };
        let taken = charge
            .place
            .take(reading.seen(), meter, now, charge.cost, &clock);
        match taken {
            Ok(seen) => reading.see(seen),
            Err(Untaken::Refused(seen)) => {
                reading.see(seen);
                give_back(charges.take(index), readings, now, clock);
                return Ok(false);
            }
            Err(Untaken::Outdated) => {
                give_back(charges.take(index), readings, now, clock);
                return Err(Outdated);
            }
        }
    }
    Ok(true)
}

/// Gives back charges that were taken at `taken`, and reads their levels anew.
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
                .place
                .give_back(reading.seen(), meter, taken, charge.cost, &clock);
            reading.see(seen);
        }
    }
}

#[cfg(test)]
mod tests;
