//! What can be written before any request comes.

use http::HeaderMap;

use super::{
    policies::{Policies, policies},
    problem::{Frames, template},
};
use crate::rule::Rule;

/// Header fields that depend on a rule's limits alone.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) policies: Option<Policies>,
    /// The head of a refusal, with blanks for its waits.
    pub(crate) refusal: HeaderMap,
    /// And its bodies.
    pub(crate) frames: Frames,
}

impl Written {
    pub(crate) fn of(rule: &Rule) -> Self {
        let policies = policies(rule);
        Self {
            refusal: template(policies.as_ref()),
            frames: Frames::of(rule.enforced),
            policies,
        }
    }
}
