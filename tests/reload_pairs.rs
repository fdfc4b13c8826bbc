//! R20: a reload identifies a limit by its settings before its name, and never by its position among others.

#[path = "support/mod.rs"]
mod support;
#[path = "support/told.rs"]
mod told;

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_throttle::{Handle, InFlight, Limits, Quota, Rate, Rules, ThrottleLayer};

use self::{
    support::{admitted, build, decision, request, served, throttle, throttling},
    told::Told,
};

const SECOND: Duration = Duration::from_secs(1);

/// A period so long that nothing comes back while a test runs.
const DAY: Duration = Duration::from_secs(1_000 * 86_400);

/// Returns how many of `count` requests pass.
async fn passed(layer: &ThrottleLayer, count: usize) -> usize {
    admitted(&layer.layer(served()), count, "GET", "/").await
}

fn reload(layer: &ThrottleLayer, limits: Limits) {
    let handle: Handle = layer.handle();
    let rules = Rules::new().total(limits);
    handle.reload(rules).expect("rules that hold together");
}

fn of(limits: Limits) -> ThrottleLayer {
    throttle(Rules::new().total(limits))
}

fn day(count: u64) -> Quota {
    Quota::per_day(count)
}

#[tokio::test(start_paused = true)]
async fn a_shadow_before_a_spent_quota_refills_nothing() {
    let layer = of(Limits::new().quota(day(100)));
    assert_eq!(passed(&layer, 200).await, 100);
    let shadow = || Limits::new().quota(day(50).shadow());
    reload(&layer, shadow().quota(day(100)));
    assert_eq!(passed(&layer, 200).await, 0);
    // And neither when it stands in the other place, or as the only one.
    reload(
        &layer,
        Limits::new().quota(day(100)).quota(day(50).shadow()),
    );
    assert_eq!(passed(&layer, 200).await, 0);
    reload(&layer, Limits::new().quota(day(100)));
    assert_eq!(passed(&layer, 200).await, 0);
}

/// Spends all of an hour's hundred, and leaves ten a second untouched.
async fn spend(layer: &ThrottleLayer) {
    let mut sum = 0;
    for _ in 0..20 {
        sum += passed(layer, 20).await;
        advance(SECOND).await;
    }
    assert_eq!(sum, 100, "the hour's");
}

fn fast() -> Rate {
    Rate::per_second(10)
}

fn slow() -> Rate {
    Rate::new(100, DAY)
}

fn both([first, second]: [Rate; 2]) -> Limits {
    Limits::new().rate(first).rate(second)
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_places_refill_nothing() {
    for turn in [false, true] {
        let order = |other| match other == turn {
            true => both([fast(), slow()]),
            false => both([slow(), fast()]),
        };
        let layer = of(order(false));
        spend(&layer).await;
        for other in [true, false, true] {
            reload(&layer, order(other));
            assert_eq!(passed(&layer, 20).await, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_places_and_numbers_are_known_by_their_periods() {
    let layer = of(both([fast(), slow()]));
    spend(&layer).await;
    let changed = both([Rate::new(105, DAY), Rate::per_second(20)]);
    reload(&layer, changed);
    assert_eq!(passed(&layer, 20).await, 5, "the day's");
}

#[tokio::test(start_paused = true)]
async fn limits_that_exchange_their_names_keep_their_balances() {
    let layer = of(both([fast().named("a"), slow().named("b")]));
    spend(&layer).await;
    reload(&layer, both([fast().named("b"), slow().named("a")]));
    assert_eq!(
        passed(&layer, 20).await,
        0,
        "a hundred a day are spent, whatever that is called"
    );
    reload(
        &layer,
        both([
            Rate::per_second(11).named("b"),
            Rate::new(103, DAY).named("a"),
        ]),
    );
    assert_eq!(passed(&layer, 20).await, 3, "by name");
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_is_enforced_begins_anew_and_counts_for_nothing_before() {
    let layer = of(Limits::new().quota(day(5).named("x").shadow()));
    assert_eq!(passed(&layer, 7).await, 7);
    reload(&layer, Limits::new().quota(day(5).named("x")));
    assert_eq!(passed(&layer, 7).await, 5);
    reload(&layer, Limits::new().in_flight(InFlight::new(1).shadow()));
    assert_eq!(passed(&layer, 7).await, 7);
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_places_refill_nothing_in_a_store() {
    let store = Told::new();
    let layer = |order| build(throttling(Rules::new().total(both(order))).store(store.clone()));
    let first = layer([fast(), slow()]);
    spend(&first).await;
    reload(&first, both([slow(), fast()]));
    assert_eq!(passed(&first, 20).await, 0, "after a reload");
    assert_eq!(
        passed(&layer([slow(), fast()]), 20).await,
        0,
        "in a new process"
    );
    let beside = Limits::new().rate(Rate::new(1, DAY).shadow()).rate(slow());
    reload(&first, beside);
    assert_eq!(passed(&first, 20).await, 0, "beside a shadow");
}

proptest! {
    /// However limits are shuffled, shadowed beside and unnamed, no more passes than the smallest that was never
    /// changed allows.
    #[test]
    fn no_order_of_limits_refills_one_that_stays(
        orders in prop::collection::vec(
            (Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(), 0..6_usize, any::<bool>()),
            1..12,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let limits = |order: &[usize], kept: usize, named: bool| {
                // The first always stays; the others come and go.
                let all = [day(7), Quota::per_week(9), day(8), day(3).shadow(), Quota::per_month(20)];
                let chosen = order.iter().filter(|index| **index == 0 || **index < kept);
                let chosen = chosen.map(|index| match (index, named) {
                    (0, true) => all[0].clone().named("seven"),
                    (index, _) => all[*index].clone(),
                });
                chosen.fold(Limits::new(), Limits::quota)
            };
            let layer = of(Limits::new().quota(day(7)));
            let mut sum = 0;
            for (order, kept, named) in &orders {
                sum += passed(&layer, 1).await;
                reload(&layer, limits(order, *kept, *named));
            }
            sum += passed(&layer, 20).await;
            assert_eq!(sum, 7, "{orders:?}");
        });
    }
}

/// The quota took the place of the tokens by the name that the scope gives to its first limit, and they began anew.
#[tokio::test(start_paused = true)]
async fn model_tokens_are_not_taken_for_requests_by_their_name() {
    let tokens = |rate: Rate| Limits::new().tokens(rate.burst(10));
    let estimate = || tower_throttle::usage::Estimate::fixed(5);
    let before = tokens(Rate::per_hour(1)).named("chat");
    let after = tokens(Rate::per_minute(1)).quota(Quota::per_week(1_000));
    let rules = |limits: Limits| Rules::new().total(limits).estimate(estimate());
    let layer = throttle(rules(before));
    let ask = async || {
        let answer = layer.layer(served()).oneshot(request("GET", "/")).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        decision(&answer).is_admitted()
    };
    assert!(ask().await && ask().await, "the burst");
    let changes = layer.handle().reload(rules(after.named("chat")));
    changes.expect("rules that hold together");
    assert!(!ask().await, "they are used");
}

/// The name that a scope gives to its limits goes to another one of them when a rate comes or goes.
#[tokio::test(start_paused = true)]
async fn a_quota_is_taken_for_no_rate_by_its_name_while_another_quota_is_there() {
    let quota = |count| Limits::new().quota(Quota::per(count, Duration::from_nanos(1 << 61)));
    let with_rate = |count| quota(count).rate(fast());
    // (the limits before, of which all five of the quota are used, the limits after, and how many of them are left)
    let table = [
        ("the rate goes", with_rate(5), quota(3), 0),
        ("the rate goes, a larger quota", with_rate(5), quota(7), 2),
        ("a rate comes", quota(5), with_rate(7), 2),
        ("a rate instead", quota(5), Limits::new().rate(fast()), 5),
        ("both stay", with_rate(5), with_rate(6), 1),
    ];
    for (what, before, after, left) in table {
        let layer = of(before.named("whole"));
        assert_eq!(passed(&layer, 7).await, 5, "{what}");
        reload(&layer, after.named("whole"));
        assert_eq!(passed(&layer, 20).await, left, "{what}");
    }
}
