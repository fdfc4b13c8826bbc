//! The budgets by which the rules in force charge the buckets of a store, by the names that a store knows limits by.
//!
//! A request is corrected late, and reloads come in between. Its limit may have other settings by then, and the name of
//! its bucket may be another limit's: of two limits of one kind and period the smaller has the first name. A correction
//! puts the bucket into the terms of its budget, so that has to be the budget of the limit that bears the name *now*,
//! whatever limit the request was charged on.
//!
//! A name that no limit bears any more is missing here. Then nobody in this process charges the bucket, and a
//! correction is made as the charge was.
//!
//! # Who may call it
//!
//! The engine makes one in each reload, from the limits of the new rules, and puts it into force with them. It adds the
//! limits of undeclared routes as these are entered: a store may know one by a name that another limit has had. The
//! other limits of the rules by which a store is connected are missing, and bear the names that they are charged by.

use std::{collections::HashMap, sync::Arc};

use crate::{limiter::limit_set::BoundLimit, store::Budget};

/// The budgets of all limits that a store keeps, by their names there.
#[derive(Debug, Default)]
pub(crate) struct PresentBudgets(HashMap<Arc<str>, Budget>);

impl PresentBudgets {
    /// Lists the budgets of limits.
    pub(crate) fn of<'a>(limits: impl Iterator<Item = &'a BoundLimit>) -> Self {
        let budget = |bound: &BoundLimit| {
            let id = Arc::clone(bound.id.as_ref()?);
            Some((id, Budget::new(bound.limit.meter?)))
        };
        Self(limits.filter_map(budget).collect())
    }

    /// Adds the budgets of limits, in place of others of their names.
    pub(super) fn add(&mut self, limits: &[BoundLimit]) {
        let Self(added) = Self::of(limits.iter());
        self.0.extend(added);
    }

    /// Returns the budget of the limit that bears a name.
    pub(super) fn get(&self, id: &str) -> Option<Budget> {
        self.0.get(id).copied()
    }
}
