//! The settings of a peek layer, which all of its services share.

use std::{sync::Arc, time::Duration};

use super::{kept::Kept, pool::Pool};
use crate::engine::Engine;

/// The settings of a peek layer, and what its requests share.
#[derive(Debug, Clone)]
pub(super) struct PeekSettings {
    pub(super) engine: Arc<Engine>,
    /// The most bytes of a body that are read. No more than the pool has room for.
    pub(super) max_body: usize,
    /// The time from when a body is first waited for until it is given up.
    pub(super) body_deadline: Duration,
    pub(super) pool: Arc<Pool>,
}

impl PeekSettings {
    pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;
    pub(super) const MAX_POOL: usize = 64 * 1024 * 1024;
    pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);

    pub(super) fn new(
        engine: Arc<Engine>,
        max_body: usize,
        body_deadline: Duration,
        max_pool: usize,
    ) -> Self {
        // One byte less, for a body that may go on takes that.
        let max_body = max_body.min(Kept::most_bytes(max_pool.saturating_sub(1)));
        Self {
            engine,
            max_body,
            body_deadline,
            pool: Arc::new(Pool::new(max_pool, Self::room_of(max_body))),
        }
    }

    /// The room of a body of this length while it may go on.
    pub(super) fn room_of(length: usize) -> usize {
        Kept::largest_cost(length).saturating_add(1)
    }

    /// The room of the largest body.
    pub(super) fn room_of_largest(&self) -> usize {
        self.pool.bounds().single
    }
}
