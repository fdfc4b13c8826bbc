//! The rules in force, and how others take their place.
//!
//! A throttle has one [`ActiveRules`], whatever services, clones and connections it has. It holds one [`RuleSet`] at a
//! time. Requests load it without a lock and are decided by the one that they have found; a reload makes the next one
//! beside it and exchanges the two at once.
//!
//! # Invariants
//!
//! - **Whole or not at all.** Rules are compiled and their set is made before anything in force is touched. A reload
//!   that fails leaves no trace, neither in balances nor in the registry.
//! - **One reload at a time.** The lock of the registry is held throughout, and snapshots wait for it. No request takes
//!   it.
//! - **One balance for each limit.** A limit that stays shares its bucket with the set before, whoever charges it. The
//!   bucket tells by its version in whose terms its state is: a request that finds newer terms than its own, or a
//!   closed bucket, takes nothing and begins anew with the rules in force. No request is charged in terms that are
//!   gone: see [`meter_history`](crate::limiter::meter_history).
//! - **Used stays used.** A bucket is closed before its heirs are charged for the first time, and they begin with what
//!   it held. So no request falls between the two.
//! - **No undeclared route is lost.** Requests enter such routes at any time. The sets of the old rules are sealed
//!   before the new rules hold, and whatever was entered until then is carried over.
//!
//! # The steps of a reload
//!
//! 1. Compare the keys, compile the rules, make the new set. All errors come from here.
//! 2. Commit: nothing can fail any more.
//! 3. Carry over the undeclared routes that there are, and make the limits that requests will look for. This takes the
//!    longest, and requests go on under the old rules: all but those of undeclared routes that a key takes from or
//!    gives to, whose buckets are closed here, one after the other. Over a store, list the budgets of corrections.
//! 4. Hand over the balances of other routes, which closes buckets. A request that needs a closed one yields and looks
//!    again until step 6, so there is nothing slow from here on.
//! 5. Seal the old sets, and carry over what was entered since step 3; if something was, list the budgets anew. A request
//!    that would enter a route now waits, too.
//! 6. Have the budgets of a store's corrections and the histories of changed limits go on, bring each bucket of these
//!    into the new terms, and exchange the sets. A request that needs a changed limit waits in between. Bring what each
//!    lost key has left into the new terms, forget the old ones, add up what the old set has counted, and wake all
//!    queues, since any limit may have room now.
//! 7. Write the registry and let go of its lock. Only then are listeners told, for one may ask for a snapshot.
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
};

use arc_swap::{ArcSwap, Guard};

use super::{key_changes::KeyChanges, routes::UNDECLARED, rule_set::RuleSet};
use crate::{
    clock::Timeline,
    gate::Gate,
    limiter::{Limiter, limit_set::BoundLimit},
    observe::{
        self, Log, StoreWatch,
        snapshot::{LimitSnapshot, RouteSnapshot, Snapshot},
    },
    route::RouteKey,
    rules::{Changes, Handover, Registry, Rules, RulesError},
    store::{
        Store,
        client::{PresentBudgets, StoreClient},
    },
};

/// The rules in force of a throttle. See the [module](self) for how others take their place.
pub(crate) struct ActiveRules {
    /// The limits and balances. Exchanged by a reload, and never written to otherwise. Loaded once for a decision,
    /// since two loads may return different ones.
    pub(super) rule_set: ArcSwap<RuleSet>,
    /// The limits as the rules in force declare them, for the next reload to compare with. Who holds the lock is alone
    /// in changing the rules.
    registry: Mutex<Registry>,
    /// The gate, which stays whatever rules are in force.
    pub(crate) gate: Gate,
}

impl ActiveRules {
    /// Compiles the first rules of a throttle. All its buckets are full. With a store, the balances of rates, quotas
    /// and model tokens are kept there.
    ///
    /// # Errors
    ///
    /// As [`reload`](Self::reload), but for what compares with rules before.
    pub(crate) fn new(
        rules: &Rules,
        clock: Timeline,
        store: Option<Arc<dyn Store>>,
    ) -> Result<Self, RulesError> {
        observe::describe();
        let limiter = Arc::new(Limiter::new(clock));
        let empty = Registry::default();
        let now = limiter.now();
        let mut draft = empty.draft(now, Handover::default());
        let compiled = rules.compile(&mut draft)?;
        let log = Arc::<Log>::default();
        let store_client = store.map(|store| {
            let watch = StoreWatch::new(Arc::clone(&log));
            let clock = limiter.clock().clone();
            let client = StoreClient::new(store, clock, move |event| watch.told(&event));
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
        })
    }

    /// Returns the rules in force now. Two calls may return different ones, so a decision loads them once.
    ///
    /// The guard is cheap and meant for the length of a decision: what waits keeps a clone of the `Arc` instead.
    #[inline]
    pub(crate) fn rules(&self) -> Guard<Arc<RuleSet>> {
        self.rule_set.load()
    }

    /// Returns what the throttle looks like now. Waits for a reload that is under way, and no request waits for it.
    ///
    /// What requests have counted under one set of limits is added to routes and limits first, so each admitted request
    /// counts once, though it touches one counter only.
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
            limits.map(move |bound| counted(bound, route, key.plan()))
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
        }
    }

    /// Closes the gate: requests from now on are refused, and those in line in their next turn, which comes now. Other
    /// rules do not open it.
    pub(crate) fn close(&self) {
        self.gate.close();
        let limiter = &self.rules().limiter;
        limiter.queues.wake_all(|| limiter.now());
    }

    /// Puts other rules into the place of those in force, and tells what has changed.
    ///
    /// Takes time in proportion to the routes, limits and undeclared routes that there are, and blocks its thread
    /// meanwhile. Requests go on, but for the short time in steps 4 to 6 of the [module](self).
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the rules by themselves, and what a throttle cannot change while it runs: the secret that
    /// names clients, and the size of the table of clients. The rules in force stay.
    ///
    /// # Panics
    ///
    /// If a recorder of metrics does, when it is asked for meters. The new rules are in force then.
    pub(crate) fn reload(&self, rules: &Rules) -> Result<Changes, RulesError> {
        self.reload_while(rules, |_| ())
    }

    /// [`ActiveRules::reload`] with what happens `meanwhile`: under the rules that still hold, just before they are
    /// retired, and under the new ones as soon as they hold. For tests of exactly these moments.
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
