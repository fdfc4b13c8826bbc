//! Who may wait, and how long.

use crate::clock::Nanos;

/// Who may wait in a scope: until when, and how many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    pub(crate) max_wait: Nanos,
    pub(crate) max_waiting: usize,
}
