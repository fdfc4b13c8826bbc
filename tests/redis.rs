//! Limits that replicas share in Redis.

use std::sync::Arc;

use tower_throttle::store::{RedisStore, conformance};

#[tokio::test]
async fn the_store_in_redis() {
    let store = RedisStore::connect("redis://127.0.0.1:16379")
        .await
        .expect("a server");
    conformance::check(Arc::new(store)).await;
}
