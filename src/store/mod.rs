//! Where balances are kept: a route's in buckets of its own, a client's in a bounded table.

mod memory;
mod slot;

use crate::{bucket::Bucket, clock::Nanos, meter::Meter};

pub(crate) use self::memory::{Key, Memory};

/// The place where one charge's balance is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Bucket(&'a Bucket),
    Table(&'a Memory, Key),
}

/// A balance as it was found or left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: u64,
    /// Whether strangers share it, since the table had no room.
    pub(crate) shared: bool,
}

impl Seen {
    pub(crate) fn own(state: u64) -> Self {
        Self {
            state,
            shared: false,
        }
    }
}

impl Place<'_> {
    /// Where [`Place::take`] starts, if nobody needs to know the balance before.
    #[inline(always)]
    pub(crate) fn start(&self) -> Seen {
        match self {
            Self::Bucket(bucket) => Seen::own(bucket.load()),
            Self::Table(..) => Seen::default(),
        }
    }

    /// The balance, without a charge.
    #[inline(always)]
    pub(crate) fn peek(&self, now: Nanos) -> Seen {
        match self {
            Self::Bucket(bucket) => Seen::own(bucket.load()),
            Self::Table(memory, key) => memory.peek(key, now),
        }
    }

    /// Takes `cost`, or says what refused it.
    ///
    /// `seen` is where to start, from a look before; `clock` tells the time anew where it is needed. What
    /// refused it leaves the balance as it was.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        seen: Seen,
        meter: &Meter,
        now: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Result<Seen, Seen> {
        match self {
            Self::Bucket(bucket) => bucket
                .step(seen.state, |state| meter.take(state, now, cost).ok())
                .map(Seen::own)
                .map_err(Seen::own),
            Self::Table(memory, key) => memory.take(key, meter, now, cost, clock),
        }
    }

    /// Charges `units` that were used without having been asked for.
    pub(crate) fn owe(&self, meter: &Meter, now: Nanos, units: u64, clock: impl Fn() -> Nanos) {
        // There is always a next state.
        let _ = match self {
            Self::Bucket(bucket) => bucket
                .step(bucket.load(), |state| Some(meter.owe(state, now, units)))
                .map(Seen::own)
                .map_err(Seen::own),
            Self::Table(memory, key) => memory.step(key, now, clock, |state, now| {
                Some(meter.owe(state, now, units))
            }),
        };
    }

    /// Gives back `units` that were taken before, no more than the bucket holds.
    ///
    /// `shared` says whether they were taken from a balance that strangers share.
    pub(crate) fn refund(&self, shared: bool, meter: &Meter, now: Nanos, units: u64) {
        match self {
            Self::Bucket(bucket) => {
                let next = |state| (state > now).then(|| meter.refund(state, units));
                let _ = bucket.step(bucket.load(), next);
            }
            Self::Table(memory, key) => memory.refund(key, shared, meter, now, units),
        }
    }

    /// Gives back `cost`, which was charged at `taken` to what `seen` tells, and looks again.
    pub(crate) fn give_back(
        &self,
        seen: Seen,
        meter: &Meter,
        taken: Nanos,
        cost: u64,
        clock: impl Fn() -> Nanos,
    ) -> Seen {
        let weight = meter.weight(cost);
        match self {
            Self::Bucket(bucket) => {
                bucket.give_back(seen.state, meter, taken, weight, clock);
                Seen::own(bucket.load())
            }
            Self::Table(memory, key) => {
                memory.give_back(key, seen, meter, taken, weight, &clock);
                memory.peek(key, clock())
            }
        }
    }
}
