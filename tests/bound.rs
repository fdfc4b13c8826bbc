//! R1: never more than the bound, and admission exactly when promised. R6: requests that can never pass are told so.

#[path = "support/cases.rs"]
mod cases;
mod common;

use std::time::Duration;

use common::Client;
use proptest::prelude::*;
use tower_throttle::{Limits, Rate, Rules, ThrottleLayer};

const MICROSECOND: Duration = Duration::from_micros(1);

/// A number of requests, evenly over so long.
type Phase = (u32, Duration);

/// API Gateway's own example of a token bucket: 10,000 a second, a burst of 5,000, as its developer guide gave it. Each
/// row is a list of (requests, over how long); the last column is how many are served.
#[tokio::test(start_paused = true)]
async fn api_gateways_own_examples_come_out_as_documented() {
    let ms = Duration::from_millis;
    let table: [(&str, &[Phase], u32); 5] = [
        (
            "10,000 evenly over a second",
            &[(10_000, ms(1_000))],
            10_000,
        ),
        (
            "10,000 in the first millisecond",
            &[(10_000, Duration::ZERO)],
            5_000,
        ),
        (
            "5,000 at once, 5,000 over the rest",
            &[(5_000, Duration::ZERO), (0, ms(1)), (5_000, ms(999))],
            10_000,
        ),
        (
            "5,000 at once, 5,000 at the 101st ms",
            &[
                (5_000, Duration::ZERO),
                (0, ms(100)),
                (5_000, Duration::ZERO),
            ],
            6_000,
        ),
        (
            "5,000 at once, 1,000 at the 101st ms, 4,000 over the rest",
            &[
                (5_000, Duration::ZERO),
                (0, ms(100)),
                (1_000, Duration::ZERO),
                (4_000, ms(900)),
            ],
            10_000,
        ),
    ];
    for (name, phases, served) in table {
        let client = Client::new(Rules::new().default_route(Rate::per_second(10_000).burst(5_000)));
        let mut admitted = 0;
        for &(requests, over) in phases {
            if requests == 0 {
                tokio::time::advance(over).await;
            }
            for _ in 0..requests {
                // Evenly, each at the end of its share of the time.
                tokio::time::advance(over / requests).await;
                admitted += u32::from(client.get("/").await.is_admitted());
            }
        }
        assert_eq!(admitted, served, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_burst_passes_then_the_rate() {
    let client = Client::new(Rules::new().default_route(Rate::per_second(10).burst(5)));
    for request in 1..=5 {
        assert!(
            client.get("/").await.is_admitted(),
            "request {request} is within the burst"
        );
    }
    for second in 0..3 {
        for request in 0..10 {
            assert!(!client.get("/").await.is_admitted(), "no unit is left");
            tokio::time::advance(Duration::from_millis(100)).await;
            assert!(
                client.get("/").await.is_admitted(),
                "request {request} of second {second}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_told_wait_a_request_passes_and_not_before() {
    let rules = Rules::new().total(Rate::new(3, Duration::from_secs(1)).burst(2));
    // Told to several, it would be more than the wait of one.
    let client = Client::with(ThrottleLayer::builder(rules).stagger_retry_after(false));
    for _ in 0..20 {
        while client.get("/").await.is_admitted() {}
        let wait = client.get("/").await.wait().expect("it can pass later");
        tokio::time::advance(wait - MICROSECOND).await;
        assert!(!client.get("/").await.is_admitted(), "a microsecond early");
        tokio::time::advance(MICROSECOND).await;
        assert!(
            client.get("/").await.is_admitted(),
            "after the told wait of {wait:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_route_admits_nothing_ever_and_says_that_it_never_will() {
    for limits in [
        Limits::closed(),
        Rate::per_second(0).into(),
        Rate::per_second(9).burst(0).into(),
        Limits::new()
            .rate(Rate::per_second(5))
            .rate(Rate::per_hour(0)),
    ] {
        let client = Client::new(
            Rules::new()
                .default_route(Rate::per_second(5))
                .route("GET /closed", limits.clone()),
        );
        for _ in 0..3 {
            let answer = client.get("/closed").await;
            assert!(!answer.is_admitted(), "{limits:?}");
            assert_eq!(answer.wait(), None, "{limits:?}");
            assert_eq!(answer.header("retry-after"), None, "{limits:?}");
            assert_eq!(answer.header("retry-after-ms"), None, "{limits:?}");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{limits:?}");
            tokio::time::advance(Duration::from_secs(1 << 30)).await;
        }
        assert!(
            client.get("/open").await.is_admitted(),
            "other routes are open"
        );
    }
}

proptest! {
    #![proptest_config(cases::cases(1_280))]

    /// Several rates on several scopes at once: every one of them keeps its own bound.
    #[test]
    fn every_limit_keeps_its_bound_whatever_the_others_do(
        rates in prop::collection::vec((1..20u64, 1..2_000u64, 1..8u64), 1..4),
        total in (1..20u64, 1..2_000u64, 1..12u64),
        arrivals in prop::collection::vec((0..400u64, 0..2usize), 1..120),
    ) {
        let rate = |(count, period, burst)| Rate::new(count, Duration::from_millis(period)).burst(burst);
        let limits = rates.iter().fold(Limits::new(), |limits, &parts| limits.rate(rate(parts)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(async {
            let client = Client::new(Rules::new().total(rate(total)).default_route(limits));
            let paths = ["/a", "/b"];
            let mut admitted: [Vec<u64>; 2] = Default::default();
            let mut now = 0;
            for (step, route) in arrivals {
                now += step;
                tokio::time::advance(Duration::from_millis(step)).await;
                if client.get(paths[route]).await.is_admitted() {
                    admitted[route].push(now);
                }
            }
            for times in &admitted {
                for &parts in &rates {
                    within(times, parts)?;
                }
            }
            let mut all = admitted.concat();
            all.sort_unstable();
            within(&all, total)
        })?;
    }
}

/// At most burst − 1 + ⌈w / T⌉ in every half-open window, T = period / count, all in milliseconds.
fn within(times: &[u64], (count, period, burst): (u64, u64, u64)) -> Result<(), TestCaseError> {
    for (first, start) in times.iter().enumerate() {
        for (admitted, end) in (1u64..).zip(&times[first..]) {
            // A window that just holds both; an epsilon longer than their distance.
            let bound = burst - 1 + (end - start) * count / period + 1;
            prop_assert!(
                admitted <= bound,
                "{admitted} in {} ms, bound {bound}",
                end - start
            );
        }
    }
    Ok(())
}
