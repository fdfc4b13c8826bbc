//! What can be written before any request comes.

use http::HeaderMap;

use super::{
    fields::{Policies, policies},
    problem::template,
};
use crate::rule::Rule;

/// Header fields that depend on a rule's limits alone.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) policies: Option<Policies>,
    /// The head of a refusal, with blanks for its waits.
    pub(crate) refusal: HeaderMap,
}

impl Written {
    pub(crate) fn of(rule: &Rule) -> Self {
        let policies = policies(rule);
        Self {
            refusal: template(policies.as_ref()),
            policies,
        }
    }
}
