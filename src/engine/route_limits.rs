//! The limits of one route for one class of clients, with everything that can be prepared.
//!
//! Most of a decision's input is the same for each request of a route: the limits with their balances, the origin to
//! which charges go back, the text of header fields and refusals, and the meters of operators. It is prepared once,
//! when the first request asks for it.
//!
//! # Invariants
//!
//! - **A clone shares everything.** Only a request that waits clones it.
//! - **All forms of a route charge the same balances** in this process. Limits left out of `held` are in the store. A
//!   `share` uses the buckets of this process, which are idle while the store is up.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use crate::{
    admission::Origin,
    limiter::{Limiter, limit_set::LimitSet, second_budgets::ScopeChoice},
    observe::Meters,
    response::Templates,
    store::client::StoreClient,
};

/// The limits of one route for one class of clients, with what can be made beforehand.
#[derive(Debug, Clone)]
pub(crate) struct RouteLimits {
    /// The limits in their order, with their balances.
    pub(crate) limit_set: Arc<LimitSet>,
    /// The place to which charges of its requests go back.
    pub(crate) origin: Arc<Origin>,
    /// The text of header fields and refusals.
    pub(crate) templates: Arc<Templates>,
    /// Counts for operators, under the labels of the route.
    pub(super) meters: Meters,
    /// Shared by all clones. Made when one of them is needed, for few routes need one.
    apart: Arc<OnceLock<Box<Apart>>>,
}

/// Other forms of the route, for requests that are decided without all of its limits: made when they are first needed.
#[derive(Debug, Default)]
struct Apart {
    /// The limits that lie in this process, store or not.
    held: OnceLock<RouteLimits>,
    /// No limits: what a request is told whose limits are not asked.
    bare: OnceLock<RouteLimits>,
    /// A share of all limits, with the number of shares, which is the layer's and does not change once it serves.
    share: OnceLock<(u32, RouteLimits)>,
    /// The limits with second budgets in place of others, by the number of the choice of scopes.
    degraded: OnceLock<Box<[OnceLock<Box<RouteLimits>>]>>,
    /// The limits for each class of models, by its position. Boxed, for most routes have requests of few classes.
    models: OnceLock<Box<[OnceLock<Box<RouteLimits>>]>>,
}

impl RouteLimits {
    /// The most scopes with second budgets of which each choice is kept: as many as a request has whose route and model
    /// are known.
    const MOST_DEGRADED: usize = 6;

    /// Makes the limits of a route, with text of their own.
    pub(super) fn new(
        limiter: &Arc<Limiter>,
        store: &Option<Arc<StoreClient>>,
        limit_set: LimitSet,
    ) -> Self {
        let templates = Arc::new(Templates::of(&limit_set));
        Self::of(limiter, store, limit_set, &templates)
    }

    /// Makes the limits of a route that has the same settings as another one, and shares its text.
    pub(super) fn of(
        limiter: &Arc<Limiter>,
        store: &Option<Arc<StoreClient>>,
        limit_set: LimitSet,
        templates: &Arc<Templates>,
    ) -> Self {
        let limit_set = Arc::new(limit_set);
        Self {
            origin: Origin::new(limiter, store, &limit_set),
            templates: Arc::clone(templates),
            meters: Meters::of(&limit_set),
            limit_set,
            apart: Arc::default(),
        }
    }

    /// Makes another form of the route, with text of its own.
    pub(super) fn under(&self, limit_set: LimitSet) -> Self {
        Self::new(&self.origin.limiter, self.origin.store(), limit_set)
    }

    /// Returns the form that has the limits whose balances lie in this process: slots, and what is closed.
    pub(crate) fn held(&self) -> &Self {
        let held = || self.under(self.limit_set.held());
        self.apart().held.get_or_init(held)
    }

    /// Returns the form without limits.
    pub(crate) fn bare(&self) -> &Self {
        let bare = || self.under(self.limit_set.bare());
        self.apart().bare.get_or_init(bare)
    }

    /// Returns the form that has one of so many shares of each limit, in this process. It is kept for the first number
    /// that is asked for, and made anew for any other.
    pub(crate) fn share(&self, shares: u32) -> Cow<'_, Self> {
        let make = || self.under(self.limit_set.share(shares));
        let (made, share) = self.apart().share.get_or_init(|| (shares, make()));
        if *made == shares {
            Cow::Borrowed(share)
        } else {
            Cow::Owned(make())
        }
    }

    /// Returns the form in which second budgets take the place of the limits of some scopes. It is kept, unless more
    /// scopes have one than those of a request whose model was read.
    pub(super) fn degraded(&self, choice: ScopeChoice) -> Cow<'_, Self> {
        let make = || self.under(self.limit_set.degraded(choice));
        let second = self.limit_set.second.as_ref();
        let scopes = second.map_or(0, |second| second.scopes.count());
        let number = choice.number().filter(|_| scopes <= Self::MOST_DEGRADED);
        let Some(number) = number else {
            return Cow::Owned(make());
        };
        let none = || (0..1 << scopes).map(|_| OnceLock::new()).collect();
        let kept = self.apart().degraded.get_or_init(none);
        Cow::Borrowed(kept[number].get_or_init(|| Box::new(make())))
    }

    /// Returns the limits for a class of so many classes of models, by its position. Makes them if they are not there.
    pub(super) fn keep_of_model(
        &self,
        class: usize,
        classes: usize,
        make: impl FnOnce() -> Self,
    ) -> &Self {
        let none = || (0..classes).map(|_| OnceLock::new()).collect();
        let models = self.apart().models.get_or_init(none);
        models[class].get_or_init(|| Box::new(make()))
    }

    /// Returns the limits for a class of models, by its position, if they are made.
    #[inline]
    pub(super) fn of_model(&self, class: usize) -> Option<&Self> {
        self.apart
            .get()?
            .models
            .get()?
            .get(class)?
            .get()
            .map(Box::as_ref)
    }

    fn apart(&self) -> &Apart {
        self.apart.get_or_init(Box::default)
    }

    /// Sums up what was admitted under each form, for the route and its limits. Requests count themselves once,
    /// whatever the number of their limits; whoever reads the counts sums up.
    pub(super) fn settle(&self) {
        let apart = self.apart.get().map(|apart| {
            let Apart {
                held,
                bare,
                share,
                degraded,
                models,
            } = &**apart;
            let share = share.get().map(|(_, share)| share);
            let sets = [degraded.get(), models.get()].into_iter().flatten();
            for limits in sets.flat_map(|limits| limits.iter()) {
                if let Some(limits) = limits.get() {
                    limits.settle();
                }
            }
            [held.get(), bare.get(), share]
        });
        let apart = apart.into_iter().flatten().flatten();
        for limits in apart.chain([self]) {
            limits.limit_set.settle();
        }
    }
}
