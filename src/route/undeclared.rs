//! A bounded set of routes that nobody declared.
//!
//! Each gets a value of its own until the set is full; after that they share one. Nothing of what a
//! client sent is kept but a keyed 64-bit hash, so that the set's size does not depend on it, and
//! nobody outside can find two routes that collide.
//!
//! The set only grows, up to its bound, so that reading it takes no lock: a slot is written once.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Open addressing over slots that are written once. At most half of them ever are.
#[derive(Debug)]
pub(crate) struct Undeclared<V> {
    slots: Box<[OnceLock<(u64, V)>]>,
    /// Slots that were given away. Guards nothing but its own count, hence relaxed.
    used: AtomicUsize,
    overflow: V,
    hasher: RandomState,
}

impl<V> Undeclared<V> {
    /// How many routes get a value of their own.
    pub(crate) const MAX: usize = 1_024;

    pub(crate) fn new(overflow: V) -> Self {
        Self {
            slots: (0..2 * Self::MAX).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
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

    /// Tells whether new routes find no room.
    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= Self::MAX
    }

    /// The value of its own that a route has.
    pub(crate) fn find(&self, hash: u64) -> Option<&V> {
        let slots = self.from(hash).map_while(OnceLock::get);
        let mut found = slots.filter(|(kept, _)| *kept == hash);
        found.next().map(|(_, value)| value)
    }

    /// What a route is known by here, and in those that come after this one.
    pub(crate) fn hash(&self, route: &impl Hash) -> u64 {
        self.hasher.hash_one(route)
    }

    /// The slots where a route may lie.
    fn from(&self, hash: u64) -> impl Iterator<Item = &OnceLock<(u64, V)>> {
        let mask = self.slots.len() - 1;
        let start = usize::try_from(hash & 0xffff_ffff).unwrap_or(0);
        (0..self.slots.len()).map(move |step| &self.slots[(start + step) & mask])
    }

    /// The value of a route, made now if it is new and there is room, else the shared one. Says whether it was made
    /// now.
    pub(crate) fn get(&self, hash: u64, make: impl Fn() -> V) -> (&V, bool) {
        let mut reserved = false;
        for slot in self.from(hash) {
            if slot.get().is_none() {
                reserved = reserved || self.reserve();
                if !reserved {
                    return (&self.overflow, false);
                }
            }
            let mut new = false;
            let (kept, value) = slot.get_or_init(|| {
                new = true;
                (hash, make())
            });
            if *kept == hash {
                if reserved && !new {
                    // Another thread wrote the same route first.
                    self.used.fetch_sub(1, Ordering::Relaxed);
                }
                return (value, new);
            }
        }
        (&self.overflow, false)
    }

    fn reserve(&self) -> bool {
        let more = |used: usize| (used < Self::MAX).then_some(used + 1);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn a_route_keeps_its_value_and_the_rest_share_one() {
        let set = Undeclared::new(usize::MAX);
        let mut own = 0;
        for route in 0..3_000usize {
            let value = *set.get(set.hash(&route), || route).0;
            assert!(value == route || value == usize::MAX);
            own += usize::from(value == route);
        }
        assert_eq!(own, Undeclared::<usize>::MAX);
        for route in 0..3_000usize {
            let expected = if route < Undeclared::<usize>::MAX {
                route
            } else {
                usize::MAX
            };
            assert_eq!(
                *set.get(set.hash(&route), || unreachable!("nothing is new"))
                    .0,
                expected
            );
        }
    }

    #[test]
    fn a_route_is_found_where_it_was_entered_and_by_whom_comes_after() {
        let set = Undeclared::new(usize::MAX);
        let kept: HashSet<_> = (0..100usize)
            .map(|route| (set.hash(&route), route))
            .collect();
        for (hash, route) in &kept {
            assert_eq!(set.find(*hash), None, "before it is there");
            set.get(*hash, || *route);
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
        let set = Undeclared::new(());
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
    fn threads_agree_on_each_route_and_the_bound_holds() {
        let set = Undeclared::new(Box::new(usize::MAX));
        let seen: Vec<HashSet<usize>> = thread::scope(|scope| {
            let run = || {
                let address = |route: usize| {
                    let (value, _) = set.get(set.hash(&route), || Box::new(route));
                    std::ptr::from_ref(&**value).addr()
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
            all.len() <= Undeclared::<usize>::MAX + 1,
            "{} values",
            all.len()
        );
        assert_eq!(set.used.load(Ordering::Relaxed), Undeclared::<usize>::MAX);
        let own = set.slots.iter().filter(|slot| slot.get().is_some()).count();
        assert_eq!(own, Undeclared::<usize>::MAX);
    }
}
