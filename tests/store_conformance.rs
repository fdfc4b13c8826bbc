//! Stores keep their promises: the one in memory here, the one in Redis in `tests/redis.rs`.

use std::sync::Arc;

use tower_throttle::store::{MemoryStore, conformance};

#[tokio::test(start_paused = true)]
async fn the_store_in_memory() {
    conformance::check(Arc::new(MemoryStore::new())).await;
}
