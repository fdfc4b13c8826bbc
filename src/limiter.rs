//! Admission: all charges of a request, or none.
//!
//! A request is looked at twice. The first pass only reads: if any limit would refuse, nothing has been
//! written anywhere. The second pass takes the charges one by one; if another request got in between
//! and a limit refuses now, what was taken is given back (see [`crate::gcra`] for why that is exact).
//! Between the two a third request may be refused that a serial order would have let in. None is ever
//! admitted that it would not.

use std::sync::Arc;

use crate::{
    bucket::Bucket,
    clock::{Clock, Nanos},
    decision::{Level, Levels},
    gcra::{Gcra, Refusal},
    rate::Rate,
};

/// Where a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Everything that passes the throttle.
    Total,
    /// One route: a method and a path.
    Route,
}

/// One limit: its settings and its name, without its balance.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: Box<str>,
    pub(crate) scope: Scope,
    pub(crate) rate: Rate,
    /// `None`: closed.
    pub(crate) gcra: Option<Gcra>,
    pub(crate) published: bool,
}

impl Limit {
    /// Why a charge of `cost` would be refused at `state`, if it would.
    pub(crate) fn refusal(&self, state: u64, now: Nanos, cost: u64) -> Option<Refusal> {
        match &self.gcra {
            Some(gcra) => gcra.take(state, now, cost).err(),
            None => Some(Refusal::Never),
        }
    }
}

/// A limit and the bucket it is kept in here.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) limit: Arc<Limit>,
    pub(crate) bucket: Arc<Bucket>,
}

impl Binding {
    pub(crate) fn fresh(limit: &Arc<Limit>) -> Self {
        Self {
            limit: Arc::clone(limit),
            bucket: Arc::new(Bucket::full()),
        }
    }

    pub(crate) fn share(&self) -> Self {
        Self {
            limit: Arc::clone(&self.limit),
            bucket: Arc::clone(&self.bucket),
        }
    }
}

/// What one route is charged on: the most specific limit first, the total last.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The route key, or what stands for the routes nobody declared.
    pub(crate) route: Box<str>,
    pub(crate) bindings: Box<[Binding]>,
}

impl Rule {
    pub(crate) fn charges(&self) -> impl Iterator<Item = Charge<'_>> + Clone {
        self.bindings.iter().map(|binding| Charge {
            limit: &binding.limit,
            bucket: &binding.bucket,
            cost: 1,
        })
    }
}

/// One limit's bucket and the cost taken from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) bucket: &'a Bucket,
    pub(crate) cost: u64,
}

/// Takes charges from buckets.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    clock: Clock,
}

impl Limiter {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Takes all `charges` at `now`, or none.
    ///
    /// # Errors
    ///
    /// The levels that refused. `now` must be a reading of this limiter's clock.
    pub(crate) fn admit<'a>(
        &self,
        charges: impl Iterator<Item = Charge<'a>> + Clone,
        now: Nanos,
    ) -> Result<Levels, Levels> {
        admit(charges, now, || self.clock.now())
    }
}

/// [`Limiter::admit`] with any clock.
pub(crate) fn admit<'a>(
    charges: impl Iterator<Item = Charge<'a>> + Clone,
    now: Nanos,
    clock: impl Fn() -> Nanos,
) -> Result<Levels, Levels> {
    let mut levels = Levels::default();
    let mut refused = false;
    for charge in charges.clone() {
        let state = charge.bucket.load();
        refused |= charge.limit.refusal(state, now, charge.cost).is_some();
        levels.push(Level {
            state,
            cost: charge.cost,
        });
    }
    if refused {
        return Err(levels);
    }
    for (index, charge) in charges.clone().enumerate() {
        let level = &mut levels[index];
        // A closed limit has refused in the first pass already.
        let Some(gcra) = &charge.limit.gcra else {
            continue;
        };
        match charge.bucket.take(level.state, gcra, now, charge.cost) {
            Ok(state) => level.state = state,
            Err(state) => {
                level.state = state;
                give_back(charges.take(index), &mut levels, now, clock);
                return Err(levels);
            }
        }
    }
    Ok(levels)
}

/// Gives back charges that were taken at `taken`, and reads their levels anew.
fn give_back<'a>(
    charges: impl Iterator<Item = Charge<'a>>,
    levels: &mut Levels,
    taken: Nanos,
    clock: impl Fn() -> Nanos,
) {
    for (index, charge) in charges.enumerate() {
        let weight = charge
            .limit
            .gcra
            .as_ref()
            .and_then(|gcra| gcra.weight(charge.cost));
        charge.bucket.give_back(taken, weight.unwrap_or(0), &clock);
        levels[index].state = charge.bucket.load();
    }
}
