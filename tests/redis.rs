//! R21 on real servers: what holds while they are killed, paused, slow, emptied and replaced.

#[path = "support/redis.rs"]
mod servers;

mod common;

use std::{sync::Arc, time::Duration};

use common::Client;
use http::StatusCode;
use servers::{KINDS, Passes, Proxy, Server};
use tokio::time::{Instant, sleep};
use tower_throttle::{
    Clients, OnOutage, Rate, Rules, ThrottleLayer,
    store::{BucketKey, Budget, Charge, RedisStore, Store, conformance},
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// So slow that nothing comes back meanwhile.
fn rules(burst: u64) -> Rules {
    Rules::new().total(Rate::per_hour(1).burst(burst))
}

async fn layer(url: &str, burst: u64) -> ThrottleLayer {
    let store = RedisStore::connect(url).await.expect("a server");
    let layer = ThrottleLayer::new(rules(burst)).expect("proper rules");
    // A machine under test is slow at times; where the deadline counts, it is set.
    let layer = layer.store_deadline(Duration::from_secs(2));
    layer
        .on_outage(OnOutage::Refuse)
        .store(store)
        .expect("no clients")
}

/// How many of so many requests are let through.
async fn admitted(client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        let status = client.get("/").await.status;
        assert!([OK, REFUSED].contains(&status), "{status}");
        admitted += usize::from(status == OK);
    }
    admitted
}

/// Until it answers again: it is probed every second at least.
async fn recovered(client: &Client) -> StatusCode {
    for _ in 0..200 {
        let status = client.get("/").await.status;
        if status != UNAVAILABLE {
            return status;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("it has not recovered in four seconds");
}

#[tokio::test]
async fn stores_in_redis_and_valkey_keep_their_promises() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let store = RedisStore::connect(&server.url()).await.expect("a server");
        conformance::check(Arc::new(store)).await;
        // All of it expires.
        let keys = server.tells(&["KEYS", "*"]).await;
        assert!(keys.lines().count() > 20, "{kind:?}");
        for key in keys.lines() {
            let expires: i64 = server
                .tells(&["PTTL", key])
                .await
                .parse()
                .expect("a number");
            assert!(expires != -1, "{kind:?}: {key} stays for ever");
            assert!(key.starts_with("throttle:{default}:"), "{key}");
        }
    }
}

#[tokio::test]
async fn scripts_that_are_forgotten_are_sent_again() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let client = Client::with(layer(&server.url(), 5).await);
        assert_eq!(admitted(&client, 2).await, 2);
        server.says(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(admitted(&client, 9).await, 3, "{kind:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_emptied_gives_one_burst_more_and_no_other() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let mut sum = 0;
        // Two replicas: one has refused and remembers that, the other asks.
        let clients = [
            Client::with(layer(&server.url(), 5).await),
            Client::with(layer(&server.url(), 5).await),
        ];
        sum += admitted(&clients[0], 9).await;
        server.says(&["FLUSHALL"]).await;
        for client in &clients {
            sum += admitted(client, 9).await;
        }
        assert_eq!(sum, 10, "{kind:?}: one burst, and one more");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_empty() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::with(layer(&server.url(), 5).await);
        assert_eq!(admitted(&client, 3).await, 3);
        server.kill();
        for _ in 0..20 {
            let answer = client.get("/").await;
            assert_eq!(answer.status, UNAVAILABLE, "{kind:?}");
            let wait = answer.wait().expect("it may pass");
            assert!((3..=8).contains(&wait.as_secs()), "{wait:?}");
            assert_eq!(answer.json()["error"]["code"], "limiter_unavailable");
            assert_eq!(
                answer.header("ratelimit"),
                None,
                "nothing true could be told"
            );
            assert_eq!(answer.header("ratelimit-policy"), None);
        }
        server.run().await;
        assert_eq!(recovered(&client).await, OK);
        assert_eq!(
            admitted(&client, 9).await,
            4,
            "{kind:?}: one burst more, it was empty"
        );
    }
}
