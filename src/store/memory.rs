//! A store in this process.

use std::{
    collections::{HashMap, TryReserveError},
    fmt,
    future::ready,
    sync::{Arc, PoisonError},
};

#[cfg(feature = "test-util")]
use std::time::SystemTime;

use super::{Balance, Charge, Correction, Store, StoreFuture, Taken};
#[cfg(feature = "test-util")]
use crate::clock::nanos;
use crate::{
    clock::{Nanos, Timeline},
    limit::{
        Limit, LimitSettings, Scope, measure::Measure, meter::Meter, rate::Rate,
        reservation::Reservation,
    },
    limiter::{
        self, Limiter,
        client_table::ClientBuckets,
        limit_set::{self, BoundLimit, QueueScope, Storage},
        meter_history::{MeterHistory, MeterStep},
        readings::BucketReading,
        readings::{LimitReading, LimitReadings},
        second_budgets::ScopeNumber,
    },
    sync::{Mutex, MutexGuard},
};

/// A store in this process, which several throttles in it can share.
///
/// Use it if two servers in one process share limits, and in tests of code that uses
/// [`ThrottleLayerBuilder::store`](crate::ThrottleLayerBuilder::store). It uses the throttle's own buckets and client
/// table, and decides as a throttle without a store does.
///
/// The store follows tokio's clock, and so [paused time](https://docs.rs/tokio/latest/tokio/time/fn.pause.html).
///
/// ```
/// use tower_throttle::{Rate, Rules, ThrottleLayer, store::MemoryStore};
///
/// let store = MemoryStore::new();
/// let rules = || Rules::new().total(Rate::per_second(10).burst(5));
/// let public = ThrottleLayer::builder(rules())
///     .store(store.clone())
///     .build()?;
/// let internal = ThrottleLayer::builder(rules())
///     .store(store)
///     .build()?;
/// # let _ = (public, internal);
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Balances>,
}

struct Balances {
    limiter: Limiter,
    limits: Mutex<KnownLimits>,
}

/// The limits by their names, each as it was last asked for.
type KnownLimits = HashMap<Arc<str>, Arc<BoundLimit>>;

impl MemoryStore {
    const DEFAULT_MAX: usize = 1 << 18;

    /// Creates an empty store with room for 262,144 buckets, as many as [`Clients`](crate::Clients) have by default.
    ///
    /// # Panics
    ///
    /// If there is no memory for 4 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_MAX).expect("4 MiB of memory")
    }

    /// Creates an empty store with room for `buckets` buckets of 16 bytes each. When the store is full, several keys
    /// share a bucket; see [`Clients::max_clients`](crate::Clients::max_clients).
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn with_capacity(buckets: usize) -> Result<Self, TryReserveError> {
        Self::on(Timeline::start(), buckets)
    }

    /// Creates an empty store as [`with_capacity`](Self::with_capacity), whose wall clock shows `now` at this call:
    /// windows of quotas begin and end by it. With tokio's clock paused, a test knows when they end. The range of `now`
    /// is that of [`ThrottleLayerBuilder::wall_clock`](crate::ThrottleLayerBuilder::wall_clock).
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    #[cfg(feature = "test-util")]
    pub fn with_wall_clock(buckets: usize, now: SystemTime) -> Result<Self, TryReserveError> {
        let shown = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos);
        Self::on(Timeline::suspendable_at(shown), buckets)
    }

    fn on(timeline: Timeline, buckets: usize) -> Result<Self, TryReserveError> {
        let limiter = Limiter::new(timeline);
        limiter.clients.reserve(buckets)?;
        let inner = Balances {
            limiter,
            limits: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl Balances {
    /// Locks the limits. Each step leaves them whole.
    fn limits(&self) -> MutexGuard<'_, KnownLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a limit with this meter, and its balances.
    ///
    /// If it had another meter, its balances are carried over. A caller that has found the limit with the former meter
    /// starts over.
    fn limit(&self, limits: &mut KnownLimits, key: &Arc<str>, meter: Meter) -> Arc<BoundLimit> {
        let before = limits.get(key);
        if let Some(same) = before.filter(|known| known.limit.meter == Some(meter)) {
            return Arc::clone(same);
        }
        let bound = match before {
            Some(before) => {
                let mut bound = BoundLimit::clone(before);
                let weighed = before.limit.meter;
                if weighed.is_none_or(|weighed| !weighed.weighs_as(&meter)) {
                    bound.version += 1;
                    let (version, clock) = (bound.version, || self.limiter.now_ordered());
                    if let Storage::Client(buckets) = &before.storage {
                        bound.storage = Storage::Client(Arc::new(buckets.in_version(version)));
                        buckets.retire();
                    }
                    before.history.go_on(version, meter, clock, |steps| {
                        for bucket in before.buckets() {
                            bucket.carry_over(version, steps, clock);
                        }
                    });
                }
                bound.limit.meter = Some(meter);
                bound
            }
            None => {
                let number = u32::try_from(limits.len()).unwrap_or(u32::MAX);
                let step = MeterStep {
                    version: 0,
                    since: self.limiter.now(),
                    meter,
                };
                BoundLimit {
                    limit: Limit {
                        name: Arc::clone(key),
                        is_named: false,
                        scope: Scope::Client,
                        // The settings are not shown anywhere.
                        settings: LimitSettings::Rate(Rate::per_second(1)),
                        meter: Some(meter),
                        published: false,
                        shadow: false,
                        wait_policy: None,
                        reservation: Reservation::default(),
                        measure: Measure::None,
                        degrades_after: None,
                    },
                    units: 1,
                    storage: Storage::Client(Arc::new(ClientBuckets::new(number, 0))),
                    queue: QueueScope::Client(number),
                    scope_number: ScopeNumber::next(),
                    version: 0,
                    history: MeterHistory::new(Some(step)),
                    counters: Arc::default(),
                    id: None,
                    rests: false,
                }
            }
        };
        let bound = Arc::new(bound);
        limits.insert(Arc::clone(key), Arc::clone(&bound));
        bound
    }

    /// Returns a limit in the terms of a charge by this meter that was made no later than `until`, and its balances.
    /// `None` if there are no such terms: the limit is not put into them.
    fn charged(&self, key: &Arc<str>, meter: &Meter, until: Nanos) -> Option<BoundLimit> {
        let limits = self.limits();
        let known = limits.get(key)?;
        let version = known
            .history
            .with_lock(|steps| steps.latest(meter, until))?;
        let mut bound = BoundLimit::clone(known);
        if let Storage::Client(buckets) = &known.storage {
            bound.storage = Storage::Client(Arc::new(buckets.in_version(version)));
        }
        bound.version = version;
        Some(bound)
    }

    fn take(&self, charges: &[Charge]) -> Taken {
        let mut is_anew = false;
        loop {
            let mut known = self.limits();
            for charge in charges {
                self.limit(
                    &mut known,
                    charge.key.shared_limit(),
                    *charge.budget.meter(),
                );
            }
            // One that is asked for twice is there as it was last.
            let limit = |charge: &Charge| Arc::clone(&known[charge.key.shared_limit()]);
            let limits: Vec<_> = charges.iter().map(limit).collect();
            // Others may ask for other settings meanwhile. Who had to begin anew for that keeps them waiting.
            let _alone = is_anew.then_some(known);
            is_anew = true;
            let now = self.limiter.now();
            let pairs = || charges.iter().zip(&limits);
            let of = |shadows: bool| {
                pairs()
                    .filter(move |(charge, _)| charge.is_shadow == shadows)
                    .map(|(charge, bound)| limit_set::BucketCharge {
                        limit: &bound.limit,
                        balance: bound.balance(&self.limiter.clients, charge.key.identity()),
                        cost: charge.cost,
                    })
            };
            let clock = || self.limiter.now_ordered();
            let mut levels = LimitReadings::default();
            let admitted = limiter::admit(of(false), now, clock, || (), &mut levels);
            let Ok(is_admitted) = admitted else {
                continue;
            };
            let mut leased = Vec::new();
            if is_admitted && charges.iter().any(|charge| charge.lease > 0) {
                let asked = charges.iter().filter(|charge| !charge.is_shadow);
                let asked = asked.map(|charge| charge.lease);
                for (index, (charge, most)) in of(false).zip(asked).enumerate() {
                    leased.push(self.lease(&charge, &mut levels[index], now, most));
                }
            }
            limiter::shadow(of(true), is_admitted, now, clock, &mut levels);
            let (mut enforced, mut shadows) = {
                let count = charges.iter().filter(|charge| !charge.is_shadow).count();
                let (enforced, shadows) = levels.as_slice().split_at(count);
                (enforced.iter(), shadows.iter())
            };
            let mut leased = leased.into_iter();
            let balances = charges.iter().filter_map(|charge| {
                let (level, leased) = match charge.is_shadow {
                    true => (shadows.next(), 0),
                    false => (enforced.next(), leased.next().unwrap_or(0)),
                };
                let level = level?;
                Some(Balance {
                    state: level.state,
                    is_refused: level.refused,
                    leased,
                })
            });
            return Taken {
                is_admitted,
                now,
                balances: balances.collect(),
            };
        }
    }

    /// Takes as much of a lease as there is, beside a charge that has left the bucket so.
    fn lease(
        &self,
        charge: &limit_set::BucketCharge<'_>,
        level: &mut LimitReading,
        now: Nanos,
        most: u64,
    ) -> u64 {
        let Some(meter) = &charge.limit.meter else {
            return 0;
        };
        let units = meter.lease(level.state, now, most);
        if units == 0 {
            return 0;
        }
        let clock = || self.limiter.now_ordered();
        // Somebody may have come between: then there is none.
        let taken = charge.balance.take(level.seen(), meter, now, units, clock);
        taken.map_or(0, |seen| {
            level.see(seen);
            units
        })
    }

    fn correct(&self, corrections: &[Correction]) {
        for correction in corrections {
            let now = self.limiter.now();
            let clock = || self.limiter.now_ordered();
            let (key, budget, units) = correction.parts();
            let (key_of_limit, meter) = (key.shared_limit(), budget.meter());
            // Units come back to a bucket that is still in the terms of the charge, whatever those of other buckets of
            // the limit are. In other terms the state that they go by is another one, and they stay taken. Those who
            // hold units of the bucket count on its being refilled as in its present terms.
            let bound = match correction {
                Correction::Owe { .. } | Correction::Refund { .. } => {
                    let limit = self.limit(&mut self.limits(), key_of_limit, *meter);
                    Some(BoundLimit::clone(&limit))
                }
                Correction::Undo { taken, .. } => self.charged(key_of_limit, meter, *taken),
                Correction::Return { .. } => self.charged(key_of_limit, meter, now),
            };
            let Some(bound) = bound else {
                continue;
            };
            let balance = bound.balance(&self.limiter.clients, key.identity());
            match correction {
                Correction::Owe { .. } => balance.owe(meter, now, units, clock),
                Correction::Refund { .. } => balance.refund(false, meter, now, units),
                Correction::Undo { taken, .. } => {
                    balance.give_back(BucketReading::default(), meter, *taken, units, clock);
                }
                Correction::Return { state, .. } => balance.return_lease(*state, meter, now, units),
            }
        }
    }
}

impl Store for MemoryStore {
    fn take<'a>(&'a self, charges: &'a [Charge]) -> StoreFuture<'a, Taken> {
        Box::pin(ready(Ok(self.inner.take(charges))))
    }

    fn correct<'a>(&'a self, corrections: &'a [Correction]) -> StoreFuture<'a, ()> {
        self.inner.correct(corrections);
        Box::pin(ready(Ok(())))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        limiter::bucket::Untaken,
        store::{BucketKey, Budget},
    };

    fn budget(interval: u64) -> Budget {
        let rate = Rate::new(1, Duration::from_micros(interval)).burst(3);
        Budget::of_rate(&rate).expect("open")
    }

    fn charge(interval: u64) -> Charge {
        Charge::new(BucketKey::new("route", Some(1)), budget(interval), 1)
    }

    /// One throttle has found the limit as its own settings have it, and is kept from running. Another one has others.
    #[tokio::test(start_paused = true)]
    async fn nobody_owes_time_for_a_charge_by_settings_of_before() {
        for capacity in [8, 0] {
            let store = MemoryStore::with_capacity(capacity).expect("there is as much memory");
            let balances = &store.inner;
            let (fast, slow) = (charge(2), charge(10_000));
            let limit = |charge: &Charge| {
                let (key, meter) = (charge.key.shared_limit(), *charge.budget.meter());
                balances.limit(&mut balances.limits(), key, meter)
            };
            assert!(balances.take(std::slice::from_ref(&fast)).is_admitted);
            let before = limit(&fast);
            assert!(balances.take(std::slice::from_ref(&slow)).is_admitted);
            limit(&fast);
            limit(&slow);
            tokio::time::advance(Duration::from_millis(5)).await;
            let now = balances.limiter.now();
            for late in [before, limit(&fast)] {
                limit(&slow);
                let balance = late.balance(&balances.limiter.clients, slow.key.identity());
                let meter = late.limit.meter.expect("open");
                let taken = balance.take(balance.start(), &meter, now, 1, || now);
                assert_eq!(taken, Err(Untaken::Outdated), "{capacity}");
            }
            let present = limit(&slow);
            let balance = present.balance(&balances.limiter.clients, slow.key.identity());
            let used = slow.budget.meter().used(balance.peek(now).state, now);
            assert!(used <= 2, "{capacity}: {used} of two");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_asked_for_by_two_settings_at_once_goes_by_the_last() {
        let store = MemoryStore::with_capacity(8).expect("there is as much memory");
        let taken = store.inner.take(&[charge(2), charge(10_000)]);
        assert!(taken.is_admitted);
        let used = |balance: &Balance| budget(10_000).meter().used(balance.state, taken.now);
        let used: Vec<_> = taken.balances.iter().map(used).collect();
        assert_eq!(used, [1, 2]);
    }
}
