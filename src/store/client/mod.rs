//! Limits whose balances lie in a store that several processes share.
//!
//! A request that is charged there asks once for all of its charges, and waits for the answer no longer than a
//! deadline. What the answers tell is remembered for a while: a bucket that is known to be empty until some moment
//! refuses without a question until then, which is exact, since only time brings something back. (What is given back
//! does, too: the process that gives it forgets, and what is remembered of model tokens, which come back often, is
//! remembered for a moment only.)
//!
//! # When it does not answer
//!
//! The first request that is not answered in time, or is answered that nothing can be taken, finds that the store is
//! *down*. From then on nobody asks it but a probe, at once and then at growing intervals; requests are decided as
//! [`OnOutage`] says. When the probe is answered the store is up again. So an outage costs the requests that are under
//! way a deadline, and none after them.
//!
//! A question whose asker has gone is driven to its end all the same, and what it has taken by then is given back.
//!
//! # Leases
//!
//! Where they are asked for, a question takes more than its request needs, and further requests are decided without one
//! as long as that lasts: see [`lease`]. Whoever comes while somebody asks for more waits for that for a moment, so
//! that a crowd makes one question and not one each.

mod breaker;
mod call;
mod corrections;
mod deny_cache;
mod lease;
mod leased;
mod outage;
mod task_slot;
mod timers;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
    task::Waker,
    time::Duration,
};

use tokio::runtime::Handle;

pub use self::outage::OnOutage;
use self::{
    breaker::Breaker, corrections::Corrections, deny_cache::DenyCache, lease::Leases,
    task_slot::TaskSlot, timers::Timers,
};
pub(crate) use self::{
    call::StoreCall,
    leased::{LeaseWaiter, LeasedUnits},
    outage::Event,
};
use crate::{
    clock::{Clock, Moment, Nanos, nanos},
    limit::{Limit, gcra::Refusal},
    limiter::{
        client_table::ClientTable,
        limit_set::{BoundLimit, Demand, LimitSet},
        readings::{LimitReading, LimitReadings},
    },
    store::{Balance, BucketKey, Budget, Charge, Correction, Store, Taken},
    sync::{AtomicU64, Ordering},
};

/// The store, and what is known of it.
pub(crate) struct StoreClient {
    store: Arc<dyn Store>,
    /// This process's; the store has its own.
    clock: Clock,
    /// How far the store's clock is ahead of this one, or more, in two's complement.
    offset_at_most: AtomicU64,
    /// The same, or less.
    offset_at_least: AtomicU64,
    deny_cache: DenyCache,
    timers: Arc<Timers>,
    corrections: Corrections,
    leases: Leases,
    /// Of the task that gives back those that nobody uses.
    return_task: TaskSlot,
    hasher: RandomState,
    breaker: Breaker,
    /// How long is waited for it, in nanoseconds.
    probe_deadline: AtomicU64,
    /// Where what outlives its request is driven on.
    runtime: OnceLock<Handle>,
    on_event: Box<dyn Fn(Event<'_>) + Send + Sync>,
}

/// What is known without asking.
pub(crate) struct CachedView {
    pub(crate) readings: LimitReadings,
    /// The store's clock: this moment, or a little earlier, so that no wait is told shorter than it is.
    pub(crate) at: Nanos,
    /// Whether one of the buckets is known to refuse.
    pub(crate) is_denied: bool,
    /// Whether all buckets of enforced limits are known, so that a wait may be told.
    pub(crate) is_known: bool,
}

/// The store, once there is one: the same for all who hold a clone of this.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreSlot(Arc<OnceLock<Arc<StoreClient>>>);

impl StoreSlot {
    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<StoreClient>> {
        self.0.get()
    }

    /// Has balances lie there from now on. `false` if they lie elsewhere already.
    pub(crate) fn fill(&self, store_client: StoreClient) -> bool {
        self.0.set(Arc::new(store_client)).is_ok()
    }
}

impl StoreClient {
    /// For so long an empty bucket is believed to be one, so that somebody who fills it by hand is record_answer.
    const REMEMBERED: Duration = Duration::from_secs(10);

    /// The same where others give back what they did not use.
    const SETTLED: Duration = Duration::from_millis(250);

    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            clock,
            offset_at_most: AtomicU64::new(0),
            offset_at_least: AtomicU64::new(0),
            deny_cache: DenyCache::new(),
            timers: Arc::default(),
            corrections: Corrections::default(),
            leases: Leases::new(),
            return_task: TaskSlot::new(),
            hasher: RandomState::new(),
            breaker: Breaker::new(),
            probe_deadline: AtomicU64::new(0),
            runtime: OnceLock::new(),
            on_event: Box::new(on_event),
        }
    }

    /// Asks for all that a rule takes there and that was not leased, and for leases of at most so many units.
    pub(crate) fn ask(
        self: &Arc<Self>,
        limit_set: &LimitSet,
        demand: Demand,
        deadline: Duration,
        lease: u64,
        leased: LeasedUnits,
    ) -> StoreCall {
        let limits = limit_set.shared().enumerate();
        let missing = limits.filter(|(index, _)| !leased.has(*index));
        let at = match lease {
            0 | 1 => Moment::monotonic(self.clock.now()),
            _ => self.clock.moment(),
        };
        let until = at.now.saturating_add(nanos(deadline));
        let charges = missing.filter_map(|(_, bound)| {
            let mut charge = charge(bound, demand)?;
            let units = bound.limit.lease(lease);
            if units > 0 && limit_set.is_leased {
                let hash = self.hash_of(&charge.key);
                if self
                    .leases
                    .begin(hash, &charge.key, charge.budget, at, until)
                {
                    charge.lease = units;
                }
            }
            Some(charge)
        });
        let charges = charges.collect();
        StoreCall::new(Arc::clone(self), charges, at, deadline, leased, lease > 1)
    }

    /// Asks for what the buckets of a rule hold, and takes nothing.
    pub(crate) fn peek(
        self: &Arc<Self>,
        limit_set: &LimitSet,
        demand: Demand,
        deadline: Duration,
    ) -> StoreCall {
        let charges = limit_set.shared().filter_map(|bound| {
            let charge = charge(bound, demand)?;
            Some(Charge { cost: 0, ..charge })
        });
        let sent = Moment::monotonic(self.clock.now());
        StoreCall::peek(Arc::clone(self), charges.collect(), sent, deadline)
    }

    /// What all buckets of a rule held at an answer. `held` are those of its limits that lie in this process.
    pub(crate) fn readings(
        limit_set: &LimitSet,
        demand: Demand,
        balances: impl IntoIterator<Item = Balance>,
        held: &LimitReadings,
    ) -> LimitReadings {
        let mut balances = balances.into_iter();
        let mut held = held.as_slice().iter();
        let mut readings = LimitReadings::default();
        for bound in &limit_set.limits {
            let reading = match bound.id {
                None => held.next().copied(),
                Some(_) => balances.next().map(|balance| LimitReading {
                    state: balance.state,
                    cost: bound.cost(demand),
                    refused: balance.is_refused,
                    ..LimitReading::default()
                }),
            };
            readings.push(reading.unwrap_or_default());
        }
        readings
    }

    /// Returns what is known at `now` of all buckets of a rule. Unknown ones count as full, and no wait is to be told from
    /// them.
    pub(crate) fn guess(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        memory: &ClientTable,
        leased: &LeasedUnits,
    ) -> CachedView {
        let held = |bound: &BoundLimit| {
            let charge = bound.charge(memory, demand, now);
            LimitReading::new(charge.place.peek(now), charge.cost)
        };
        let at = self.at(now);
        let mut view = CachedView {
            readings: LimitReadings::default(),
            at: self.at_earliest(now),
            is_denied: false,
            is_known: true,
        };
        let mut never = false;
        let mut shared = 0..;
        for (index, bound) in limit_set.limits.iter().enumerate() {
            let reading = match self.denied_hash(bound, demand.identity) {
                None => held(bound),
                Some(hash) => {
                    let cost = bound.cost(demand);
                    if let Some(state) = shared.next().and_then(|index| leased.unspent(index)) {
                        view.readings.push(LimitReading {
                            state,
                            cost,
                            ..LimitReading::default()
                        });
                        continue;
                    }
                    let known = self.deny_cache.find(hash, now);
                    view.is_known &= known.is_some() || index >= limit_set.enforced;
                    let state = known.unwrap_or(0);
                    let refusal = bound.limit.refusal(state, at, cost);
                    view.is_denied |= refusal.is_some() && index < limit_set.enforced;
                    never |= refusal == Some(Refusal::Never) && index < limit_set.enforced;
                    LimitReading {
                        state,
                        cost,
                        ..LimitReading::default()
                    }
                }
            };
            view.readings.push(reading);
        }
        // No wait is told then, whatever the others hold.
        view.is_known |= never;
        view
    }

    /// Changes a balance, without waiting for it.
    pub(crate) fn correct(
        self: &Arc<Self>,
        bound: &BoundLimit,
        identity: u128,
        change: CorrectionKind,
        units: u64,
    ) {
        let (Some(key), Some(meter)) = (key(bound, identity), bound.limit.meter) else {
            return;
        };
        if self.is_down() {
            return;
        }
        if self.corrections.add(key, Budget::new(meter), change, units) {
            self.spawn(Corrections::send_all(self));
        }
    }

    /// Has corrections made. What is not corrected stays as it is: nobody knows whether it was.
    async fn send_corrections(&self, corrections: Vec<Correction>) {
        let _ = self.store.correct(&corrections).await;
        for correction in corrections {
            // What is remembered was told before.
            let (key, budget, _) = correction.parts();
            self.deny_cache.forget(self.denied_hash_of(key, budget));
        }
    }

    /// What the store's clock shows when this one shows `now`, or later.
    pub(crate) fn at(&self, now: Nanos) -> Nanos {
        let offset = self.offset_at_most.load(Ordering::Relaxed);
        now.wrapping_add(offset).min(Clock::MAX)
    }

    /// What the store's clock shows when this one shows `now`, or earlier.
    fn at_earliest(&self, now: Nanos) -> Nanos {
        let offset = self.offset_at_least.load(Ordering::Relaxed);
        now.wrapping_add(offset).min(Clock::MAX)
    }

    /// Has whoever this is woken at that moment, or later.
    fn wake_at(&self, key: &mut Option<timers::TimerKey>, deadline: Nanos, waker: &Waker) {
        if self.timers.set(key, deadline, waker) {
            self.spawn(self.timers.run_task(self.clock));
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let here = Handle::try_current().ok();
        if let Some(runtime) = here.as_ref().or_else(|| self.runtime.get()) {
            runtime.spawn(work);
        }
    }

    /// What an answer to a question that was sent at `sent` tells of those to come. A `peek` is remembered, whatever
    /// it tells.
    fn record_answer(&self, charges: &[Charge], taken: &Taken, sent: Nanos, peek: bool) {
        let now = self.clock.now();
        let store_now = taken.now.min(Clock::MAX);
        self.offset_at_most
            .store(store_now.wrapping_sub(sent), Ordering::Relaxed);
        self.offset_at_least
            .store(store_now.wrapping_sub(now), Ordering::Relaxed);
        let balances = || {
            let balances = charges.iter().zip(&taken.balances);
            balances.filter(|(charge, _)| !charge.is_shadow)
        };
        let refuses = |(charge, balance): (&Charge, &Balance)| {
            let meter = charge.budget.meter();
            meter.take(balance.state, taken.now, charge.cost).is_err()
        };
        let is_empty = peek || balances().any(refuses);
        for (charge, balance) in balances() {
            let hash = self.denied_hash_of(&charge.key, &charge.budget);
            // Who is refused by what is remembered of one bucket is told of all of them.
            if !is_empty {
                self.deny_cache.refresh(hash, balance.state);
                continue;
            }
            let remembered = if charge.is_settled {
                Self::SETTLED
            } else {
                Self::REMEMBERED
            };
            let until = now.saturating_add(nanos(remembered));
            self.deny_cache.remember(hash, balance.state, now, until);
        }
    }

    #[inline]
    fn hash(&self, bound: &BoundLimit, identity: u128) -> Option<u64> {
        let id = bound.id.as_ref()?;
        Some(self.hasher.hash_one((&**id, bound.client(identity))))
    }

    fn hash_of(&self, key: &BucketKey) -> u64 {
        self.hasher.hash_one((key.limit(), key.client()))
    }

    /// What a state is remembered by: the bucket, and the terms that the state is told in.
    #[inline]
    fn denied_hash(&self, bound: &BoundLimit, identity: u128) -> Option<u64> {
        let id = bound.id.as_ref()?;
        // As the store is told it, which knows no largest cost.
        let budget = Budget::new(bound.limit.meter?);
        let client = bound.client(identity);
        let bucket = (&**id, client, budget.meter());
        Some(self.hasher.hash_one(bucket))
    }

    fn denied_hash_of(&self, key: &BucketKey, budget: &Budget) -> u64 {
        let bucket = (key.limit(), key.client(), budget.meter());
        self.hasher.hash_one(bucket)
    }
}

/// How a balance is changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CorrectionKind {
    Owe,
    Refund,
}

fn key(bound: &BoundLimit, identity: u128) -> Option<BucketKey> {
    let id = Arc::clone(bound.id.as_ref()?);
    Some(BucketKey::new(id, bound.client(identity)))
}

fn charge(bound: &BoundLimit, demand: Demand) -> Option<Charge> {
    let Limit { meter, shadow, .. } = &bound.limit;
    let budget = Budget::new((*meter)?);
    let mut charge = Charge::new(key(bound, demand.identity)?, budget, bound.cost(demand));
    charge.is_shadow = *shadow;
    charge.is_settled = bound.limit.is_tokens();
    Some(charge)
}

impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreClient")
            .field("store", &self.store)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
