//! Where what a request has charged goes back to.

use std::sync::Arc;

use super::Limiter;
use super::rule::Rule;

/// A rule, and the limiter that charges it: made once for all of its requests, each of which then has one reference to
/// count, not two.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) rule: Arc<Rule>,
}

impl Origin {
    pub(crate) fn new(limiter: &Arc<Limiter>, rule: &Arc<Rule>) -> Arc<Self> {
        Arc::new(Self {
            limiter: Arc::clone(limiter),
            rule: Arc::clone(rule),
        })
    }
}
