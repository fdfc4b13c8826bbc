mod growth;
mod late;
mod models;
mod plain;
mod plans;
mod scopes;
mod threads;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use http::Request;

use super::*;
use crate::{
    Clients, Denial, Limits, Plan, Quota, Rate, Rules,
    client::RequestHead,
    clock::Timeline,
    limiter::{
        limit_set::{Demand, LimitSet},
        readings::LimitReadings,
    },
    response::Protocol,
    rules::Undeclared,
};

/// Seconds since the Unix epoch at 23:59:50 UTC, ten seconds before the window of a quota ends, the days
/// of the next window, and what day it is.
type End = (u64, fn(u64) -> Quota, u64, &'static str);

const ENDS: [End; 7] = [
    (1_795_478_390, Quota::per_day, 1, "2026-11-23, a Monday"),
    (1_835_481_590, Quota::per_day, 1, "2028-02-29, into March"),
    (1_795_996_790, Quota::per_week, 7, "2026-11-29, a Sunday"),
    (1_796_083_190, Quota::per_month, 31, "2026-11-30"),
    (
        1_798_761_590,
        Quota::per_month,
        31,
        "2026-12-31, into January",
    ),
    (
        1_803_859_190,
        Quota::per_month,
        31,
        "2027-02-28, no leap year",
    ),
    (
        1_835_481_590,
        Quota::per_month,
        31,
        "2028-02-29, a leap year",
    ),
];

fn state_of(rules: &Rules, clock: Timeline) -> Arc<RuleSet> {
    let live = ActiveRules::new(rules, clock, None).expect("proper rules");
    Arc::clone(&live.rules())
}

/// The wait if it is refused.
fn ask(state: &RuleSet, key: &str) -> Result<(), Option<Duration>> {
    let request = Request::get("/").header("x-api-key", key).body(());
    let request = request.expect("a request");
    let mut demand = Demand::default();
    let found = state
        .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
        .expect("no reload");
    let now = state.limiter.now();
    let mut readings = LimitReadings::default();
    if state
        .limiter
        .admit(&found.limit_set, demand, now, &mut readings)
        == Ok(true)
    {
        return Ok(());
    }
    Err(Denial::new(Arc::clone(&found.limit_set), readings, now, now, |_| ()).retry_after())
}

/// A reload takes long after it has committed, and requests go on under the old rules until the new ones hold.
#[tokio::test(start_paused = true)]
async fn what_is_settled_while_rules_are_reloaded_keeps_no_request_of_its_client() {
    let rules = |count| {
        let each = Rate::per_second(count).burst(20);
        Rules::new().clients(Clients::by_header("x-api-key").each(each))
    };
    let live = ActiveRules::new(&rules(10), Timeline::started_at(1), None).expect("proper rules");
    let settle_and_ask = |state: &RuleSet| {
        let request = Request::get("/").header("x-api-key", "a").body(());
        let request = request.expect("a request");
        let mut demand = Demand::default();
        let found = state
            .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
            .expect("a client has no route to enter");
        let limiter = &state.limiter;
        let ask = || {
            let mut readings = LimitReadings::default();
            limiter.admit_apart(&found.limit_set, demand, limiter.now(), &mut readings)
        };
        assert_eq!(ask(), Ok(true));
        let bound = &found.limit_set.limits[0];
        limiter.owe(bound, demand.identity, 1);
        assert_eq!(ask(), Ok(true), "the rules that hold decide");
        limiter.refund(bound, demand.identity, false, 1);
        assert_eq!(ask(), Ok(true), "the rules that hold decide");
    };
    live.reload_while(&rules(20), settle_and_ask)
        .expect("proper rules");
}

/// The route's bucket is the heir of a closed one, and what comes back late comes back to it while its limit changes.
#[tokio::test(start_paused = true)]
async fn what_comes_back_late_while_rules_are_reloaded_keeps_no_request_of_its_route() {
    let rules = |keys: &[&str], count| {
        let each = || Rate::per_second(count).burst(20);
        let rules = Rules::new()
            .default_route(each())
            .undeclared(Undeclared::Shared);
        keys.iter()
            .fold(rules, |rules, key| rules.route(key, each()))
    };
    let request = Request::get("/a").body(()).expect("a request");
    let demand = Demand::default;
    let found = |state: &RuleSet| {
        let head = RequestHead::of(&request);
        let found = state.look_up(head, Protocol::Auto, &mut demand());
        Arc::clone(&found.expect("no route to enter").limit_set)
    };
    for (what, before, after) in [
        ("a key", &["GET /{id}"][..], &["GET /{id}"][..]),
        ("a key that takes the place", &[], &["GET /{id}"]),
        ("the shared route", &[], &[]),
    ] {
        let own = rules(&["GET /a"], 10);
        let live = ActiveRules::new(&own, Timeline::started_at(1), None).expect("proper rules");
        let closed = found(&live.rules());
        let limiter = Arc::clone(&live.rules().limiter);
        let ask = |set: &LimitSet| {
            let mut readings = LimitReadings::default();
            limiter.admit_apart(set, demand(), limiter.now(), &mut readings)
        };
        assert_eq!(ask(&closed), Ok(true), "{what}");
        live.reload(&rules(before, 10)).expect("proper rules");
        let mut is_first = true;
        let settle_and_ask = |state: &RuleSet| {
            let present = found(state);
            limiter.owe(&closed.limits[0], demand().identity, 1);
            // Those whose bucket goes to another key wait for that.
            if !is_first || before == after {
                assert_eq!(
                    ask(&present),
                    Ok(true),
                    "{what}: the rules that hold decide"
                );
            }
            is_first = false;
        };
        live.reload_while(&rules(after, 20), settle_and_ask)
            .expect("proper rules");
        // One by the key, two that were owed, and those that were asked for meanwhile.
        let used = 1 + 2 + if before == after { 2 } else { 1 };
        let present = found(&live.rules());
        let passed = (0..30).filter(|_| ask(&present) == Ok(true)).count();
        assert_eq!(passed, 20 - used, "{what}");
    }
}

/// A reload makes units weigh a million times as much, after requests have gone on for a while under the old rules.
#[tokio::test(start_paused = true)]
async fn what_is_used_while_rules_are_reloaded_is_carried_over_as_of_the_moment_in_which_they_hold()
{
    let rules = |count| Rules::new().total(Rate::per_second(count).burst(9));
    let live =
        ActiveRules::new(&rules(1_000_000), Timeline::started_at(1), None).expect("proper rules");
    let mut is_first = true;
    let meanwhile = |state: &RuleSet| {
        if is_first {
            let cx = &mut Context::from_waker(Waker::noop());
            let _ = pin!(tokio::time::advance(Duration::from_millis(10))).poll(cx);
            assert_eq!(admitted(state, "/"), 9);
        }
        is_first = false;
    };
    live.reload_while(&rules(1), meanwhile)
        .expect("proper rules");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(admitted(&live.rules(), "/"), 9);
}

#[tokio::test(start_paused = true)]
async fn a_quota_starts_anew_exactly_when_its_window_ends() {
    for (start, quota, days, what) in ENDS {
        let clock = Timeline::started_at(start * 1_000_000_000);
        let clients = Clients::by_header("x-api-key").each(quota(2));
        let rules = Rules::new().clients(clients);
        let state = state_of(&rules, clock);

        let ten = Duration::from_secs(10);
        let refused = |wait| Err(Some(wait));
        assert_eq!(
            [ask(&state, "a"), ask(&state, "a")],
            [Ok(()), Ok(())],
            "{what}"
        );
        assert_eq!(ask(&state, "a"), refused(ten), "{what}");
        assert_eq!(ask(&state, "b"), Ok(()), "{what}: another client's own");
        tokio::time::advance(ten - Duration::from_nanos(1_000_000)).await;
        assert_eq!(
            ask(&state, "a"),
            refused(Duration::from_millis(1)),
            "{what}"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(
            [ask(&state, "a"), ask(&state, "a")],
            [Ok(()), Ok(())],
            "{what}: anew"
        );
        let window = Duration::from_secs(days * 24 * 60 * 60);
        assert_eq!(
            ask(&state, "a"),
            refused(window),
            "{what}: to the end of the next"
        );
        assert_eq!(
            [ask(&state, "b"), ask(&state, "b")],
            [Ok(()), Ok(())],
            "{what}"
        );
        assert_eq!(
            ask(&state, "b"),
            refused(window),
            "{what}: nothing is carried over"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_asks_for_its_own_variants() {
    let clock = Timeline::started_at(0);
    let clients = Clients::by_header("x-api-key")
        .each(Plan::new(Limits::closed()).route("GET /", Limits::unlimited()))
        .plan(
            "closed",
            Plan::new(Limits::new()).route("GET /", Limits::closed()),
        )
        .member("closed", "a");
    let state = state_of(&Rules::new().clients(clients), clock);
    assert_eq!(ask(&state, "a"), Err(None));
    assert_eq!(ask(&state, "b"), Ok(()));
}

/// The requests of nine for a path that are admitted.
fn admitted(state: &RuleSet, path: &str) -> usize {
    let request = Request::get(path).body(()).expect("a request");
    let mut demand = Demand::default();
    let found = state
        .look_up(RequestHead::of(&request), Protocol::Auto, &mut demand)
        .expect("no reload");
    let admits = |_: &usize| {
        let mut readings = LimitReadings::default();
        let now = state.limiter.now();
        state
            .limiter
            .admit(&found.limit_set, demand, now, &mut readings)
            == Ok(true)
    };
    (0..9).filter(admits).count()
}

#[tokio::test(start_paused = true)]
async fn what_was_used_on_new_routes_while_rules_are_reloaded_stays_used() {
    let default = || Rules::new().default_route(Rate::per_hour(1).burst(5));
    let shared = default().undeclared(Undeclared::Shared);
    let key = default().route("GET /{id}", Rate::per_hour(1).burst(5));
    for (what, rules) in [
        ("routes that share their limits", &shared),
        ("a route that gets a key", &key),
    ] {
        let live =
            ActiveRules::new(&default(), Timeline::started_at(0), None).expect("proper rules");
        let mut expected = [5, 0].into_iter();
        let meanwhile = |state: &RuleSet| {
            let expected = expected.next();
            assert_eq!(Some(admitted(state, "/a")), expected, "{what}");
        };
        live.reload_while(rules, meanwhile).expect("proper rules");
        assert_eq!(expected.next(), None, "{what}");
        assert_eq!(admitted(&live.rules(), "/a"), 0, "{what}");
    }
}
