//! Settings of the waiting line.

use crate::clock::Nanos;

/// The longest wait in a scope, and the largest number of requests that wait at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitPolicy {
    pub(crate) max_wait: Nanos,
    pub(crate) max_waiting: usize,
}
