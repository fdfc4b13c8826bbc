//! The engine, which all services of a layer share: the rules in force, the decision on a request, and what becomes of
//! it.
//!
//! ```text
//! decide          the one place that answers whether a request passes
//! ├─ remote       the part of that which is about balances in a store
//! ├─ outcome      what was decided, and the ticket or the answer that is made of it
//! ├─ pending      a request that waits, and asks again
//! └─ attempt      what all of these work with
//! preview         what would be decided, without a charge
//! active          the rules in force; exchanges them (reload)
//! └─ rule_set     one set of rules with its balances
//!    ├─ look_up   what a request falls under
//!    └─ route_limits, routes, combined_limits   what is charged on one route
//! reload          what becomes of balances when routes get or lose their keys
//! options         settings of a layer, apart from its rules
//! ```
//!
//! Requests are charged by `decide` and what is below it alone. Only `active` exchanges rules.

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
    decide::Stage,
    outcome::{Decided, Refusal, ResponseParts, Ticket},
    pending::Pending,
};

/// The engine of a layer: its rules and settings, which all of its services share. Cloned only while a layer is being
/// set up.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) active: Arc<ActiveRules>,
    pub(crate) options: Options,
}

#[cfg(test)]
mod tests;
