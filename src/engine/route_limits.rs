//! Rules, with what can be written beforehand.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::{
    admission::Origin,
    limiter::{Limiter, limit_set::Rule},
    observe::Meters,
    response::Written,
    store::client::StoreSlot,
};

/// A rule, with what can be written beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) rule: Arc<Rule>,
    /// The same rule, as what its requests hold has it.
    pub(crate) origin: Arc<Origin>,
    pub(crate) written: Arc<Written>,
    pub(super) meters: Meters,
    apart: Arc<Apart>,
}

/// What requests are decided by where balances lie in a store: made when it is first needed.
#[derive(Debug, Default)]
struct Apart {
    held: OnceLock<Prepared>,
    bare: OnceLock<Prepared>,
    share: OnceLock<(u32, Prepared)>,
}

impl Prepared {
    pub(super) fn new(limiter: &Arc<Limiter>, store: &StoreSlot, rule: Rule) -> Self {
        let written = Arc::new(Written::of(&rule));
        Self::of(limiter, store, rule, &written)
    }

    /// The same under another rule, in the same words.
    pub(super) fn of(
        limiter: &Arc<Limiter>,
        store: &StoreSlot,
        rule: Rule,
        written: &Arc<Written>,
    ) -> Self {
        let rule = Arc::new(rule);
        Self {
            origin: Origin::new(limiter, store, &rule),
            written: Arc::clone(written),
            meters: Meters::of(&rule),
            rule,
            apart: Arc::default(),
        }
    }

    /// The same route under another rule, in words of its own.
    pub(super) fn under(&self, rule: Rule) -> Self {
        Self::new(&self.origin.limiter, self.origin.store(), rule)
    }

    /// The limits of it that lie in this process, store or not.
    pub(crate) fn held(&self) -> &Self {
        let held = || self.under(self.rule.held());
        self.apart.held.get_or_init(held)
    }

    /// The same route without limits.
    pub(crate) fn bare(&self) -> &Self {
        let bare = || self.under(self.rule.bare());
        self.apart.bare.get_or_init(bare)
    }

    /// One of so many shares of all limits, in this process.
    pub(crate) fn share(&self, shares: u32) -> Cow<'_, Self> {
        let make = || self.under(self.rule.share(shares));
        let (made, share) = self.apart.share.get_or_init(|| (shares, make()));
        if *made == shares {
            Cow::Borrowed(share)
        } else {
            Cow::Owned(make())
        }
    }

    /// Has the route and the limits count what was admitted.
    pub(super) fn settle(&self) {
        let Apart { held, bare, share } = &*self.apart;
        let share = share.get().map(|(_, share)| share);
        let apart = [held.get(), bare.get(), share].into_iter().flatten();
        for prepared in apart.chain([self]) {
            prepared.rule.settle();
        }
    }
}

/// The rule of one request.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Kept(&'a Prepared),
    Made(Box<Prepared>),
}

impl Deref for Found<'_> {
    type Target = Prepared;

    #[inline]
    fn deref(&self) -> &Prepared {
        match self {
            Self::Kept(prepared) => prepared,
            Self::Made(prepared) => prepared,
        }
    }
}
