//! The engine, which all services of a layer share: the rules in force, the decision on a request, and its
//! consequences.
//!
//! ```text
//! decide          the only place that decides whether a request passes
//! ├─ remote       decisions that need balances in a store
//! ├─ plain        decisions by plain limits, which are most
//! ├─ degrade      second attempts, by second budgets
//! ├─ outcome      the result of a decision, and the ticket or the answer for it
//! └─ pending      a request that waits and tries again, and the attempt that all of these share
//! before_body     the decision before the body of a request is read, which only refuses
//! preview         the decision that would be made, without a charge
//! active          the rules in force; exchanges them (reload)
//! └─ rule_set     one set of rules with its balances
//!    ├─ look_up   finds the limits of a request
//!    ├─ route_limits, routes, combined_limits   the limits of one route, or of several
//!    └─ models     the limits of routes for the models that requests are for
//! reload          carries balances over when routes get or lose their keys
//! key_changes, lost_keys, key_index   find these keys, for `rule_set` and `reload`
//! options         settings of a layer, apart from its rules
//! ```
//!
//! Only `decide` and the modules below it charge requests. Only `active` exchanges rules.
//!
//! # Locks
//!
//! The lock of the registry lets a reload and a snapshot exclude each other. No request takes it. In the engine a
//! request waits for another one only while something is made on first use: the limits of a route for a plan, an
//! undeclared route, or a combination. No user closure runs meanwhile.

mod active;
mod before_body;
mod combined_limits;
mod decide;
mod degrade;
mod key_changes;
mod key_index;
mod look_up;
mod lost_keys;
mod models;
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
    before_body::BodyNeed,
    decide::Admitted,
    options::Asker,
    outcome::{Decided, Refusal, ResponseParts, Ticket},
    pending::Pending,
};
use crate::{decision::DecisionIn, response::KeptRefusals};

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

    /// Returns an engine by the same rules and balances that decides for others, who get neither answers nor fields. It
    /// has no answers to keep.
    pub(crate) fn asked_by(&self, asker: Asker) -> Arc<Self> {
        let options = Options {
            asker,
            rate_limit_headers: false,
            decision: DecisionIn::Nowhere,
            usage_from_answers: false,
            rejection: None,
            ..self.options.clone()
        };
        Arc::new(Self::new(Arc::clone(&self.active), options))
    }
}

#[cfg(test)]
mod tests;
