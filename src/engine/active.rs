//! The rules in force, and their exchange by a reload.
//!
//! A throttle has one [`ActiveRules`] for all of its services, clones and connections. It holds one [`RuleSet`] at a
//! time. Requests load this set without a lock and are decided by it. A reload makes the next set beside it and
//! exchanges the two at once.
//!
//! # Invariants
//!
//! - **All or nothing.** Rules are compiled and their set is made before anything in force changes. A failed reload
//!   leaves no trace, neither in balances nor in the registry.
//! - **One reload at a time.** A reload holds the lock of the registry, and snapshots wait for it. No request takes it.
//! - **One balance for each limit.** A limit that stays shares its bucket with the previous set. The version of a
//!   bucket names the terms of its state. A request that finds newer terms than its own, or a closed bucket, takes
//!   nothing and begins again with the rules in force. No request is charged in former terms: see
//!   [`meter_history`](crate::limiter::meter_history).
//! - **Used stays used.** A bucket is closed before its heirs are first charged, and the heirs begin with its balance.
//!   So no charge is lost in between.
//! - **No undeclared route is lost.** Requests enter such routes at any time. The sets of the old rules are sealed
//!   before the new rules are in force, and all routes entered until then are carried over.
//!
//! # The steps of a reload
//!
//! 1. Compare the keys, compile the rules, make the new set. All errors come from here.
//! 2. Commit: nothing can fail any more.
//! 3. Carry over the existing undeclared routes, and prepare the limits that requests will look for. This takes the
//!    longest time. Requests go on under the old rules, except on undeclared routes whose key is added or removed:
//!    their buckets are closed here, one after the other. With a store, list the budgets of corrections.
//! 4. Hand over the balances of other routes, which closes buckets. A request that needs a closed bucket yields and
//!    looks again until step 6, so no later step is slow.
//! 5. Seal the old sets, and carry over the routes entered since step 3. If there are any, list the budgets again. A
//!    request that would enter a route now waits, too.
//! 6. Update the budgets of corrections and the histories of changed limits, convert each bucket of these to the new
//!    terms, and exchange the sets. A request that needs a changed limit waits in between. Convert the balances of lost
//!    keys, forget the old rules, sum up the counts of the old set, and wake all queues, because any limit may have
//!    room now.
//! 7. Write the registry and release its lock. Listeners are told after that, because one may ask for a snapshot.
//!
//! # Memory ordering
//!
//! The exchange is that of [`ArcSwap`]: who loads a set sees all that was written to make it. Buckets and sealed sets
//! have orderings of their own, see there; none relies on a request having seen the exchange.
//!
//! # Who may call it
//!
//! Services and what waits load the rules. A layer that is built makes the first ones. A handle reloads and takes
//! snapshots.

use std::{
    fmt, iter,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};

use super::{key_changes::KeyChanges, routes::UNDECLARED, rule_set::RuleSet};
use crate::{
    admission::BoundedRequests,
    clock::Timeline,
    gate::Gate,
    limiter::{Limiter, limit_set::BoundLimit},
    observe::{
        self, Log, StoreWatch,
        snapshot::{LimitSnapshot, RouteSnapshot, Snapshot},
    },
    route::RouteKey,
    rules::{Changes, Handover, ModelKey, Registry, Rules, RulesError},
    store::{
        Store,
        client::{PresentBudgets, StoreClient},
    },
};

/// The rules in force of a throttle. See the [module](self) for their exchange.
pub(crate) struct ActiveRules {
    /// The limits and balances. Only a reload exchanges them. Loaded once for a decision, because two loads may return
    /// different sets.
    pub(super) rule_set: ArcSwap<RuleSet>,
    /// The limits as the rules in force declare them, for the next reload to compare with. Only the holder of the lock
    /// changes the rules.
    registry: Mutex<Registry>,
    /// The gate, which reloads do not change.
    pub(crate) gate: Gate,
    /// The requests that handlers keep for a bounded time. Reloads do not change them.
    pub(crate) bounded: Arc<BoundedRequests>,
}

impl ActiveRules {
    /// Compiles the first rules of a throttle. All its buckets are full. With a store, the balances of rates, quotas
    /// and model tokens are kept there; each call to it has a deadline.
    ///
    /// # Errors
    ///
    /// As [`reload`](Self::reload), without those of a comparison with the previous rules.
    pub(crate) fn new(
        rules: &Rules,
        clock: Timeline,
        store: Option<(Arc<dyn Store>, Duration)>,
    ) -> Result<Self, RulesError> {
        observe::describe();
        let limiter = Arc::new(Limiter::new(clock));
        let empty = Registry::default();
        let now = limiter.now();
        let mut draft = empty.draft(now, Handover::default());
        let compiled = rules.compile(&mut draft)?;
        let log = Arc::<Log>::default();
        let store_client = store.map(|(store, deadline)| {
            let watch = StoreWatch::new(Arc::clone(&log));
            let clock = limiter.clock().clone();
            let client = StoreClient::new(store, clock, deadline, move |event| watch.told(&event));
            Arc::new(client)
        });
        let rule_set = RuleSet::new(compiled, &limiter, &store_client, &log, None)?;
        let (registry, terms) = draft.commit();
        // There are no balances yet.
        terms.push(iter::empty(), || now);
        Ok(Self {
            rule_set: ArcSwap::from_pointee(rule_set),
            registry: Mutex::new(registry),
            gate: Gate::open(false),
            bounded: Arc::new(BoundedRequests::new()),
        })
    }

    /// Returns the rules in force now. Two calls may return different ones, so a decision loads them once.
    ///
    /// The guard is cheap and meant for the length of a decision. A request that waits keeps a clone of the `Arc`
    /// instead.
    #[inline]
    pub(crate) fn rules(&self) -> Guard<Arc<RuleSet>> {
        self.rule_set.load()
    }

    /// Returns a snapshot of the throttle. Waits for a reload that is under way. No request waits for a snapshot.
    ///
    /// Counts of each set of limits are first added to its route and limits, so that each admitted request counts once,
    /// though it touches one counter only.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let rule_set = self.rule_set.load();
        rule_set.settle();
        let now = rule_set.limiter.now();
        let counted = |bound: &BoundLimit, route: Option<&str>, plan: Option<&Arc<str>>| {
            let mut limit = LimitSnapshot::new(bound, route, plan).at(bound, now);
            limit.add(&bound.counters);
            limit
        };
        let declared = registry.scopes().flat_map(|(key, limits)| {
            let route = key.route().map(RouteKey::as_str);
            let limits = limits.iter().filter(|bound| !bound.rests);
            let model = key.model().map(ModelKey::label);
            limits.map(move |bound| LimitSnapshot {
                model: model.clone(),
                ..counted(bound, route, key.plan())
            })
        });
        let mut limits: Vec<_> = declared.collect();
        for route in rule_set.named_routes() {
            let own = route.own.iter().filter(|bound| !bound.rests);
            limits.extend(own.map(|bound| counted(bound, Some(&route.key), None)));
        }
        // All other undeclared routes are told as one: each of them has the same limits in the same order.
        let mut others: Vec<_> = Vec::new();
        let mut rest = RouteSnapshot::new(UNDECLARED);
        for route in rule_set.unnamed_routes() {
            rest.add(&route.counters);
            let own = route.own.iter().filter(|bound| !bound.rests);
            for (index, bound) in own.enumerate() {
                if others.len() == index {
                    others.push(LimitSnapshot::new(bound, None, None));
                }
                others[index].add(&bound.counters);
            }
        }
        limits.extend(others);
        let routes = rule_set.table.values().chain(rule_set.named_routes());
        let routes = routes.map(|route| {
            let mut counted = RouteSnapshot::new(&route.key);
            counted.add(&route.counters);
            counted
        });
        let mut routes: Vec<_> = routes.collect();
        // Where `$default` is a key, it takes all others.
        if routes.iter().all(|counted| counted.route != UNDECLARED) {
            routes.push(rest);
        }
        Snapshot {
            limits,
            routes,
            overflowed: rule_set.limiter.clients.overflowed(),
            without_address: rule_set.unidentified.without_address.get(),
            unknown_plans: rule_set.unidentified.unknown_plans.get(),
            unread_models: rule_set.unidentified.unread_models.get(),
        }
    }

    /// Closes the gate. New requests are refused, and requests in line are woken to be refused. A reload does not open
    /// the gate.
    pub(crate) fn close(&self) {
        self.gate.close();
        let limiter = &self.rules().limiter;
        limiter.queues.wake_all(|| limiter.now());
    }

    /// Replaces the rules in force by others, and returns the changes.
    ///
    /// The time is proportional to the number of routes, limits and undeclared routes, and the thread is blocked
    /// meanwhile. Requests go on, except for the short time of steps 4 to 6 of the [module](self).
    ///
    /// # Errors
    ///
    /// Faults of the rules themselves, and changes that a running throttle cannot make: of the secret that names
    /// clients, and of the size of the table of clients. The rules in force stay.
    ///
    /// # Panics
    ///
    /// If a recorder of metrics panics when it is asked for meters. The new rules are in force then.
    pub(crate) fn reload(&self, rules: &Rules) -> Result<Changes, RulesError> {
        self.reload_while(rules, |_| ())
    }

    /// Reloads, and calls `meanwhile` with the old rules just before they are retired, and with the new ones as soon as
    /// they are in force. For tests of these two moments.
    pub(super) fn reload_while(
        &self,
        rules: &Rules,
        mut meanwhile: impl FnMut(&RuleSet),
    ) -> Result<Changes, RulesError> {
        // The registry is whole whenever the lock is let go of: it is exchanged as one value.
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.rule_set.load_full();
        let limiter = Arc::clone(&old.limiter);
        let key_changes = KeyChanges::between(&old, rules);
        let mut draft = registry.draft(limiter.now(), key_changes.handover(&old));
        let compiled = rules.compile(&mut draft)?;
        let new = Arc::new(RuleSet::new(
            compiled,
            &limiter,
            &old.store,
            &old.log,
            Some((&old, key_changes)),
        )?);

        let (next, terms) = draft.commit();
        // Step 3. What takes long comes first: once a bucket is closed, its requests wait for the new rules.
        let entered = old.entered();
        let successions = new.successions(&old);
        // Most routes are there before anybody needs them.
        new.adopt(&old);
        // A recorder of metrics that panics ends no reload half-way: buckets are closed by now, whose requests wait for
        // the new rules.
        let prepared = catch_unwind(AssertUnwindSafe(|| new.prepare_as(&old)));
        let store_client = new.store.as_ref();
        let budgets = || store_client.map(|_| present_budgets(&next, &new));
        let mut present = budgets();
        new.succeed(successions, &old);
        meanwhile(&old);
        old.seal();
        // Step 5: routes that were new in the meantime, before anybody is decided by rules that know nothing of them.
        if old.entered() != entered {
            new.adopt(&old);
            new.succeed_late(&old);
            present = budgets();
        }
        let replaced = store_client.zip(present);
        let replaced = replaced.map(|(store_client, present)| store_client.set_present(present));
        let declared = next.scopes().flat_map(|(_, limits)| limits);
        let bounds = declared.chain(new.undeclared_limits());
        terms.push(bounds, || limiter.now_ordered());
        self.rule_set.store(Arc::clone(&new));
        meanwhile(&new);
        // There may be many.
        drop(replaced);
        new.lost_keys.follow();
        next.forget();
        old.settle();
        limiter.queues.wake_all(|| limiter.now());
        let changes = Changes::between(&registry, &next);
        *registry = next;
        drop(registry);
        // Without the lock: a listener may do anything, such as ask for a snapshot.
        observe::reloaded(&changes);
        // The old rules are put away here, and not by the last request that was decided by them, if that ends soon:
        // dropping thousands of routes takes a while.
        for _ in 0..100 {
            if Arc::strong_count(&old) == 1 {
                break;
            }
            thread::yield_now();
        }
        match prepared {
            Ok(()) => Ok(changes),
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Returns the budgets by which rules charge a store.
fn present_budgets(registry: &Registry, rule_set: &RuleSet) -> PresentBudgets {
    let declared = registry.scopes().flat_map(|(_, limits)| limits);
    PresentBudgets::of(declared.chain(rule_set.undeclared_limits()))
}

impl fmt::Debug for ActiveRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule_set.load().fmt(f)
    }
}
