//! The scopes of a limit set that have a second budget, and the choice of those whose budgets are charged.
//!
//! The limits themselves are in the [`limit_set`](super::limit_set), beside those of first budgets. Where the limits of
//! some scopes refuse a request, and all of these scopes have a second budget, the engine asks
//! [`LimitSet::degraded`](super::limit_set::LimitSet::degraded) for the set in which they are replaced.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;

/// The number of a scope: its limits of both budgets have it, and no other scope's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScopeNumber(u64);

impl ScopeNumber {
    /// A number that no other scope has. Relaxed: the number orders nothing.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The scopes that have a second budget, each with the wait above which it is used.
#[derive(Debug, Default)]
pub(crate) struct SecondScopes(Vec<(ScopeNumber, Nanos)>);

/// A choice of these scopes: a bit for each, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScopeChoice(u64);

impl ScopeChoice {
    /// The scopes that a choice may have. Further ones keep to their first budgets: only requests whose model was not
    /// read have as many.
    const MOST: usize = u64::BITS as usize;

    /// Returns the number of the choice among those of few scopes.
    pub(crate) fn number(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }
}

impl SecondScopes {
    /// Adds a scope, unless it is there.
    pub(super) fn add(&mut self, scope: ScopeNumber, after: Nanos) {
        if self.0.iter().all(|(known, _)| *known != scope) {
            self.0.push((scope, after));
        }
    }

    /// Returns the number of scopes.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Chooses the scopes that refuse a request. `None`: one of them has no second budget, or uses it only for a longer
    /// wait than this. A wait of `None` is the longest.
    pub(crate) fn choose(
        &self,
        refusing: impl Iterator<Item = ScopeNumber>,
        wait: Option<Nanos>,
    ) -> Option<ScopeChoice> {
        let mut choice = ScopeChoice::default();
        for refusing in refusing {
            let mut scopes = self.0.iter().take(ScopeChoice::MOST);
            let index = scopes.position(|(scope, _)| *scope == refusing)?;
            let (_, after) = self.0[index];
            if wait.is_some_and(|wait| wait <= after) {
                return None;
            }
            choice.0 |= 1 << index;
        }
        (choice != ScopeChoice::default()).then_some(choice)
    }

    /// Returns whether a scope is one of a choice.
    pub(super) fn has(&self, choice: ScopeChoice, scope: ScopeNumber) -> bool {
        let mut scopes = self.0.iter().take(ScopeChoice::MOST).enumerate();
        scopes.any(|(index, (known, _))| *known == scope && choice.0 >> index & 1 == 1)
    }
}
