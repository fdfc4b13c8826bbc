//! Limits as they are set, before anything is charged.

use std::time::Duration;

use super::{limits::Degrade, *};
use crate::Limits;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_limit_of_zero_closes_unless_it_is_a_shadow() {
    let table = [
        Limits::new().rate(Rate::per_second(0)),
        Limits::new().rate(Rate::per_second(1).burst(0)),
        Limits::new().tokens(Rate::per_second(0)),
        Limits::new().input_tokens(Rate::per_second(0)),
        Limits::new().output_tokens(Rate::per_second(0)),
        Limits::new().quota(Quota::per_day(0)),
        Limits::new().spend(Spend::per_day("0")),
        Limits::new().in_flight(0),
        Limits::closed(),
    ];
    for limits in table {
        assert!(limits.is_closed(), "{limits:?}");
    }
    let table = [
        Limits::new(),
        Limits::unlimited(),
        Limits::new().rate(Rate::per_second(0).shadow()),
        Limits::new().rate(Rate::per_second(1)),
        Limits::new().quota(Quota::per_day(0).shadow()),
        Limits::new().quota(Quota::per_day(1)),
        Limits::new().spend(Spend::per_day("0").shadow()),
        Limits::new().spend(Spend::per_day("1")),
        Limits::new().in_flight(InFlight::new(0).shadow()),
        Limits::new().in_flight(1),
    ];
    for limits in table {
        assert!(!limits.is_closed(), "{limits:?}");
    }
}

#[test]
fn a_limit_of_zero_is_written_as_closed_whatever_it_counts() {
    let closed = [
        LimitSettings::Rate(Rate::per_second(0)),
        LimitSettings::Tokens(Rate::per_second(1).burst(0)),
        LimitSettings::Quota(Quota::per_day(0)),
        LimitSettings::Spend(Spend::per_day("0")),
        LimitSettings::Spend(Spend::per_hour("0")),
        LimitSettings::InFlight(InFlight::new(0)),
    ];
    for settings in closed {
        assert_eq!(settings.to_string(), "closed", "{settings:?}");
    }
    let open = [
        (LimitSettings::Rate(Rate::per_second(2)), "2 in 1s, burst 2"),
        (LimitSettings::Quota(Quota::per_day(5)), "5 in a day"),
        (LimitSettings::InFlight(InFlight::new(3)), "3 in flight"),
    ];
    for (settings, expected) in open {
        assert_eq!(settings.to_string(), expected);
    }
}

#[test]
fn a_limit_has_the_window_of_its_settings() {
    let table = [
        (
            LimitSettings::Rate(Rate::per_minute(1)),
            Some(Window::Every(60 * SECOND)),
        ),
        (LimitSettings::Quota(Quota::per_day(1)), Some(Window::Day)),
        (
            LimitSettings::Spend(Spend::per_month("1")),
            Some(Window::Month),
        ),
        (
            LimitSettings::Spend(Spend::per_hour("1")),
            Some(Window::Every(3_600 * SECOND)),
        ),
        (LimitSettings::InFlight(InFlight::new(1)), None),
    ];
    for (settings, expected) in table {
        assert_eq!(settings.window(), expected, "{settings:?}");
    }
}

#[test]
fn nobody_waits_for_no_time_or_in_a_line_for_nobody() {
    let waiting = |wait, requests| {
        let limits = Limits::new().max_wait(wait).max_waiting(requests);
        let policy = limits.wait_policy();
        policy.map(|policy| (policy.max_wait, policy.max_waiting))
    };
    assert_eq!(waiting(SECOND, 2), Some((1_000_000_000, 2)));
    assert_eq!(waiting(Duration::ZERO, 2), None);
    assert_eq!(waiting(SECOND, 0), None);
    assert_eq!(waiting(Duration::ZERO, 0), None);
}

#[test]
fn a_second_budget_is_handed_down_without_the_names_of_its_limits() {
    let (rate, quota) = (Rate::per_second(1), Quota::per_day(2));
    let (spend, cap) = (Spend::per_day("3"), InFlight::new(4));
    let named = Limits::new()
        .rate(rate.clone().named("rate"))
        .tokens(rate.clone().named("tokens"))
        .input_tokens(rate.clone().named("input"))
        .output_tokens(rate.clone().named("output"))
        .quota(quota.clone().named("quota"))
        .spend(spend.clone().named("spend"))
        .in_flight(cap.clone().named("slots"))
        .named("second");
    let unnamed = Limits::new()
        .rate(rate.clone())
        .tokens(rate.clone())
        .input_tokens(rate.clone())
        .output_tokens(rate.clone())
        .quota(quota)
        .spend(spend)
        .in_flight(cap);
    let default = Limits::new()
        .rate(rate.clone())
        .degrade(Degrade::new(named).after(SECOND));
    let route = Limits::new().rate(rate).or(Some(&default));
    let inherited = route.degrade.map(|second| *second);
    assert_eq!(inherited, Some(Degrade::new(unnamed).after(SECOND)));
}

#[test]
fn an_amount_of_money_alone_is_limits() {
    let spend = Spend::per_day("6");
    assert_eq!(Limits::from(spend.clone()), Limits::new().spend(spend));
}
