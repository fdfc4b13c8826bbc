//! R21 on real servers: queues, slots, model tokens and reloads work as elsewhere, entries are kept as long as they
//! count, and nothing discloses a client.

#[path = "support/redis.rs"]
mod servers;

mod common;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Answer, Client, build};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use servers::{KINDS, Kind, PATIENCE, Server, TURN, ask, connect};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder, Usage,
    body::ResponseBody,
    client::PeerAddr,
    decision::DecisionIn,
    store::{OnOutage, RedisStore},
    usage::Estimate,
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const MS: Duration = Duration::from_millis(1);

async fn builder(server: &Server, rules: Rules) -> ThrottleLayerBuilder {
    let store = RedisStore::connect(&server.url()).await.expect("a server");
    ThrottleLayer::builder(rules)
        .decision(DecisionIn::Response)
        // A machine under test is slow at times.
        .store_deadline(Duration::from_secs(5))
        .on_outage(OnOutage::Refuse)
        .store(store)
}

async fn layer(server: &Server, rules: Rules) -> ThrottleLayer {
    build(builder(server, rules).await)
}

#[expect(
    clippy::disallowed_methods,
    reason = "of a real server, whose time is real"
)]
fn now() -> Instant {
    Instant::now()
}

/// Returns how often the server was asked to run a script.
async fn calls(server: &Server) -> u64 {
    let told = server.tells(&["INFO", "commandstats"]).await;
    let of = |line: &str| {
        let calls = line.strip_prefix("cmdstat_evalsha:calls=")?;
        calls.split(',').next()?.parse().ok()
    };
    told.lines().find_map(of).unwrap_or(0)
}

#[tokio::test]
async fn who_may_wait_waits_in_each_replica_and_all_pass_at_the_rate_of_one() {
    const EACH: usize = 6;
    const INTERVAL: Duration = Duration::from_millis(40);
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = || {
            let limits = Limits::new()
                .rate(Rate::per_second(25).burst(1))
                .max_wait(Duration::from_secs(20));
            Rules::new().route("GET /", limits)
        };
        let replicas = [
            Arc::new(Client::with(builder(&server, rules()).await)),
            Arc::new(Client::with(builder(&server, rules()).await)),
        ];
        let start = now();
        let moment = move || u64::try_from(start.elapsed().as_nanos()).expect("seconds");
        let lines = replicas.map(|replica| {
            let line = (0..EACH).map(move |_| {
                let replica = Arc::clone(&replica);
                tokio::spawn(async move {
                    let status = replica.get("/").await.status;
                    (status, moment())
                })
            });
            line.collect::<Vec<_>>()
        });
        let mut last = 0;
        for line in lines {
            let mut before = 0;
            for waits in line {
                let (status, passed) = waits.await.expect("no panic");
                assert_eq!(status, OK, "{kind:?}");
                assert!(passed > before, "{kind:?}: in the order in which they came");
                before = passed;
            }
            last = last.max(before);
        }
        let least = INTERVAL * (2 * EACH as u32 - 1);
        let took = Duration::from_nanos(last);
        assert!(took >= least, "{kind:?}: {took:?}, for {least:?}");
        assert!(took < Duration::from_secs(15), "{kind:?}: {took:?}");
        let calls = calls(&server).await;
        println!("{kind:?}: {} in line, {took:?}, {calls} calls", 2 * EACH);
        assert!(calls < 200, "{kind:?}: {calls}: they wait, they do not ask");
    }
}

/// An answer whose body is not read: it is in flight.
async fn hold(layer: &ThrottleLayer) -> Response<ResponseBody<Empty<Bytes>>> {
    let serve = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let answer = layer.layer(serve).oneshot(Request::new(())).await;
    answer.unwrap_or_else(|never| match never {})
}

#[tokio::test]
async fn slots_are_each_replica_s_own_and_the_rate_is_everybody_s() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = || {
            let limits = Limits::new().rate(Rate::per_hour(1).burst(6)).in_flight(2);
            Rules::new().route("GET /", limits)
        };
        let replicas = [layer(&server, rules()).await, layer(&server, rules()).await];
        let mut held = Vec::new();
        for replica in &replicas {
            for _ in 0..2 {
                let answer = hold(replica).await;
                assert_eq!(answer.status(), OK, "{kind:?}");
                held.push(answer);
            }
            for _ in 0..5 {
                let status = hold(replica).await.status();
                assert_eq!(status, UNAVAILABLE, "{kind:?}: both slots are taken");
            }
        }
        held.clear();
        let mut statuses = Vec::new();
        for _ in 0..2 {
            for replica in &replicas {
                statuses.push(hold(replica).await.status());
            }
        }
        assert_eq!(
            statuses,
            [OK, OK, REFUSED, REFUSED],
            "{kind:?}: who found no slot was not charged, and who is refused holds none"
        );
    }
}

/// Requests in line once made a busy loop: they gave up their slots to each other, and asked again at once.
#[tokio::test]
async fn who_waits_for_a_slot_and_for_the_rate_asks_when_both_may_be_there() {
    const EACH: usize = 8;
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = || {
            let limits = Limits::new()
                .rate(Rate::per_second(50).burst(2))
                .in_flight(1)
                .max_wait(Duration::from_secs(20));
            Rules::new().route("GET /", limits)
        };
        let mut crowd = Vec::new();
        let mut most = Vec::new();
        for _ in 0..2 {
            let layer = layer(&server, rules()).await;
            let [inside, seen] = [Arc::<AtomicUsize>::default(), Arc::default()];
            most.push(Arc::clone(&seen));
            let serve = service_fn(move |_: Request<()>| {
                let (inside, seen) = (Arc::clone(&inside), Arc::clone(&seen));
                async move {
                    seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(5 * MS).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            for _ in 0..EACH {
                let service = layer.layer(serve.clone());
                crowd.push(tokio::spawn(async move {
                    let answer = service.oneshot(Request::new(())).await;
                    answer.unwrap_or_else(|never| match never {}).status()
                }));
            }
        }
        let start = now();
        for one in crowd {
            assert_eq!(one.await.expect("no panic"), OK, "{kind:?}");
        }
        let took = start.elapsed();
        for seen in most {
            assert_eq!(seen.load(Ordering::SeqCst), 1, "{kind:?}: one at a time");
        }
        // The first two are there already, and the fourteen after them come every 20 ms.
        assert!(took >= 14 * 20 * MS - 20 * MS, "{kind:?}: {took:?}");
        assert!(took < Duration::from_secs(15), "{kind:?}: {took:?}");
        let calls = calls(&server).await;
        println!(
            "{kind:?}: {} in line for slots, {took:?}, {calls} calls",
            2 * EACH
        );
        assert!(calls < 400, "{kind:?}: {calls} for {}", 2 * EACH);
    }
}

/// One request that uses so many tokens, and what became of it.
async fn uses(layer: &ThrottleLayer, used: u64) -> StatusCode {
    let serve = service_fn(move |request: Request<()>| async move {
        let usage = request.extensions().get::<Usage>().cloned();
        usage.expect("tokens are limited").settle(used);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let answer = layer.layer(serve).oneshot(Request::new(())).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    let status = answer.status();
    let _ = answer.into_body().collect().await;
    status
}

/// Returns how many units a rate of one an hour owes, as far as its bucket tells, rounded up.
async fn owed(server: &Server, key: &str) -> u64 {
    let left = server.tells(&["PTTL", key]).await;
    let left: i64 = left.parse().expect("a number");
    u64::try_from(left).map_or(0, |left| left.div_ceil(3_600_000))
}

#[tokio::test]
async fn model_tokens_are_reserved_and_settled_between_replicas() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = || {
            let tokens = Limits::new().tokens(Rate::per_hour(1).burst(100));
            Rules::new()
                .route("GET /", tokens)
                .estimate(Estimate::fixed(30))
        };
        let [one, two] = [layer(&server, rules()).await, layer(&server, rules()).await];
        let mut sum = 0;
        for (layer, used) in [(&one, 50), (&two, 10), (&one, 0), (&two, 1), (&one, 90)] {
            assert_eq!(uses(layer, used).await, OK, "{kind:?}: after {sum}");
            sum += used;
            // Corrections are not waited for.
            let mut told = 0;
            for _ in 0..PATIENCE {
                let keys = server.tells(&["KEYS", "*/tokens-3600s"]).await;
                told = owed(&server, keys.trim()).await;
                if told == sum {
                    break;
                }
                sleep(TURN).await;
            }
            assert_eq!(told, sum, "{kind:?}: what was used, and nothing else");
        }
        assert_eq!(sum, 151, "more than there is: it is owed");
        for layer in [&one, &two] {
            assert_eq!(uses(layer, 0).await, REFUSED, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn what_was_used_stays_used_when_replicas_are_reloaded_one_after_the_other() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        // Named, so that the store knows it in terms of any period.
        let rules =
            |burst| Rules::new().default_route(Rate::per_hour(1).burst(burst).named("each"));
        let [first, second] = [
            Client::with(builder(&server, rules(4)).await),
            Client::with(builder(&server, rules(4)).await),
        ];
        for client in [&first, &second, &first] {
            assert_eq!(client.get("/").await.status, OK, "{kind:?}");
        }
        let left = |answer: &Answer| {
            let mut limits = answer.decision().limits();
            limits.next().map(|limit| limit.remaining())
        };
        // In other terms, too.
        let larger = || {
            let rate = Rate::new(12, Duration::from_secs(86_400));
            Rules::new().default_route(rate.burst(6).named("each"))
        };
        first.handle().reload(larger()).expect("proper rules");
        let answer = first.get("/").await;
        assert_eq!((answer.status, left(&answer)), (OK, Some(2)), "{kind:?}");
        assert_eq!(second.get("/").await.status, REFUSED, "four of four");
        second.handle().reload(larger()).expect("proper rules");
        assert_eq!(left(&second.get("/").await), Some(1), "{kind:?}");
        second.handle().reload(rules(5)).expect("proper rules");
        assert_eq!(second.get("/").await.status, REFUSED, "five of five");
        assert_eq!(first.get("/").await.status, OK, "{kind:?}: six of six");
        assert_eq!(first.get("/").await.status, REFUSED, "{kind:?}");
    }
}

/// Returns how many calls so many requests make, so far apart.
async fn leasing(server: &Server, rules: Rules, requests: u64, apart: Duration) -> u64 {
    let client = Client::with(builder(server, rules).await.lease(50));
    let before = calls(server).await;
    for _ in 0..requests {
        assert_eq!(client.get("/").await.status, OK);
        if !apart.is_zero() {
            sleep(apart).await;
        }
    }
    calls(server).await - before
}

#[tokio::test]
async fn who_leases_asks_once_for_many() {
    const REQUESTS: u64 = 1_000;
    for kind in KINDS {
        let server = Server::start(kind).await;
        let quota = Rules::new().total(Quota::per_day(10_000));
        let calls = leasing(&server, quota, REQUESTS, Duration::ZERO).await;
        println!("{kind:?}: {calls} calls for {REQUESTS} of a quota");
        assert_eq!(
            calls,
            REQUESTS.div_ceil(51),
            "{kind:?}: one, and fifty more"
        );

        // Leased units of a rate lapse as it refills: the lower the usage, the more of them.
        for apart in [0, 2, 20] {
            let rate = Rate::per_second(1_000).burst(1_500);
            let name = format!("rate_{apart}");
            let rules = Rules::new().total(rate.named(name));
            let requests = REQUESTS / (1 + apart);
            let start = now();
            let calls = leasing(&server, rules, requests, apart as u32 * MS).await;
            let took = start.elapsed();
            println!("{kind:?}: {calls} calls for {requests} in {took:?} of 1,000 a second");
            assert!(calls < requests, "{kind:?}: {calls} for {requests}");
        }
    }
}

/// Each key: its value, for how long it stays in milliseconds, and the time in microseconds, of one moment.
async fn kept(server: &Server) -> Vec<(String, String, i64, i64)> {
    const LOOK: &str = "local all = {} \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          local time = redis.call('TIME') \
          all[#all + 1] = {key, redis.call('GET', key), redis.call('PTTL', key), time[1] * 1000000 + time[2]} \
        end return all";
    let mut connection = connect(&server.url()).await.expect("it runs");
    let all = ask(&mut connection, &["EVAL", LOOK, "0"]).await;
    let all = all.expect("it answers");
    redis::from_redis_value(all).expect("as it was asked")
}

#[tokio::test]
async fn a_bucket_is_kept_until_it_is_full_and_no_longer() {
    const NEAR: i64 = 3;
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = Rules::new()
            .total(
                Limits::new()
                    .rate(Rate::per_second(1).burst(1_000).named("second"))
                    .rate(Rate::per_minute(7).burst(900).named("minute"))
                    .rate(Rate::per_hour(1).burst(1_500).named("weeks"))
                    .quota(Quota::per_day(900).named("day"))
                    .quota(Quota::per_month(5_000).named("month"))
                    .quota(Quota::per(800, Duration::from_secs(86_400 * 3)).named("days")),
            )
            .route(
                "GET /chat",
                Limits::new().tokens(Rate::per_minute(60).burst(3_000)),
            )
            .estimate(Estimate::fixed(500));
        let layer = layer(&server, rules).await;
        let chat = layer.clone();
        let client = Client::of(layer);
        const USED: i64 = 40;
        for _ in 1..USED {
            assert_eq!(client.get("/").await.status, OK);
        }
        // The request returns 300 of its 500 tokens.
        let serve = service_fn(|request: Request<()>| async move {
            let usage = request.extensions().get::<Usage>().cloned();
            usage.expect("tokens are limited").settle(200);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::get("/chat").body(()).expect("a request");
        let answer = chat.layer(serve).oneshot(request).await;
        drop(answer.unwrap_or_else(|never| match never {}));
        let start = now();

        // Until the correction has come.
        let mut all = Vec::new();
        for _ in 0..PATIENCE {
            all = kept(&server).await;
            let tokens = all.iter().find(|(key, ..)| key.ends_with("/tokens-60s"));
            if tokens.is_some_and(|tokens| tokens.2 <= 200_000) {
                break;
            }
            sleep(TURN).await;
        }
        let spent = i64::try_from(start.elapsed().as_millis()).expect("a while") + 5_000;
        assert!(all.len() >= 7, "{kind:?}: {all:?}");
        let mut seen = 0;
        for (key, value, ttl, time) in &all {
            if key.ends_with(":probe") {
                assert!(*ttl > 0, "{kind:?}: {key}");
                continue;
            }
            // The state is the moment at which it is full, in microseconds and three digits more.
            let full: i64 = value[..16].parse().expect("digits");
            let left = (full - time) / 1_000;
            assert!((ttl - left).abs() <= NEAR, "{kind:?}: {key}: {ttl}, {left}");
            // And by what was used.
            let (name, end) = key.rsplit_once('/').expect("a limit");
            let unit = match end {
                "second" => 1_000 * USED,
                "minute" => 60_000 * USED / 7,
                "weeks" => 3_600_000 * USED,
                "tokens-60s" => 200_000,
                // Until its window ends: a day, a month, three days.
                "day" => 86_400_000 - time / 1_000 % 86_400_000,
                "days" => 3 * 86_400_000 - time / 1_000 % (3 * 86_400_000),
                "month" => {
                    assert!(*ttl <= 31 * 86_400_000, "{kind:?}: {key}: {ttl}");
                    *ttl
                }
                _ => panic!("{kind:?}: {name}/{end}"),
            };
            assert!(*ttl <= unit + NEAR, "{kind:?}: {key}: {ttl} of {unit}");
            assert!(*ttl > unit - spent, "{kind:?}: {key}: {ttl} of {unit}");
            seen += 1;
        }
        assert_eq!(seen, 7, "{kind:?}: {all:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_full_again_is_gone() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let rules = Rules::new()
            .route("GET /", Limits::new().tokens(Rate::per_hour(1).burst(9)))
            .total(Rate::per_second(10).burst(9))
            .estimate(Estimate::fixed(5));
        let layer = layer(&server, rules).await;
        assert_eq!(uses(&layer, 0).await, OK, "{kind:?}: all of it comes back");
        let mut left = String::new();
        for _ in 0..PATIENCE {
            left = server.tells(&["KEYS", "*-1"]).await;
            if left.is_empty() {
                break;
            }
            sleep(TURN).await;
        }
        assert!(left.is_empty(), "{kind:?}: {left}");
    }
}

/// Texts that clients send and that nobody else is to know.
const SECRETS: [&str; 12] = [
    "sk-of-gold",
    "sk-of-somebody",
    "alice",
    "example.com",
    "session=",
    "hunter2",
    "192.0.2.17",
    "2001:db8",
    "203.0.113.9",
    "a-secret-that-only-replicas-know",
    "file-of-bob",
    "model-of-carol",
];

fn private() -> Rules {
    let each = Limits::new()
        .rate(Rate::per_second(40).burst(8))
        .quota(Quota::per_day(50));
    let gold = Limits::new()
        .rate(Rate::per_second(90).burst(60))
        .quota(Quota::per_month(900).named("month"));
    let gold = Plan::new(gold).route("POST /chat", Rate::per_second(40).burst(20));
    let clients = Clients::by_header("x-api-key")
        .or_address()
        .trusted_proxies(["127.0.0.1"])
        .each(each)
        .plan("gold", gold)
        .member("gold", "sk-of-gold")
        .secret("a-secret-that-only-replicas-know");
    let chat = Limits::new()
        .rate(Rate::per_second(100).burst(40))
        .tokens(Rate::per_minute(60_000).burst(9_000))
        .max_wait(Duration::from_secs(1));
    Rules::new()
        .total(Rate::per_second(200).burst(100))
        .default_route(Rate::per_second(30).burst(10))
        .route("POST /chat", chat)
        .route("GET /models/{id}", Rate::per_second(20).burst(10))
        .clients(clients)
        .estimate(Estimate::fixed(60))
}

/// One request as a client sends it, and what became of it.
async fn sends(layer: &ThrottleLayer, head: http::request::Builder) -> StatusCode {
    let serve = service_fn(|request: Request<Empty<Bytes>>| async move {
        if let Some(usage) = request.extensions().get::<Usage>() {
            usage.add(20);
            usage.settle(75);
        }
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"served"))))
    });
    let proxy = SocketAddr::from(([127, 0, 0, 1], 4_711));
    let request = head.extension(PeerAddr(proxy)).body(Empty::new());
    let answer = layer.layer(serve).oneshot(request.expect("a request"));
    let answer = answer.await.unwrap_or_else(|never| match never {});
    let status = answer.status();
    let _ = answer.into_body().collect().await;
    status
}

async fn traffic(kind: Kind, layer: &ThrottleLayer) {
    let mut seen = Vec::new();
    for turn in 0..30 {
        for key in ["sk-of-gold", "sk-of-somebody"] {
            let chat = Request::post(format!("/chat?session=hunter2&turn={turn}"));
            let chat = chat.header("x-api-key", key);
            seen.push(sends(layer, chat.header("cookie", "session=hunter2")).await);
        }
        for from in ["192.0.2.17", "2001:db8::17", "203.0.113.9, 192.0.2.17"] {
            let model = Request::get("/models/model-of-carol").header("x-forwarded-for", from);
            seen.push(sends(layer, model).await);
        }
        for path in [
            "/users/alice@example.com/file-of-bob",
            "/password=hunter2",
            "/%61lice?token=hunter2",
        ] {
            let other = Request::put(format!("{path}-{}", turn % 3));
            seen.push(sends(layer, other.header("x-api-key", "sk-of-somebody")).await);
        }
    }
    for status in [OK, REFUSED] {
        assert!(seen.contains(&status), "{kind:?}: {seen:?}");
    }
    assert!(!seen.contains(&UNAVAILABLE), "{kind:?}: {seen:?}");
}

/// A key that ends what is listened to.
const THE_END: &str = "the-end-of-it";

/// Listens to all that the server is told, byte by byte, until the end.
async fn listen(server: &Server) -> JoinHandle<String> {
    let mut monitor = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .expect("it runs");
    monitor.write_all(b"MONITOR\r\n").await.expect("it listens");
    let mut heard = Vec::new();
    while !heard.ends_with(b"+OK\r\n") {
        let read = monitor.read_buf(&mut heard).await.expect("it answers");
        assert!(read > 0, "it has ended");
    }
    tokio::spawn(async move {
        loop {
            let read = monitor.read_buf(&mut heard).await.expect("it answers");
            let end = heard.windows(THE_END.len());
            if read == 0 || end.rev().take(2_000).any(|end| end == THE_END.as_bytes()) {
                return String::from_utf8_lossy(&heard).into_owned();
            }
        }
    })
}

#[tokio::test]
async fn nothing_of_a_client_is_told_to_the_server_whatever_is_asked_of_it() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let heard = listen(&server).await;
        for lease in [1, 20] {
            let layer = build(builder(&server, private()).await.lease(lease));
            traffic(kind, &layer).await;
            let more = private().default_route(Rate::per_second(31).burst(11));
            layer.handle().reload(more).expect("proper rules");
            // Until there is something again.
            sleep(300 * MS).await;
            traffic(kind, &layer).await;
            // A cancelled request gives back what was taken for it.
            let gone = Request::post("/chat").header("x-api-key", "sk-of-gold");
            tokio::select! {
                biased;
                _ = sends(&layer, gone) => {}
                () = std::future::ready(()) => {}
            }
            sleep(300 * MS).await;
            layer.handle().return_leases().await;
        }
        let keys = server.tells(&["KEYS", "*"]).await;
        server.says(&["SET", THE_END, "1"]).await;
        let heard = heard.await.expect("no panic");
        let heard: Vec<_> = heard.lines().collect();
        println!("{kind:?}: {} lines of MONITOR", heard.len());
        assert!(heard.len() > 200, "{kind:?}: {} lines", heard.len());
        for part in [
            "total/rate-1s",
            "client/quota-day",
            "POST /chat/tokens-60s",
            "GET /models/{id}/rate-1s",
            "/quota/month",
            "route $default ",
        ] {
            let told = heard.iter().any(|line| line.contains(part));
            assert!(told, "{kind:?}: nothing of {part}");
        }
        for line in &heard {
            for raw in SECRETS {
                let told = line.to_lowercase().contains(raw);
                assert!(!told, "{kind:?} was told `{raw}`: {line}");
            }
        }
        for raw in SECRETS {
            assert!(!keys.to_lowercase().contains(raw), "{kind:?}: {keys}");
        }
        // Values have only digits, and the unit that they count in.
        for (key, value, ..) in kept(&server).await {
            let plain = |c: char| c.is_ascii_digit() || [':', 'w', 'o'].contains(&c);
            let ours = key.starts_with("throttle:");
            assert!(
                !ours || value.chars().all(plain),
                "{kind:?}: {key}: {value}"
            );
        }
    }
}
