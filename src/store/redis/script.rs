//! The arguments of the script, and its answers.
//!
//! The script does the arithmetic of a [`Budget`] on the server, in doubles. It is sent, for each bucket, the key, the
//! interval, the capacity and the window, all of which any store is told. `script.lua` describes both of its formats.

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use ::redis::{Cmd, Value};
use foldhash::fast::RandomState;

use crate::store::{Balance, Budget, Charge, Correction, StoreError, Stored, Taken, Window};

/// The script. Its head describes arguments and answers.
pub(super) const BODY: &str = include_str!("script.lua");

/// A script that fails if the server cannot be written.
pub(super) const PROBE: &str = "return redis.call('SET', KEYS[1], '1', 'PX', 1000)";

/// Returns the microseconds of a window, a part of one counted as one.
fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// A bucket as the script is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyedBudget {
    key: String,
    budget: Budget,
}

/// The numbers of a bucket in *ticks*, which doubles hold exactly: nanoseconds, or microseconds where a bucket takes
/// longer than some weeks to fill.
struct Ticks {
    /// Nanoseconds that pay for one unit.
    interval: u64,
    /// Nanoseconds in a tick.
    length: u64,
    burst: u64,
}

impl Ticks {
    const MICROSECOND: u64 = 1_000;

    /// The largest burst in nanoseconds that is counted in nanoseconds: half of the integers of a double, so that as
    /// much may be owed.
    const MOST: u64 = 1 << 52;

    /// The largest debt: the moment at which it is paid has sixteen digits.
    const FARTHEST: u64 = 5_000_000_000_000_000;

    fn of(budget: &Budget) -> Self {
        let interval = budget.interval();
        let burst = interval * budget.capacity();
        let length = if burst <= Self::MOST {
            1
        } else {
            Self::MICROSECOND
        };
        Self {
            interval,
            length,
            burst: burst.div_ceil(length),
        }
    }

    fn of_units(&self, units: u64) -> u64 {
        let weight = units.saturating_mul(self.interval);
        weight.div_ceil(self.length).min(Self::FARTHEST)
    }
}

impl KeyedBudget {
    fn new(key: String, budget: Budget) -> Self {
        Self { key, budget }
    }

    fn write(&self, pack: &mut Pack) {
        const DAY: u64 = 24 * 60 * 60 * 1_000_000;
        let Ticks {
            interval,
            length,
            burst,
        } = Ticks::of(&self.budget);
        pack.text(itoa::Buffer::new().format(interval));
        pack.integer(burst);
        pack.integer(1_000 / length);
        let (window, short) = match self.budget.window() {
            None => (0, 0),
            Some(Window::Month) => {
                pack.negative(1);
                pack.integer(0);
                return;
            }
            Some(Window::Day) => (DAY, 0),
            // The epoch was a Thursday: three days into its week.
            Some(Window::Week) => (7 * DAY, 3 * DAY),
            Some(Window::Every(length)) => (micros(length), 0),
        };
        pack.integer(window);
        pack.integer(short);
    }
}

/// The charges of one request, or one correction.
#[derive(Debug)]
pub(super) enum BatchEntry {
    Charges {
        charges: Vec<(String, Budget, u64)>,
        /// Enforced charges come first here.
        order: Order,
        /// Leases beside some of the charges, by their number here.
        leases: Vec<(usize, u64)>,
        /// Set if one of the buckets may owe more than it holds.
        is_settled: bool,
    },
    Correction {
        key: String,
        budget: Budget,
        change: CorrectionKind,
        units: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum CorrectionKind {
    Owe,
    Refund,
    Undo(u64),
    Return(u64),
}

/// The order of the charges in a call, as against that of the caller.
#[derive(Debug)]
pub(super) struct Order {
    enforced: usize,
    /// For each charge of the call, its place in the caller's order.
    places: Vec<usize>,
}

impl BatchEntry {
    pub(super) fn of_charges(charges: &[Charge], key: impl Fn(&Charge) -> String) -> Self {
        let place = |shadow: bool| {
            let places = charges.iter().enumerate();
            places.filter_map(move |(place, charge)| (charge.is_shadow == shadow).then_some(place))
        };
        let places: Vec<_> = place(false).chain(place(true)).collect();
        let told = places.iter().map(|place| {
            let charge = &charges[*place];
            (key(charge), charge.budget, charge.cost)
        });
        let leases = place(false).enumerate().filter_map(|(number, place)| {
            let lease = charges[place].lease;
            (lease > 0).then_some((number, lease))
        });
        Self::Charges {
            charges: told.collect(),
            leases: leases.collect(),
            is_settled: charges.iter().any(|charge| charge.is_settled),
            order: Order {
                enforced: place(false).count(),
                places,
            },
        }
    }

    pub(super) fn of_correction(correction: &Correction, key: String) -> Self {
        let (_, budget, units) = correction.parts();
        Self::Correction {
            key,
            budget: *budget,
            change: match correction {
                Correction::Owe { .. } => CorrectionKind::Owe,
                Correction::Refund { .. } => CorrectionKind::Refund,
                Correction::Undo { taken, .. } => CorrectionKind::Undo(*taken),
                Correction::Return { state, .. } => CorrectionKind::Return(*state),
            },
            units,
        }
    }

    /// Returns whether all its charges are enforced and nothing else is asked, of buckets that owe nothing.
    fn is_plain(&self) -> bool {
        match self {
            Self::Charges {
                charges,
                order,
                leases,
                is_settled,
            } => {
                let most = usize::from(u8::MAX);
                order.enforced == charges.len()
                    && leases.is_empty()
                    && !is_settled
                    && charges.len() <= most
            }
            Self::Correction { .. } => false,
        }
    }

    /// Returns how many numbers encode the entry.
    fn numbers(&self) -> usize {
        match self {
            Self::Charges {
                charges, leases, ..
            } => 2 + 2 * charges.len() + 4 * leases.len(),
            Self::Correction { change, .. } => match change {
                CorrectionKind::Owe | CorrectionKind::Refund => 3,
                CorrectionKind::Undo(_) => 4,
                CorrectionKind::Return(_) => 5,
            },
        }
    }

    fn buckets(&self) -> impl Iterator<Item = (&str, &Budget)> {
        let (charges, correction) = match self {
            Self::Charges { charges, .. } => (charges.as_slice(), None),
            Self::Correction { key, budget, .. } => (&[][..], Some((key.as_str(), budget))),
        };
        let charges = charges
            .iter()
            .map(|(key, budget, _)| (key.as_str(), budget));
        charges.chain(correction)
    }
}

/// Entries that are sent in one call.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<BatchEntry>,
    buckets: Vec<KeyedBudget>,
    numbers: HashMap<String, usize, RandomState>,
}

impl Batch {
    /// The most entries of one call: the server does nothing else while it works on it.
    pub(super) const MOST: usize = 64;

    /// Adds an entry, or returns it if there is no room, or if one of its buckets has another budget in this batch.
    pub(super) fn push(&mut self, entry: BatchEntry) -> Result<(), BatchEntry> {
        let fits = entry.buckets().all(|(key, budget)| {
            let number = self.numbers.get(key);
            number.is_none_or(|number| self.buckets[*number].budget == *budget)
        });
        if !fits || self.entries.len() == Self::MOST {
            return Err(entry);
        }
        for (key, budget) in entry.buckets() {
            if !self.numbers.contains_key(key) {
                self.numbers.insert(key.to_owned(), self.buckets.len());
                self.buckets.push(KeyedBudget::new(key.to_owned(), *budget));
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Returns whether the short format does: all entries are plain, and all buckets are rates in nanoseconds.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |bucket: &KeyedBudget| {
            bucket.budget.window().is_none() && Ticks::of(&bucket.budget).length == 1
        };
        self.entries.iter().all(BatchEntry::is_plain) && self.buckets.iter().all(plain)
    }

    /// Adds keys and arguments to a command, in the short format.
    pub(super) fn write_plain(&self, command: &mut Cmd) {
        #[expect(clippy::cast_precision_loss, reason = "doubles hold as much")]
        fn double(packed: &mut Vec<u8>, ticks: u64) {
            packed.extend_from_slice(&(ticks as f64).to_be_bytes());
        }
        command.arg(self.buckets.len());
        for bucket in &self.buckets {
            command.arg(&bucket.key);
        }
        let mut packed = Vec::with_capacity(8 * self.buckets.len() + 32 * self.entries.len());
        for bucket in &self.buckets {
            double(&mut packed, Ticks::of(&bucket.budget).burst);
        }
        for entry in &self.entries {
            let BatchEntry::Charges { charges, .. } = entry else {
                continue;
            };
            packed.push(charges.len() as u8);
            for (key, budget, cost) in charges {
                let number = self.numbers[key] as u16 + 1;
                packed.extend_from_slice(&number.to_be_bytes());
                double(&mut packed, Ticks::of(budget).of_units(*cost));
            }
        }
        command.arg(packed);
        let mut interval = itoa::Buffer::new();
        for bucket in &self.buckets {
            command.arg(format!(":{}", interval.format(bucket.budget.interval())));
        }
    }

    /// Returns whether the script needs the long format, having done nothing.
    pub(super) fn asks_for_more(answer: &Value) -> bool {
        matches!(answer, Value::Array(values) if values[..] == [Value::Int(-1)])
    }

    /// Adds keys and arguments to a command, in the long format.
    pub(super) fn write(&self, command: &mut Cmd) {
        command.arg(self.buckets.len());
        for bucket in &self.buckets {
            command.arg(&bucket.key);
        }
        let mut pack = Pack::default();
        pack.array(5 * self.buckets.len());
        for bucket in &self.buckets {
            bucket.write(&mut pack);
        }
        pack.array(self.entries.iter().map(BatchEntry::numbers).sum());
        for entry in &self.entries {
            self.write_entry(entry, &mut pack);
        }
        command.arg(&pack.bytes);
    }

    fn write_entry(&self, entry: &BatchEntry, pack: &mut Pack) {
        let number = |key: &String| self.numbers[key] as u64 + 1;
        match entry {
            BatchEntry::Charges {
                charges,
                order,
                leases,
                is_settled: _,
            } => {
                pack.integer(order.enforced as u64);
                pack.integer((charges.len() - order.enforced) as u64);
                for (key, budget, cost) in charges {
                    pack.integer(number(key));
                    pack.integer(Ticks::of(budget).of_units(*cost));
                }
                for (number_here, most) in leases {
                    let (key, budget, _) = &charges[*number_here];
                    pack.negative(4);
                    pack.integer(number(key));
                    pack.integer(Ticks::of(budget).of_units(1));
                    pack.integer((*most).min(budget.capacity()));
                }
            }
            BatchEntry::Correction {
                key,
                budget,
                change,
                units,
            } => {
                pack.negative(match change {
                    CorrectionKind::Owe => 1,
                    CorrectionKind::Refund => 2,
                    CorrectionKind::Undo(_) => 3,
                    CorrectionKind::Return(_) => 5,
                });
                pack.integer(number(key));
                pack.integer(Ticks::of(budget).of_units(*units));
                match change {
                    CorrectionKind::Owe | CorrectionKind::Refund => {}
                    CorrectionKind::Undo(taken) => pack.integer(budget.full_state(*taken) / 1_000),
                    CorrectionKind::Return(left) => {
                        pack.integer(left / 1_000);
                        pack.integer(left % 1_000);
                    }
                }
            }
        }
    }

    /// Reads the answer to each entry.
    pub(super) fn read(&self, answer: Value) -> Result<Vec<Result<Taken, StoreError>>, StoreError> {
        let mut numbers = match answer {
            Value::Array(values) => values.into_iter().map(|value| match value {
                Value::Int(number) => Some(number),
                _ => None,
            }),
            _ => return Err(StoreError::unavailable(InvalidReply)),
        };
        let mut next = || numbers.next().flatten().ok_or(InvalidReply);
        let mut read = || -> Result<Vec<_>, InvalidReply> {
            let now = u64::try_from(next()?).map_err(|_| InvalidReply)?;
            let now = now.saturating_mul(1_000);
            let mut all = Vec::with_capacity(self.entries.len());
            for entry in &self.entries {
                let BatchEntry::Charges {
                    charges,
                    order,
                    leases,
                    is_settled: _,
                } = entry
                else {
                    let balances = Vec::new();
                    all.push(Ok(Taken {
                        is_admitted: true,
                        now,
                        balances,
                    }));
                    continue;
                };
                let taken = next()?;
                let mut balances = vec![Balance::default(); charges.len()];
                for ((_, budget, _), place) in charges.iter().zip(&order.places) {
                    let owes = next()?;
                    let (owes, is_refused) = match u64::try_from(owes) {
                        Ok(owes) => (owes, false),
                        Err(_) => (owes.unsigned_abs() - 1, true),
                    };
                    balances[*place] = Balance {
                        state: state(budget, owes, now),
                        is_refused,
                        leased: 0,
                    };
                }
                for (number, _) in leases {
                    let (_, budget, _) = &charges[*number];
                    let balance = &mut balances[order.places[*number]];
                    balance.leased = u64::try_from(next()?).map_err(|_| InvalidReply)?;
                    let owes = u64::try_from(next()?).map_err(|_| InvalidReply)?;
                    balance.state = state(budget, owes, now);
                }
                all.push(match taken {
                    0 | 1 => Ok(Taken {
                        is_admitted: taken == 1,
                        now,
                        balances,
                    }),
                    _ => Err(StoreError::bucket(ForeignValue)),
                });
            }
            Ok(all)
        };
        read().map_err(StoreError::unavailable)
    }
}

/// Returns the state of a bucket that owes so many ticks.
fn state(budget: &Budget, ticks: u64, now: u64) -> u64 {
    match ticks {
        0 => 0,
        _ => {
            let owes = ticks.saturating_mul(Ticks::of(budget).length);
            budget
                .full_state(now)
                .saturating_add(owes)
                .min(Stored::LATEST)
        }
    }
}

/// An encoder of the part of MessagePack that the script reads.
#[derive(Debug, Default)]
struct Pack {
    bytes: Vec<u8>,
}

impl Pack {
    fn integer(&mut self, number: u64) {
        match number {
            0..=0x7f => self.bytes.push(number as u8),
            0x80..=0xffff => self.tagged(0xcd, &(number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, &(number as u32).to_be_bytes()),
            _ => self.tagged(0xcf, &number.to_be_bytes()),
        }
    }

    /// Writes an integer from -1 to -32, without its sign.
    fn negative(&mut self, number: u8) {
        self.bytes.push(number.wrapping_neg());
    }

    /// Writes a text of less than 32 bytes.
    fn text(&mut self, text: &str) {
        self.bytes.push(0xa0 | text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Begins an array of so many values, which follow.
    fn array(&mut self, count: usize) {
        self.tagged(0xdd, &(count as u32).to_be_bytes());
    }

    fn tagged(&mut self, tag: u8, number: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(number);
    }
}

/// An answer that the script does not give.
#[derive(Debug)]
struct InvalidReply;

impl fmt::Display for InvalidReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server gave an answer that the script does not give")
    }
}

impl Error for InvalidReply {}

/// A value at a bucket's key that the script has not written.
#[derive(Debug)]
struct ForeignValue;

impl fmt::Display for ForeignValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what lies at its key was not written here: is the prefix another's, too?")
    }
}

impl Error for ForeignValue {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Rate;

    fn budget(interval: u64, burst: u64) -> Budget {
        let rate = Rate::new(1, Duration::from_nanos(interval)).burst(burst);
        Budget::of_rate(&rate).expect("open")
    }

    /// A call of two requests, one of which asks for a lease, and of a correction.
    fn call() -> Batch {
        let charges =
            |keys: [&str; 2]| keys.map(|key| (key.to_owned(), budget(1_000, 5), 1)).into();
        let request = |leases: Vec<_>| BatchEntry::Charges {
            charges: charges(["one", "other"]),
            order: Order {
                enforced: 1,
                places: vec![1, 0],
            },
            leases,
            is_settled: false,
        };
        let correction = BatchEntry::Correction {
            key: "one".into(),
            budget: budget(1_000, 5),
            change: CorrectionKind::Owe,
            units: 1,
        };
        let mut call = Batch::default();
        for entry in [request(vec![(0, 3)]), correction, request(Vec::new())] {
            assert!(call.push(entry).is_ok(), "there is room");
        }
        call
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            4 => (-3..9i64).prop_map(Value::Int),
            4 => any::<i64>().prop_map(Value::Int),
            1 => Just(Value::Nil),
            1 => Just(Value::Okay),
            1 => "\\PC{0,9}".prop_map(Value::SimpleString),
            1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::BulkString),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_server_answers_is_read_or_refused(
            values in prop::collection::vec(value(), 0..16), alone in value(), is_alone: bool,
        ) {
            let numbers = values.iter().take_while(|value| matches!(value, Value::Int(_))).count();
            let answer = if is_alone { alone } else { Value::Array(values) };
            let _ = Batch::asks_for_more(&answer);
            match call().read(answer) {
                Err(error) => prop_assert!(error.is_unavailable()),
                Ok(all) => {
                    prop_assert!(numbers >= 9, "the clock, and of two requests all that they asked for");
                    prop_assert_eq!(all.len(), 3);
                    for taken in all.into_iter().flatten() {
                        let states = taken.balances.iter().map(|balance| balance.state);
                        prop_assert!(states.max().is_none_or(|state| state <= Stored::LATEST));
                    }
                }
            }
        }
    }
}
