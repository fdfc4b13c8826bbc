//! The place in this process where one charge's balance is kept.

use super::{
    bucket::{Bucket, LateCorrection, Untaken},
    client_table::{ClientTable, TableKey},
    meter_history::MeterTerms,
    readings::BucketReading,
};
use crate::{clock::Nanos, limit::meter::Meter};

/// The place where one charge's balance is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BalanceRef<'a> {
    Bucket(&'a Bucket, MeterTerms<'a>),
    Table(&'a ClientTable, TableKey<'a>),
}

impl BalanceRef<'_> {
    /// Where [`BalanceRef::take`] starts, if nobody needs to know the balance before.
    #[inline(always)]
    pub(crate) fn start(&self) -> BucketReading {
        match self {
            Self::Bucket(bucket, _) => BucketReading::own(bucket.load()),
            Self::Table(..) => BucketReading::default(),
        }
    }

    /// The balance, without a charge.
    #[inline(always)]
    pub(crate) fn peek(&self, now: Nanos) -> BucketReading {
        match self {
            Self::Bucket(bucket, scale) => {
                BucketReading::peeked(bucket.peek(scale.version, scale.history))
            }
            Self::Table(memory, key) => memory.peek(key, now),
        }
    }

    /// What would be admitted at once, by the settings that hold by now.
    pub(crate) fn remaining(&self, meter: &Meter, now: Nanos) -> u64 {
        if let Self::Bucket(bucket, _) = self {
            if let Some(remaining) = bucket.remaining_late(now) {
                return remaining;
            }
        }
        let (place, meter) = match (self, self.peek(now).outdated) {
            (Self::Bucket(bucket, scale), true) => match scale.history.present() {
                Some((version, meter)) => (
                    Self::Bucket(bucket, MeterTerms { version, ..*scale }),
                    meter,
                ),
                None => (*self, *meter),
            },
            (Self::Table(memory, key), true) => match key.scale().history.present() {
                Some((version, meter)) => (Self::Table(memory, key.told_in(version)), meter),
                None => (*self, *meter),
            },
            _ => (*self, *meter),
        };
        meter.balance(place.peek(now).state, now).0
    }

    /// Takes `cost`, or says what refused it.
    ///
    /// `seen` is where to start, from a look before; `clock` tells the time anew where it is needed. What
    /// refused it leaves the balance as it was.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        seen: BucketReading,
        meter: &Meter,
        now: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Result<BucketReading, Untaken<BucketReading>> {
        match self {
            Self::Bucket(bucket, scale) => {
                let next = |state| meter.take(state, now, cost).ok();
                match bucket.step(seen.state, scale.version, scale.history, next) {
                    Ok(state) => Ok(BucketReading::own(state)),
                    Err(Untaken::Refused(state)) => {
                        Err(Untaken::Refused(BucketReading::own(state)))
                    }
                    Err(Untaken::Outdated) => Err(Untaken::Outdated),
                }
            }
            Self::Table(memory, key) => memory.take(key, meter, now, cost, clock),
        }
    }

    /// Charges `units` that were used without having been asked for, by the settings that hold by now.
    pub(crate) fn owe(&self, meter: &Meter, now: Nanos, units: u64, clock: impl Fn() -> Nanos) {
        match self {
            Self::Bucket(bucket, scale) => {
                let work = |scale: MeterTerms<'_>, meter: &Meter| {
                    let next = |state| Some(meter.owe(state, now, units));
                    let owed = bucket.step(bucket.load(), scale.version, scale.history, next);
                    owed != Err(Untaken::Outdated)
                };
                let late = || bucket.settle_late(LateCorrection::Owe, units, now);
                settle(*scale, meter, work, late);
            }
            Self::Table(memory, key) => {
                let work = |scale: MeterTerms<'_>, meter: &Meter| {
                    let next = |state, now| Some(meter.owe(state, now, units));
                    let owed = memory.step(&key.told_in(scale.version), now, &clock, next);
                    owed != Err(Untaken::Outdated)
                };
                settle(key.scale(), meter, work, || false);
            }
        }
    }

    /// Gives back `units` that were taken before, no more than the bucket holds.
    ///
    /// `shared` says whether they were taken from a balance that strangers share.
    pub(crate) fn refund(&self, shared: bool, meter: &Meter, now: Nanos, units: u64) {
        match self {
            Self::Bucket(bucket, scale) => refund(bucket, *scale, meter, now, units),
            Self::Table(_, key) if shared => refund(key.overflow(), key.scale(), meter, now, units),
            Self::Table(memory, key) => {
                let work = |scale: MeterTerms<'_>, meter: &Meter| {
                    let next = |state| (state > now).then(|| meter.refund(state, units));
                    memory.refund(&key.told_in(scale.version), next)
                };
                settle(key.scale(), meter, work, || false);
            }
        }
    }

    /// Gives back `units` of a lease that has left `left`, if they come back.
    pub(crate) fn return_lease(&self, left: Nanos, meter: &Meter, now: Nanos, units: u64) {
        let next = |state| meter.return_lease(state, left, now, units);
        // Told in other terms, it is another state.
        match self {
            Self::Bucket(bucket, scale) => {
                let _ = bucket.step(bucket.load(), scale.version, scale.history, next);
            }
            Self::Table(memory, key) => {
                memory.refund(key, next);
            }
        }
    }

    /// Gives back `cost`, which was charged at `taken` to what `seen` tells, and looks again. If units weigh
    /// something else since, it stays charged.
    pub(crate) fn give_back(
        &self,
        seen: BucketReading,
        meter: &Meter,
        taken: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> BucketReading {
        let weight = meter.weight(cost);
        match self {
            Self::Bucket(bucket, scale) => {
                let slot = bucket.slot();
                if !slot.give_back(scale.version, seen.state, meter, taken, weight, clock) {
                    // Whoever closes it may be between two steps.
                    scale.history.wait();
                    bucket.settle_late(LateCorrection::Refund, cost, taken);
                }
                self.peek(taken)
            }
            Self::Table(memory, key) => {
                memory.give_back(key, seen, meter, taken, weight, &clock);
                memory.peek(key, clock())
            }
        }
    }
}

fn refund(bucket: &Bucket, scale: MeterTerms<'_>, meter: &Meter, now: Nanos, units: u64) {
    let work = |scale: MeterTerms<'_>, meter: &Meter| {
        let next = |state| (state > now).then(|| meter.refund(state, units));
        let given = bucket.step(bucket.load(), scale.version, scale.history, next);
        given != Err(Untaken::Outdated)
    };
    let late = || bucket.settle_late(LateCorrection::Refund, units, now);
    settle(scale, meter, work, late);
}

/// Does `work` in the terms of a charge or in those that hold by now, until it says that it is done, or `late` if the
/// balance has gone over to other buckets.
fn settle(
    scale: MeterTerms<'_>,
    meter: &Meter,
    work: impl Fn(MeterTerms<'_>, &Meter) -> bool,
    late: impl Fn() -> bool,
) {
    if work(scale, meter) || late() {
        return;
    }
    // A reload may come between: then once more.
    while let Some((version, meter)) = scale.history.present() {
        if work(MeterTerms { version, ..scale }, &meter) || late() {
            return;
        }
    }
}
