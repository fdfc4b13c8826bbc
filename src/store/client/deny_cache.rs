//! The deny cache: buckets of the store that are known to be empty.
//!
//! A bucket that refused is refilled only by time, at a known pace. Until a known moment it would refuse again, and
//! needs no call to say so. A flood of refused requests thus reaches the store once, not once each.
//!
//! # Invariants
//!
//! - **An entry refuses, and never admits.** It is a former state of the bucket. A bucket without an entry counts as
//!   full, and the store is called. Only the store's answer or a leased unit admits a request.
//! - **States only grow.** Each charge adds to a bucket's state, so of two answers the later state is the newer one, in
//!   whatever order they arrive. Only a correction makes a state smaller, and the process that sends one
//!   [forgets](DenyCache::forget) the entry. Corrections by other processes are not seen here: until its end an entry
//!   may refuse requests that the store would admit by now.
//! - **Only a newer answer extends an entry.** A request refused by an entry makes no call, so the entry ends in its
//!   time, and the store is called again. [`refresh`](DenyCache::refresh) sets a later state but no later end.
//! - **Fixed size.** A set-associative table of 4,096 groups with 8 entries each, allocated at once and never larger.
//!   In a full group the entry that ends first makes room, which costs one call.
//!
//! Hashes are keyed by a secret of the process, so no client can choose to collide with the entry of another.
//!
//! Each group has a lock of its own, held for a walk over its 8 entries. Threads rarely meet there.

use std::sync::PoisonError;

use crate::{clock::Nanos, sync::Mutex};

/// The last known states of 32,768 buckets at most, by the hash of a bucket and the terms that its state is in.
pub(super) struct DenyCache {
    groups: Box<[Mutex<[Entry; DenyCache::WAYS]>]>,
}

/// One bucket as it was told last. All zeros is a free entry: its end has passed.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The bucket, and its meter: settings that a reload brings are looked up as another bucket.
    hash: u64,
    /// The state of the bucket, by the store's clock.
    state: Nanos,
    /// The end of the entry, by this process's clock.
    until: Nanos,
}

impl DenyCache {
    /// The number of groups. The upper 12 bits of a hash choose one.
    const GROUPS: usize = 4_096;
    /// The number of entries in a group.
    const WAYS: usize = 8;

    /// Makes an empty cache, of about a megabyte.
    pub(super) fn new() -> Self {
        let group = |_| Mutex::new([Entry::default(); Self::WAYS]);
        Self {
            groups: (0..Self::GROUPS).map(group).collect(),
        }
    }

    /// Returns the last known state of a bucket, if it is remembered at `now`.
    pub(super) fn find(&self, hash: u64, now: Nanos) -> Option<Nanos> {
        self.with(hash, |entries| {
            let mut found = entries.iter().filter(|entry| entry.hash == hash);
            found
                .find(|entry| entry.until > now)
                .map(|entry| entry.state)
        })
    }

    /// Remembers a state, until the given moment. An answer that is older than the entry changes nothing, not even its
    /// end.
    pub(super) fn remember(&self, hash: u64, state: Nanos, now: Nanos, until: Nanos) {
        self.with(hash, |entries| {
            let known = entries.iter().position(|entry| entry.hash == hash);
            let soonest = || {
                let entries = entries.iter().enumerate();
                let soonest = entries.min_by_key(|(_, entry)| entry.until);
                soonest.map_or(0, |(index, _)| index)
            };
            let index = known.unwrap_or_else(soonest);
            let entry = &mut entries[index];
            // Answers may come out of order. What a bucket owes only grows, until a correction has it forgotten.
            let is_older = known.is_some() && entry.until > now && entry.state > state;
            if !is_older {
                *entry = Entry { hash, state, until };
            }
        });
    }

    /// Brings an entry up to a later state. Its end stays, and a bucket that has no entry gets none.
    pub(super) fn refresh(&self, hash: u64, state: Nanos) {
        self.with(hash, |entries| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.hash == hash) {
                entry.state = entry.state.max(state);
            }
        });
    }

    /// Forgets a bucket, for a correction has made its state smaller.
    pub(super) fn forget(&self, hash: u64) {
        self.with(hash, |entries| {
            for entry in entries.iter_mut().filter(|entry| entry.hash == hash) {
                *entry = Entry::default();
            }
        });
    }

    /// Works on the group of a hash, under its lock.
    fn with<T>(&self, hash: u64, work: impl FnOnce(&mut [Entry; Self::WAYS]) -> T) -> T {
        let group = &self.groups[(hash >> 52) as usize % Self::GROUPS];
        // No panic can come between two writes that belong together.
        let mut entries = group.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_forgotten_first_makes_room() {
        let denied = DenyCache::new();
        // All in one group.
        for hash in 1..=8 {
            denied.remember(hash, 100 + hash, 0, 1_000 * hash);
        }
        assert_eq!(denied.find(3, 0), Some(103));
        assert_eq!(denied.find(3, 3_000), None, "it is forgotten by then");
        denied.remember(9, 109, 0, 9_000);
        assert_eq!(denied.find(1, 0), None, "the first to be forgotten");
        for hash in 2..=9 {
            assert_eq!(denied.find(hash, 0), Some(100 + hash));
        }
        denied.remember(5, 107, 0, 10_000);
        assert_eq!(denied.find(5, 9_999), Some(107), "once each");
        denied.remember(5, 106, 9_999, 20_000);
        denied.refresh(5, 106);
        assert_eq!(denied.find(5, 9_999), Some(107), "an older answer");
        assert_eq!(denied.find(5, 10_000), None, "and as long as before");
        denied.remember(5, 7, 10_000, 20_000);
        denied.refresh(5, 8);
        denied.refresh(55, 8);
        assert_eq!(
            (denied.find(5, 19_999), denied.find(55, 0)),
            (Some(8), None)
        );
        denied.forget(5);
        assert_eq!(denied.find(5, 0), None);
        assert_eq!(denied.find(6, 0), Some(106));
    }
}
