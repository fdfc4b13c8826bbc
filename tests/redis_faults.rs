//! R21 on real servers that fail in rarer ways: the promises during a fault, the excess requests that it admits, and
//! the recovery.

#[path = "support/again.rs"]
mod again;
#[path = "support/log.rs"]
mod log;
#[path = "support/redis.rs"]
mod servers;
#[path = "support/windows.rs"]
mod windows;

mod common;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::Client;
use http::StatusCode;
use log::Log;
use servers::{
    KINDS, Kind, PATIENCE, Passes, Proxy, Server, TURN, acquainted, ask, cluster, connect, in_step,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tower_throttle::{
    Quota, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    store::{OnOutage, RedisStore, RedisStoreBuilder, RedisStoreError},
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const MS: Duration = Duration::from_millis(1);

/// Rules with a rate so slow that nothing comes back meanwhile.
fn slow(burst: u64) -> Rules {
    Rules::new().total(Rate::per_hour(1).burst(burst))
}

/// A builder of a layer over a store that refuses in an outage.
fn over(store: RedisStore, rules: Rules) -> ThrottleLayerBuilder {
    ThrottleLayer::builder(rules)
        // A machine under test is slow at times; where the deadline counts, it is set.
        .store_deadline(Duration::from_secs(2))
        .on_outage(OnOutage::Refuse)
        .store(store)
}

async fn builder(url: &str, rules: Rules) -> ThrottleLayerBuilder {
    over(RedisStore::connect(url).await.expect("a server"), rules)
}

async fn client(url: &str, rules: Rules) -> Client {
    Client::with(builder(url, rules).await)
}

/// Returns how many of so many requests are let through.
async fn admitted(client: &Client, requests: usize) -> u64 {
    let mut admitted = 0;
    for _ in 0..requests {
        let status = client.get("/").await.status;
        assert!([OK, REFUSED].contains(&status), "{status}");
        admitted += u64::from(status == OK);
    }
    admitted
}

/// Waits for the first answer that is not that nobody can tell. The store is probed every second at least.
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

#[expect(
    clippy::disallowed_methods,
    reason = "of a real server, whose time is real"
)]
fn now() -> Instant {
    Instant::now()
}

/// Charges that a replica had not heard of when it became the primary are admitted once more, and nothing else.
#[tokio::test]
async fn a_failover_forgets_what_the_replica_had_not_heard() {
    const BURST: u64 = 8;
    for kind in KINDS {
        for unheard in [0, 3, BURST - 2] {
            let mut primary = Server::start(kind).await;
            let replica = Server::start(kind).await;
            let lag = Proxy::to(primary.port).await;
            // A proxy keeps the address, whichever server is behind.
            let service = Proxy::to(primary.port).await;
            replica
                .says(&["REPLICAOF", "127.0.0.1", &lag.port.to_string()])
                .await;
            let one = client(&service.url(), slow(BURST)).await;
            assert_eq!(admitted(&one, 2).await, 2);
            in_step(&primary, &replica).await;

            lag.passes(Passes::Held);
            let requests = usize::try_from(unheard).expect("a few");
            assert_eq!(admitted(&one, requests).await, unheard);
            primary.kill();
            replica.says(&["REPLICAOF", "NO", "ONE"]).await;
            service.leads_to(replica.port);

            // A client that remembers the empty bucket does not ask; another one does.
            let two = client(&service.url(), slow(BURST)).await;
            let after = admitted(&two, 20).await;
            let status = recovered(&one).await;
            let after = after + u64::from(status == OK) + admitted(&one, 20).await;
            let too_many = 2 + unheard + after - BURST;
            println!("{kind:?}: failover with {unheard} unheard: {too_many} too many");
            assert_eq!(too_many, unheard, "{kind:?}: no more than was not heard of");
        }
    }
}

/// Two processes, which have leased up to 25 units each of 100 when all is forgotten.
///
/// The limit is a quota, so that nothing comes back meanwhile.
async fn leasing(server: &Server) -> [Client; 2] {
    let rules = || Rules::new().total(Quota::per_day(100));
    [
        Client::with(builder(&server.url(), rules()).await.lease(50)),
        Client::with(builder(&server.url(), rules()).await.lease(50)),
    ]
}

#[tokio::test]
async fn what_is_forgotten_while_there_are_leases_gives_one_burst_more() {
    const BURST: u64 = 100;
    const LEASED: u64 = 25;
    for kind in KINDS {
        for before in [1, 10, 200] {
            let server = Server::start(kind).await;
            let clients = leasing(&server).await;
            let mut sum = 0;
            for client in &clients {
                sum += admitted(client, before).await;
            }
            server.says(&["FLUSHALL"]).await;
            for client in &clients {
                sum += admitted(client, 200).await;
            }
            // Another one, which does not remember that nothing was left.
            sum += admitted(&leasing(&server).await[0], 200).await;
            let too_many = sum - BURST;
            println!("{kind:?}: FLUSHALL after {before} each: {too_many} of {BURST} too many");
            assert!(too_many <= BURST, "{kind:?}: one burst, and no lease more");
            if before == 1 {
                let [used, leased] = [2, 2 * LEASED];
                assert_eq!(too_many, used + leased, "{kind:?}: and nothing else");
            } else if before == 200 {
                assert_eq!(too_many, BURST, "{kind:?}: all of it was used");
            }
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_evicted_is_a_full_one() {
    const BURST: u64 = 100;
    for kind in KINDS {
        let server = Server::with(kind, &["--maxmemory-policy", "allkeys-random"]).await;
        let clients = leasing(&server).await;
        let mut sum = admitted(&clients[0], 200).await;
        // Others fill the server, until it has thrown away what is ours.
        server.says(&["CONFIG", "SET", "maxmemory", "4mb"]).await;
        let mut others = connect(&server.url()).await.expect("it runs");
        let filler = "x".repeat(10_000);
        let ours = "throttle:{default}:total/quota-day";
        let left = server.tells(&["EXISTS", ours]).await;
        assert_eq!(left, "1", "{kind:?}");
        for turn in 0..100_000 {
            let name = format!("other-{turn}");
            ask(&mut others, &["SET", &name, &filler])
                .await
                .expect("room is made");
            let there = ask(&mut others, &["EXISTS", ours]).await;
            if there.expect("it answers") == redis::Value::Int(0) {
                break;
            }
            assert!(turn < 99_999, "{kind:?}: it keeps our bucket");
        }
        server.says(&["CONFIG", "SET", "maxmemory", "0"]).await;
        for client in &clients {
            sum += admitted(client, 300).await;
        }
        let too_many = sum - BURST;
        println!("{kind:?}: eviction: {too_many} of {BURST} too many");
        assert!((1..=BURST).contains(&too_many), "{kind:?}: {too_many}");
    }
}

/// Connected, the first time or soon.
async fn reached(
    builder: impl Fn() -> Result<RedisStoreBuilder, RedisStoreError>,
) -> (RedisStore, u32) {
    let mut tries = 0;
    loop {
        tries += 1;
        match builder().expect("urls").connect().await {
            Ok(store) => return (store, tries),
            Err(error) => assert!(tries < 10, "never: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_that_hangs_does_not_hide_the_others() {
    for kind in KINDS {
        let nodes = cluster(kind).await;
        let key = "throttle:{default}:total/rate-3600s";
        let slot = nodes[0].tells(&["CLUSTER", "KEYSLOT", key]).await;
        // One that does not have our slot.
        let slot: usize = slot.parse().expect("a number");
        let hangs = (slot / 5_461 + 1) % 3;
        nodes[hangs].signal("-STOP");
        let urls = [nodes[hangs].url(), nodes[(hangs + 1) % 3].url()];
        let urls = || urls.iter().map(String::as_str);
        let (store, tries) = reached(|| RedisStore::cluster(urls())).await;
        println!("{kind:?}: a cluster is reached after {tries} tries");
        assert_eq!(tries, 1, "{kind:?}: of two nodes, one answers");
        let client = Client::with(over(store, slow(5)));
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}");

        // One that was not there when it was first asked for.
        let lazy = RedisStore::cluster(urls()).expect("urls").connect_lazy();
        let client = Client::with(over(lazy.expect("a name"), slow(5)));
        assert_eq!(recovered(&client).await, REFUSED, "{kind:?}: five in all");
    }
}

#[tokio::test]
async fn a_sentinel_that_hangs_does_not_hide_the_other() {
    for kind in KINDS {
        let primary = Server::start(kind).await;
        let replica = Server::start(kind).await;
        replica
            .says(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()])
            .await;
        let sentinels = [
            Server::sentinel(kind, primary.port).await,
            Server::sentinel(kind, primary.port).await,
        ];
        acquainted(&sentinels).await;
        sentinels[0].signal("-STOP");
        let urls = [sentinels[0].url(), sentinels[1].url()];
        let urls = || urls.iter().map(String::as_str);
        let (store, tries) =
            reached(|| RedisStore::sentinels(urls(), "main", "redis://by-sentinels")).await;
        println!("{kind:?}: sentinels are heard after {tries} tries");
        assert_eq!(tries, 1, "{kind:?}: of two sentinels, one answers");
        let client = Client::with(over(store, slow(5)));
        assert_eq!(admitted(&client, 9).await, 5, "{kind:?}");
    }
}

/// Servers close connections that were idle for long enough.
#[tokio::test]
async fn a_connection_that_is_closed_while_nobody_asks_is_no_outage() {
    let log = Log::default();
    let _guard = log.listen();
    for kind in KINDS {
        let server = Server::start(kind).await;
        let client = client(&server.url(), slow(9)).await;
        for turn in 0..5 {
            assert_eq!(client.get("/").await.status, OK, "{kind:?}: {turn}");
            let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
            assert_eq!(server.tells(&kill).await, "1", "{kind:?}: ours");
            // The news needs a moment.
            sleep(50 * MS).await;
        }
        assert_eq!(admitted(&client, 9).await, 4, "{kind:?}: nine in all");
        let told = told_of_store(&log);
        assert!(told.is_empty(), "{kind:?}: {told:?}");
    }
}

/// Returns the lines that were logged of the store.
fn told_of_store(log: &Log) -> Vec<String> {
    let lines = log.lines().into_iter();
    lines.filter(|line| line.contains("the store is")).collect()
}

#[tokio::test]
async fn a_server_that_is_busy_with_another_s_script() {
    for kind in KINDS {
        let server = Server::with(kind, &["--busy-reply-threshold", "50"]).await;
        let client = client(&server.url(), slow(5)).await;
        assert_eq!(admitted(&client, 2).await, 2);
        let url = server.url();
        tokio::spawn(async move {
            let mut theirs = connect(&url).await.expect("it runs");
            let _ = ask(&mut theirs, &["EVAL", "while true do end", "0"]).await;
        });
        let mut probe = connect(&server.url()).await.expect("it runs");
        let busy = |answer: redis::RedisResult<redis::Value>| {
            answer.is_err_and(|error| error.to_string().to_lowercase().contains("busy"))
        };
        for turn in 0.. {
            let said = timeout(200 * MS, ask(&mut probe, &["PING"])).await;
            if said.is_ok_and(busy) {
                break;
            }
            assert!(turn < PATIENCE, "{kind:?}: it is not busy");
            sleep(TURN).await;
        }
        for _ in 0..20 {
            let answer = client.get("/").await;
            assert_eq!(answer.status, UNAVAILABLE, "{kind:?}");
            assert_eq!(answer.header("ratelimit"), None, "{kind:?}");
        }
        server.says(&["SCRIPT", "KILL"]).await;
        assert_eq!(recovered(&client).await, OK, "{kind:?}");
        assert_eq!(admitted(&client, 9).await, 2, "{kind:?}: five in all");
    }
}

#[tokio::test]
async fn a_server_that_loads_what_it_had() {
    const KEYS: u64 = 2_000;
    for kind in KINDS {
        // A millisecond for each key, and it answers meanwhile.
        let slowly = [
            "--key-load-delay",
            "1000",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        let mut server = Server::with(kind, &slowly).await;
        let client = client(&server.url(), slow(5)).await;
        assert_eq!(admitted(&client, 2).await, 2);
        let fill = "for i = 1, ARGV[1] do redis.call('SET', 'other-' .. i, i) end";
        server.says(&["EVAL", fill, "0", &KEYS.to_string()]).await;
        server.says(&["SAVE"]).await;
        server.kill();
        server.launch();
        let mut refused_as_loading = 0;
        for turn in 0.. {
            let status = client.get("/").await.status;
            let loads = match connect(&server.url()).await {
                Ok(mut probe) => ask(&mut probe, &["GET", "x"]).await.err(),
                Err(error) => Some(error),
            };
            match loads {
                None => break,
                Some(error) if error.to_string().contains("loading") => {
                    assert_eq!(status, UNAVAILABLE, "{kind:?}");
                    refused_as_loading += 1;
                }
                Some(_) => {}
            }
            assert!(turn < PATIENCE, "{kind:?}: it loads for ever");
            sleep(TURN).await;
        }
        assert!(refused_as_loading > 0, "{kind:?}: it was ready at once");
        assert_eq!(recovered(&client).await, OK, "{kind:?}");
        assert_eq!(admitted(&client, 9).await, 2, "{kind:?}: five in all");
    }
}

#[tokio::test]
async fn rights_that_are_taken_away_and_given_back() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rights =
            "on >secret ~throttle:* +eval +evalsha +mget +exists +set +del +time +ping +role";
        let rights: Vec<_> = ["ACL", "SETUSER", "limits"]
            .into_iter()
            .chain(rights.split(' '))
            .collect();
        server.says(&rights).await;
        let url = format!("redis://limits:secret@127.0.0.1:{}", server.port);
        let client = client(&url, slow(9)).await;
        let mut sum = admitted(&client, 2).await;
        for (taken, given) in [
            ("-set", "+set"),
            ("-evalsha", "+evalsha"),
            ("-mget", "+mget"),
            ("resetkeys", "~throttle:*"),
            // A user that is switched off is disconnected at some point.
            ("off", "on"),
        ] {
            server.says(&["ACL", "SETUSER", "limits", taken]).await;
            if taken == "off" {
                server.says(&["CLIENT", "KILL", "USER", "limits"]).await;
            }
            for _ in 0..5 {
                assert_eq!(
                    client.get("/").await.status,
                    UNAVAILABLE,
                    "{kind:?}: {taken}"
                );
            }
            server.says(&["ACL", "SETUSER", "limits", given]).await;
            assert_eq!(recovered(&client).await, OK, "{kind:?}: {given}");
            sum += 1;
        }
        sum += admitted(&client, 20).await;
        assert_eq!(sum, 9, "{kind:?}: who was refused was not charged");
    }
}

#[tokio::test]
async fn replicas_that_are_on_their_own_have_a_share_each() {
    const REPLICAS: u32 = 4;
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let mut clients = Vec::new();
        for _ in 0..REPLICAS {
            let builder = builder(&server.url(), slow(22)).await;
            let share = OnOutage::Local { share: REPLICAS };
            clients.push(Client::with(builder.on_outage(share)));
        }
        for client in &clients {
            assert_eq!(client.get("/").await.status, OK);
        }
        server.kill();
        for client in &clients {
            assert_eq!(
                admitted(client, 20).await,
                5,
                "{kind:?}: a quarter of 22, rounded down"
            );
        }
        server.run().await;
        // The bucket was empty; until the store is asked again no replica gets more than its share.
        let mut sum = 0;
        for _ in 0..PATIENCE {
            for client in &clients {
                sum += admitted(client, 1).await;
            }
            if sum == 22 {
                break;
            }
            sleep(TURN).await;
        }
        assert_eq!(sum, 22, "{kind:?}: one burst for all");
    }
}

#[tokio::test]
async fn in_every_window_a_replica_on_its_own_lets_through_its_share_and_no_more() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let rules = Rules::new().total(Rate::per_second(800).burst(40));
        let builder = builder(&server.url(), rules).await;
        let client = Client::with(builder.on_outage(OnOutage::Local { share: 4 }));
        server.kill();
        let start = now();
        let moment = || u64::try_from(start.elapsed().as_nanos()).expect("a minute");
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        // The first one finds out that there is no server. As long as it takes: how many pass in a time is the
        // machine's business.
        while admitted.len() < 210 || refused.len() < 20 {
            let asked = moment();
            let status = client.get("/").await.status;
            assert!([OK, REFUSED].contains(&status), "{kind:?}: {status}");
            if status == OK {
                admitted.push((asked, moment()));
            } else {
                refused.push((asked, moment()));
                sleep(MS).await;
            }
            assert!(start.elapsed() < PATIENCE * TURN, "{kind:?}: {admitted:?}");
        }
        let window = windows::too_many(&admitted, 10, 5_000_000);
        assert_eq!(window, None, "{kind:?}: too many of {admitted:?}");
        let early = windows::refused_for_nothing(&admitted, &refused, 10, 5_000_000);
        assert_eq!(early, None, "{kind:?}: of its share something was left");
    }
}

/// Makes faults happen on the way to the server, and to the server itself, one after the other and over again.
async fn happens(server: &Server, ways: &[Proxy], enough: impl Fn(u32) -> bool) {
    let all = |passes| ways.iter().for_each(|way| way.passes(passes));
    let mut turn = 0;
    while !enough(turn) {
        match turn % 5 {
            0 => all(Passes::Slowly(15 * MS)),
            1 => all(Passes::Reset),
            2 => all(Passes::Held),
            3 => ways[0].passes(Passes::Slowly(40 * MS)),
            _ => server.signal("-STOP"),
        }
        sleep(100 * MS).await;
        if turn % 5 == 4 {
            server.signal("-CONT");
        }
        all(Passes::All);
        sleep(200 * MS).await;
        turn += 1;
    }
}

/// As long as the server loses nothing, nothing is lost: neither what is answered too late, nor what is not answered,
/// nor what is given back of it, lets one too many through.
#[tokio::test]
async fn in_every_window_no_more_is_let_through_while_the_way_to_the_server_fails() {
    const RATE: u64 = 500;
    const BURST: u64 = 100;
    // Each of what happens happens so often, and until so many were let through: in which time is the machine's business.
    const TURNS: u32 = 10;
    const ENOUGH: u64 = 5 * BURST;
    for kind in KINDS {
        for lease in [1, 20] {
            let server = Server::start(kind).await;
            let ways = [Proxy::to(server.port).await, Proxy::to(server.port).await];
            let start = now();
            let moment = move || u64::try_from(start.elapsed().as_nanos()).expect("seconds");
            let [passes, is_over] = [Arc::<AtomicU64>::default(), Arc::default()];
            let mut crowd = Vec::new();
            for way in &ways {
                let rules = Rules::new().total(Rate::per_second(RATE).burst(BURST));
                let builder = builder(&way.url(), rules).await.lease(lease);
                let client = Arc::new(Client::with(builder.store_deadline(25 * MS)));
                for _ in 0..8 {
                    let client = Arc::clone(&client);
                    let (passes, is_over) = (Arc::clone(&passes), Arc::clone(&is_over));
                    crowd.push(tokio::spawn(async move {
                        let (mut passed, mut unanswered) = (Vec::new(), 0);
                        while is_over.load(Ordering::Relaxed) == 0 {
                            let asked = moment();
                            match client.get("/").await.status {
                                OK => {
                                    passed.push((asked, moment()));
                                    passes.fetch_add(1, Ordering::Relaxed);
                                }
                                UNAVAILABLE => unanswered += 1,
                                _ => {}
                            }
                            sleep(MS).await;
                        }
                        (passed, unanswered)
                    }));
                }
            }
            let enough = |turn| {
                let passed = passes.load(Ordering::Relaxed);
                assert!(start.elapsed() < PATIENCE * TURN, "hardly any: {passed}");
                turn >= TURNS && passed >= ENOUGH
            };
            happens(&server, &ways, enough).await;
            is_over.store(1, Ordering::Relaxed);
            let (mut passed, mut unanswered) = (Vec::new(), 0);
            for one in crowd {
                let (own, others) = one.await.expect("no panic");
                passed.extend(own);
                unanswered += others;
            }
            println!(
                "{kind:?}, {lease} at once: {} admitted in {:?}, {unanswered} times unknown",
                passed.len(),
                start.elapsed()
            );
            let window = windows::too_many(&passed, BURST, 1_000_000_000 / RATE);
            assert_eq!(window, None, "{kind:?}, {lease} at once: too many there");
            assert!(unanswered > 0, "{kind:?}: nothing has happened");
        }
    }
}

#[tokio::test]
async fn whoever_admits_in_an_outage_tells_nothing_of_limits() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let rules = Rules::new().default_route(Rate::per_hour(1).burst(3));
        let builder = builder(&server.url(), rules).await;
        let client = Client::with(builder.on_outage(OnOutage::Admit));
        let told = client.get("/").await;
        assert!(told.header("ratelimit").is_some(), "{kind:?}: of a limit");
        server.kill();
        for _ in 0..50 {
            let answer = client.get("/").await;
            assert_eq!(answer.status, OK, "{kind:?}");
            for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
                assert_eq!(answer.header(name), None, "{kind:?}: nothing true");
            }
        }
        server.run().await;
        let mut refused = false;
        for _ in 0..PATIENCE {
            let answer = client.get("/").await;
            refused = answer.status == REFUSED;
            if refused {
                break;
            }
            sleep(TURN).await;
        }
        assert!(refused, "{kind:?}: the limit holds again");
    }
}

#[tokio::test]
async fn a_change_of_state_is_one_line() {
    let log = Log::default();
    let _guard = log.listen();
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Arc::new(client(&server.url(), slow(200)).await);
        for turn in 0..2 {
            assert_eq!(recovered(&client).await, OK, "{kind:?}");
            log.lines();
            server.kill();
            let crowd = (0..50).map(|_| {
                let client = Arc::clone(&client);
                tokio::spawn(async move { client.get("/").await.status })
            });
            for one in crowd.collect::<Vec<_>>() {
                assert_eq!(one.await.expect("no panic"), UNAVAILABLE, "{kind:?}");
            }
            // The store is probed for a while.
            sleep(300 * MS).await;
            assert_eq!(client.get("/").await.status, UNAVAILABLE, "{kind:?}");
            let lines = told_of_store(&log);
            let told = "WARN tower_throttle: the store is down; requests are decided without it";
            assert_eq!(lines.len(), 1, "{kind:?}, {turn}: {lines:?}");
            assert!(lines[0].starts_with(told), "{lines:?}");
            // With the server, and what has become of the way to it.
            let cause = lines[0].split("error=the store is not available: ").nth(1);
            let address = format!("127.0.0.1:{}: ", server.port);
            let cause = cause.and_then(|cause| cause.strip_prefix(&address));
            assert!(
                cause.is_some_and(|cause| !cause.contains(": ")),
                "{lines:?}"
            );

            server.run().await;
            assert_eq!(recovered(&client).await, OK, "{kind:?}");
            admitted(&client, 20).await;
            let lines = told_of_store(&log);
            let told = ["WARN tower_throttle: the store is up again"];
            assert_eq!(lines, told, "{kind:?}, {turn}");
        }
    }
}

/// A crowd whose runtime ends: what was asked of the store is dropped, call by call, while others wait for it.
fn ends_under_load(url: &str, server: &str, lease: u64, threads: usize) {
    let signal = |signal: &str| {
        let done = Command::new("kill").args([signal, server]).status();
        assert!(done.expect("a shell").success());
    };
    for stops in [true, false] {
        let runtime = match threads {
            0 => Builder::new_current_thread().enable_all().build(),
            _ => Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build(),
        };
        let runtime = runtime.expect("a runtime");
        let rules = Rules::new().total(Rate::per_second(1_000_000).burst(1_000_000));
        let builder = runtime.block_on(builder(url, rules)).lease(lease);
        let client = Arc::new(Client::with(builder));
        let load = async {
            let crowd = (0..128).map(|_| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    loop {
                        client.get("/").await;
                        // Leased requests are answered at once, and a task that never waits never ends.
                        yield_now().await;
                    }
                })
            });
            let crowd: Vec<_> = crowd.collect();
            sleep(100 * MS).await;
            if stops {
                signal("-STOP");
                sleep(100 * MS).await;
            }
            assert!(crowd.iter().all(|one| !one.is_finished()), "no panic");
        };
        runtime.block_on(load);
        drop(runtime);
        if stops {
            signal("-CONT");
        }
        // The rest of the lease serves another runtime.
        let runtime = Runtime::new().expect("a runtime");
        assert_eq!(runtime.block_on(recovered(&client)), OK);
    }
    println!("it has ended");
}

/// Once it was the abort of the process: a panic while another was unwound, where no runtime was left for the next
/// call.
#[tokio::test]
async fn a_runtime_that_ends_under_load_ends() {
    if let Some(told) = again::told() {
        let ended = std::thread::spawn(move || {
            let words: Vec<_> = told.split(' ').collect();
            let [url, server, lease, threads] = words[..] else {
                panic!("four words");
            };
            let number = |word: &str| word.parse().expect("a number");
            let lease = u64::try_from(number(lease)).expect("a number");
            ends_under_load(url, server, lease, number(threads));
        });
        return ended.join().expect("no panic");
    }
    for kind in KINDS {
        let server = Server::start(kind).await;
        for (lease, threads) in [(1, 2), (50, 2), (1, 0), (50, 0)] {
            let told = format!("{} {} {lease} {threads}", server.url(), server.id());
            let (ended, text) = again::run("a_runtime_that_ends_under_load_ends", &told, &[]).await;
            server.signal("-CONT");
            assert!(
                ended && text.contains("it has ended"),
                "{kind:?}, {lease} at once on {threads} threads: {text}"
            );
            assert!(!text.contains("panicked"), "{kind:?}: {text}");
        }
    }
}

/// The recovery of the store goes on in another runtime when its own has ended.
#[test]
fn a_runtime_that_ends_in_an_outage_takes_no_recovery_along() {
    let runtime = || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    };
    let serving = |kind: Kind| {
        let outer = runtime();
        let mut server = outer.block_on(Server::start(kind));
        let first = runtime();
        let client = first.block_on(client(&server.url(), slow(5)));
        assert_eq!(first.block_on(admitted(&client, 2)), 2);
        server.kill();
        let status = first.block_on(client.get("/")).status;
        assert_eq!(status, UNAVAILABLE, "{kind:?}");
        drop(first);
        outer.block_on(server.run());
        let second = runtime();
        assert_eq!(second.block_on(recovered(&client)), OK, "{kind:?}");
        let rest = second.block_on(admitted(&client, 9));
        assert_eq!(rest, 4, "{kind:?}: it was empty");
        // And once more, while it is up.
        drop(second);
        let third = runtime();
        let status = third.block_on(recovered(&client));
        assert_eq!(status, REFUSED, "{kind:?}");
    };
    KINDS.into_iter().for_each(serving);
}
