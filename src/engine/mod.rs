//! The engine, which all services of a layer share: the rules in force, the decision on a request, and what becomes of
//! it.
//!
//! ```text
//! decide          the one place that answers whether a request passes
//! ├─ remote       the part of that which is about balances in a store
//! ├─ plain        the part of that which is about plain limits, which decide on most requests
//! ├─ outcome      what was decided, and the ticket or the answer that is made of it
//! └─ pending      a request that waits and asks again, and the attempt that all of these work with
//! preview         what would be decided, without a charge
//! active          the rules in force; exchanges them (reload)
//! └─ rule_set     one set of rules with its balances
//!    ├─ look_up   what a request falls under
//!    └─ route_limits, routes, combined_limits   what is charged on one route
//! reload          what becomes of balances when routes get or lose their keys
//! key_changes, lost_keys, key_index   which keys these are, and how they are found: for `rule_set` and `reload`
//! options         settings of a layer, apart from its rules
//! ```
//!
//! Requests are charged by `decide` and what is below it alone. Only `active` exchanges rules.
//!
//! # Locks
//!
//! A reload and a snapshot exclude each other by the lock of the registry. No request takes it. In the engine a request
//! waits for another one only where something is made on first use: the limits of a route for a plan, an undeclared
//! route, or a combination. No closure of users runs while that is made.

mod active;
mod combined_limits;
mod decide;
mod key_changes;
mod key_index;
mod look_up;
mod lost_keys;
pub(crate) mod options;
mod outcome;
mod pending;
mod plain;
mod preview;
mod reload;
mod remote;
mod route_limits;
mod routes;
mod rule_set;

use std::sync::Arc;

use self::options::Options;
#[cfg(test)]
use self::rule_set::RuleSet;
pub(crate) use self::{
    active::ActiveRules,
    decide::Admitted,
    outcome::{Decided, Refusal, ResponseParts, Ticket},
    pending::Pending,
};
use crate::response::KeptRefusals;

/// The engine of a layer: its rules and settings, which all of its services share.
#[derive(Debug)]
pub(crate) struct Engine {
    /// The rules in force and their balances. Handles share them.
    pub(crate) active: Arc<ActiveRules>,
    /// The settings of the layer. Nobody writes them.
    pub(crate) options: Options,
    /// Answers to refused requests that are kept for others.
    refusals: KeptRefusals,
}

impl Engine {
    pub(crate) fn new(active: Arc<ActiveRules>, options: Options) -> Self {
        Self {
            active,
            options,
            refusals: KeptRefusals::default(),
        }
    }
}

#[cfg(test)]
mod tests;
