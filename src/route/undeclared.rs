//! A bounded set of routes that nobody declared.
//!
//! Each gets a value of its own until the set is full; after that they share one. Nothing of what a
//! client sent is kept but a keyed 64-bit hash, so that the set's size does not depend on it, and
//! nobody outside can find two routes that collide.
//!
//! # Invariants
//!
//! - **The set only grows, up to its bound.** A slot is written once, so that reading takes no lock. Routes are entered
//!   under a lock, one after the other: each is entered once, and the count is that of the slots that are written.
//! - **A sealed set is complete.** Once [`seal`](BoundedMap::seal) has returned, no route is entered, and whoever
//!   sealed the set finds all routes that anybody was given. So a reload may carry all of them over, and none is
//!   charged that it does not know.
//!
//! # Memory ordering
//!
//! The lock orders entries among each other and with the seal; a slot carries the value that is written there. The
//! count is written with release after each slot, and read with acquire: who finds the set full sees all of its routes.

#[cfg(test)]
use std::cell::Cell;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    sync::PoisonError,
};

use crate::sync::{AtomicUsize, Mutex, OnceLock, Ordering};

#[cfg(test)]
thread_local! {
    /// The most routes that sets made by this thread take: for tests that make many sets, each of a few routes.
    pub(crate) static MOST_ROUTES: Cell<usize> = const { Cell::new(BoundedMap::<()>::MAX) };
}

/// Open addressing over slots that are written once. At most half of them ever are.
#[derive(Debug)]
pub(crate) struct BoundedMap<V> {
    slots: Box<[OnceLock<(u64, V)>]>,
    /// Slots that are written.
    used: AtomicUsize,
    /// Held by a thread that enters a route, and tells whether the set is sealed.
    entering: Mutex<bool>,
    overflow: V,
    hasher: RandomState,
}

/// A route is not entered, since the set is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed;

impl<V> BoundedMap<V> {
    /// The most routes that get a value of their own.
    pub(crate) const MAX: usize = if cfg!(throttle_loom) { 2 } else { 1_024 };

    pub(crate) fn new(overflow: V) -> Self {
        #[cfg(not(test))]
        let most = Self::MAX;
        #[cfg(test)]
        let most = MOST_ROUTES.get();
        Self {
            slots: (0..2 * most).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
            entering: Mutex::new(false),
            overflow,
            hasher: RandomState::new(),
        }
    }

    /// An empty one that knows the same routes by the same hashes.
    pub(crate) fn successor(&self, overflow: V) -> Self {
        Self {
            hasher: self.hasher.clone(),
            ..Self::new(overflow)
        }
    }

    /// All routes that have a value of their own, by their hashes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u64, V)> {
        self.slots.iter().filter_map(OnceLock::get)
    }

    /// The value that those share who find no room.
    pub(crate) fn overflow(&self) -> &V {
        &self.overflow
    }

    /// Returns whether new routes find no room.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.slots.len() / 2
    }

    /// The value of its own that a route has.
    pub(crate) fn find(&self, hash: u64) -> Option<&V> {
        let slots = self.from(hash).map_while(OnceLock::get);
        let mut found = slots.filter(|(kept, _)| *kept == hash);
        found.next().map(|(_, value)| value)
    }

    /// Returns the hash by which a route is known in this set, and in its successors.
    pub(crate) fn hash(&self, route: &impl Hash) -> u64 {
        self.hasher.hash_one(route)
    }

    /// The slots where a route may lie.
    fn from(&self, hash: u64) -> impl Iterator<Item = &OnceLock<(u64, V)>> {
        let mask = self.slots.len() - 1;
        let start = usize::try_from(hash & 0xffff_ffff).unwrap_or(0);
        (0..self.slots.len()).map(move |step| &self.slots[(start + step) & mask])
    }

    /// The value of a route, made now if it is new and there is room, else the shared one.
    ///
    /// # Errors
    ///
    /// The route is new, there is room, and the set is sealed.
    pub(crate) fn get(&self, hash: u64, make: impl FnOnce() -> V) -> Result<&V, Sealed> {
        for slot in self.from(hash) {
            let seen = slot.get();
            if seen.is_none() && !self.is_full() {
                return self.enter(hash, make);
            }
            // The last route may have been entered in between. In a full set, an empty slot stays empty.
            match seen.or_else(|| slot.get()) {
                Some((kept, value)) if *kept == hash => return Ok(value),
                Some(_) => {}
                None => break,
            }
        }
        Ok(&self.overflow)
    }

    #[cold]
    fn enter(&self, hash: u64, make: impl FnOnce() -> V) -> Result<&V, Sealed> {
        // Each step leaves it whole.
        let is_sealed = self.entering.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in self.from(hash) {
            match slot.get() {
                // Another thread was first.
                Some((kept, value)) if *kept == hash => return Ok(value),
                Some(_) => {}
                None if self.is_full() => break,
                None if *is_sealed => return Err(Sealed),
                None => {
                    let (_, value) = slot.get_or_init(|| (hash, make()));
                    self.used.fetch_add(1, Ordering::Release);
                    return Ok(value);
                }
            }
        }
        Ok(&self.overflow)
    }

    /// Lets no further route in.
    pub(crate) fn seal(&self) {
        *self.entering.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        panic::{self, AssertUnwindSafe},
        thread,
    };

    use super::*;

    #[test]
    fn a_route_keeps_its_value_and_the_rest_share_one() {
        let set = BoundedMap::new(usize::MAX);
        let mut own = 0;
        for route in 0..3_000usize {
            let value = *set.get(set.hash(&route), || route).expect("open");
            assert!(value == route || value == usize::MAX);
            own += usize::from(value == route);
        }
        assert_eq!(own, BoundedMap::<usize>::MAX);
        for route in 0..3_000usize {
            let expected = if route < BoundedMap::<usize>::MAX {
                route
            } else {
                usize::MAX
            };
            assert_eq!(
                set.get(set.hash(&route), || unreachable!("nothing is new")),
                Ok(&expected)
            );
        }
    }

    #[test]
    fn a_route_is_found_where_it_was_entered_and_by_whom_comes_after() {
        let set = BoundedMap::new(usize::MAX);
        let kept: HashSet<_> = (0..100usize)
            .map(|route| (set.hash(&route), route))
            .collect();
        for (hash, route) in &kept {
            assert_eq!(set.find(*hash), None, "before it is there");
            assert_eq!(set.get(*hash, || *route), Ok(route));
        }
        for (hash, route) in &kept {
            assert_eq!(set.find(*hash), Some(route));
        }
        assert_eq!(set.find(set.hash(&100usize)), None);
        assert_eq!(set.iter().copied().collect::<HashSet<_>>(), kept);

        let next = set.successor(usize::MAX);
        assert_eq!(next.iter().count(), 0);
        for (hash, route) in kept {
            assert_eq!(next.hash(&route), hash);
        }
    }

    #[test]
    fn a_search_sees_each_slot_once() {
        let set = BoundedMap::new(());
        for hash in [0, 1, 2, 2_047, 4_096, u64::MAX] {
            let slots = set.from(hash).map(|slot| std::ptr::from_ref(slot).addr());
            let seen: Vec<_> = slots.collect();
            assert_eq!(seen.len(), set.slots.len(), "{hash}");
            assert_eq!(
                HashSet::<_>::from_iter(seen).len(),
                set.slots.len(),
                "{hash}"
            );
        }
    }

    #[test]
    fn a_route_whose_value_cannot_be_made_takes_no_room() {
        let set = BoundedMap::new(usize::MAX);
        for route in 0..2_000usize {
            let made = panic::catch_unwind(AssertUnwindSafe(|| {
                let _ = set.get(set.hash(&route), || panic!("no value"));
            }));
            assert!(made.is_err());
        }
        for route in 0..BoundedMap::<usize>::MAX {
            assert_eq!(set.get(set.hash(&route), || route), Ok(&route));
        }
        assert!(set.is_full());
    }

    #[test]
    fn a_sealed_set_knows_its_routes_and_takes_no_others() {
        let set = BoundedMap::new(usize::MAX);
        assert_eq!(set.get(1, || 1), Ok(&1));
        set.seal();
        assert_eq!(set.get(1, || 2), Ok(&1));
        assert_eq!(set.get(2, || 2), Err(Sealed));
        assert_eq!(set.iter().count(), 1);

        let set = BoundedMap::new(usize::MAX);
        for route in 0..BoundedMap::<usize>::MAX {
            assert_eq!(set.get(set.hash(&route), || route), Ok(&route));
        }
        set.seal();
        let other = set.hash(&usize::MAX);
        assert_eq!(set.get(other, || 0), Ok(&usize::MAX), "the shared one");
    }

    #[test]
    fn threads_agree_on_each_route_and_the_bound_holds() {
        let set = BoundedMap::new(Box::new(usize::MAX));
        let seen: Vec<HashSet<usize>> = thread::scope(|scope| {
            let run = || {
                let address = |route: usize| {
                    let value = set.get(set.hash(&route), || Box::new(route));
                    std::ptr::from_ref(&**value.expect("open")).addr()
                };
                (0..1_500).map(address).collect::<HashSet<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let all: HashSet<_> = seen.iter().flatten().collect();
        assert!(
            all.len() <= BoundedMap::<usize>::MAX + 1,
            "{} values",
            all.len()
        );
        assert_eq!(set.used.load(Ordering::Relaxed), BoundedMap::<usize>::MAX);
        let own = set.slots.iter().filter(|slot| slot.get().is_some()).count();
        assert_eq!(own, BoundedMap::<usize>::MAX);
    }
}

/// All interleavings of routes that are entered and a reload that carries them over. Run with `--cfg throttle_loom`.
#[cfg(all(test, throttle_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::model;

    const SHARED: u64 = u64::MAX;

    /// Threads enter these routes, each one after the other. Returns the values they were given.
    fn entered(set: &Arc<BoundedMap<u64>>, routes: &[&'static [u64]]) -> Vec<(u64, u64)> {
        let enter = |set: &BoundedMap<u64>, routes: &[u64]| -> Vec<_> {
            let value = |route| *set.get(route, || route).expect("open");
            routes.iter().map(|&route| (route, value(route))).collect()
        };
        let (own, others) = routes.split_first().expect("some");
        let threads: Vec<_> = { others.iter() }
            .map(|&routes| {
                let set = Arc::clone(set);
                thread::spawn(move || enter(&set, routes))
            })
            .collect();
        let mut all = enter(set, own);
        for thread in threads {
            all.extend(thread.join().expect("no panic"));
        }
        let slots = set.iter().count();
        assert_eq!(set.used.load(Ordering::Relaxed), slots, "the count");
        all
    }

    #[test]
    fn loom_a_route_that_several_enter_takes_one_place_and_each_route_that_fits_has_one() {
        model(|| {
            let set = Arc::new(BoundedMap::new(SHARED));
            // Two lie in one slot, if there were room.
            for (route, value) in entered(&set, &[&[1], &[1, 5], &[5]]) {
                assert_eq!(value, route);
            }
        });
    }

    #[test]
    fn loom_no_more_routes_than_there_is_room_for_have_a_place_and_none_is_left_empty() {
        model(|| {
            let set = Arc::new(BoundedMap::new(SHARED));
            let all = entered(&set, &[&[1, 2], &[2, 1], &[3]]);
            assert_eq!(set.iter().count(), BoundedMap::<u64>::MAX);
            for (route, value) in all {
                let own = set.find(route).copied();
                assert_eq!(value, own.unwrap_or(SHARED), "of {route}");
            }
        });
    }

    /// Routes under two rules, of which the second take the place of the first, and the requests that each has.
    struct Scene {
        old: BoundedMap<Arc<AtomicUsize>>,
        new: BoundedMap<Arc<AtomicUsize>>,
        is_reloaded: AtomicUsize,
    }

    impl Scene {
        const ROUTE: u64 = 1;

        fn new() -> Self {
            let shared = || Arc::new(AtomicUsize::new(0));
            let old = BoundedMap::new(shared());
            Self {
                new: old.successor(shared()),
                old,
                is_reloaded: AtomicUsize::new(0),
            }
        }

        fn adopt(&self) {
            for (hash, route) in self.old.iter() {
                let adopted = self.new.get(*hash, || Arc::clone(route));
                assert!(adopted.is_ok(), "it is open");
            }
        }

        fn reload(&self) {
            self.adopt();
            self.old.seal();
            // Those that were entered meanwhile.
            self.adopt();
            self.is_reloaded.store(1, Ordering::Release);
        }

        /// A request, by the rules that hold. `false`: it is outdated, and to begin anew.
        fn request(&self) -> bool {
            let set = match self.is_reloaded.load(Ordering::Acquire) {
                0 => &self.old,
                _ => &self.new,
            };
            let route = set.get(Self::ROUTE, || Arc::new(AtomicUsize::new(0)));
            if let Ok(route) = route {
                route.fetch_add(1, Ordering::Relaxed);
            }
            route.is_ok()
        }
    }

    #[test]
    fn loom_a_route_that_requests_enter_during_a_reload_is_known_to_the_rules_after_it() {
        model(|| {
            let scene = Arc::new(Scene::new());
            let requests = [(); 2].map(|()| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.request())
            });
            scene.reload();
            for request in requests {
                let is_done = request.join().expect("no panic");
                assert!(is_done || scene.request(), "outdated by no reload");
            }
            let route = scene.new.find(Scene::ROUTE).expect("known");
            assert_eq!(route.load(Ordering::Relaxed), 2, "requests that it had");
        });
    }
}
