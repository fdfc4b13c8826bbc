//! Rules, with what can be written beforehand.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::{
    admission::Origin,
    limiter::{Limiter, limit_set::LimitSet},
    observe::Meters,
    response::Templates,
    store::client::StoreSlot,
};

/// A rule, with what can be written beforehand.
#[derive(Debug, Clone)]
pub(crate) struct RouteLimits {
    pub(crate) limit_set: Arc<LimitSet>,
    /// The same rule, as what its requests hold has it.
    pub(crate) origin: Arc<Origin>,
    pub(crate) written: Arc<Templates>,
    pub(super) meters: Meters,
    apart: Arc<Apart>,
}

/// What requests are decided by where balances lie in a store: made when it is first needed.
#[derive(Debug, Default)]
struct Apart {
    held: OnceLock<RouteLimits>,
    bare: OnceLock<RouteLimits>,
    share: OnceLock<(u32, RouteLimits)>,
}

impl RouteLimits {
    pub(super) fn new(limiter: &Arc<Limiter>, store: &StoreSlot, limit_set: LimitSet) -> Self {
        let written = Arc::new(Templates::of(&limit_set));
        Self::of(limiter, store, limit_set, &written)
    }

    /// The same under another rule, in the same words.
    pub(super) fn of(
        limiter: &Arc<Limiter>,
        store: &StoreSlot,
        limit_set: LimitSet,
        written: &Arc<Templates>,
    ) -> Self {
        let limit_set = Arc::new(limit_set);
        Self {
            origin: Origin::new(limiter, store, &limit_set),
            written: Arc::clone(written),
            meters: Meters::of(&limit_set),
            limit_set,
            apart: Arc::default(),
        }
    }

    /// The same route under another rule, in words of its own.
    pub(super) fn under(&self, limit_set: LimitSet) -> Self {
        Self::new(&self.origin.limiter, self.origin.store(), limit_set)
    }

    /// The limits of it that lie in this process, store or not.
    pub(crate) fn held(&self) -> &Self {
        let held = || self.under(self.limit_set.held());
        self.apart.held.get_or_init(held)
    }

    /// The same route without limits.
    pub(crate) fn bare(&self) -> &Self {
        let bare = || self.under(self.limit_set.bare());
        self.apart.bare.get_or_init(bare)
    }

    /// One of so many shares of all limits, in this process.
    pub(crate) fn share(&self, shares: u32) -> Cow<'_, Self> {
        let make = || self.under(self.limit_set.share(shares));
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
            prepared.limit_set.settle();
        }
    }
}

/// The rule of one request.
#[derive(Debug)]
pub(crate) enum MatchedRoute<'a> {
    Kept(&'a RouteLimits),
    Made(Box<RouteLimits>),
}

impl Deref for MatchedRoute<'_> {
    type Target = RouteLimits;

    #[inline]
    fn deref(&self) -> &RouteLimits {
        match self {
            Self::Kept(prepared) => prepared,
            Self::Made(prepared) => prepared,
        }
    }
}
