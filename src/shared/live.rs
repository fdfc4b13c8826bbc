//! The rules that hold, and how others take their place.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use arc_swap::{ArcSwap, Guard};

use super::State;
use crate::{
    clock::Clock,
    limiter::Limiter,
    observe,
    rule::Home,
    rules::{Changes, Ledger, Rules, RulesError},
};

/// The rules that hold.
///
/// # How others take their place
///
/// The new ones are made whole, beside the old, and exchanged at once. A request is decided by those it has found; if
/// it finds a balance that newer ones have told in their terms, it leaves that alone and begins anew with them. Limits
/// that stay share their balances with those before, so that it is one balance whoever charges it.
pub(crate) struct Live {
    state: ArcSwap<State>,
    /// Of the rules that hold. Who has it is alone in changing them.
    ledger: Mutex<Ledger>,
}

impl Live {
    pub(crate) fn new(rules: &Rules, clock: Clock) -> Result<Self, RulesError> {
        let limiter = Arc::new(Limiter::new(clock));
        let empty = Ledger::default();
        let now = limiter.now();
        let mut draft = empty.draft(now);
        let compiled = rules.compile(&limiter, &mut draft)?;
        let state = State::new(compiled, &limiter, None)?;
        Ok(Self {
            state: ArcSwap::from_pointee(state),
            ledger: Mutex::new(draft.commit(now)),
        })
    }

    /// The rules that hold now.
    #[inline]
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// Puts other rules into the place of those that hold, if they hold together.
    pub(crate) fn reload(&self, rules: &Rules) -> Result<Changes, RulesError> {
        // It is whole whenever it is let go of.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.state.load_full();
        let limiter = Arc::clone(&old.limiter);
        let mut draft = ledger.draft(limiter.now());
        let compiled = rules.compile(&limiter, &mut draft)?;
        let new = Arc::new(State::new(compiled, &limiter, Some(&old))?);

        let next = draft.commit(limiter.now());
        // Most routes before anybody needs them there.
        new.adopt(&old);
        old.retired.store(true, Ordering::SeqCst);
        self.state.store(Arc::clone(&new));
        // And those that were new in the meantime.
        new.adopt(&old);
        new.before.store(None);
        let declared = next.scopes().flat_map(|(_, bindings)| bindings);
        for binding in declared.chain(new.undeclared_limits()) {
            let buckets = match &binding.home {
                Home::Bucket(bucket) => std::slice::from_ref(&**bucket),
                Home::Client(page) => page.overflow(),
            };
            for bucket in buckets {
                bucket.update(binding.version, &binding.history);
            }
        }
        next.forget();
        limiter.lines.wake_all();
        let changes = Changes::between(&ledger, &next);
        *ledger = next;
        observe::reloaded(&changes);
        Ok(changes)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.load().fmt(f)
    }
}
