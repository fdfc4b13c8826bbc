//! What can be written before any request comes.

use super::{
    policies::{Policies, policies},
    problem::{Frames, Heads},
};
use crate::limiter::limit_set::LimitSet;

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
    pub(crate) fn of(limit_set: &LimitSet) -> Self {
        let policies = policies(limit_set);
        Self {
            refusals: Heads::of(policies.as_ref()),
            frames: Frames::of(limit_set.enforced),
            policies,
        }
    }
}
