//! The cost of a single request, by a closure.

use std::{fmt, sync::Arc};

use crate::head::RequestHead;

/// A closure that states the cost of a request.
#[derive(Clone)]
pub(crate) struct RequestCost(CostFn);

type CostFn = Arc<dyn Fn(RequestHead<'_>) -> Option<u64> + Send + Sync>;

impl RequestCost {
    pub(super) fn new(
        closure: impl Fn(RequestHead<'_>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(closure))
    }

    /// Returns the cost of a request. `None`: that of its route and its model.
    pub(crate) fn of(&self, request: RequestHead<'_>) -> Option<u64> {
        (self.0)(request)
    }
}

impl fmt::Debug for RequestCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<fn>")
    }
}
