//! R1: a stated wait is true. A client that sleeps through it is admitted, if no other has taken units meanwhile.
//!
//! `TOLD_WAITS` sets the number of obeyed waits for each kind of layer. Default: 2,000.

mod common;
#[path = "support/told.rs"]
mod told_store;

use std::time::Duration;

use bytes::Bytes;
use common::{Answer, Client};
use http::Request;
use http_body_util::Empty;
use tokio::time::advance;
use told_store::{Does, Told};
use tower_throttle::{
    Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer, ThrottleLayerBuilder,
    store::MemoryStore, usage::Estimate,
};

/// A generator of numbers, the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn rate(&mut self) -> Rate {
        let period = [100, 1_000, 1_700, 60_000][self.below(4) as usize];
        Rate::new(1 + self.below(9), Duration::from_millis(period)).burst(1 + self.below(6))
    }

    fn quota(&mut self) -> Quota {
        let count = 2 + self.below(9);
        match self.below(3) {
            0 => Quota::per_day(count),
            1 => Quota::per(count, Duration::from_secs(7)),
            _ => Quota::per_week(count),
        }
    }

    /// One to three limits of any kind whose wait is known.
    fn limits(&mut self) -> Limits {
        let mut limits = Limits::new();
        let kinds = 1 + self.below(7);
        if kinds & 1 > 0 {
            limits = limits.rate(self.rate());
        }
        if kinds & 2 > 0 {
            limits = limits.quota(self.quota());
        }
        if kinds & 4 > 0 {
            let burst = 10 + self.below(30);
            limits = limits.tokens(Rate::per_second(1 + self.below(20)).burst(burst));
        }
        if self.chance(6) {
            limits = limits.max_wait(Duration::from_millis(1 + self.below(900)));
        }
        limits
    }

    fn rules(&mut self) -> Rules {
        let each = Plan::new(self.limits()).route("GET /b", self.limits());
        let mut rules = Rules::new()
            .default_route(self.limits())
            .route("GET /a", self.limits())
            .clients(Clients::by_header("x-api-key").each(each).secret([7; 32]))
            .estimate(Estimate::by_header("x-tokens"));
        if self.chance(2) {
            rules = rules.total(self.limits());
        }
        rules
    }

    fn request(&mut self) -> (&'static str, String, String) {
        let path = ["/a", "/b", "/c"][self.below(3) as usize];
        let tokens = 1 + self.below(10);
        (
            path,
            format!("client-{}", self.below(4)),
            tokens.to_string(),
        )
    }
}

async fn ask(client: &Client, (path, key, tokens): &(&str, String, String)) -> Answer {
    let request = Request::get(*path)
        .header("x-api-key", key)
        .header("x-tokens", tokens)
        .body(Empty::<Bytes>::new());
    client.send(request.expect("a request")).await
}

/// Returns the wait as SDKs sleep it: `retry-after-ms`, to the millisecond.
fn told(answer: &Answer) -> Duration {
    let text = answer.header("retry-after-ms").expect("a wait");
    Duration::from_millis(text.parse().expect("a number"))
}

/// Obeys as many told waits as `TOLD_WAITS` says, 2,000 without it, and returns how many were false, and the first of
/// those.
async fn obey(builder: impl Fn(Rules) -> ThrottleLayerBuilder) -> (usize, Option<String>) {
    let wanted = std::env::var("TOLD_WAITS").map_or(2_000, |text| text.parse().expect("a number"));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut obeyed, mut wrong, mut first) = (0, 0, None);
    while obeyed < wanted {
        let client = Client::with(builder(random.rules()));
        for step in 0..150 {
            advance(Duration::from_millis(random.below(60))).await;
            let request = random.request();
            let answer = ask(&client, &request).await;
            if answer.is_admitted() || random.chance(3) {
                continue;
            }
            let wait = told(&answer);
            advance(wait).await;
            let again = ask(&client, &request).await;
            obeyed += 1;
            if !again.is_admitted() {
                wrong += 1;
                let story = || {
                    let (before, after) = (answer.decision(), told(&again));
                    format!("step {step}, {request:?}: told {wait:?}, then {after:?}: {before:?}")
                };
                first.get_or_insert_with(story);
            }
        }
    }
    (wrong, first)
}

#[tokio::test(start_paused = true)]
async fn a_told_wait_is_true_in_process() {
    let (wrong, first) = obey(ThrottleLayer::builder).await;
    assert_eq!(wrong, 0, "{}", first.unwrap_or_default());
}

#[tokio::test(start_paused = true)]
async fn a_told_wait_is_true_over_a_store() {
    let over_a_store = |rules| ThrottleLayer::builder(rules).store(MemoryStore::new());
    let (wrong, first) = obey(over_a_store).await;
    assert_eq!(wrong, 0, "{}", first.unwrap_or_default());
}

/// The store's answers take up to ten milliseconds each way.
#[tokio::test(start_paused = true)]
async fn a_told_wait_is_true_over_a_slow_store() {
    let over_a_store = |rules| {
        let store = Told::new();
        store.does(Does::Unevenly(100, 100));
        ThrottleLayer::builder(rules).store(store)
    };
    let (wrong, first) = obey(over_a_store).await;
    assert_eq!(wrong, 0, "{}", first.unwrap_or_default());
}
