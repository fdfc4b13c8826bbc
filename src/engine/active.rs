//! The rules that hold, and how others take their place.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use arc_swap::{ArcSwap, Guard};

use super::{key_changes::KeyChanges, routes::UNDECLARED, rule_set::RuleSet};
use crate::{
    clock::Clock,
    limiter::{
        Limiter,
        limit_set::{BoundLimit, Storage},
    },
    observe::{
        self, StoreWatch,
        snapshot::{LimitSnapshot, RouteSnapshot, Snapshot},
    },
    route::RouteKey,
    rules::{Changes, Handover, Registry, Rules, RulesError},
    store::{
        Store,
        client::{StoreClient, StoreSlot},
    },
};

/// The rules that hold.
///
/// # How others take their place
///
/// The new ones are made whole, beside the old, and exchanged at once. A request is decided by those it has found; if
/// it finds a balance that newer ones have told in their terms, it leaves that alone and begins anew with them. Limits
/// that stay share their balances with those before, so that it is one balance whoever charges it.
///
/// Requests enter routes that nobody declared at any time. Those that are there are carried over first, which takes
/// long. Then the old set is sealed, and what was entered meanwhile is carried over before the new rules hold. A request
/// that would enter a route after that begins anew until they hold.
pub(crate) struct ActiveRules {
    rule_set: ArcSwap<RuleSet>,
    /// Of the rules that hold. Who has it is alone in changing them.
    registry: Mutex<Registry>,
}

impl ActiveRules {
    pub(crate) fn new(rules: &Rules, clock: Clock) -> Result<Self, RulesError> {
        observe::describe();
        let limiter = Arc::new(Limiter::new(clock));
        let empty = Registry::default();
        let now = limiter.now();
        let mut draft = empty.draft(now, Handover::default());
        let compiled = rules.compile(&mut draft)?;
        let rule_set = RuleSet::new(compiled, &limiter, &StoreSlot::default(), None)?;
        Ok(Self {
            rule_set: ArcSwap::from_pointee(rule_set),
            registry: Mutex::new(draft.commit(now)),
        })
    }

    /// The rules that hold now.
    #[inline]
    pub(crate) fn state(&self) -> Guard<Arc<RuleSet>> {
        self.rule_set.load()
    }

    /// Has balances lie in a store from now on.
    pub(crate) fn connect(&self, store: Arc<dyn Store>) -> Result<(), RulesError> {
        // No reload between the look and the change.
        let _registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let rule_set = self.rule_set.load();
        if !rule_set.may_be_shared() {
            return Err(RulesError::NoSecret);
        }
        let watch = StoreWatch::new(Arc::clone(&rule_set.log));
        let clock = *rule_set.limiter.clock();
        let store_client = StoreClient::new(store, clock, move |event| watch.told(&event));
        match rule_set.store.fill(store_client) {
            true => Ok(()),
            false => Err(RulesError::SecondStore),
        }
    }

    /// What it looks like now. Waits for a reload, and no request waits for it.
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
        // Of all others together: each of them has the same limits in the same order.
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
            overflowed: rule_set.limiter.memory.overflowed(),
            without_address: rule_set.unidentified.without_address.get(),
            unknown_plans: rule_set.unidentified.unknown_plans.get(),
        }
    }

    /// Puts other rules into the place of those that hold, if they hold together.
    pub(crate) fn reload(&self, rules: &Rules) -> Result<Changes, RulesError> {
        self.reload_while(rules, |_| ())
    }

    /// [`ActiveRules::reload`] with what happens `meanwhile`: under the rules that still hold, just before they are retired,
    /// and under the new ones as soon as they hold.
    pub(super) fn reload_while(
        &self,
        rules: &Rules,
        mut meanwhile: impl FnMut(&RuleSet),
    ) -> Result<Changes, RulesError> {
        // It is whole whenever it is let go of.
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
            Some((&old, key_changes)),
        )?);

        let next = draft.commit(limiter.now());
        // What takes long comes first: once a bucket is closed, its requests wait for the new rules.
        let entered = old.entered();
        let successions = new.successions(&old);
        // Most routes before anybody needs them there.
        new.adopt(&old);
        new.prepare_as(&old);
        new.succeed(successions);
        meanwhile(&old);
        old.seal();
        // And those that were new in the meantime, before anybody is decided by rules that know nothing of them.
        if old.entered() != entered {
            new.adopt(&old);
            new.succeed_late(&old);
        }
        self.rule_set.store(Arc::clone(&new));
        meanwhile(&new);
        let declared = next.scopes().flat_map(|(_, limits)| limits);
        for bound in declared.chain(new.undeclared_limits()) {
            let buckets = match &bound.home {
                Storage::Bucket(bucket) => std::slice::from_ref(&**bucket),
                Storage::Client(page) => page.overflow(),
            };
            for bucket in buckets {
                bucket.update(bound.version, &bound.history);
            }
        }
        next.forget();
        old.settle();
        limiter.lines.wake_all(|| limiter.now());
        let changes = Changes::between(&registry, &next);
        *registry = next;
        drop(registry);
        // Nobody knows what a listener does: it may ask for a snapshot.
        observe::reloaded(&changes);
        // It is put away here, and not by the last request that was decided by it, if that ends soon.
        for _ in 0..100 {
            if Arc::strong_count(&old) == 1 {
                break;
            }
            thread::yield_now();
        }
        Ok(changes)
    }
}

impl fmt::Debug for ActiveRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule_set.load().fmt(f)
    }
}
