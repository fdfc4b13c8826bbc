//! Admission: all charges of a request, or none.
//!
//! A request is looked at twice. The first pass only reads: if any limit after the first would refuse,
//! nothing has been written anywhere. The second pass takes the charges one by one, and the first is
//! where its own limit is asked. If another request got in between and a later limit refuses now, what
//! was taken is given back: whole, or, if a third request was charged since, less the time that has passed
//! (see [`crate::gcra`] for why). Between the two a third request may be refused that a serial order would
//! have let in. None is ever admitted that it would not.

use std::{
    cmp::Reverse,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    bucket::Bucket,
    clock::{Clock, Instant, Nanos},
    gcra::Refusal,
    in_flight::InFlight,
    levels::{Level, Levels},
    meter::Meter,
    quota::Quota,
    rate::Rate,
    spread::Spread,
    store::{Key, Memory, Place},
    waiting::{LineId, Lines, Patience},
};

/// Where a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Everything that passes the throttle.
    Total,
    /// One route: a method and a path.
    Route,
    /// One client, whatever it asks for.
    Client,
    /// One client on one route.
    ClientOnRoute,
}

impl Scope {
    /// The larger, the more specific.
    fn specificity(self) -> u8 {
        match self {
            Self::Total => 0,
            Self::Route => 1,
            Self::Client => 2,
            Self::ClientOnRoute => 3,
        }
    }
}

/// One limit: its settings and its name, without its balance.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) name: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) terms: Terms,
    /// `None`: closed.
    pub(crate) meter: Option<Meter>,
    pub(crate) published: bool,
    /// It decides and refuses nobody.
    pub(crate) shadow: bool,
    /// Whether requests may wait for it.
    pub(crate) patience: Option<Patience>,
}

/// What a limit was configured as.
#[derive(Debug, Clone)]
pub(crate) enum Terms {
    Rate(Rate),
    Quota(Quota),
    /// A rate of model tokens.
    Tokens(Rate),
    InFlight(InFlight),
}

impl Limit {
    #[inline]
    pub(crate) fn is_slots(&self) -> bool {
        matches!(self.terms, Terms::InFlight(_))
    }

    #[inline]
    pub(crate) fn is_tokens(&self) -> bool {
        matches!(self.terms, Terms::Tokens(_))
    }

    /// Why a charge of `cost` would be refused at `state`, if it would.
    #[inline]
    pub(crate) fn refusal(&self, state: u64, now: Nanos, cost: u64) -> Option<Refusal> {
        match &self.meter {
            Some(meter) => meter.take(state, now, cost).err(),
            None => Some(Refusal::Never),
        }
    }
}

/// A limit and where its balances are kept. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) limit: Limit,
    pub(crate) home: Home,
    pub(crate) line: Line,
}

/// Where requests wait that a limit refuses: one line for all limits of a scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    /// Of whoever asks, by number.
    Scope(u64),
    /// Of each client, by the number of the scope's first limit.
    Client(u32),
}

/// Where the balances of a limit are kept.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// In one bucket, whoever asks.
    Bucket(Arc<Bucket>),
    /// In the table, one for each client, under this number.
    Client(u32),
}

impl Binding {
    /// The limits of one scope for whoever asks, each with a bucket of its own, which is full.
    pub(crate) fn scope(limits: impl IntoIterator<Item = Limit>) -> Vec<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let line = Line::Scope(NEXT.fetch_add(1, Ordering::Relaxed));
        let binding = |limit| Self {
            limit,
            home: Home::Bucket(Arc::new(Bucket::full())),
            line,
        };
        limits.into_iter().map(binding).collect()
    }

    /// The line that a client waits in.
    pub(crate) fn line(&self, identity: u128) -> LineId {
        match self.line {
            Line::Scope(number) => LineId::Scope(number),
            Line::Client(number) => LineId::Client(Key::new(identity, number).hash()),
        }
    }

    /// Where the balance of a client is kept.
    #[inline]
    pub(crate) fn place<'a>(&'a self, memory: &'a Memory, identity: u128) -> Place<'a> {
        match &self.home {
            Home::Bucket(bucket) => Place::Bucket(bucket),
            Home::Client(number) => Place::Table(memory, Key::new(identity, *number)),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.home, &other.home) {
            (Home::Bucket(own), Home::Bucket(other)) => Arc::ptr_eq(own, other),
            (Home::Client(own), Home::Client(other)) => own == other,
            _ => false,
        }
    }
}

/// Who asks, and for how much.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// The client: a keyed hash.
    pub(crate) identity: u128,
    /// Model tokens to reserve.
    pub(crate) tokens: u64,
}

/// What one route is charged on: the most specific limit first, the total last, and then the shadows.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The route key, for people.
    pub(crate) route: Box<str>,
    /// The usage plan of the client, where it has one.
    pub(crate) plan: Option<Arc<str>>,
    pub(crate) bindings: Box<[Binding]>,
    /// How many of them are enforced.
    pub(crate) enforced: usize,
    /// Whether requests may wait for one of them.
    pub(crate) is_patient: bool,
    /// Whether one of them counts what is in flight.
    pub(crate) has_slots: bool,
    /// Whether one of them counts model tokens.
    pub(crate) has_tokens: bool,
}

impl Rule {
    /// From limits of which the most specific stand first.
    pub(crate) fn new(
        route: impl Into<Box<str>>,
        plan: Option<Arc<str>>,
        bindings: impl IntoIterator<Item = Binding>,
    ) -> Self {
        let mut bindings: Box<[_]> = bindings.into_iter().collect();
        bindings.sort_by_key(|binding| binding.limit.shadow);
        Self {
            route: route.into(),
            plan,
            enforced: bindings.partition_point(|binding| !binding.limit.shadow),
            is_patient: bindings
                .iter()
                .any(|binding| binding.limit.patience.is_some()),
            has_slots: bindings.iter().any(|binding| binding.limit.is_slots()),
            has_tokens: bindings.iter().any(|binding| binding.limit.is_tokens()),
            bindings,
        }
    }

    #[inline]
    pub(crate) fn charges<'a>(
        &'a self,
        memory: &'a Memory,
        asked: Asked,
    ) -> impl ExactSizeIterator<Item = Charge<'a>> + Clone {
        self.bindings.iter().map(move |binding| Charge {
            limit: &binding.limit,
            place: binding.place(memory, asked.identity),
            cost: match &binding.limit.terms {
                Terms::Tokens(_) => asked.tokens,
                Terms::Rate(_) | Terms::Quota(_) | Terms::InFlight(_) => 1,
            },
        })
    }

    /// The limits that are enforced.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &Binding> {
        self.bindings[..self.enforced].iter()
    }

    /// This rule, and of the other what it has besides.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let besides = other
            .bindings
            .iter()
            .filter(|binding| !self.bindings.iter().any(|own| own.is(binding)));
        let mut bindings: Vec<_> = self.bindings.iter().chain(besides).cloned().collect();
        bindings.sort_by_key(|binding| Reverse(binding.limit.scope.specificity()));
        Self::new(self.route.clone(), self.plan.clone(), bindings)
    }
}

/// What one limit takes from its bucket for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) place: Place<'a>,
    pub(crate) cost: u64,
}

/// Takes charges, with a clock of its own.
#[derive(Debug)]
pub(crate) struct Limiter {
    clock: Clock,
    /// Where balances of clients are kept.
    pub(crate) memory: Memory,
    pub(crate) lines: Lines,
    spread: Spread,
}

impl Limiter {
    pub(crate) fn new(clock: Clock, memory: Memory) -> Self {
        Self {
            clock,
            memory,
            lines: Lines::new(),
            spread: Spread::new(),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// What the wall clock showed when this one stood at zero: nanoseconds since the Unix epoch.
    pub(crate) fn origin(&self) -> u64 {
        self.clock.origin()
    }

    /// A point in time as the runtime's timers have it.
    pub(crate) fn instant(&self, at: Nanos) -> Instant {
        self.clock.instant(at)
    }

    /// Takes all charges of a rule at `now`, a reading of this limiter's clock, or none of them. Shadows are
    /// asked after that, each by itself.
    ///
    /// Says whether they were taken, and leaves in `levels` what each bucket holds after it.
    #[inline]
    pub(crate) fn admit(&self, rule: &Rule, asked: Asked, now: Nanos, levels: &mut Levels) -> bool {
        let clock = || self.clock.now();
        let charges = rule.charges(&self.memory, asked);
        let admitted = admit(charges.clone().take(rule.enforced), now, clock, levels);
        if rule.enforced < rule.bindings.len() {
            shadow(charges.skip(rule.enforced), admitted, now, clock, levels);
        }
        admitted
    }
}

impl Limiter {
    /// What a refused request is told beyond the `wait` for the limit that refused it.
    pub(crate) fn spread(
        &self,
        binding: &Binding,
        asked: Asked,
        now: Nanos,
        wait: Nanos,
        cost: u64,
    ) -> Nanos {
        let Some(meter) = &binding.limit.meter else {
            return 0;
        };
        let hash = match &binding.home {
            Home::Bucket(bucket) => {
                let address = Arc::as_ptr(bucket).addr() as u64;
                let product = u128::from(address) * 0x9e37_79b9_7f4a_7c15;
                (product >> 64) as u64 ^ product as u64
            }
            Home::Client(number) => Key::new(asked.identity, *number).hash(),
        };
        self.spread.more(hash, now, wait, meter.step(cost))
    }

    /// Charges `units` that were used without having been asked for.
    pub(crate) fn owe(&self, binding: &Binding, identity: u128, units: u64) {
        if let Some(meter) = &binding.limit.meter {
            let place = binding.place(&self.memory, identity);
            place.owe(meter, self.now(), units, || self.clock.now());
        }
    }

    /// Gives back `units` that were taken before; `shared` says whether from a balance that strangers share.
    pub(crate) fn refund(&self, binding: &Binding, identity: u128, shared: bool, units: u64) {
        if let Some(meter) = &binding.limit.meter {
            let place = binding.place(&self.memory, identity);
            // Slots know no time.
            let now = if meter.is_slots() { 0 } else { self.now() };
            place.refund(shared, meter, now, units);
            if binding.limit.patience.is_some() {
                self.lines.wake(binding.line(identity));
            }
        }
    }
}

/// What shadows say, each by itself: they are charged for what is admitted and what they would have admitted
/// too.
#[cold]
fn shadow<'a>(
    charges: impl Iterator<Item = Charge<'a>>,
    admitted: bool,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    levels: &mut Levels,
) {
    for Charge { limit, place, cost } in charges {
        let seen = place.peek(now);
        let taken = match &limit.meter {
            Some(meter) if admitted => place.take(seen, meter, now, cost, &clock),
            _ => limit
                .refusal(seen.state, now, cost)
                .map_or(Ok(seen), |_| Err(seen)),
        };
        let refused = taken.is_err();
        let (Ok(seen) | Err(seen)) = taken;
        levels.push(Level {
            refused,
            ..Level::new(seen, cost)
        });
    }
}

/// [`Limiter::admit`] with any clock.
#[inline]
pub(crate) fn admit<'a>(
    charges: impl Iterator<Item = Charge<'a>> + Clone,
    now: Nanos,
    clock: impl Fn() -> Nanos,
    levels: &mut Levels,
) -> bool {
    let mut refused = false;
    for (index, charge) in charges.clone().enumerate() {
        let cost = charge.cost;
        let seen = if index == 0 {
            charge.place.start()
        } else {
            let seen = charge.place.peek(now);
            refused |= charge.limit.refusal(seen.state, now, cost).is_some();
            seen
        };
        levels.push(Level::new(seen, cost));
    }
    if refused {
        // To be told, not to decide.
        let mut charges = charges;
        if let Some(first) = charges.next() {
            levels[0].see(first.place.peek(now));
        }
        return false;
    }
    for (index, charge) in charges.clone().enumerate() {
        let level = &mut levels[index];
        let Some(meter) = &charge.limit.meter else {
            // Closed, and so the first: any other has refused above, before something was taken.
            level.see(charge.place.peek(now));
            return false;
        };
        let taken = charge
            .place
            .take(level.seen(), meter, now, charge.cost, &clock);
        match taken {
            Ok(seen) => level.see(seen),
            Err(seen) => {
                level.see(seen);
                give_back(charges.take(index), levels, now, clock);
                return false;
            }
        }
    }
    true
}

/// Gives back charges that were taken at `taken`, and reads their levels anew.
fn give_back<'a>(
    charges: impl Iterator<Item = Charge<'a>>,
    levels: &mut Levels,
    taken: Nanos,
    clock: impl Fn() -> Nanos,
) {
    for (index, charge) in charges.enumerate() {
        let level = &mut levels[index];
        if let Some(meter) = &charge.limit.meter {
            let seen = charge
                .place
                .give_back(level.seen(), meter, taken, charge.cost, &clock);
            level.see(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU64, Ordering},
        thread,
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::store::Seen;

    pub(super) fn limit(interval: u64, burst: u64) -> Limit {
        Limit {
            name: "test".into(),
            scope: Scope::Route,
            terms: Terms::Rate(Rate::per_second(1)),
            meter: Meter::of_rate(&Rate::new(1, Duration::from_nanos(interval)).burst(burst)),
            published: true,
            shadow: false,
            patience: None,
        }
    }

    pub(super) fn bindings(limits: &[(u64, u64)]) -> Vec<Binding> {
        let limits = limits.iter();
        Binding::scope(limits.map(|&(interval, burst)| limit(interval, burst)))
    }

    pub(super) fn charges<'a>(
        bindings: &'a [Binding],
        costs: &'a [(usize, u64)],
    ) -> impl Iterator<Item = Charge<'a>> + Clone {
        costs.iter().map(|&(index, cost)| Charge {
            limit: &bindings[index].limit,
            place: Place::Bucket(bucket(&bindings[index])),
            cost,
        })
    }

    /// Whether a request of these costs is admitted by a clock that stands still.
    pub(super) fn take(bindings: &[Binding], costs: &[(usize, u64)], now: Nanos) -> bool {
        admit(
            charges(bindings, costs),
            now,
            || now,
            &mut Levels::default(),
        )
    }

    pub(super) fn bucket(binding: &Binding) -> &Bucket {
        match &binding.home {
            Home::Bucket(bucket) => bucket,
            Home::Client(_) => unreachable!("these limits are kept in buckets of their own"),
        }
    }

    fn states(bindings: &[Binding]) -> Vec<u64> {
        bindings
            .iter()
            .map(|binding| bucket(binding).load())
            .collect()
    }

    proptest! {
        #[test]
        fn a_request_is_charged_on_all_its_limits_or_on_none(
            limits in prop::collection::vec((1..50u64, 0..6u64), 1..7),
            requests in prop::collection::vec(
                (0..60u64, prop::collection::btree_map(0..7usize, 0..4u64, 1..7)), 1..60),
        ) {
            let buckets = bindings(&limits);
            let mut now = 0;
            for (step, costs) in requests {
                now += step;
                let costs: Vec<_> = costs.into_iter().filter(|&(index, _)| index < limits.len()).collect();
                let before = states(&buckets);
                let passes = |&(index, cost): &(usize, u64)| match &buckets[index].limit.meter {
                    Some(meter) => meter.take(before[index], now, cost).is_ok(),
                    None => false,
                };
                let admitted = take(&buckets, &costs, now);
                prop_assert_eq!(admitted, costs.iter().all(passes));
                let after = states(&buckets);
                for (index, (before, after)) in before.into_iter().zip(after).enumerate() {
                    let charged = costs.iter().find(|&&(charged, _)| charged == index && admitted);
                    let expected = charged.map_or(Ok(before), |&(_, cost)| {
                        buckets[index].limit.meter.as_ref().map_or(Ok(before), |meter| meter.take(before, now, cost))
                    });
                    prop_assert_eq!(Ok(after), expected, "bucket {}", index);
                }
            }
        }
    }

    #[test]
    fn threads_on_one_bucket_admit_exactly_what_a_serial_run_would() {
        let buckets = bindings(&[(1_000_000, 10_000)]);
        let admitted = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let ok = take(&buckets, &[(0, 1)], 7);
                        admitted.fetch_add(u64::from(ok), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(
            admitted.into_inner(),
            10_000,
            "20,000 asked, the burst is 10,000"
        );
    }

    #[test]
    fn under_contention_a_refused_request_costs_nothing_anywhere() {
        // Two routes below one total. One is small, so that most requests to it are refused, many of
        // them only in the second pass.
        let buckets = bindings(&[(1_000, 1_000_000), (1_000, 5_000), (1_000, 1_000_000)]);
        let admitted = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for thread in 0..4 {
                let (buckets, admitted) = (&buckets, &admitted);
                scope.spawn(move || {
                    let route = thread % 2;
                    // Different orders, so that each bucket is the one that comes too late.
                    let costs = if thread < 2 {
                        [(1 + route, 1), (0, 1)]
                    } else {
                        [(0, 1), (1 + route, 1)]
                    };
                    for _ in 0..20_000 {
                        let ok = take(buckets, &costs, 7);
                        admitted[route].fetch_add(u64::from(ok), Ordering::Relaxed);
                    }
                });
            }
        });
        let [small, large] = admitted.map(AtomicU64::into_inner);
        assert_eq!(large, 40_000, "nothing stands in its way");
        assert_eq!(small, 5_000, "exactly its burst");
        let charged = |index: usize| (bucket(&buckets[index]).load() - 7) / 1_000;
        assert_eq!(
            (charged(0), charged(1), charged(2)),
            (45_000, 5_000, 40_000),
            "no charge is lost"
        );
    }

    /// Charges 3 of 4 units at 1,000, lets a stranger charge or not, and gives back at 1,120.
    fn given_back(stranger: bool) -> u64 {
        let buckets = bindings(&[(100, 4)]);
        let cost = [(0, 3)];
        let mut levels = Levels::default();
        assert!(admit(
            charges(&buckets, &cost),
            1_000,
            || 1_000,
            &mut levels
        ));
        if stranger {
            assert!(take(&buckets, &[(0, 1)], 1_000), "one is left");
        }
        give_back(charges(&buckets, &cost), &mut levels, 1_000, || 1_120);
        let state = bucket(&buckets[0]).load();
        assert_eq!(levels[0].state, state, "the level is read anew");
        state
    }

    #[test]
    fn a_roll_back_that_nobody_came_before_leaves_no_trace() {
        assert_eq!(given_back(false), 1_000);
    }

    /// A client's charge of 3 of 4 units at 1,000, given back at `end` after `between`: what its bucket holds
    /// then, and what the level says.
    fn given_back_in_the_table(between: impl Fn(&Memory), end: Nanos) -> (Seen, Level) {
        let memory = Memory::new(8, 1).expect("there is as much memory");
        let binding = Binding {
            limit: limit(100, 4),
            home: Home::Client(0),
            line: Line::Client(0),
        };
        let charge = |cost| Charge {
            limit: &binding.limit,
            place: binding.place(&memory, CLIENT),
            cost,
        };
        let mut levels = Levels::default();
        assert!(admit([charge(3)].into_iter(), 1_000, || 1_000, &mut levels));
        assert_eq!(levels[0].state, 1_300);
        between(&memory);
        give_back([charge(3)].into_iter(), &mut levels, 1_000, || end);
        (binding.place(&memory, CLIENT).peek(end), levels[0])
    }

    const CLIENT: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

    fn charge_in_table(memory: &Memory, identity: u128, now: Nanos, cost: u64) -> Seen {
        let meter = limit(100, 4).meter.expect("open");
        let key = Key::new(identity, 0);
        let taken = memory.take(&key, &meter, now, cost, || now);
        taken.expect("there is room")
    }

    #[test]
    fn a_clients_roll_back_is_whole_if_nobody_came_between() {
        let (seen, level) = given_back_in_the_table(|_| {}, 1_120);
        assert_eq!(seen, Seen::own(1_000));
        assert_eq!(level.seen(), seen, "the level is read anew");
    }

    #[test]
    fn a_clients_roll_back_does_not_give_twice_what_time_has_refilled() {
        let stranger = |memory: &Memory| {
            charge_in_table(memory, CLIENT, 1_000, 1);
        };
        let (seen, level) = given_back_in_the_table(stranger, 1_120);
        assert_eq!(seen, Seen::own(1_400 - 180));
        assert_eq!(level.seen(), seen);
        let (seen, _) = given_back_in_the_table(stranger, 1_350);
        assert_eq!(seen, Seen::own(1_400), "all of it was refilled since");
    }

    #[test]
    fn a_clients_roll_back_gives_nothing_to_who_has_its_slot_now() {
        // All eight slots change hands once the charge weighs nothing any more.
        let others = || (1..=8_u128).map(|other| CLIENT.wrapping_mul(2 * other + 1));
        let crowd = |memory: &Memory| {
            for other in others() {
                assert_eq!(charge_in_table(memory, other, 1_300, 4), Seen::own(1_700));
            }
        };
        let (seen, level) = given_back_in_the_table(
            |memory| {
                crowd(memory);
                assert!(
                    memory.peek(&Key::new(CLIENT, 0), 1_300).shared,
                    "it is gone"
                );
            },
            1_300,
        );
        assert!(
            seen.shared && seen.state == 0,
            "an overflow bucket that nobody used"
        );
        assert_eq!(level.seen(), seen);
        let memory = Memory::new(8, 1).expect("there is as much memory");
        charge_in_table(&memory, CLIENT, 1_000, 3);
        crowd(&memory);
        let meter = limit(100, 4).meter.expect("open");
        memory.give_back(
            &Key::new(CLIENT, 0),
            Seen::own(1_300),
            &meter,
            1_000,
            300,
            || 1_300,
        );
        memory.refund(&Key::new(CLIENT, 0), false, &meter, 1_300, 3);
        for other in others() {
            let key = Key::new(other, 0);
            assert_eq!(
                memory.peek(&key, 1_300),
                Seen::own(1_700),
                "it owes what it owed"
            );
        }
    }

    /// A client's charges on two limits that it has not met yet, at 1,000, and on a total that somebody else spends
    /// between the two passes. Others come in where the clock is read: at 1,000 to enter the first key, at 1,010
    /// to enter the second, then to give back. Tells what the two buckets hold then.
    fn refused_by_the_last_of_three(between: impl Fn(&Memory), end: Nanos) -> [Seen; 2] {
        let memory = Memory::new(64, 2).expect("there is as much memory");
        let client = |number, interval, burst| Binding {
            limit: limit(interval, burst),
            home: Home::Client(number),
            line: Line::Client(0),
        };
        let total = bindings(&[(1_000_000, 1)]);
        let bindings = [client(0, 100, 4), client(1, 50, 5), total[0].clone()];
        let charges = bindings
            .iter()
            .zip([3, 1, 1])
            .map(|(binding, cost)| Charge {
                limit: &binding.limit,
                place: binding.place(&memory, CLIENT),
                cost,
            });
        let readings = Cell::new(0);
        let clock = || {
            readings.set(readings.get() + 1);
            match readings.get() {
                1 => 1_000,
                2 => {
                    between(&memory);
                    assert!(
                        take(&total, &[(0, 1)], 1_000),
                        "it was full at the first look"
                    );
                    1_010
                }
                _ => end,
            }
        };
        let mut levels = Levels::default();
        assert!(
            !admit(charges.clone(), 1_000, clock, &mut levels),
            "the total is spent"
        );
        assert!(readings.get() > 2, "both keys were entered");
        let seen: Vec<_> = charges.map(|charge| charge.place.peek(end)).collect();
        let told: Vec<_> = levels.as_slice().iter().map(Level::seen).collect();
        assert_eq!(told, seen, "every level is as it was left");
        [seen[0], seen[1]]
    }

    #[test]
    fn who_is_refused_by_the_last_limit_gets_back_what_the_others_took() {
        let states = |between: fn(&Memory), end| {
            refused_by_the_last_of_three(between, end).map(|seen| seen.state)
        };
        let stranger = |memory: &Memory| {
            charge_in_table(memory, CLIENT, 1_000, 1);
        };
        assert_eq!(states(|_| {}, 1_010), [1_000, 1_010]);
        assert_eq!(states(|_| {}, 1_120), [1_000, 1_010], "however late");
        assert_eq!(states(stranger, 1_010), [1_400 - 290, 1_010]);
        assert_eq!(states(stranger, 1_120), [1_400 - 180, 1_010]);
        assert_eq!(
            states(stranger, 1_350),
            [1_400, 1_010],
            "all of it was refilled since"
        );
    }

    #[test]
    fn a_roll_back_to_a_quota_is_whole_in_its_window_and_nothing_in_the_next() {
        let quota = Quota::per(8, Duration::from_nanos(1_000));
        let meter = Meter::of_quota(&quota, &Clock::started_at(0));
        let limit = Limit {
            terms: Terms::Quota(quota),
            meter,
            ..limit(1, 1)
        };
        // (charged 3 at, then 2 at, given back at, the state that is left): the windows end at 1,000 and 2,000.
        let table = [
            (10, Some(20), 999, 1_002),
            (10, None, 999, 1_000),
            (999, Some(999), 1_000, 1_005),
            (999, Some(1_000), 1_000, 2_002),
            (999, None, 1_000, 1_000),
        ];
        for (taken, between, end, left) in table {
            let memory = Memory::new(8, 1).expect("there is as much memory");
            let bucket = Bucket::full();
            for place in [
                Place::Bucket(&bucket),
                Place::Table(&memory, Key::new(CLIENT, 0)),
            ] {
                let charge = |cost| Charge {
                    limit: &limit,
                    place,
                    cost,
                };
                let admit = |cost, now, levels: &mut Levels| {
                    admit([charge(cost)].into_iter(), now, || now, levels)
                };
                let mut levels = Levels::default();
                assert!(admit(3, taken, &mut levels), "{taken}");
                if let Some(now) = between {
                    assert!(admit(2, now, &mut Levels::default()), "{now}");
                }
                give_back([charge(3)].into_iter(), &mut levels, taken, || end);
                let seen = place.peek(taken);
                assert_eq!(
                    seen,
                    Seen::own(left),
                    "{taken}, {between:?} and {end} in {place:?}"
                );
                assert_eq!(levels[0].seen(), seen, "the level is read anew");
            }
        }
    }

    #[test]
    fn a_roll_back_does_not_give_twice_what_time_has_refilled() {
        // 300 charged and 100 by the stranger; 120 refilled, 180 given back.
        assert_eq!(given_back(true), 1_400 - 180);
    }
}

/// All interleavings of the atomics. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use loom::thread;

    use super::{
        tests::{bindings, bucket, take},
        *,
    };

    fn race(
        limits: &'static [(u64, u64)],
        requests: &'static [&'static [(usize, u64)]],
        check: fn(u64, &[Binding]),
    ) {
        // Three switches away from a thread that could go on find every race of a few exchanges; all of
        // them would take hours for three threads.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let buckets = Arc::new(bindings(limits));
            let threads: Vec<_> = requests
                .iter()
                .map(|&costs| {
                    let buckets = Arc::clone(&buckets);
                    thread::spawn(move || u64::from(take(&buckets, costs, 5)))
                })
                .collect();
            let admitted = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum();
            check(admitted, &buckets);
        });
    }

    #[test]
    fn loom_one_bucket_admits_exactly_its_burst() {
        race(
            &[(10, 2)],
            &[&[(0, 1)], &[(0, 1)], &[(0, 1)]],
            |admitted, buckets| {
                assert_eq!(admitted, 2);
                assert_eq!(bucket(&buckets[0]).load(), 5 + 20);
            },
        );
    }

    #[test]
    fn loom_two_buckets_in_opposite_order_never_admit_one_too_many_nor_lose_a_charge() {
        race(
            &[(10, 1), (10, 1)],
            &[&[(0, 1), (1, 1)], &[(1, 1), (0, 1)]],
            |admitted, buckets| {
                assert!(admitted <= 1, "one too many");
                for binding in buckets {
                    let state = bucket(binding).load();
                    let expected = if admitted == 1 { 15 } else { 5 };
                    assert!(
                        state == expected || admitted == 0 && state == 0,
                        "{admitted} admitted, state {state}"
                    );
                }
            },
        );
    }

    #[test]
    fn loom_a_roll_back_leaves_a_strangers_charge_alone() {
        // The second thread's request is admitted whatever the first one does.
        race(
            &[(10, 3), (10, 0)],
            &[&[(0, 1)], &[(0, 1)]],
            |admitted, buckets| {
                assert_eq!(admitted, 2);
                assert_eq!(bucket(&buckets[0]).load(), 25);
            },
        );
        race(
            &[(10, 3), (10, 1)],
            &[&[(0, 1), (1, 1)], &[(0, 1), (1, 1)], &[(0, 1)]],
            |admitted, buckets| {
                assert!(
                    (1..=2).contains(&admitted),
                    "at most one of the first two, and the third"
                );
                let expected = 5 + 10 * admitted;
                assert_eq!(bucket(&buckets[0]).load(), expected, "{admitted} admitted");
            },
        );
    }

    #[test]
    fn loom_giving_back_while_others_charge_never_gives_too_much() {
        use loom::sync::atomic::{AtomicU64, Ordering};

        loom::model(|| {
            // A clock that a thread moves on: a reading is never behind one that another thread charged with.
            let clock = Arc::new(AtomicU64::new(10));
            let buckets = Arc::new(bindings(&[(10, 1)]));
            assert!(take(&buckets, &[(0, 1)], 10), "full");
            let other = {
                let (clock, buckets) = (Arc::clone(&clock), Arc::clone(&buckets));
                thread::spawn(move || {
                    clock.store(20, Ordering::Release);
                    take(&buckets, &[(0, 1)], 20)
                })
            };
            bucket(&buckets[0]).give_back(
                20,
                buckets[0].limit.meter.as_ref().expect("open"),
                10,
                10,
                || clock.load(Ordering::Acquire),
            );
            let admitted = other.join().expect("no panic");
            assert!(admitted, "refilled by time or given back");
            let state = bucket(&buckets[0]).load();
            assert_eq!(state, 30, "the other charge is whole");
        });
    }
}
