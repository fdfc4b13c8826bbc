//! Those who are refused together are told different waits, and none is told less than its own.

mod common;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower_throttle::{Clients, Rate, Rules, ThrottleLayer};

use common::{Answer, Client};

fn client(rate: Rate, spread: bool) -> Client {
    let layer = ThrottleLayer::new(Rules::new().default_route(rate));
    Client::with(layer.expect("rules that hold together").spread(spread))
}

/// As SDKs do it: `retry-after-ms` is slept to the millisecond.
fn told(answer: &Answer) -> Duration {
    let text = answer.header("retry-after-ms").expect("a wait");
    Duration::from_millis(text.parse().expect("a number"))
}

/// How many of 50 calls at once succeed that come back as often as SDKs do by default, twice.
async fn succeed(rate: Rate, spread: bool) -> usize {
    let client = client(rate, spread);
    let call = async |_| {
        for _ in 0..3 {
            let answer = client.get("/").await;
            if answer.is_admitted() {
                return true;
            }
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
            tokio::time::sleep(told(&answer)).await;
        }
        false
    };
    let calls: Vec<_> = (0..50).map(call).map(Box::pin).collect();
    let mut succeeded = 0;
    // All are polled once before time moves on.
    let mut calls = calls;
    while !calls.is_empty() {
        let mut left = Vec::new();
        for mut call in calls {
            match std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await {
                std::task::Poll::Ready(success) => succeeded += usize::from(success),
                std::task::Poll::Pending => left.push(call),
            }
        }
        calls = left;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    succeeded
}

#[tokio::test(start_paused = true)]
async fn a_herd_that_is_spread_succeeds() {
    let rate = || Rate::per_second(10).burst(5);
    assert_eq!(
        succeed(rate(), false).await,
        7,
        "five, and one at each return"
    );
    assert_eq!(succeed(rate(), true).await, 50, "each at its place");
}

#[tokio::test(start_paused = true)]
async fn each_is_told_at_least_its_wait_and_at_most_a_minute_more() {
    let client = client(Rate::per_second(10).burst(1), true);
    assert!(client.get("/").await.is_admitted());
    let mut waits = Vec::new();
    for _ in 0..700 {
        let answer = client.get("/").await;
        let own = answer.decision().limits().next().expect("one limit").wait();
        assert_eq!(own, Some(Duration::from_millis(100)));
        let wait = answer.wait().expect("it can pass later");
        let seconds = wait.as_millis().div_ceil(1_000);
        assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()));
        let field = format!(r#""default";r=0;t={seconds}"#);
        assert_eq!(
            answer.header("ratelimit"),
            Some(&*field),
            "t is the wait told"
        );
        assert_eq!(answer.header("x-should-retry"), None, "it is slept through");
        waits.push(wait);
    }
    assert_eq!(waits[..3], [100, 200, 300].map(Duration::from_millis));
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60)));
    let different: HashSet<_> = waits.iter().collect();
    assert!(different.len() >= 599, "{} waits for 700", different.len());
}

#[tokio::test(start_paused = true)]
async fn routes_do_not_push_each_other_back() {
    let client = client(Rate::per_second(10).burst(1), true);
    for path in ["/a", "/b", "/c", "/d"] {
        assert!(client.get(path).await.is_admitted());
        assert_eq!(
            told(&client.get(path).await),
            Duration::from_millis(100),
            "{path}"
        );
        assert_eq!(
            told(&client.get(path).await),
            Duration::from_millis(200),
            "{path}"
        );
    }
}

/// All clients once shared the end of one line, so that each began it anew for the next.
#[tokio::test(start_paused = true)]
async fn clients_do_not_push_each_other_back() {
    let clients = Clients::by_header("x-api-key").each(Rate::per_second(10).burst(1));
    // Hashed alike in each run, so that none of them meet by chance.
    let rules = Rules::new().clients(clients.secret([7; 32]));
    let client = Client::new(rules);
    let ask = async |key: &str| {
        let request = Request::get("/").header("x-api-key", key);
        client
            .send(request.body(Empty::<Bytes>::new()).expect("a request"))
            .await
    };
    let keys = ["a", "b", "c", "d"];
    for key in keys {
        assert!(ask(key).await.is_admitted());
    }
    for told_to_all in [100, 200, 300].map(Duration::from_millis) {
        for key in keys {
            assert_eq!(told(&ask(key).await), told_to_all, "{key}");
        }
    }
}
