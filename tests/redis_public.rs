//! R21: `RedisStore` needs nothing of this crate that is not public. Here it is compiled as a store of a user's own
//! would be, outside of the crate, and keeps its promises.

#[path = "support/redis.rs"]
mod servers;

// As the source names the crate's modules and types.
use tower_throttle::{Rate, store};

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "what is public in the crate is not here"
)]
#[path = "../src/store/redis/mod.rs"]
mod source;

use std::{error::Error, sync::Arc};

use servers::{KINDS, Server};
use tower_throttle::store::{RedisStoreError, StoreError, conformance};

#[tokio::test]
async fn a_store_of_the_same_source_outside_of_the_crate_keeps_its_promises() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let store = source::RedisStore::connect(&server.url()).await;
        conformance::check(Arc::new(store.expect("a server"))).await;
    }
}

/// Compiles only as long as no error holds a type of the crate `redis`.
#[tokio::test]
async fn errors_name_no_type_of_the_client_and_tell_their_cause() {
    type Cause = Box<dyn Error + Send + Sync>;
    let causes = |error: &RedisStoreError| -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    };
    let unread = store::RedisStore::server("no address").expect_err("no scheme");
    let RedisStoreError::Url(cause) = &unread else {
        panic!("{unread:?}");
    };
    let cause: &Cause = cause;
    assert_eq!(causes(&unread)[0], cause.to_string());
    assert!(cause.to_string().contains("URL"), "{cause}");

    let lost = store::RedisStore::connect("redis://127.0.0.1:1").await;
    let lost = lost.map(drop).expect_err("nobody listens there");
    let RedisStoreError::Connect(cause) = &lost else {
        panic!("{lost:?}");
    };
    let cause: &StoreError = cause;
    assert!(cause.is_unavailable());
    let causes = causes(&lost);
    assert_eq!(causes[0], "the store is not available");
    assert!(causes[1].contains("refused"), "{causes:?}");

    // Never made here, but read.
    let _ = |error: RedisStoreError| -> Option<Cause> {
        match error {
            RedisStoreError::Url(cause) | RedisStoreError::Certificates(cause) => Some(cause),
            RedisStoreError::Name(name) => Some(name.into()),
            RedisStoreError::Connect(cause) => Some(cause.into()),
            _ => None,
        }
    };
}
