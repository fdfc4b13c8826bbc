//! The wait policy of a scope: how long requests wait for its limits, and how many.

use crate::clock::Nanos;

/// The longest wait in a scope, and the largest number of requests that wait at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitPolicy {
    pub(crate) max_wait: Nanos,
    pub(crate) max_waiting: usize,
}
