//! R21 on real servers that are killed, paused, slow, emptied and replaced.

#[path = "support/redis.rs"]
mod servers;

mod common;

use std::{sync::Arc, time::Duration};

use common::Client;
use http::StatusCode;
use servers::{KINDS, PATIENCE, Passes, Proxy, Server, TURN, acquainted, cluster, in_step, owes};
use tokio::time::{Instant, sleep};
use tower_throttle::{
    Clients, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    store::{OnOutage, RedisStore, conformance},
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Rules with a rate so slow that nothing comes back meanwhile.
fn rules(burst: u64) -> Rules {
    Rules::new().total(Rate::per_hour(1).burst(burst))
}

async fn builder(url: &str, burst: u64) -> ThrottleLayerBuilder {
    let store = RedisStore::connect(url).await.expect("a server");
    over(store, rules(burst))
}

/// A builder of a layer over a store that refuses in an outage.
fn over(store: RedisStore, rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
        // A machine under test is slow at times; where the deadline counts, it is set.
        .store_deadline(Duration::from_secs(2))
        .on_outage(OnOutage::Refuse)
        .store(store)
}

/// Returns how many of so many requests are let through.
async fn admitted(client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        let status = client.get("/").await.status;
        assert!([OK, REFUSED].contains(&status), "{status}");
        admitted += usize::from(status == OK);
    }
    admitted
}

/// Waits until the store answers again, and returns the status: the store is probed every second at least.
async fn recovered(client: &Client) -> StatusCode {
    for _ in 0..PATIENCE {
        let status = client.get("/").await.status;
        if status != UNAVAILABLE {
            return status;
        }
        sleep(TURN).await;
    }
    panic!("it has not recovered");
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
        let client = Client::with(builder(&server.url(), 5).await);
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
            Client::with(builder(&server.url(), 5).await),
            Client::with(builder(&server.url(), 5).await),
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
        let client = Client::with(builder(&server.url(), 5).await);
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

#[expect(
    clippy::disallowed_methods,
    reason = "of a real server, whose time is real"
)]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_server_that_is_paused_costs_one_deadline() {
    // So long that a busy machine does not make a request wait that need not, and short of the second after which an
    // answer is not listened for any more.
    const DEADLINE: Duration = Duration::from_millis(300);
    for kind in KINDS {
        let server = Server::start(kind).await;
        let builder = builder(&server.url(), 5).await.store_deadline(DEADLINE);
        let client = Client::with(builder);
        assert_eq!(admitted(&client, 2).await, 2);
        server.signal("-STOP");
        let start = now();
        assert_eq!(client.get("/").await.status, UNAVAILABLE);
        let first = start.elapsed();
        assert!(first >= DEADLINE, "{kind:?}: {first:?}");
        for turn in 0..50 {
            let start = now();
            assert_eq!(client.get("/").await.status, UNAVAILABLE);
            let took = start.elapsed();
            assert!(took < DEADLINE, "{kind:?}: {turn} waits, too: {took:?}");
        }
        server.signal("-CONT");
        assert_eq!(recovered(&client).await, OK);
        // The charges that the server made when it resumed were given back, and nothing was taken twice.
        owes(&server, 3).await;
        assert_eq!(admitted(&client, 9).await, 2, "{kind:?}: five in all");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_not_asked_for_again() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let proxy = Proxy::to(server.port).await;
        let client = Client::with(builder(&proxy.url(), 5).await);
        let other = Client::with(builder(&server.url(), 5).await);
        assert_eq!(admitted(&client, 1).await, 1);
        proxy.passes(Passes::Reset);
        assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        proxy.passes(Passes::All);
        // Charged once or not at all, and never twice.
        let left = admitted(&other, 9).await;
        assert_eq!(
            left, 3,
            "{kind:?}: the server had taken it when the connection broke"
        );
        assert_eq!(recovered(&client).await, REFUSED);
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for_and_late_answers_are_given_back() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let proxy = Proxy::to(server.port).await;
        let patient = Client::with(builder(&proxy.url(), 5).await);
        let builder = builder(&proxy.url(), 5).await;
        let hasty = Client::with(builder.store_deadline(Duration::from_millis(300)));
        proxy.passes(Passes::Slowly(Duration::from_millis(600)));
        assert_eq!(admitted(&patient, 1).await, 1, "{kind:?}");
        assert_eq!(hasty.get("/").await.status, UNAVAILABLE, "{kind:?}");
        proxy.passes(Passes::All);
        assert_eq!(recovered(&hasty).await, OK);
        owes(&server, 2).await;
        assert_eq!(
            admitted(&patient, 9).await,
            3,
            "{kind:?}: what was late was given back"
        );
    }
}

#[tokio::test]
async fn what_lies_under_our_key_and_is_another_s_is_left_alone() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let key = "throttle:{default}:total/rate-3600s";
        for foreign in [
            &["RPUSH", key, "theirs"][..],
            &["SET", key, "theirs"],
            &["SET", key, "17:4"],
        ] {
            server.says(&["DEL", key]).await;
            server.says(foreign).await;
            let rules = rules(5).route("GET /free", Rate::per_hour(1));
            let store = RedisStore::connect(&server.url()).await.expect("a server");
            let client = Client::with(over(store, rules));
            for _ in 0..3 {
                let refused = client.get("/").await;
                assert_eq!(refused.status, UNAVAILABLE, "{kind:?}: {foreign:?}");
            }
            let kept = server.tells(&["TYPE", key]).await;
            assert_eq!(
                kept,
                if foreign[0] == "SET" {
                    "string"
                } else {
                    "list"
                }
            );
            server.says(&["DEL", key]).await;
            assert_eq!(
                client.get("/").await.status,
                OK,
                "{kind:?}: at once, it was no outage"
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_is_out_of_memory_takes_nothing() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let client = Client::with(builder(&server.url(), 5).await);
        assert_eq!(admitted(&client, 2).await, 2);
        server.says(&["CONFIG", "SET", "maxmemory", "1"]).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        }
        server.says(&["CONFIG", "SET", "maxmemory", "0"]).await;
        assert_eq!(recovered(&client).await, OK, "{kind:?}");
        assert_eq!(admitted(&client, 9).await, 2, "{kind:?}: five in all");
    }
}

#[tokio::test]
async fn a_replica_is_no_store_and_becomes_one_when_it_is_made_a_primary() {
    for kind in KINDS {
        let mut primary = Server::start(kind).await;
        let replica = Server::start(kind).await;
        replica
            .says(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()])
            .await;
        let client = Client::with(builder(&primary.url(), 5).await);
        assert_eq!(admitted(&client, 2).await, 2);
        in_step(&primary, &replica).await;

        let refused = RedisStore::connect(&replica.url()).await;
        assert!(refused.is_err(), "{kind:?}: a replica tells what is old");
        let lazy = RedisStore::server(&replica.url())
            .expect("a url")
            .connect_lazy()
            .expect("a name");
        let other = Client::with(over(lazy, rules(5)));
        assert_eq!(other.get("/").await.status, UNAVAILABLE);

        // The primary is lost, and the replica takes its place with what it has.
        primary.kill();
        replica.says(&["REPLICAOF", "NO", "ONE"]).await;
        assert_eq!(recovered(&other).await, OK);
        assert_eq!(
            admitted(&other, 9).await,
            2,
            "{kind:?}: five in all, nothing was lost"
        );
    }
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_no_store_any_more() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let other = Server::start(kind).await;
        let client = Client::with(builder(&server.url(), 5).await);
        assert_eq!(admitted(&client, 2).await, 2);
        server
            .says(&["REPLICAOF", "127.0.0.1", &other.port.to_string()])
            .await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        }
        server.says(&["REPLICAOF", "NO", "ONE"]).await;
        assert_eq!(recovered(&client).await, OK);
    }
}

#[tokio::test]
async fn a_user_may_do_no_more_than_it_has_to() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rights = [
            "ACL",
            "SETUSER",
            "limits",
            "on",
            ">secret",
            "~throttle:*",
            "+eval",
            "+evalsha",
            "+mget",
            "+exists",
            "+set",
            "+del",
            "+time",
            "+ping",
            "+role",
        ];
        server.says(&rights).await;
        let url = format!("redis://limits:secret@127.0.0.1:{}", server.port);
        let client = Client::with(builder(&url, 5).await);
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}");
        let wrong = format!("redis://limits:wrong@127.0.0.1:{}", server.port);
        let error = RedisStore::connect(&wrong)
            .await
            .expect_err("a wrong password");
        let shown = format!("{error:?}");
        assert!(
            shown.starts_with("the server cannot be used: the store is not available: "),
            "{shown}"
        );
        assert!(!shown.contains("secret"));
        // Without the right to write.
        server.says(&["ACL", "SETUSER", "limits", "-set"]).await;
        let refused = RedisStore::connect(&url).await;
        assert!(refused.is_err(), "{kind:?}: it says so at once");
    }
}

#[tokio::test]
async fn nothing_of_a_client_is_told_to_the_server() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let monitor = redis::Client::open(server.url())
            .expect("a url")
            .get_async_monitor()
            .await
            .expect("it runs");
        let clients = Clients::by_header("x-api-key")
            .or_address()
            .each(Rate::per_hour(1).burst(2))
            .plan("gold", Rate::per_hour(1).burst(3))
            .member("gold", "sk-of-gold")
            .secret("a secret of nobody but the replicas");
        let rules = Rules::new()
            .default_route(Rate::per_second(100))
            .clients(clients);
        let store = RedisStore::connect(&server.url()).await.expect("a server");
        let builder = ThrottleLayer::builder(rules)
            .store_deadline(Duration::from_secs(2))
            .store(store);
        let client = Client::with(builder);
        for (key, requests) in [("sk-of-gold", 4), ("sk-of-somebody", 3)] {
            for _ in 0..requests {
                let request =
                    http::Request::get("/users/alice@example.com").header("x-api-key", key);
                client
                    .send(
                        request
                            .body(http_body_util::Empty::new())
                            .expect("a request"),
                    )
                    .await;
            }
        }
        server.says(&["SET", "the end", "1"]).await;
        let mut heard = String::new();
        let mut lines = monitor.into_on_message::<String>();
        while !heard.contains("the end") {
            heard.push_str(&next(&mut lines).await);
        }
        assert!(heard.contains("throttle:{default}:plan"), "{heard}");
        for raw in [
            "sk-of-gold",
            "sk-of-somebody",
            "alice",
            "example",
            "secret of nobody",
            "127.0.0.1/",
        ] {
            assert!(!heard.contains(raw), "{kind:?} was told `{raw}`: {heard}");
        }
    }
}

async fn next(lines: &mut (impl tokio_stream::Stream<Item = String> + Unpin)) -> String {
    use tokio_stream::StreamExt;
    lines.next().await.expect("it runs")
}

#[tokio::test]
async fn in_a_cluster_all_of_a_throttle_lies_on_one_node_wherever_that_is() {
    for kind in KINDS {
        let mut nodes = cluster(kind).await;
        let key = "throttle:{default}:total/rate-3600s";
        let slot = nodes[0].tells(&["CLUSTER", "KEYSLOT", key]).await;
        let number: usize = slot.parse().expect("a number");
        let (here, there) = match number {
            0..=5460 => (0, 1),
            5461..=10922 => (1, 2),
            _ => (2, 0),
        };
        // Whichever node is given.
        for node in &nodes {
            let clients = Clients::by_header("x-api-key")
                .each(Rate::per_hour(1).burst(9))
                .secret([7; 32]);
            let rules = rules(5)
                .default_route(Rate::per_hour(1).burst(9))
                .clients(clients);
            let url = node.url();
            let store = RedisStore::cluster([&*url])
                .expect("a url")
                .connect()
                .await
                .expect("a node");
            let client = Client::with(over(store, rules));
            assert_eq!(
                client.get("/").await.status,
                OK,
                "{kind:?}: three buckets in one call"
            );
        }
        let urls = [nodes[there].url(), nodes[here].url()];
        let urls = urls.iter().map(String::as_str);
        let store = RedisStore::cluster(urls)
            .expect("urls")
            .connect()
            .await
            .expect("a node");
        let client = Client::with(over(store, rules(5)));
        assert_eq!(admitted(&client, 1).await, 1);

        // The slot moves to another node while requests go on.
        let [from, to] = [&nodes[here], &nodes[there]];
        let from_id = from.tells(&["CLUSTER", "MYID"]).await;
        let to_id = to.tells(&["CLUSTER", "MYID"]).await;
        to.says(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])
            .await;
        from.says(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])
            .await;
        let keys = from
            .tells(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
            .await;
        for key in keys.lines() {
            from.says(&[
                "MIGRATE",
                "127.0.0.1",
                &to.port.to_string(),
                key,
                "0",
                "60000",
            ])
            .await;
        }
        let asked = client.get("/").await.status;
        assert_eq!(
            asked, OK,
            "{kind:?}: sent on to where the bucket is, the fifth of five"
        );
        for node in [to, from, &nodes[3 - here - there]] {
            node.says(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])
                .await;
        }
        assert_eq!(client.get("/").await.status, REFUSED, "{kind:?}");
        to.says(&["DEL", key]).await;
        sleep(Duration::from_millis(1)).await;
        let store = RedisStore::cluster([&*nodes[here].url()])
            .expect("a url")
            .connect()
            .await;
        let client = Client::with(over(store.expect("a node"), rules(5)));
        assert_eq!(
            admitted(&client, 2).await,
            2,
            "{kind:?}: on the other node now"
        );

        nodes[there].kill();
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn sentinels_say_which_server_it_is() {
    for kind in KINDS {
        let mut primary = Server::start(kind).await;
        let replica = Server::start(kind).await;
        replica
            .says(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()])
            .await;
        let sentinels = [
            Server::sentinel(kind, primary.port).await,
            Server::sentinel(kind, primary.port).await,
        ];
        let urls = [sentinels[0].url(), sentinels[1].url()];
        let urls = urls.iter().map(String::as_str);
        let store = RedisStore::sentinels(urls, "main", "redis://by-sentinels").expect("urls");
        let store = store.connect().await.expect("a primary");
        let client = Client::with(over(store, rules(5)));
        assert_eq!(admitted(&client, 2).await, 2);
        in_step(&primary, &replica).await;
        acquainted(&sentinels).await;

        primary.kill();
        assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
        let mut status = UNAVAILABLE;
        for _ in 0..PATIENCE {
            status = client.get("/").await.status;
            if status != UNAVAILABLE {
                break;
            }
            sleep(TURN).await;
        }
        assert_eq!(status, OK, "{kind:?}: the replica has taken its place");
        assert_eq!(admitted(&client, 9).await, 2, "{kind:?}: five in all");
    }
}
