//! The client of a store: everything between a decision and balances that several processes share.
//!
//! A request that is charged in the store makes one [call](StoreCall) for all of its charges, and waits for the answer
//! at most until a deadline. Knowledge that saves a call is kept here, so that most refused requests, and with leases
//! most admitted ones, make none.
//!
//! | part | keeps | saves |
//! |---|---|---|
//! | [`breaker`], [`outage`] | the state of the store, and the probe | a deadline for each request in an outage |
//! | [`deny_cache`] | buckets that refuse | a call for each refused request |
//! | [`lease`], [`leased`] | units taken beforehand | a call for most admitted requests |
//! | [`corrections`] | sums to be sent later | a call for each model token |
//! | [`present_budgets`] | budgets of the rules in force | |
//! | [`timers`] | deadlines of calls and waiters | a timer of the runtime for each |
//! | [`task_slot`] | the slot of a background task | a task that runs without work |
//!
//! # Invariants
//!
//! - **Only the store admits**, by its answer or a leased unit. Knowledge kept here may refuse, and may state waits;
//!   its errors err against the caller.
//! - **At most once.** No call is ever sent again. An abandoned call is driven to its end, and gives back what it took.
//!   A call that fails may have been carried out: the account of a request neither gives back units that were owed by
//!   it, nor owes them again.
//! - **No lock is held over a call, a waker or a listener.** All locks here are short, and none is taken under another.
//! - **Bounded.** The tables of denied buckets, of leases and of corrections have fixed bounds, and document the
//!   behaviour beyond them.
//! - **Background tasks end by themselves**: none runs without work. At most one each probes, returns leases, sends
//!   corrections and watches deadlines; besides, there is one for each call that was given up.
//!
//! # Clocks
//!
//! States and waits follow the store's clock; deadlines and expiries follow this process's clock. An answer bounds the
//! lead of the store's clock, which was read after the call was sent and before the answer came. Both bounds are kept,
//! and each is used where its error is harmless: a remembered bucket is taken to be as full as it may be
//! ([`at`](StoreClient::at)), and a wait as long as it may be ([`CachedView::at`]).
//!
//! # Reloads
//!
//! A store keeps each bucket in the terms of its last charge, and terms have no order on the wire. A call by the
//! previous rules that reaches the store after one by the present rules thus puts its buckets back into the former
//! terms: the store cannot notice that, and does not refuse it. Such a bucket is refilled by the former terms until the
//! next charge taken in the present ones, or the next correction. Only a call under way during the reload does so:
//! corrections are sent in the present budgets ([`present_budgets`]), and late refunds change no terms. Replicas that
//! are reloaded one after the other have the same effect, until the last is reloaded.
//!
//! # Outages
//!
//! The first call that times out, or whose answer is that nothing can be charged, marks the store *down*. From then on
//! only a probe calls it, at once and then at growing intervals, and [`OnOutage`] decides requests. When the probe is
//! answered, the store is up again. An outage thus costs each request under way one deadline, and later ones nothing.
//! [`corrections`] wait for the end of an outage; those under way at its beginning may be lost.
//!
//! # Leases
//!
//! If leases are enabled, a call takes more than its request needs, and further requests are decided without a call
//! while that lasts: see [`lease`]. Requests that arrive while a call asks for a lease wait for it briefly, so that a
//! crowd makes one call and not one each.
//!
//! # Memory ordering
//!
//! The two bounds of the clock and the probe's deadline are relaxed. Each is a value of its own, guards no other
//! memory, and may be of any recent answer: an older bound is as true as a newer one, as long as the clocks run at the
//! same pace.
//!
//! # Who may call it
//!
//! The engine: [`spend_leased`](StoreClient::spend_leased), [`cached_view`](StoreClient::cached_view),
//! [`ask`](StoreClient::ask) and [`peek`](StoreClient::peek) for a decision, in this order. An
//! [admission](crate::admission) calls [`owe`](StoreClient::owe) and [`refund`](StoreClient::refund), and a handle
//! [`return_leases`](StoreClient::return_leases). A reload calls [`set_present`](StoreClient::set_present), and the
//! first request of an undeclared route [`add_present`](StoreClient::add_present). None of them uses the [`Store`]
//! directly.

mod breaker;
mod call;
mod corrections;
mod deny_cache;
mod lease;
mod leased;
mod outage;
mod present_budgets;
mod task_slot;
mod timers;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::runtime::Handle;

pub use self::outage::OnOutage;
use self::{
    breaker::{Breaker, BreakerState},
    corrections::Corrections,
    deny_cache::DenyCache,
    lease::{LeaseTerms, Leases},
    leased::LeaseMark,
    task_slot::TaskSlot,
    timers::Timers,
};
pub(crate) use self::{
    call::StoreCall,
    corrections::CorrectionBatch,
    leased::{LeaseWaiter, LeasedUnits},
    outage::Event,
    present_budgets::PresentBudgets,
};
use crate::{
    clock::{Moment, Nanos, Timeline, nanos},
    limit::{Limit, gcra::RefusalReason},
    limiter::{
        client_table::ClientTable,
        limit_set::{BoundLimit, Demand, LimitSet},
        readings::{LimitReading, LimitReadings},
    },
    store::{Balance, BucketKey, Budget, Charge, Correction, Store, Taken},
    sync::{AtomicU64, Ordering},
};

/// A store, and what is known of it. Shared by all services of a throttle, over reloads.
pub(crate) struct StoreClient {
    store: Arc<dyn Store>,
    /// This process's clock. The store has its own.
    clock: Timeline,
    /// Nanoseconds by which the store's clock is ahead of this one, or more, in two's complement: by the moment at
    /// which the last call was sent.
    offset_at_most: AtomicU64,
    /// The same, or less: by the moment at which its answer came.
    offset_at_least: AtomicU64,
    /// Buckets that are known to refuse.
    deny_cache: DenyCache,
    /// Deadlines of calls and of requests that wait for a lease.
    timers: Arc<Timers>,
    /// Corrections that wait to be sent.
    corrections: Corrections,
    /// The budgets of the rules in force, in which corrections are sent.
    present_budgets: Mutex<PresentBudgets>,
    /// Units that were taken beforehand.
    leases: Leases,
    /// The slot of the task that returns leases that nobody uses.
    return_task: TaskSlot,
    /// Makes the keys of `deny_cache` and `leases`, under a secret of this process.
    hasher: RandomState,
    /// Tells if the store is down.
    breaker: Breaker,
    /// The deadline of a probe in nanoseconds: that of the last call with one that found the store unavailable.
    probe_deadline: AtomicU64,
    /// The first runtime that polled a call. Work that outlives its request is spawned there, if it comes from outside
    /// of any.
    runtime: OnceLock<Handle>,
    /// Hears of outages. Called by requests and tasks, without a lock.
    on_event: Box<dyn Fn(Event<'_>) + Send + Sync>,
}

/// The buckets of a request as they are known without a call.
pub(crate) struct CachedView {
    /// The readings of all limits, in their order. A bucket of the store that is not known counts as full.
    pub(crate) readings: LimitReadings,
    /// The store's clock: the moment of the view, or a little earlier, so that no wait is told shorter than it is.
    pub(crate) at: Nanos,
    /// Set if an enforced limit in the store is known to refuse. Those of this process are read and do not count: only
    /// a charge decides by them.
    pub(crate) is_denied: bool,
    /// Set if the view suffices for a refusal: all buckets of enforced limits are known, so that the longest wait is,
    /// or one of them never admits the request, so that no wait is told.
    pub(crate) is_known: bool,
}

impl StoreClient {
    /// The time for which an empty bucket is remembered, so that somebody who fills it by hand is heard. Its state is
    /// exact otherwise, since only time brings something back to it.
    const REMEMBERED: Duration = Duration::from_secs(10);

    /// The same for model tokens: other processes often give back what their reservations did not use.
    const SETTLED: Duration = Duration::from_millis(250);

    /// Makes the client of a store that is taken to be up. `deadline` is that of calls. `on_event` must not block.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Timeline,
        deadline: Duration,
        on_event: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            clock,
            offset_at_most: AtomicU64::new(0),
            offset_at_least: AtomicU64::new(0),
            deny_cache: DenyCache::new(),
            timers: Arc::default(),
            corrections: Corrections::new(),
            present_budgets: Mutex::default(),
            leases: Leases::new(),
            return_task: TaskSlot::new(),
            hasher: RandomState::new(),
            breaker: Breaker::new(),
            probe_deadline: AtomicU64::new(nanos(deadline)),
            runtime: OnceLock::new(),
            on_event: Box::new(on_event),
        }
    }

    /// Returns whether requests must not call the store. One load, but where a probe was abandoned: then it spawns
    /// another.
    #[inline]
    pub(crate) fn is_down(self: &Arc<Self>) -> bool {
        match self.breaker.state() {
            BreakerState::Up => false,
            BreakerState::Down => true,
            BreakerState::Unprobed => {
                self.probe();
                true
            }
        }
    }

    /// Begins a call that charges all limits of a request in the store of which it has no leased unit.
    ///
    /// With a `lease` of more than one, each charge asks for at most so many units, its own among them, if no other
    /// call asks for a lease of that bucket. The marks that this leaves are ended by the call, whatever becomes of it.
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
        let mut lease_marks = Vec::new();
        let charges = missing.filter_map(|(_, bound)| Some((bound, charge(bound, demand)?)));
        let charges = charges.enumerate().map(|(index, (bound, mut charge))| {
            if lease <= 1 {
                return charge;
            }
            let units = bound.lease(lease);
            let hash = self.hash_of(&charge.key);
            let terms = LeaseTerms::new(charge.budget, bound);
            self.leases.forget_others(hash, &terms);
            if units > 0
                && limit_set.is_leased
                && self.leases.begin(hash, &charge.key, terms, at, until)
            {
                charge.lease = units;
                lease_marks.push(LeaseMark {
                    charge: index,
                    hash,
                    terms,
                });
            }
            charge
        });
        let charges = charges.collect();
        StoreCall::new(
            Arc::clone(self),
            charges,
            lease_marks,
            at,
            deadline,
            leased,
            lease > 1,
        )
    }

    /// Begins a call that asks what the buckets of a request hold, and takes nothing. Its answer is remembered.
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

    /// Merges the `balances` of limits in the store with the `held` readings of those in this process, each in their
    /// order, to the readings of all. A balance that is missing from an answer counts as a full bucket.
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

    /// Returns the view of a request at `now` without a call. Nothing is charged or changed.
    ///
    /// Buckets of the store are seen as they were last told, those with a `leased` unit as if the unit were at hand,
    /// and those in this process as they are. A bucket that is not known counts as full, and no wait is to be told from
    /// it.
    pub(crate) fn cached_view(
        &self,
        limit_set: &LimitSet,
        demand: Demand,
        now: Nanos,
        memory: &ClientTable,
        leased: &LeasedUnits,
    ) -> CachedView {
        let held = |bound: &BoundLimit| {
            let charge = bound.charge(memory, demand, now);
            LimitReading::new(charge.balance.peek(now), charge.cost)
        };
        let at = self.at(now);
        let mut view = CachedView {
            readings: LimitReadings::default(),
            // An answer of another moment may come between the two readings: never later than what refuses.
            at: self.at_earliest(now).min(at),
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
                    let refusal = bound.refusal(state, at, cost);
                    view.is_denied |= refusal.is_some() && index < limit_set.enforced;
                    never |= refusal == Some(RefusalReason::Never) && index < limit_set.enforced;
                    LimitReading {
                        state,
                        cost,
                        ..LimitReading::default()
                    }
                }
            };
            view.readings.push(reading);
        }
        // A request that never fits is told no wait, whatever the others hold.
        view.is_known |= never;
        view
    }

    /// Owes `units` of a client that were used without having been charged, without waiting for the store. `moment` is
    /// one of the window that they belong to, by the store's clock, for a quota.
    ///
    /// Returns the batch that they are sent with: at once, or after an outage. `None` if they are never sent: the limit
    /// does not lie in the store, or too many corrections wait. After a reload they are owed in the settings that are in
    /// force for the bucket when they are sent (see [`present_budgets`]).
    pub(crate) fn owe(
        self: &Arc<Self>,
        bound: &BoundLimit,
        identity: u128,
        moment: Option<Nanos>,
        units: u64,
    ) -> Option<CorrectionBatch> {
        let (key, budget) = (key(bound, identity)?, Budget::new(bound.limit.meter?));
        let batch = self.corrections.owe(key, budget, moment, units)?;
        self.send_pending();
        Some(batch)
    }

    /// Gives back `units` that a client was charged with, as [`owe`](Self::owe) owes them: to no other window than that
    /// of `moment`. Where too many corrections wait, they stay charged.
    ///
    /// `owed_by` is the batch that owes them, if that was not answered yet: nothing comes back if it fails.
    pub(crate) fn refund(
        self: &Arc<Self>,
        bound: &BoundLimit,
        identity: u128,
        moment: Option<Nanos>,
        units: u64,
        owed_by: Option<&CorrectionBatch>,
    ) {
        let (Some(key), Some(meter)) = (key(bound, identity), bound.limit.meter) else {
            return;
        };
        let budget = Budget::new(meter);
        (self.corrections).refund(key, budget, moment, units, owed_by);
        self.send_pending();
    }

    /// Spawns the task that sends corrections, unless there is one, or the store is down. To be called when a correction
    /// was added, and when the store is up again.
    fn send_pending(self: &Arc<Self>) {
        if !self.is_down() && self.corrections.task.claim() {
            self.spawn(Corrections::send_all(self));
        }
    }

    /// Puts the budgets of rules into force, together with the rules. Returns those before, for the caller to drop when
    /// nobody waits for it.
    pub(crate) fn set_present(&self, budgets: PresentBudgets) -> PresentBudgets {
        mem::replace(&mut *self.present_budgets(), budgets)
    }

    /// Adds the budgets of a route that requests of the rules in force enter.
    pub(crate) fn add_present(&self, limits: &[BoundLimit]) {
        self.present_budgets().add(limits);
    }

    fn present_budgets(&self) -> MutexGuard<'_, PresentBudgets> {
        // The map is exchanged as one value, or grows.
        let present = self.present_budgets.lock();
        present.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends corrections, and forgets what the deny cache knows of their buckets, whose states may be smaller now.
    /// Returns whether all were made. After an error nobody knows which were, and none is sent again.
    async fn send_corrections(self: &Arc<Self>, corrections: Vec<Correction>) -> bool {
        let answer = self.store.correct(&corrections).await;
        if let Err(error) = &answer {
            self.record_failure(error, None);
        }
        for correction in corrections {
            // After the call: an answer that came before it may have been remembered meanwhile.
            let (key, budget, _) = correction.parts();
            self.deny_cache.forget(self.denied_hash_of(key, budget));
        }
        answer.is_ok()
    }

    /// Returns what the store's clock shows when this one shows `now`, or later: a bucket is as full by it as it may
    /// be.
    pub(crate) fn at(&self, now: Nanos) -> Nanos {
        let offset = self.offset_at_most.load(Ordering::Relaxed);
        now.wrapping_add(offset).min(Timeline::MAX)
    }

    /// Returns what the store's clock shows when this one shows `now`, or earlier: a wait from it is never too short.
    fn at_earliest(&self, now: Nanos) -> Nanos {
        let offset = self.offset_at_least.load(Ordering::Relaxed);
        now.wrapping_add(offset).min(Timeline::MAX)
    }

    /// Wakes `waker` at a deadline or later, and spawns the task that does, if there is none: see [`Timers::set`].
    fn wake_at(&self, key: &mut Option<timers::TimerKey>, deadline: Nanos, waker: &Waker) {
        if self.timers.set(key, deadline, waker) {
            self.spawn(self.timers.run_task(self.clock.clone()));
        }
    }

    /// Spawns work that outlives its request, on the runtime at hand or the first that has polled a call. Without any,
    /// the work is dropped at once. The tasks of this module say so in `Drop`, and the next request has them spawned
    /// again; what a call takes after it was given up stays taken.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let here = Handle::try_current().ok();
        if let Some(runtime) = here.as_ref().or_else(|| self.runtime.get()) {
            runtime.spawn(work);
        }
    }

    /// Records what the answer to a call that was sent at `sent` tells of those to come: the bounds of the clock, and
    /// the states of enforced buckets.
    ///
    /// States are remembered if another request like this one would be refused by one of them, or if the call was a
    /// `peek`. Otherwise they only bring up to date what is remembered already.
    fn record_answer(&self, charges: &[Charge], taken: &Taken, sent: Nanos, peek: bool) {
        let now = self.clock.now();
        let store_now = taken.now.min(Timeline::MAX);
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
            // All buckets are remembered, not the empty one alone: a refusal tells the readings of all.
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

    /// Returns the key of a limit's bucket among the leases. `None`: it does not lie in the store.
    #[inline]
    fn hash(&self, bound: &BoundLimit, identity: u128) -> Option<u64> {
        let id = bound.id.as_ref()?;
        Some(self.hasher.hash_one((&**id, bound.client(identity))))
    }

    /// Returns the same from the name by which the store knows the bucket.
    fn hash_of(&self, key: &BucketKey) -> u64 {
        self.hasher.hash_one((key.limit(), key.client()))
    }

    /// Returns the key of a limit's bucket in the deny cache: the bucket, and the meter whose terms its state is in.
    /// After a reload that changes the meter, an older state is not found.
    #[inline]
    fn denied_hash(&self, bound: &BoundLimit, identity: u128) -> Option<u64> {
        let id = bound.id.as_ref()?;
        // The meter as the store knows it, without a largest cost.
        let budget = Budget::new(bound.limit.meter?);
        let client = bound.client(identity);
        let bucket = (&**id, client, budget.meter());
        Some(self.hasher.hash_one(bucket))
    }

    /// Returns the same from the name by which the store knows the bucket.
    fn denied_hash_of(&self, key: &BucketKey, budget: &Budget) -> u64 {
        let bucket = (key.limit(), key.client(), budget.meter());
        self.hasher.hash_one(bucket)
    }
}

/// Returns the name by which the store knows the bucket. `None`: it does not lie there.
fn key(bound: &BoundLimit, identity: u128) -> Option<BucketKey> {
    let id = Arc::clone(bound.id.as_ref()?);
    Some(BucketKey::new(id, bound.client(identity)))
}

/// Returns the charge of a limit for a request, without a lease. `None` for limits that do not lie in the store, or are
/// closed.
fn charge(bound: &BoundLimit, demand: Demand) -> Option<Charge> {
    let Limit { meter, shadow, .. } = &bound.limit;
    let budget = Budget::new((*meter)?);
    let mut charge = Charge::new(key(bound, demand.identity)?, budget, bound.cost(demand));
    charge.is_shadow = *shadow;
    charge.is_settled = bound.limit.is_settled();
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
