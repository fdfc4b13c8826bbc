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

    #[inline(always)]
    fn charge<'a>(&'a self, memory: &'a Memory, asked: Asked) -> Charge<'a> {
        Charge {
            limit: &self.limit,
            place: self.place(memory, asked.identity),
            cost: match &self.limit.terms {
                Terms::Tokens(_) => asked.tokens,
                Terms::Rate(_) | Terms::Quota(_) | Terms::InFlight(_) => 1,
            },
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
    ) -> impl Iterator<Item = Charge<'a>> + Clone {
        let bindings = self.bindings.iter();
        bindings.map(move |binding| binding.charge(memory, asked))
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
    #[inline(always)]
    pub(crate) fn admit(&self, rule: &Rule, asked: Asked, now: Nanos, levels: &mut Levels) -> bool {
        let clock = || self.clock.now();
        let charge = |binding| Binding::charge(binding, &self.memory, asked);
        let (enforced, shadows) = rule.bindings.split_at(rule.enforced);
        let admitted = admit(enforced.iter().map(charge), now, clock, levels);
        if !shadows.is_empty() {
            shadow(shadows.iter().map(charge), admitted, now, clock, levels);
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
#[inline(always)]
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
mod tests;
