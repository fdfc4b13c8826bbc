//! Buckets that are known to be empty.

use std::sync::PoisonError;

use crate::{clock::Nanos, sync::Mutex};

/// The last known states of some thousands of buckets, found by hash. Where there is no room, what is forgotten is
/// what would have been forgotten first: somebody asks the store once more.
pub(super) struct DenyCache {
    groups: Box<[Mutex<[Entry; DenyCache::WAYS]>]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    hash: u64,
    state: Nanos,
    /// When it is forgotten.
    until: Nanos,
}

impl DenyCache {
    const GROUPS: usize = 4_096;
    const WAYS: usize = 8;

    /// 32,768 buckets, a megabyte.
    pub(super) fn new() -> Self {
        let group = |_| Mutex::new([Entry::default(); Self::WAYS]);
        Self {
            groups: (0..Self::GROUPS).map(group).collect(),
        }
    }

    /// The state of a bucket that is remembered at `now`.
    pub(super) fn find(&self, hash: u64, now: Nanos) -> Option<Nanos> {
        self.with(hash, |entries| {
            let mut found = entries.iter().filter(|entry| entry.hash == hash);
            found
                .find(|entry| entry.until > now)
                .map(|entry| entry.state)
        })
    }

    /// Remembers at `now` the state of a bucket, until some moment.
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

    /// Remembers a later state of a bucket that is remembered.
    pub(super) fn refresh(&self, hash: u64, state: Nanos) {
        self.with(hash, |entries| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.hash == hash) {
                entry.state = entry.state.max(state);
            }
        });
    }

    pub(super) fn forget(&self, hash: u64) {
        self.with(hash, |entries| {
            for entry in entries.iter_mut().filter(|entry| entry.hash == hash) {
                *entry = Entry::default();
            }
        });
    }

    fn with<T>(&self, hash: u64, work: impl FnOnce(&mut [Entry; Self::WAYS]) -> T) -> T {
        let group = &self.groups[(hash >> 52) as usize % Self::GROUPS];
        // Each step leaves it whole.
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
