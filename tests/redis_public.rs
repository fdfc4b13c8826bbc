//! R21: `RedisStore` needs only public items of this crate. Here it is compiled outside of the crate, like a user's
//! store, and keeps its promises.

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
use tower_throttle::store::{RedisStoreError, conformance};

#[tokio::test]
async fn a_store_of_the_same_source_outside_of_the_crate_keeps_its_promises() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let store = source::RedisStore::connect(&server.url()).await;
        conformance::check(Arc::new(store.expect("a server"))).await;
    }
}

/// Compiles only as long as no error holds a type of the crate `redis`.
fn cause(error: &RedisStoreError) -> Option<&Cause> {
    match error {
        RedisStoreError::Url(cause) | RedisStoreError::Certificates(cause) => Some(cause),
        _ => None,
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// The texts of an error and its causes. None of them is a type of the crate `redis` in disguise.
fn texts(error: &RedisStoreError) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        assert!(!error.is::<redis::RedisError>(), "{error:?}");
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

#[tokio::test]
async fn errors_name_no_type_of_the_client_and_tell_their_cause() {
    let unread = store::RedisStore::server("no address").expect_err("no scheme");
    assert!(matches!(unread, RedisStoreError::Url(_)), "{unread:?}");
    let told = texts(&unread);
    assert_eq!(told[1..], [cause(&unread).expect("a cause").to_string()]);
    assert!(told[1].contains("URL"), "{told:?}");

    let url = "redis://somebody:secret@127.0.0.1:1";
    let lost = store::RedisStore::connect(url).await.map(drop);
    let lost = lost.expect_err("nobody listens there");
    let told = texts(&lost);
    let [what, store, cause] = &told[..] else {
        panic!("each is told once: {told:?}");
    };
    assert_eq!(what, "the server cannot be used");
    assert_eq!(store, "the store is not available");
    assert!(
        cause.starts_with("127.0.0.1:1: Connection refused"),
        "{cause}"
    );
    let debug = format!("{lost:?} {told:?}");
    assert!(
        !debug.contains("somebody") && !debug.contains("secret"),
        "{debug}"
    );
}
