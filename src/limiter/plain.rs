//! The short way to charge most requests, with the least work.
//!
//! A set is *plain* if its limits are enforced rates, quotas and caps in flight, none of them closed, at most four, and
//! without a queue. A request then costs one unit of each, whatever its client.
//!
//! One look at each balance and one exchange decide here. In all other cases (a bucket that is closed or in other
//! terms, a client without a bucket, a simultaneous charge of another thread) the balances are left untouched, and
//! [`Limiter::admit`](super::Limiter::admit) decides, which is the reference: a property shows that this module gives
//! the same answers and leaves the same states.
//!
//! # Invariants
//!
//! - All are taken or none. Each is read before the first is exchanged; those taken before another failed are given
//!   back as in `admit`.
//! - The key of each slot is read after its exchange, as in [`Slot::step`]: there is no charge in former terms, and
//!   none on a closed bucket.
//!
//! # Callers
//!
//! `engine/decide`, for sets that [are plain](LimitSet::is_plain).

use super::{
    bucket::Slot,
    client_table::{ClientTable, TableKey},
    limit_set::{BoundLimit, Demand, LimitSet, Storage},
    meter_history::MeterTerms,
    readings::{BucketReading, LimitReading, LimitReadings},
};
use crate::clock::Nanos;

/// The most limits of a plain set.
const MOST: usize = LimitSet::MOST_PLAIN;

/// A charge that may be made: from the state that was `seen` to the one that is `left`.
#[derive(Debug, Clone, Copy)]
struct PlainCharge<'a> {
    slot: Slot<'a>,
    /// The key that the slot has as long as its state is in the limit's terms.
    key: u64,
    seen: u64,
    left: u64,
}

/// The answer of plain limits to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainAnswer {
    /// All are taken, and have left these states.
    Admitted(PlainStates),
    /// One of them has no room, at these states. Nothing was taken.
    Refused(PlainStates),
    /// The general way has to decide. Nothing was taken.
    Unknown,
}

/// The states of plain limits after a charge, or when it was refused. Those of limits that there are not are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlainStates {
    states: [u64; MOST],
    count: usize,
}

/// Takes one unit of each limit of a plain set at `now`, or none, for a request that is told nothing. `false`: nothing
/// was taken, and [`take`] has to be asked.
///
/// `clock` and `gave_back` are as there.
#[inline(always)]
pub(crate) fn pass(
    limit_set: &LimitSet,
    table: &ClientTable,
    demand: Demand,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    gave_back: impl FnOnce(),
) -> bool {
    match &*limit_set.limits {
        [only] => matches!(look(only, table, demand, now), Some(Ok(charge)) if charge.make()),
        // As `take_all`, without a list of charges.
        [first, second] => {
            let Some(Ok(first)) = look(first, table, demand, now) else {
                return false;
            };
            let Some(Ok(second)) = look(second, table, demand, now) else {
                return false;
            };
            if !first.make() {
                return false;
            }
            let is_made = second.make();
            if !is_made {
                let mut left = PlainStates::default();
                left.push(first.left);
                give_back(limit_set, table, demand, left, now, clock);
                gave_back();
            }
            is_made
        }
        _ => {
            let answer = take_all(limit_set, table, demand, now, clock, gave_back);
            matches!(answer, PlainAnswer::Admitted(_))
        }
    }
}

/// Takes one unit of each limit of a plain set at `now`, or none.
///
/// `clock` makes a reading that is later than the charge of any other thread, for what is given back. `gave_back` is
/// called after that, for those who have seen it taken.
#[inline(always)]
pub(crate) fn take(
    limit_set: &LimitSet,
    table: &ClientTable,
    demand: Demand,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    gave_back: impl FnOnce(),
) -> PlainAnswer {
    let [only] = &*limit_set.limits else {
        return take_all(limit_set, table, demand, now, clock, gave_back);
    };
    match look(only, table, demand, now) {
        Some(Ok(charge)) if charge.make() => {
            let mut states = PlainStates::default();
            states.push(charge.left);
            PlainAnswer::Admitted(states)
        }
        Some(Err(state)) if is_in_terms(only, state) => {
            let mut seen = PlainStates::default();
            seen.push(state);
            PlainAnswer::Refused(seen)
        }
        _ => PlainAnswer::Unknown,
    }
}

/// [`take`] for several limits.
#[inline]
fn take_all(
    limit_set: &LimitSet,
    table: &ClientTable,
    demand: Demand,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    gave_back: impl FnOnce(),
) -> PlainAnswer {
    let mut charges = [None; MOST];
    let mut seen = PlainStates::default();
    for (place, bound) in charges.iter_mut().zip(&limit_set.limits) {
        match look(bound, table, demand, now) {
            Some(Ok(charge)) => {
                seen.push(charge.seen);
                *place = Some(charge);
            }
            Some(Err(state)) => return refuse(limit_set, table, demand, seen, state),
            None => return PlainAnswer::Unknown,
        }
    }
    let mut left = PlainStates::default();
    for charge in charges.iter().flatten() {
        if !charge.make() {
            if left.count > 0 {
                give_back(limit_set, table, demand, left, now, clock);
                gave_back();
            }
            return PlainAnswer::Unknown;
        }
        left.push(charge.left);
    }
    PlainAnswer::Admitted(left)
}

/// Looks at the balance of a limit, and returns the charge that may be made, or the state that has no room. `None`:
/// there is no balance to be seen, as of a client that the table does not know.
#[inline(always)]
fn look<'a>(
    bound: &'a BoundLimit,
    table: &'a ClientTable,
    demand: Demand,
    now: Nanos,
) -> Option<Result<PlainCharge<'a>, u64>> {
    let (slot, key, seen) = find(bound, table, demand)?;
    // A bucket that is BUSY is beyond any room.
    let taken = bound.limit.meter.as_ref()?.take(seen, now, 1);
    let charge = |left| PlainCharge {
        slot,
        key,
        seen,
        left,
    };
    Some(taken.map(charge).map_err(|_| seen))
}

/// Finds the balance of a limit: where it lies, its key in the limit's terms, and its state.
#[inline(always)]
fn find<'a>(
    bound: &'a BoundLimit,
    table: &'a ClientTable,
    demand: Demand,
) -> Option<(Slot<'a>, u64, u64)> {
    match &bound.storage {
        Storage::Bucket(bucket) => Some((bucket.slot(), bound.version, bucket.load())),
        Storage::Client(buckets) => {
            let terms = MeterTerms {
                version: bound.version,
                history: &bound.history,
            };
            let key = TableKey::new(demand.identity, buckets, terms);
            let (slot, seen) = table.find(&key)?;
            Some((slot, key.word(), seen))
        }
    }
}

/// Returns whether a state that [`find`] has found is in the terms of its limit. That of a client is: the table has
/// looked at its key after it.
#[inline]
fn is_in_terms(bound: &BoundLimit, state: u64) -> bool {
    match &bound.storage {
        Storage::Bucket(bucket) => bucket.is_in(state, bound.version),
        Storage::Client(_) => true,
    }
}

/// Refuses a request, if all limits are in these terms still: the first that has no room, at `state`. `seen` are the
/// states of those before it; those after it are looked at, to be told. Leaves a client that the table does not know
/// for one of them to [`Limiter::admit`](super::Limiter::admit).
#[inline(never)]
fn refuse(
    limit_set: &LimitSet,
    table: &ClientTable,
    demand: Demand,
    seen: PlainStates,
    state: u64,
) -> PlainAnswer {
    let mut seen = seen;
    let before = seen.count;
    for (index, bound) in limit_set.limits.iter().enumerate() {
        let found = match index {
            _ if index < before => Some(seen.states[index]),
            _ if index == before => Some(state),
            _ => find(bound, table, demand).map(|(_, _, state)| state),
        };
        let Some(found) = found.filter(|state| is_in_terms(bound, *state)) else {
            return PlainAnswer::Unknown;
        };
        if index >= before {
            seen.push(found);
        }
    }
    PlainAnswer::Refused(seen)
}

/// Gives back what was charged on the first limits of a set and has `left` them in these states, as for any limit.
#[cold]
#[inline(never)]
fn give_back(
    limit_set: &LimitSet,
    table: &ClientTable,
    demand: Demand,
    left: PlainStates,
    taken: Nanos,
    clock: impl Fn() -> Nanos,
) {
    let charged = limit_set.limits.iter().zip(left.states).take(left.count);
    for (bound, left) in charged {
        if let Some(meter) = &bound.limit.meter {
            let balance = bound.balance(table, demand.identity);
            balance.give_back(BucketReading::own(left), meter, taken, 1, &clock);
        }
    }
}

impl Default for PlainStates {
    #[inline(always)]
    fn default() -> Self {
        Self {
            states: [0; MOST],
            count: 0,
        }
    }
}

impl PlainStates {
    /// Adds the state of the next limit. There is room for as many as are plain.
    #[inline(always)]
    fn push(&mut self, state: u64) {
        if let Some(place) = self.states.get_mut(self.count) {
            *place = state;
            self.count += 1;
        }
    }

    /// Returns them in the order of the limits.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.states[..self.count.min(MOST)]
    }

    /// Returns them in the order of the limits.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + Clone {
        self.as_slice().iter().copied()
    }

    /// Writes them as the readings of a decision.
    #[inline]
    pub(crate) fn tell(self, readings: &mut LimitReadings) {
        for state in self.iter() {
            readings.push(LimitReading::new(BucketReading::own(state), 1));
        }
    }
}

impl PlainCharge<'_> {
    /// Makes the charge, if the state is the one that was seen and in the terms of its limit still. `false`: it is as
    /// if it had not been made.
    #[inline(always)]
    fn make(&self) -> bool {
        let stepped = self.slot.step_to(self.key, self.seen, Some(self.left));
        stepped.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::limit::{Limit, LimitSettings, rate::Rate};

    const NOW: Nanos = 5;

    /// Returns the units in use on a limit with one bucket.
    fn used(bound: &BoundLimit) -> u64 {
        let Storage::Bucket(bucket) = &bound.storage else {
            unreachable!("a bucket");
        };
        bound.limit.meter.expect("open").used(bucket.load(), NOW)
    }

    /// A state without room says nothing by terms that are gone: more may have come back by the new ones.
    #[test]
    fn a_state_in_other_terms_refuses_nobody() {
        let limit = Limit::of(LimitSettings::Rate(Rate::per_hour(1).burst(1)));
        let limits = BoundLimit::scope([limit.clone(), limit]);
        let [one, two] = &*limits else {
            unreachable!("two limits");
        };
        let table = ClientTable::new();
        let take = |limits: &[&BoundLimit]| {
            let limits = limits.iter().map(|bound| (*bound).clone());
            let limit_set = LimitSet::new("GET /", None, limits);
            let demand = Demand::default();
            take(&limit_set, &table, demand, NOW, || NOW, || ())
        };
        assert!(matches!(take(&[one]), PlainAnswer::Admitted(_)));
        assert!(matches!(take(&[one]), PlainAnswer::Refused(_)));
        let later = BoundLimit {
            version: one.version + 1,
            ..one.clone()
        };
        for limits in [&[&later] as &[_], &[&later, two], &[two, &later]] {
            assert_eq!(take(limits), PlainAnswer::Unknown);
        }
        assert_eq!((used(one), used(two)), (1, 0));
    }

    #[test]
    fn two_limits_pass_a_request_both_or_neither() {
        let rate = |burst| Limit::of(LimitSettings::Rate(Rate::per_hour(1).burst(burst)));
        let limits = BoundLimit::scope([rate(1), rate(2)]);
        let [one, two] = &*limits else {
            unreachable!("two limits");
        };
        let table = ClientTable::new();
        let gave_back = Cell::new(0);
        let pass = |limits: [&BoundLimit; 2]| {
            let limit_set = LimitSet::new("GET /", None, limits.map(BoundLimit::clone));
            assert!(limit_set.is_plain, "two rates");
            let clock = || NOW;
            let give_back = || gave_back.set(gave_back.get() + 1);
            let demand = Demand::default();
            pass(&limit_set, &table, demand, NOW, clock, give_back)
        };
        // One bucket for both, as if another request came between the look at it and the exchange.
        assert!(!pass([one, one]), "it has a unit at each look");
        assert_eq!((used(one), gave_back.get()), (0, 1), "that comes back");
        assert!(pass([one, two]));
        for limits in [[one, two], [two, one]] {
            assert!(!pass(limits), "the first has none left");
            assert_eq!((used(one), used(two)), (1, 1));
        }
        assert_eq!(gave_back.get(), 1, "nothing was taken in vain");
    }
}

/// All interleavings of charges on two limits. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::{
        limit::{Limit, LimitSettings, rate::Rate},
        limiter::{
            bucket::{Bucket, Source, Successor},
            meter_history::{MeterHistory, MeterStep},
        },
    };

    /// Time stands still.
    const NOW: Nanos = 5;

    struct Scene {
        limit_set: LimitSet,
        table: ClientTable,
    }

    impl Scene {
        /// A route of two requests at once, and a total of so many.
        fn new(most: u64) -> Arc<Self> {
            let limits = BoundLimit::scope(
                [2, most]
                    .map(|burst| Limit::of(LimitSettings::Rate(Rate::per_hour(1).burst(burst)))),
            );
            let limit_set = LimitSet::new("GET /", None, limits);
            assert!(limit_set.is_plain, "two rates");
            Arc::new(Self {
                limit_set,
                table: ClientTable::new(),
            })
        }

        /// Charges both limits, or none, as for a request that is told of it.
        fn take(&self) -> bool {
            let demand = Demand::default();
            let answer = take(&self.limit_set, &self.table, demand, NOW, || NOW, || ());
            matches!(answer, PlainAnswer::Admitted(_))
        }

        /// Does so as for one that is told nothing.
        fn pass(&self) -> bool {
            let demand = Demand::default();
            pass(&self.limit_set, &self.table, demand, NOW, || NOW, || ())
        }

        /// The units that are in use on a limit of the set.
        fn used(&self, index: usize) -> u64 {
            let bound = &self.limit_set.limits[index];
            let Storage::Bucket(bucket) = &bound.storage else {
                unreachable!("a bucket");
            };
            let (Ok(state) | Err(state)) = bucket.peek(bound.version, &bound.history);
            bound.limit.meter.expect("open").used(state, NOW)
        }
    }

    const WAYS: [fn(&Scene) -> bool; 2] = [Scene::take, Scene::pass];

    #[test]
    fn loom_of_two_that_there_is_room_for_one_of_one_is_charged_and_the_other_leaves_nothing() {
        for way in WAYS {
            loom::model(move || {
                let scene = Scene::new(1);
                let other = {
                    let scene = Arc::clone(&scene);
                    thread::spawn(move || way(&scene))
                };
                let answers = [way(&scene), other.join().expect("no panic")];
                assert_ne!(answers[0], answers[1], "one is admitted");
                assert_eq!([scene.used(0), scene.used(1)], [1, 1], "{answers:?}");
            });
        }
    }

    /// The second bucket is closed meanwhile, and another one inherits from it.
    #[test]
    fn loom_what_is_charged_while_a_bucket_is_closed_is_charged_on_both_or_on_none() {
        for way in WAYS {
            loom::model(move || {
                let scene = Scene::new(2);
                let request = {
                    let scene = Arc::clone(&scene);
                    thread::spawn(move || way(&scene))
                };
                let bound = &scene.limit_set.limits[1];
                let meter = bound.limit.meter.expect("open");
                let Storage::Bucket(bucket) = &bound.storage else {
                    unreachable!("a bucket");
                };
                let (version, since) = (1, 0);
                let history = MeterHistory::new(Some(MeterStep {
                    version,
                    since,
                    meter,
                }));
                let heir = Arc::new(Bucket::full(version));
                let successor = Successor {
                    bucket: &heir,
                    history: &history,
                    version,
                    meter: Some(meter),
                };
                let source = Source {
                    bucket,
                    history: &bound.history,
                    meter: Some(meter),
                };
                successor.inherit(&[source], || NOW, false);
                let used = u64::from(request.join().expect("no panic"));
                let of_heir = meter.used(heir.load(), NOW);
                assert_eq!([scene.used(0), of_heir], [used; 2]);
            });
        }
    }
}
