//! The words that tell the limits of one scope apart, by their kind.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use crate::limit::{LimitSettings, quota::Window};

/// An order of limits that does not go by their place: enforced ones before shadows, then by kind, period and size.
pub(super) fn rank(settings: &LimitSettings) -> (bool, u8, Duration, u64, u64) {
    let (kind, period, count, burst) = match settings {
        LimitSettings::Rate(rate) => (0, rate.period(), rate.count(), rate.burst_limit()),
        LimitSettings::Quota(quota) => (1, quota.window(), quota.count(), 0),
        LimitSettings::Tokens(rate) => (2, rate.period(), rate.count(), rate.burst_limit()),
        LimitSettings::InputTokens(rate) => (3, rate.period(), rate.count(), rate.burst_limit()),
        LimitSettings::OutputTokens(rate) => (4, rate.period(), rate.count(), rate.burst_limit()),
        LimitSettings::Spend(spend) => {
            let (amount, burst) = (spend.millionths(), spend.burst_millionths());
            (5, spend.period(), amount, burst)
        }
        LimitSettings::InFlight(cap) => (6, Duration::ZERO, cap.count(), 0),
    };
    (settings.is_shadow(), kind, period, count, burst)
}

/// Names each of some limits, which are in the order of [`rank`], by its kind: nothing for the rate with the shortest
/// period, `_per_hour` for another one, `_daily`, `_tokens`, `_spend`, `_in_flight`; then `_shadow`; and at last a
/// number for limits of the same kind and period.
pub(super) fn words<'a>(all: impl Iterator<Item = &'a LimitSettings>) -> Vec<String> {
    let mut shortest: HashMap<String, Window> = HashMap::new();
    let mut numbers: HashMap<String, u64> = HashMap::new();
    let one = |settings: &LimitSettings| {
        let shadow = settings.is_shadow();
        let mut words = match settings {
            LimitSettings::Rate(_) => String::new(),
            LimitSettings::Tokens(_) => "_tokens".to_owned(),
            LimitSettings::InputTokens(_) => "_input_tokens".to_owned(),
            LimitSettings::OutputTokens(_) => "_output_tokens".to_owned(),
            LimitSettings::Quota(quota) => window(quota.kind()),
            LimitSettings::Spend(_) => "_spend".to_owned(),
            LimitSettings::InFlight(_) => "_in_flight".to_owned(),
        };
        let period = match settings {
            LimitSettings::Quota(_) => None,
            _ => settings.window(),
        };
        if let Some(period) = period {
            match shortest.entry(format!("{words}{shadow}")) {
                Entry::Vacant(first) => {
                    first.insert(period);
                }
                Entry::Occupied(first) if *first.get() == period => {}
                Entry::Occupied(_) => words.push_str(&window(period)),
            }
        }
        if shadow {
            words.push_str("_shadow");
        }
        let number = numbers.entry(words.clone()).or_default();
        *number += 1;
        match number {
            1 => words,
            number => format!("{words}_{number}"),
        }
    };
    all.map(one).collect()
}

fn window(window: Window) -> String {
    match window {
        Window::Day => "_daily".to_owned(),
        Window::Week => "_weekly".to_owned(),
        Window::Month => "_monthly".to_owned(),
        Window::Every(length) => per(length),
    }
}

fn per(period: Duration) -> String {
    match (period.as_secs(), period.subsec_nanos()) {
        (1, 0) => "_per_second".to_owned(),
        (60, 0) => "_per_minute".to_owned(),
        (3_600, 0) => "_per_hour".to_owned(),
        (86_400, 0) => "_per_day".to_owned(),
        (seconds, 0) => format!("_per_{seconds}s"),
        _ => format!("_per_{}ns", period.as_nanos()),
    }
}
