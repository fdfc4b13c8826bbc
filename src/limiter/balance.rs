//! Balances: one interface for charges to a bucket, wherever in this process the bucket is.
//!
//! A balance is a [`Bucket`] of its own or an entry of the [`ClientTable`], each with the terms in which it is charged.
//! Its operations are those of a [`Meter`], applied atomically:
//!
//! | operation | for | terms |
//! |---|---|---|
//! | `take` | a charge that may be refused | those of the charge; otherwise `Outdated` |
//! | `give_back` | a charge of an abandoned decision | those of the charge; otherwise it stays charged |
//! | `return_lease` | the rest of a store's lease | those of the charge; otherwise it stays charged |
//! | `refund` | slots, and unused reserved tokens | the present ones |
//! | `owe` | tokens used beyond the reservation | the present ones |
//!
//! The first three use a state that was read, which in other terms is another number of units. The last two may come as
//! late as the end of a response, and must not be lost: they follow the balance through reloads, and to the heirs of a
//! closed bucket (see [`bucket`](super::bucket)). A reload converts each bucket to the present terms itself. An entry
//! of the table may be in former ones, in which a new write would be read as if it had been made at the reload: so the
//! entry is converted first.
//!
//! # Invariants
//!
//! - Each operation is one exchange of one word, retried until it succeeds or is refused. While settings stay, two of
//!   them lock: a client without a bucket in the table is searched for again under the lock of a stripe; and `refund`
//!   and `owe` of a client look up the present terms in the history.
//! - `now` is a reading of the throttle's clock, the decision's or a later one; `clock` makes a new one where a
//!   state may have been written by a later reading. Units are the limit's: requests, slots, tokens.
//!
//! # Callers
//!
//! The limiter, for requests; `store/memory`, for a store's charges; `admission`, for units that come back.

use super::{
    bucket::{BUSY, Bucket, LateCorrection, Untaken},
    client_table::{ClientTable, TableKey},
    meter_history::MeterTerms,
    readings::BucketReading,
};
use crate::{clock::Nanos, limit::meter::Meter};

/// A reference to one charge's balance, and the terms in which it is charged. Copied freely; charges nothing by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BalanceRef<'a> {
    /// A bucket that all requests of a scope share.
    Bucket(&'a Bucket, MeterTerms<'a>),
    /// A client's bucket, or the overflow bucket that it shares. Its key has the terms.
    Table(&'a ClientTable, TableKey<'a>),
}

impl BalanceRef<'_> {
    /// Returns a state from which [`BalanceRef::take`] may start, if nobody needs to know the balance before.
    ///
    /// The state may be in other terms or `BUSY`: `take` finds out. For the table, which looks the key up itself, it is
    /// nothing.
    #[inline(always)]
    pub(crate) fn start(&self) -> BucketReading {
        match self {
            Self::Bucket(bucket, _) => BucketReading::own(bucket.load()),
            Self::Table(..) => BucketReading::default(),
        }
    }

    /// Returns the balance in this reference's terms, without a charge.
    ///
    /// If newer settings hold, the reading is `outdated`, with the state in their terms.
    #[inline(always)]
    pub(crate) fn peek(&self, now: Nanos) -> BucketReading {
        match self {
            Self::Bucket(bucket, terms) => {
                BucketReading::peeked(bucket.peek(terms.version, terms.history))
            }
            Self::Table(table, key) => table.peek(key, now),
        }
    }

    /// Returns the units that would be admitted at once, by the settings that hold by now; of a closed bucket, the
    /// least that one of its heirs would admit.
    ///
    /// `meter` is that of the charge, used as long as its terms hold.
    pub(crate) fn remaining(&self, meter: &Meter, now: Nanos) -> u64 {
        if let Self::Bucket(bucket, _) = self {
            if let Some(remaining) = bucket.remaining_late(now) {
                return remaining;
            }
        }
        let (balance, meter) = match (self, self.peek(now).outdated) {
            (Self::Bucket(bucket, terms), true) => match terms.history.present() {
                Some((version, meter)) => (
                    Self::Bucket(bucket, MeterTerms { version, ..*terms }),
                    meter,
                ),
                None => (*self, *meter),
            },
            (Self::Table(table, key), true) => match key.terms().history.present() {
                Some((version, meter)) => (Self::Table(table, key.in_version(version)), meter),
                None => (*self, *meter),
            },
            _ => (*self, *meter),
        };
        meter.balance(balance.peek(now).state, now).0
    }

    /// Takes `cost`, and returns the balance after it. Refused, it returns the balance that refused, and leaves it as
    /// it was.
    ///
    /// `start` is a reading to begin with, from [`BalanceRef::start`] or an earlier look: a stale one costs a second
    /// try. `clock` makes a new reading for a client that the table does not know yet.
    ///
    /// # Errors
    ///
    /// [`Untaken::Outdated`] if the balance is in terms of newer settings: nothing was taken, and the request is to be
    /// decided anew.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        start: BucketReading,
        meter: &Meter,
        now: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Result<BucketReading, Untaken<BucketReading>> {
        match self {
            Self::Bucket(bucket, terms) => {
                let next = |state| meter.take(state, now, cost).ok();
                let stepped = match start.state {
                    BUSY => bucket.step(BUSY, terms.version, terms.history, next),
                    seen => {
                        let first = meter.take(seen, now, cost).ok();
                        bucket.step_to(seen, first, terms.version, terms.history, next)
                    }
                };
                match stepped {
                    Ok(state) => Ok(BucketReading::own(state)),
                    Err(Untaken::Refused(state)) => {
                        Err(Untaken::Refused(BucketReading::own(state)))
                    }
                    Err(Untaken::Outdated) => Err(Untaken::Outdated),
                }
            }
            Self::Table(table, key) => table.take(key, meter, now, cost, clock),
        }
    }

    /// Charges `units` that were used without having been asked for: a debt, if there is no room. Never refused.
    ///
    /// Follows the balance into newer terms, and to the heirs of a closed bucket.
    pub(crate) fn owe(&self, meter: &Meter, now: Nanos, units: u64, clock: impl Fn() -> Nanos) {
        match self {
            Self::Bucket(bucket, terms) => {
                let work = |terms: MeterTerms<'_>, meter: &Meter| {
                    let next = |state| Some(meter.owe(state, now, units));
                    let owed = bucket.step(bucket.load(), terms.version, terms.history, next);
                    owed != Err(Untaken::Outdated)
                };
                let late = || bucket.settle_late(LateCorrection::Owe, units, now);
                settle(*terms, meter, work, late);
            }
            Self::Table(table, key) => {
                let work = |terms: MeterTerms<'_>, meter: &Meter| {
                    let next = |state, now| Some(meter.owe(state, now, units));
                    let owed = table.step(&key.in_version(terms.version), now, &clock, next);
                    owed != Err(Untaken::Outdated)
                };
                settle_in_present(key.terms(), meter, work);
            }
        }
    }

    /// Gives back `units` that were taken before; a bucket never becomes fuller than full.
    ///
    /// `shared` is that of the reading of the charge: units of an overflow bucket come back there, also if the client
    /// has got a bucket of its own since. Nothing happens if the bucket has refilled meanwhile. Follows the balance
    /// into newer terms, and to the heirs of a closed bucket. For slots, `now` may be zero: they know no time.
    pub(crate) fn refund(&self, shared: bool, meter: &Meter, now: Nanos, units: u64) {
        match self {
            Self::Bucket(bucket, terms) => refund(bucket, *terms, meter, now, units),
            Self::Table(_, key) if shared => refund(key.overflow(), key.terms(), meter, now, units),
            Self::Table(table, key) => {
                let work = |terms: MeterTerms<'_>, meter: &Meter| {
                    let next = |state| (state > now).then(|| meter.refund(state, units));
                    table.refund(&key.in_version(terms.version), next)
                };
                settle_in_present(key.terms(), meter, work);
            }
        }
    }

    /// Gives back `units` of a lease whose charge left the state `left`, if [`Meter::return_lease`] lets them come
    /// back. Once the balance is in other terms, they do not: they stay used.
    pub(crate) fn return_lease(&self, left: Nanos, meter: &Meter, now: Nanos, units: u64) {
        let next = |state| meter.return_lease(state, left, now, units);
        // In other terms, `left` is another state.
        match self {
            Self::Bucket(bucket, terms) => {
                let _ = bucket.step(bucket.load(), terms.version, terms.history, next);
            }
            Self::Table(table, key) => {
                table.refund(&key.lasting(), next);
            }
        }
    }

    /// Gives back a charge of `cost` at `taken` that left the balance at `left`, and returns the balance after it.
    ///
    /// Whole if nobody was charged since; otherwise less the time that has passed (see [`crate::limit::gcra`]). If a
    /// reload has changed what units weigh, it stays charged. If the bucket was closed, `cost` comes back to its heirs
    /// as a late refund.
    pub(crate) fn give_back(
        &self,
        left: BucketReading,
        meter: &Meter,
        taken: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> BucketReading {
        let weight = meter.weight(cost);
        match self {
            Self::Bucket(bucket, terms) => {
                let slot = bucket.slot();
                if !slot.give_back(terms.version, left.state, meter, taken, weight, clock) {
                    // Being closed, it may have no estate yet: that is set after the history's lock, under the other.
                    terms.history.wait();
                    bucket.settle_late(LateCorrection::Refund, cost, taken);
                }
                self.peek(taken)
            }
            Self::Table(table, key) => {
                table.give_back(key, left, meter, taken, weight, &clock);
                table.peek(key, clock())
            }
        }
    }
}

/// [`BalanceRef::refund`] to a bucket: one of a scope, or an overflow bucket of the table.
fn refund(bucket: &Bucket, terms: MeterTerms<'_>, meter: &Meter, now: Nanos, units: u64) {
    let work = |terms: MeterTerms<'_>, meter: &Meter| {
        let next = |state| (state > now).then(|| meter.refund(state, units));
        let given = bucket.step(bucket.load(), terms.version, terms.history, next);
        given != Err(Untaken::Outdated)
    };
    let late = || bucket.settle_late(LateCorrection::Refund, units, now);
    settle(terms, meter, work, late);
}

/// Does `work` in the terms of a charge, or else in those that hold by now, until it returns `true`; or `late`, if that
/// returns `true` since the balance has gone over to other buckets.
///
/// Each round but the first reads the present terms anew. The loop ends: only a reload makes terms outdated between a
/// look and an exchange. A limit that was never open has no terms, and nothing to correct.
fn settle(
    terms: MeterTerms<'_>,
    meter: &Meter,
    work: impl Fn(MeterTerms<'_>, &Meter) -> bool,
    late: impl Fn() -> bool,
) {
    if work(terms, meter) || late() {
        return;
    }
    while let Some((version, meter)) = terms.history.present() {
        if work(MeterTerms { version, ..terms }, &meter) || late() {
            return;
        }
    }
}

/// Does `work` in the terms that hold by now, until it returns `true`: those of the charge, if the history has none.
///
/// As long as the version of the charge is the present one, its own `meter` weighs the units: that of a share is not
/// the one of the whole limit, which the history has. Slots come back in the terms of the charge first in any case:
/// time takes nothing from them meanwhile.
fn settle_in_present(
    terms: MeterTerms<'_>,
    meter: &Meter,
    work: impl Fn(MeterTerms<'_>, &Meter) -> bool,
) {
    let is_own = meter.is_slots() || terms.history.is_present(terms.version);
    if is_own && work(terms, meter) {
        return;
    }
    while let Some((version, present)) = terms.history.present() {
        let meter = if version == terms.version {
            *meter
        } else {
            present
        };
        if work(MeterTerms { version, ..terms }, &meter) {
            return;
        }
    }
    work(terms, meter);
}
