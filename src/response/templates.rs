//! Parts of answers that are written before any request comes.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Response;

use super::{
    limit_text::LimitText,
    policies::{Policies, policies},
    problem::{BodyTemplates, HeadTemplates, problem},
};
use crate::{decision::Denial, limiter::limit_set::LimitSet};

/// Parts of answers that depend on a rule's limits alone.
#[derive(Debug)]
pub(crate) struct Templates {
    /// A number that no other templates of this process have.
    pub(super) number: u64,
    pub(crate) policies: Option<Policies>,
    /// `RateLimit` of a request that finds full all buckets of which it tells.
    pub(super) first: Option<LimitText>,
    /// The heads of refusals, with blanks for their waits.
    refusals: HeadTemplates,
    /// And their bodies.
    bodies: BodyTemplates,
}

impl Templates {
    pub(crate) fn of(limit_set: &LimitSet) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let policies = policies(limit_set);
        let first = policies.as_ref();
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            first: first.and_then(|policies| LimitText::first(policies, limit_set)),
            refusals: HeadTemplates::of(policies.as_ref()),
            bodies: BodyTemplates::of(limit_set.enforced),
            policies,
        }
    }

    /// Writes the [built-in answer](super::Problem) to a request that these limits refuse.
    pub(crate) fn problem(&self, denial: &Denial) -> Response<Bytes> {
        let template = |ends| self.refusals.template(ends);
        problem(denial, template, &self.bodies)
    }
}
