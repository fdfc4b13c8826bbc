//! Parts of answers that are prepared before any request.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use super::{
    header_names::{RATE_LIMIT, RATE_LIMIT_POLICY},
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
    /// `RateLimit` of a request that finds all published buckets full.
    pub(super) first: Option<LimitText>,
    /// `RateLimit-Policy`, and a blank for `RateLimit`. Empty if nothing is published.
    pub(super) fields: HeaderMap,
    /// The heads of refusals, with blanks for their waits.
    refusals: HeadTemplates,
    /// The bodies of refusals.
    bodies: BodyTemplates,
}

impl Templates {
    pub(crate) fn of(limit_set: &LimitSet) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let policies = policies(limit_set);
        let first = policies.as_ref();
        let first = first.and_then(|policies| LimitText::first(policies, limit_set));
        let mut fields = HeaderMap::new();
        if let Some(policies) = &policies {
            fields.append(RATE_LIMIT_POLICY, policies.line.clone());
            fields.append(RATE_LIMIT, HeaderValue::from_static(""));
        }
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            first,
            fields,
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
