//! R1 and staggered waits: a refusal states a true wait or, with a stagger, a longer one within bounds.

mod common;

use std::{collections::HashSet, future::Future, pin::Pin, task::Poll, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::time::advance;
use tower_throttle::{
    Clients, Limits, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder, response::Protocol,
};

use common::{Answer, Client, build};

/// The way in which waits are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Told as a layer does without a word.
    ByDefault,
    Exact,
    Spread,
}

fn builder(rules: Rules, told: Told) -> ThrottleLayerBuilder {
    let builder = ThrottleLayer::builder(rules);
    match told {
        Told::ByDefault => builder,
        Told::Exact => builder.stagger_retry_after(false),
        Told::Spread => builder.stagger_retry_after(true),
    }
}

fn client(rules: Rules, told: Told) -> Client {
    Client::with(builder(rules, told))
}

/// Rules that know clients, and limit none of them.
fn known() -> Rules {
    // Hashed alike in each run, so that none of them meet by chance.
    let clients = Clients::by_header("x-api-key").each(Limits::unlimited());
    Rules::new().clients(clients.secret([7; 32]))
}

async fn ask(client: &Client, key: &str) -> Answer {
    let request = Request::get("/").header("x-api-key", key);
    let request = request.body(Empty::<Bytes>::new());
    client.send(request.expect("a request")).await
}

/// Returns the wait as SDKs sleep it: `retry-after-ms`, to the millisecond.
fn told(answer: &Answer) -> Duration {
    let text = answer.header("retry-after-ms").expect("a wait");
    Duration::from_millis(text.parse().expect("a number"))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns how many of 50 calls at once succeed that come back as often as SDKs do by default, twice.
async fn succeed(client: &Client, key: impl Fn(usize) -> String) -> usize {
    let call = async |key: String| {
        for _ in 0..3 {
            let answer = ask(client, &key).await;
            if answer.is_admitted() {
                return true;
            }
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
            tokio::time::sleep(told(&answer)).await;
        }
        false
    };
    let mut calls: Vec<Pin<Box<dyn Future<Output = bool>>>> = Vec::new();
    for number in 0..50 {
        calls.push(Box::pin(call(key(number))));
    }
    let mut succeeded = 0;
    // All are polled once before time moves on.
    while !calls.is_empty() {
        let mut left = Vec::new();
        for mut call in calls {
            match std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
                Poll::Ready(success) => succeeded += usize::from(success),
                Poll::Pending => left.push(call),
            }
        }
        calls = left;
        tokio::time::sleep(millis(1)).await;
    }
    succeeded
}

#[tokio::test(start_paused = true)]
async fn a_herd_of_clients_that_are_told_apart_succeeds_where_waits_are_spread() {
    let rules = || known().default_route(Rate::per_second(10).burst(5));
    let own = |number| format!("key-{number}");
    let exact = client(rules(), Told::ByDefault);
    let few = succeed(&exact, own).await;
    assert_eq!(few, 7, "five, and one at each return");
    let all = succeed(&client(rules(), Told::Spread), own).await;
    assert_eq!(all, 50, "each at its place");
    // Requests with one key may come from one client or from fifty.
    let one = succeed(&client(rules(), Told::Spread), |_| "one".to_owned()).await;
    assert!((7..50).contains(&one), "a jitter helps some: {one}");
}

/// The requests of a client that does not look at what it was told.
#[derive(Debug, Clone, Copy)]
struct Hammer {
    every: u64,
    /// At once, each time.
    requests: u64,
    offset: u64,
}

const HAMMERS: [Hammer; 4] = [
    Hammer {
        every: 20,
        requests: 1,
        offset: 7,
    },
    Hammer {
        every: 3,
        requests: 1,
        offset: 1,
    },
    Hammer {
        every: 200,
        requests: 45,
        offset: 150,
    },
    Hammer {
        every: 70,
        requests: 5,
        offset: 9,
    },
];

/// Returns how many requests of a client that obeys pass in twelve seconds, beside a client that does not. The one that
/// obeys comes back `think` milliseconds after each answer that admits it.
async fn obeying(client: &Client, hammer: Hammer, keys: [&str; 2], think: u64) -> usize {
    let [own, other] = keys;
    let (mut passed, mut next) = (0, 0);
    for millisecond in 0..12_000 {
        if millisecond % hammer.every == hammer.offset % hammer.every {
            for _ in 0..hammer.requests {
                ask(client, other).await;
            }
        }
        while next <= millisecond {
            let answer = ask(client, own).await;
            next = millisecond;
            if answer.is_admitted() {
                passed += 1;
                next += think;
            } else {
                next += u64::try_from(told(&answer).as_millis()).expect("a short wait");
            }
            if think == 0 && answer.is_admitted() {
                continue;
            }
        }
        advance(millis(1)).await;
    }
    passed
}

#[tokio::test(start_paused = true)]
async fn who_obeys_beside_one_who_does_not_gets_what_it_gets_without_a_spread() {
    let limits = || Rate::per_second(5).burst(10);
    for hammer in HAMMERS {
        for think in [0, 37] {
            let exact = client(Rules::new().total(limits()), Told::Exact);
            let without = obeying(&exact, hammer, ["", ""], think).await;
            // (rules, the keys of both, how waits are told)
            let cases = [
                (Rules::new().total(limits()), ["", ""], Told::ByDefault),
                (known().total(limits()), ["a", "a"], Told::ByDefault),
                (known().total(limits()), ["a", "b"], Told::Spread),
            ];
            for (rules, keys, told) in cases {
                let with = obeying(&client(rules, told), hammer, keys, think).await;
                let story = format!("{hammer:?}, {keys:?}, {told:?}, {think} ms");
                assert!(10 * with >= 9 * without, "{story}: {with} of {without}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_in_which_the_bucket_refilled_the_true_wait_is_told() {
    let limits = || Rate::per_second(5).burst(10);
    for rules in [Rules::new().total(limits()), known().total(limits())] {
        for kind in [Told::ByDefault, Told::Exact, Told::Spread] {
            for keys in [1, 260] {
                let client = client(rules.clone(), kind);
                for number in 0..270 {
                    ask(&client, &format!("key-{}", number % keys)).await;
                }
                advance(millis(10_000)).await;
                for number in 0..10 {
                    let key = format!("key-{}", number % keys);
                    assert!(ask(&client, &key).await.is_admitted());
                }
                let key = format!("key-{}", keys - 1);
                let wait = told(&ask(&client, &key).await);
                assert_eq!(wait, millis(200), "{kind:?}, {keys} clients");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_callers_are_not_told_apart_waits_are_spread_over_the_time_of_a_refill() {
    // Limits of a route, of an identified client, and of all unidentified ones.
    let rate = || Rate::per_second(10).burst(5);
    let own = Clients::by_header("x-api-key").each(rate()).secret([7; 32]);
    let cases = [
        (Rules::new().default_route(rate()), "a"),
        (Rules::new().clients(own), "a"),
        (known().default_route(rate()), ""),
    ];
    for (rules, key) in cases {
        let client = client(rules, Told::Spread);
        for _ in 0..5 {
            assert!(ask(&client, key).await.is_admitted());
        }
        assert_eq!(told(&ask(&client, key).await), millis(100), "the first");
        let mut waits = HashSet::new();
        for _ in 0..1_000 {
            let answer = ask(&client, key).await;
            let wait = answer.wait().expect("it can pass later");
            assert!(wait >= millis(100) && wait <= millis(600), "{wait:?}");
            let seconds = wait.as_millis().div_ceil(1_000);
            assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()));
            assert_eq!(answer.header("x-should-retry"), None, "it is slept through");
            waits.insert(wait.as_millis() / 50);
        }
        assert!(waits.len() >= 10, "all over it: {waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_told_once_to_each_client_and_none_beyond_what_they_need() {
    let client = client(
        known().default_route(Rate::per_second(10).burst(1)),
        Told::Spread,
    );
    assert!(ask(&client, "first").await.is_admitted());
    for number in 1..=100 {
        let wait = told(&ask(&client, &format!("key-{number}")).await);
        assert_eq!(wait, millis(100 * number), "the next place");
    }
    // A caller that returns early gets the same turn, and has only one. Callers whose hashes collide in one word get
    // new turns: one pair in three runs, and seven in none.
    let mut forgotten = 0;
    for number in 1..=100 {
        let key = format!("key-{number}");
        let again = [
            told(&ask(&client, &key).await),
            told(&ask(&client, &key).await),
        ];
        forgotten += u64::from(again[0] != millis(100 * number));
        assert_eq!(again[0], again[1], "{key}, told a moment ago");
    }
    assert!(forgotten <= 12, "{forgotten} of 100");
    let wait = told(&ask(&client, "another").await);
    assert!(wait <= millis(2 * 100 * (102 + forgotten)), "{wait:?}");
}

/// Refusals that tell the same are copies of one, where no decision lies in them.
#[tokio::test(start_paused = true)]
async fn who_stands_behind_is_not_told_the_answer_of_the_first() {
    let rules = known().route("GET /", Rate::per_second(10).burst(1));
    let client = Client::of(build(builder(rules, Told::Spread)));
    assert_eq!(ask(&client, "served").await.status, StatusCode::OK);
    for number in 1..=9 {
        let wait = told(&ask(&client, &format!("key-{number}")).await);
        assert_eq!(wait, millis(100 * number), "the next place");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_slept_through_is_not_lifted_above_a_minute() {
    let client = client(
        known().default_route(Rate::per_second(10).burst(1)),
        Told::Spread,
    );
    assert!(ask(&client, "first").await.is_admitted());
    for number in 0..1_500 {
        let answer = ask(&client, &format!("key-{number}")).await;
        assert!(told(&answer) <= millis(60_000));
        assert_eq!(answer.header("x-should-retry"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn limits_do_not_push_each_other_back() {
    let client = client(
        known().default_route(Rate::per_second(10).burst(1)),
        Told::Spread,
    );
    let ask = async |path: &str, key: &str| {
        let request = Request::get(path).header("x-api-key", key);
        let request = request.body(Empty::<Bytes>::new());
        client.send(request.expect("a request")).await
    };
    for path in ["/a", "/b", "/c", "/d"] {
        assert!(ask(path, "first").await.is_admitted());
        for (key, wait) in [("second", 100), ("third", 200)] {
            assert_eq!(told(&ask(path, key).await), millis(wait), "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_and_a_deadline_go_by_the_true_wait() {
    for rules in [Rules::new(), known()] {
        let rules = rules.total(Rate::per_second(5).burst(5));
        for kind in [Told::ByDefault, Told::Spread] {
            let builder = builder(rules.clone(), kind);
            let builder = builder.protocol(Protocol::Grpc).grpc_retry_pushback(true);
            let client = Client::with(builder);
            for number in 0..130 {
                let request = Request::post("/pkg.Service/Method")
                    .header("content-type", "application/grpc")
                    .header("x-api-key", format!("key-{number}"))
                    .header("grpc-timeout", "2S");
                let request = request.body(Empty::<Bytes>::new());
                let answer = client.send(request.expect("a request")).await;
                if answer.is_admitted() {
                    continue;
                }
                let pushback = answer.header("grpc-retry-pushback-ms");
                let pushback: i64 = pushback.expect("asked for").parse().expect("a number");
                assert!(
                    (200..2_000).contains(&pushback),
                    "{kind:?}, {number}: {pushback} ms of a deadline of 2 s"
                );
            }
        }
    }
}
