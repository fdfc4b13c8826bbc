//! What can be written before any request comes.

use super::{
    policies::{Policies, policies},
    problem::{Frames, Heads},
};
use crate::limiter::limit_set::Rule;

/// Header fields that depend on a rule's limits alone.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) policies: Option<Policies>,
    /// The heads of refusals, with blanks for their waits.
    pub(crate) refusals: Heads,
    /// And their bodies.
    pub(crate) frames: Frames,
}

impl Written {
    pub(crate) fn of(rule: &Rule) -> Self {
        let policies = policies(rule);
        Self {
            refusals: Heads::of(policies.as_ref()),
            frames: Frames::of(rule.enforced),
            policies,
        }
    }
}
