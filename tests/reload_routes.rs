//! R20: a route that gets or loses a key of its own keeps its usage, its slots and its queue.

#[path = "support/mod.rs"]
mod support;

use std::{
    convert::Infallible,
    future::Future,
    task::{Context, Waker},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt};
use tower_throttle::{
    Clients, Limits, Plan, Quota, Rate, Rules, ThrottleLayer, Usage, body::ResponseBody,
    rules::Undeclared, usage::Estimate,
};

use self::support::{admitted, request, send, served, throttle};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Response<ResponseBody<Body>>;

async fn ask(layer: &ThrottleLayer, method: &str, path: &str) -> Answer {
    send(&layer.layer(served()), request(method, path)).await
}

async fn passed(layer: &ThrottleLayer, count: usize, method: &str, path: &str) -> usize {
    admitted(&layer.layer(served()), count, method, path).await
}

/// Answers that are admitted and not read, so that they hold their slots.
async fn held(layer: &ThrottleLayer, count: usize, path: &str) -> Vec<Answer> {
    let mut held = Vec::new();
    for _ in 0..count {
        let answer = ask(layer, "GET", path).await;
        if answer.status().is_success() {
            held.push(answer);
        }
    }
    held
}

/// An answer that is admitted and not read, and the account of its tokens.
async fn counted(layer: &ThrottleLayer, path: &str) -> (Answer, Usage) {
    let inner = tower::service_fn(|request: Request<Body>| async move {
        let mut answer = Response::new(Body::empty());
        *answer.extensions_mut() = request.extensions().clone();
        Ok::<_, Infallible>(answer)
    });
    let answer = send(&layer.layer(inner), request("GET", path)).await;
    let usage = answer.extensions().get::<Usage>().cloned();
    (answer, usage.expect("tokens are limited"))
}

fn reload(layer: &ThrottleLayer, rules: Rules) {
    layer
        .handle()
        .reload(rules)
        .expect("rules that hold together");
}

/// A rate that gives nothing back while a test runs.
fn slow(burst: u64) -> Rate {
    Rate::new(1, Duration::from_secs(86_400)).burst(burst)
}

fn of(default: impl Into<Limits>, keys: &[&str]) -> Rules {
    let default = default.into();
    let rules = Rules::new().default_route(default.clone());
    keys.iter()
        .fold(rules, |rules, key| rules.route(key, default.clone()))
}

const KEYS: [&str; 6] = [
    "GET /models/a",
    "ANY /models/a",
    "GET /models/{id}",
    "ANY /{rest+}",
    "GET /{any}/{id}",
    "$default",
];

#[tokio::test(start_paused = true)]
async fn a_route_that_gets_a_key_of_its_own_keeps_what_was_used_and_back_again() {
    for key in KEYS {
        let layer = throttle(of(slow(5), &[]));
        let mut sum = passed(&layer, 2, "GET", "/models/a").await;
        for _ in 0..20 {
            reload(&layer, of(slow(5), &[key]));
            sum += passed(&layer, 1, "GET", "/models/a").await;
            reload(&layer, of(slow(5), &[]));
            sum += passed(&layer, 1, "GET", "/models/a").await;
        }
        assert_eq!(sum, 5, "{key}");
        // Units counted by a key with parameters may have been those of any of its paths.
        let left = if key.ends_with("/models/a") { 5 } else { 0 };
        assert_eq!(
            passed(&layer, 9, "GET", "/models/b").await,
            left,
            "{key}: another's"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_literal_after_its_parameter_takes_over_and_gives_back() {
    // A key, a path that it matches, and what is left there to a path that it does not match.
    let table = [
        ("GET /models/{id}:run", "/models/a:run", 5),
        ("ANY /models/{id}:run", "/models/a:run", 5),
        ("GET /{any}/{id}:run", "/models/a:run", 5),
        ("GET /{any}/{id}:run", "/models/a%3Arun", 5),
        ("GET /models/{id}:run/{rest+}", "/models/a:run/b", 5),
        // Of other ends nothing is kept: units may have been those of any path.
        ("GET /models/{id}run", "/models/a:run", 0),
    ];
    for (key, path, left) in table {
        let layer = throttle(of(slow(5), &[]));
        let mut sum = passed(&layer, 2, "GET", path).await;
        for _ in 0..20 {
            reload(&layer, of(slow(5), &[key]));
            sum += passed(&layer, 1, "GET", path).await;
            reload(&layer, of(slow(5), &[]));
            sum += passed(&layer, 1, "GET", path).await;
        }
        assert_eq!(sum, 5, "{key}");
        let other = path.replace("run", "stop");
        let other = other.replace("%3A", ":");
        assert_eq!(
            passed(&layer, 9, "GET", &other).await,
            left,
            "{key}: {other}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn keys_with_literals_after_their_parameters_take_over_from_each_other() {
    let plain = "GET /models/{id}";
    let run = "GET /models/{id}:run";
    let later = "GET /models/{id}-later:run";
    // Keys before and after, and what a path has left of five, two of which are used before.
    let table: [(&[&str], &[&str], &str, usize); 9] = [
        (&[plain], &[plain, run], "/models/a:run", 3),
        (&[plain, run], &[plain], "/models/a:run", 3),
        (&[plain, run], &[run], "/models/a:run", 3),
        (&[run], &[run, later], "/models/a-later:run", 3),
        (&[run, later], &[run], "/models/a-later:run", 3),
        (&[run], &[run, "GET /models/a:run"], "/models/a:run", 3),
        (&[run, "GET /models/a:run"], &[run], "/models/a:run", 3),
        (
            &["GET /models/{rest+}"],
            &[run, "GET /models/{rest+}"],
            "/models/a:run",
            3,
        ),
        (&[run], &[later], "/models/a-later:run", 3),
    ];
    for (before, after, path, left) in table {
        let layer = throttle(of(slow(5), before));
        assert_eq!(passed(&layer, 2, "GET", path).await, 2);
        reload(&layer, of(slow(5), after));
        assert_eq!(
            passed(&layer, 9, "GET", path).await,
            left,
            "{before:?} to {after:?}"
        );
    }
    // A key takes nothing over from one with another end.
    let layer = throttle(of(slow(5), &[run]));
    assert_eq!(passed(&layer, 9, "GET", "/models/a:run").await, 5);
    reload(
        &layer,
        of(
            slow(5),
            &[run, "GET /models/{id}:stop", "GET /models/b:stop"],
        ),
    );
    assert_eq!(passed(&layer, 9, "GET", "/models/a:stop").await, 5);
    assert_eq!(passed(&layer, 9, "GET", "/models/b:stop").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_came_with_empty_segments_first_keeps_what_was_used_when_it_gets_a_key() {
    for (key, spelled) in KEYS.into_iter().flat_map(|key| {
        let spellings = ["/models//a", "//models/a", "/%6Dodels///a"];
        spellings.map(|spelled| (key, spelled))
    }) {
        let layer = throttle(of(slow(5), &[]));
        assert_eq!(passed(&layer, 2, "GET", spelled).await, 2);
        assert_eq!(passed(&layer, 9, "GET", "/models/a").await, 3);
        reload(&layer, of(slow(5), &[key]));
        for path in ["/models/a", spelled] {
            assert_eq!(passed(&layer, 9, "GET", path).await, 0, "{key}: {path}");
        }
        reload(&layer, of(slow(5), &[]));
        for path in [spelled, "/models/a"] {
            assert_eq!(
                passed(&layer, 9, "GET", path).await,
                0,
                "{key}: {path} again"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_routes_lose_their_keys_at_once_each_keeps_what_was_used() {
    const MANY: usize = 1_500;
    let keys: Vec<_> = (0..MANY)
        .map(|number| format!("GET /t{number}/chat"))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let none = || of(slow(3), &[]);
    let without_limits = Rules::new().total(Rate::per_second(100_000));
    let table = [
        ("undeclared", none()),
        ("shared", none().undeclared(Undeclared::Shared)),
        (
            "a less specific key",
            of(slow(3), &[]).route("ANY /{rest+}", slow(3)),
        ),
        ("without limits", without_limits),
    ];
    for (what, after) in table {
        let before = match what {
            "a less specific key" => of(slow(3), &keys).route("ANY /{rest+}", slow(3)),
            _ => of(slow(3), &keys),
        };
        let layer = throttle(before.clone());
        // The last ones, of which none is asked for again before the last of all.
        for number in MANY - 2..MANY {
            let path = format!("/t{number}/chat");
            assert_eq!(passed(&layer, 9, "GET", &path).await, 3, "{what}");
        }
        reload(&layer, after);
        let last = format!("/t{}/chat", MANY - 1);
        if what != "without limits" {
            assert_eq!(passed(&layer, 9, "GET", &last).await, 0, "{what}");
        }
        reload(&layer, before);
        let last = format!("/t{}/chat", MANY - 2);
        assert_eq!(
            passed(&layer, 9, "GET", &last).await,
            0,
            "{what}: back again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn slots_in_use_are_counted_when_a_route_gets_a_key_of_its_own_and_back_again() {
    for key in KEYS {
        let limits = || Limits::new().in_flight(2);
        let layer = throttle(of(limits(), &[]));
        let mut all = held(&layer, 5, "/models/a").await;
        for _ in 0..20 {
            reload(&layer, of(limits(), &[key]));
            all.extend(held(&layer, 5, "/models/a").await);
            reload(&layer, of(limits(), &[]));
            all.extend(held(&layer, 5, "/models/a").await);
        }
        assert_eq!(all.len(), 2, "{key}");
        // Each comes back, once.
        all.pop();
        reload(&layer, of(limits(), &[key]));
        all.extend(held(&layer, 5, "/models/a").await);
        assert_eq!(all.len(), 2, "{key}");
        all.clear();
        assert_eq!(held(&layer, 5, "/models/a").await.len(), 2, "{key}");
        reload(&layer, of(limits(), &[]));
        assert_eq!(held(&layer, 5, "/models/a").await.len(), 2, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn slots_of_paths_that_a_key_unites_are_counted_once_each() {
    let limits = || Limits::new().in_flight(5);
    let layer = throttle(of(limits(), &[]));
    let mut one = held(&layer, 2, "/models/a").await;
    let mut other = held(&layer, 2, "/models/b").await;
    for _ in 0..20 {
        reload(&layer, of(limits(), &["GET /models/{id}"]));
        assert_eq!(held(&layer, 9, "/models/c").await.len(), 1, "four of five");
        reload(&layer, of(limits(), &[]));
        // The owner of the four is not known there: each path counts them all.
        assert_eq!(held(&layer, 9, "/models/b").await.len(), 1);
        assert_eq!(held(&layer, 9, "/models/a").await.len(), 1);
    }
    one.clear();
    assert_eq!(held(&layer, 9, "/models/a").await.len(), 3);
    other.clear();
    assert_eq!(held(&layer, 9, "/models/a").await.len(), 5);
    reload(&layer, of(limits(), &["GET /models/{id}"]));
    assert_eq!(held(&layer, 9, "/models/a").await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_key_beneath_another_one_takes_over_and_gives_back() {
    let rules = |keys: &[&str]| {
        let limits = Limits::new().rate(slow(9)).in_flight(2);
        keys.iter()
            .fold(Rules::new(), |rules, key| rules.route(key, limits.clone()))
    };
    let wide = ["GET /models/{id}"];
    let both = ["GET /models/{id}", "GET /models/a"];
    let layer = throttle(rules(&wide));
    let mut all = held(&layer, 5, "/models/a").await;
    for _ in 0..10 {
        reload(&layer, rules(&both));
        all.extend(held(&layer, 5, "/models/a").await);
        reload(&layer, rules(&wide));
        all.extend(held(&layer, 5, "/models/a").await);
    }
    assert_eq!(all.len(), 2);
    all.clear();
    let mut sum = 2;
    for _ in 0..10 {
        reload(&layer, rules(&both));
        sum += passed(&layer, 1, "GET", "/models/a").await;
        reload(&layer, rules(&wide));
        sum += passed(&layer, 1, "GET", "/models/a").await;
    }
    assert_eq!(sum, 9);
}

#[tokio::test(start_paused = true)]
async fn a_key_takes_nothing_over_from_routes_that_keep_their_requests() {
    let limits = || Limits::new().rate(slow(9)).in_flight(2);
    let with = |rules: Rules| {
        rules
            .route("GET /health", limits())
            .route("POST /chat", limits())
    };
    let layer = throttle(with(Rules::new().default_route(limits())));
    let busy = [
        held(&layer, 2, "/health").await,
        held(&layer, 2, "/other").await,
    ];
    reload(
        &layer,
        with(Rules::new().default_route(limits())).route("GET /{id}/{more}", limits()),
    );
    assert_eq!(held(&layer, 5, "/a/b").await.len(), 2);
    assert_eq!(held(&layer, 5, "/other").await.len(), 0);
    reload(&layer, with(Rules::new()).route("POST /{rest+}", limits()));
    assert_eq!(passed(&layer, 5, "POST", "/a").await, 5);
    drop(busy);
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_key_takes_nothing_over_from_other_templates() {
    let rules = |keys: &[&str]| of(slow(3), keys);
    let layer = throttle(rules(&[]));
    let route = || axum::routing::get(async || "served");
    let app = axum::Router::new().route("/models/{id}", route());
    let app = app.route("/files/{id}", route()).layer(layer.clone());
    assert_eq!(admitted(&app, 9, "GET", "/models/a").await, 3);
    // Templates are known from one reload to the next.
    reload(&layer, rules(&[]));
    reload(&layer, rules(&["GET /files/{name}"]));
    assert_eq!(admitted(&app, 9, "GET", "/files/a").await, 3);
    assert_eq!(admitted(&app, 9, "GET", "/models/a").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_undeclared_routes_share_and_what_each_has_is_the_same_balance() {
    let rules =
        |undeclared| of(Limits::new().rate(slow(5)).in_flight(3), &[]).undeclared(undeclared);
    let layer = throttle(rules(Undeclared::Shared));
    let mut all = held(&layer, 2, "/a").await;
    for _ in 0..10 {
        for undeclared in [Undeclared::PerRoute, Undeclared::Shared] {
            reload(&layer, rules(undeclared));
            all.extend(held(&layer, 9, "/a").await);
        }
    }
    assert_eq!(all.len(), 3, "slots");
    all.clear();
    let mut sum = 3;
    for _ in 0..10 {
        for undeclared in [Undeclared::PerRoute, Undeclared::Shared] {
            reload(&layer, rules(undeclared));
            sum += passed(&layer, 1, "GET", "/a").await;
        }
    }
    assert_eq!(sum, 5);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_route_that_gets_a_key_keeps_its_place() {
    let limits = || Limits::new().in_flight(1).max_wait(60 * SECOND);
    for (before, after) in [(&[][..], &["GET /a"][..]), (&["GET /a"], &[])] {
        let layer = throttle(of(limits(), before));
        let first = ask(&layer, "GET", "/a").await;
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..4 {
            if number == 2 {
                reload(&layer, of(limits(), after));
            }
            let (layer, order) = (layer.clone(), std::sync::Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let answer = ask(&layer, "GET", "/a").await;
                assert!(answer.status().is_success());
                order.lock().expect("no panic").push(number);
                tokio::time::sleep(SECOND).await;
            }));
            tokio::task::yield_now().await;
        }
        assert!(
            order.lock().expect("no panic").is_empty(),
            "the slot is held"
        );
        drop(first);
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3]);
    }
}

/// Lets one wait for the slot of a path, and another come right after a reload and the moment in which the slot is free:
/// it waits, too.
async fn nobody_overtakes<S, B>(service: S, path: &str, reload: impl Fn())
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let call = || Box::pin(service.clone().oneshot(request("GET", path)));
    let mut context = Context::from_waker(Waker::noop());
    let first = call().await;
    let mut waiting = call();
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    reload();
    drop(first);
    let mut newcomer = call();
    assert!(newcomer.as_mut().poll(&mut context).is_pending());
    let answer = waiting.await.unwrap_or_else(|never| match never {});
    assert!(answer.status().is_success());
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_who_waits_for_a_key_that_goes_and_comes_back() {
    let limits = || Limits::new().in_flight(1).max_wait(60 * SECOND);
    let layer = throttle(of(limits(), &["GET /a"]));
    let change = || {
        reload(&layer, of(limits(), &[]));
        reload(&layer, of(limits(), &["GET /a"]));
    };
    nobody_overtakes(layer.layer(served()), "/a", change).await;
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn nobody_overtakes_who_waits_for_a_template_that_gets_a_key() {
    let limits = || Limits::new().in_flight(1).max_wait(60 * SECOND);
    let layer = throttle(of(limits(), &[]));
    let route = axum::routing::get(async || "served");
    let app = axum::Router::new().route("/models/{id}", route);
    let change = || reload(&layer, of(limits(), &["GET /models/{name}"]));
    nobody_overtakes(app.layer(layer.clone()), "/models/a", change).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_settled_after_a_route_got_its_key_are_owed_there() {
    let rules =
        |keys: &[&str]| of(Limits::new().tokens(slow(1_000)), keys).estimate(Estimate::fixed(100));
    for (settled, left) in [(30, 970), (450, 550)] {
        let layer = throttle(rules(&[]));
        let (_held, usage) = counted(&layer, "/a").await;
        reload(&layer, rules(&["GET /a"]));
        reload(&layer, rules(&[]));
        // The route exists again from its first request on.
        reload(&layer, rules(&["GET /a"]));
        usage.settle(settled);
        let limits = layer.handle().snapshot().limits;
        let own = limits
            .iter()
            .find(|limit| limit.route.as_deref() == Some("GET /a"));
        assert_eq!(
            own.and_then(|limit| limit.remaining),
            Some(left),
            "{settled}"
        );
    }
}

/// The keys before a request is admitted, those while it goes on, in this order, and those when it is settled.
type While = (
    &'static [&'static str],
    &'static [&'static [&'static str]],
    &'static [&'static str],
);

#[tokio::test(start_paused = true)]
async fn tokens_that_are_settled_late_are_owed_however_often_rules_changed_meanwhile() {
    const NONE: &[&str] = &[];
    const OWN: &[&str] = &["GET /a"];
    const OTHER: &[&str] = &["GET /b"];
    const ALL: &[&str] = &["ANY /{rest+}"];
    let table: [While; 7] = [
        (OWN, &[NONE], OWN),
        (OWN, &[NONE, OTHER, NONE], OWN),
        (NONE, &[OWN, OTHER, NONE], OWN),
        (NONE, &[OWN, NONE, OTHER, OWN], OWN),
        // Asked for again only after it is settled.
        (NONE, &[OWN], NONE),
        (NONE, &[ALL], NONE),
        (OWN, &[NONE, ALL, NONE, OTHER], NONE),
    ];
    for (before, meanwhile, after) in table {
        let rate = || Rate::per_second(1).burst(100);
        let rules =
            |keys: &[&str]| of(Limits::new().tokens(rate()), keys).estimate(Estimate::fixed(10));
        let layer = throttle(rules(before));
        let (_held, usage) = counted(&layer, "/a").await;
        for keys in meanwhile {
            reload(&layer, rules(keys));
            // All that was reserved has come back.
            advance(60 * SECOND).await;
        }
        reload(&layer, rules(after));
        usage.settle(1_000);
        let what = format!("{before:?}, {meanwhile:?}, {after:?}");
        assert_eq!(passed(&layer, 9, "GET", "/a").await, 0, "{what}");
    }
}

/// The bucket that was charged forgot some of those that had followed it, as their number grew: among them the one of
/// the key that was being lost, whose heirs were yet to come.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_settled_late_are_owed_where_a_key_is_lost_that_often_began_anew() {
    let limits = || Limits::new().tokens(Rate::per_second(1).burst(100));
    let rules = |keys: &[&str]| of(limits(), keys).estimate(Estimate::fixed(10));
    for turns in 0..20 {
        let layer = throttle(rules(&["ANY /a"]));
        let (_held, usage) = counted(&layer, "/a").await;
        for turn in 0..turns {
            reload(&layer, rules(&["ANY /a", "HEAD /a"][..=(turn + 1) % 2]));
        }
        reload(&layer, rules(&["POST /a"]));
        usage.settle(1_000);
        let passed = passed(&layer, 9, "GET", "/a").await;
        assert_eq!(passed, 0, "after {turns} turns");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_tokens_come_back_to_another_key_than_it_has_inherited() {
    let rules = |key| {
        let limits = Limits::new().tokens(Rate::per_second(1).burst(10));
        of(limits, &[key]).estimate(Estimate::fixed(5))
    };
    // (until the other key takes its place, what passes then, what passes when all that was reserved has come back)
    for (wait, first, then) in [(1, 1, 1), (4, 1, 1), (60, 2, 0)] {
        let layer = throttle(rules("GET /a"));
        let (_held, usage) = counted(&layer, "/a").await;
        advance(wait * SECOND).await;
        reload(&layer, rules("ANY /{rest+}"));
        let what = format!("after {wait} s");
        assert_eq!(passed(&layer, 9, "GET", "/a").await, first, "{what}");
        usage.settle(0);
        assert_eq!(passed(&layer, 9, "GET", "/a").await, then, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_with_time_comes_back_to_who_inherited_it() {
    let rate = || Rate::per_second(1).burst(4);
    let layer = throttle(of(rate(), &[]));
    assert_eq!(passed(&layer, 9, "GET", "/a").await, 4);
    advance(2 * SECOND).await;
    reload(&layer, of(rate(), &["GET /a"]));
    assert_eq!(passed(&layer, 9, "GET", "/a").await, 2);
    advance(3 * SECOND).await;
    reload(&layer, of(rate(), &[]));
    assert_eq!(passed(&layer, 9, "GET", "/a").await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_closed_in_between_is_opened_with_what_was_used() {
    for closed in [&["GET /a"][..], &[]] {
        let layer = throttle(of(slow(5), &["GET /a"]));
        assert_eq!(passed(&layer, 3, "GET", "/a").await, 3);
        let none = Rules::new().default_route(Limits::closed());
        let none = closed
            .iter()
            .fold(none, |rules, key| rules.route(key, Limits::closed()));
        reload(&layer, none);
        assert_eq!(passed(&layer, 3, "GET", "/a").await, 0);
        reload(&layer, of(slow(5), &[]));
        assert!(passed(&layer, 9, "GET", "/a").await <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_spent_stays_spent_under_a_template_and_its_key() {
    let rules = |keys: &[&str]| of(Quota::per_month(3), keys);
    let layer = throttle(rules(&[]));
    let app = || {
        let route = axum::routing::get(|| async { "served" });
        axum::Router::new()
            .route("/models/{id}", route)
            .layer(layer.clone())
    };
    let mut sum = 0;
    for keys in [
        &[][..],
        &["GET /models/{name}"],
        &[],
        &["GET /models/a"],
        &[],
        &["GET /models/a", "GET /{x+}"],
        &["ANY /models/{id}"],
        &[],
    ] {
        reload(&layer, rules(keys));
        sum += admitted(&app(), 1, "GET", "/models/a").await;
    }
    assert_eq!(sum, 3);
}

#[tokio::test(start_paused = true)]
async fn head_requests_that_go_over_to_a_key_of_get_keep_what_was_used() {
    const BOTH: [&str; 2] = ["GET /{id}", "HEAD /{id}"];
    let layer = throttle(of(slow(5), &BOTH));
    let mut sum = passed(&layer, 2, "HEAD", "/a").await;
    for _ in 0..20 {
        reload(&layer, of(slow(5), &["GET /a", BOTH[0], BOTH[1]]));
        sum += passed(&layer, 1, "HEAD", "/a").await;
        reload(&layer, of(slow(5), &BOTH));
        sum += passed(&layer, 1, "HEAD", "/a").await;
    }
    assert_eq!(sum, 5);

    // With a key of their own they stay where they are.
    let layer = throttle(of(slow(5), &["HEAD /a"]));
    assert_eq!(passed(&layer, 3, "HEAD", "/a").await, 3);
    reload(&layer, of(slow(5), &["HEAD /a", "GET /a"]));
    assert_eq!(passed(&layer, 9, "GET", "/a").await, 5);
    assert_eq!(passed(&layer, 9, "HEAD", "/a").await, 2);
    reload(&layer, of(slow(5), &["HEAD /a"]));
    assert_eq!(passed(&layer, 9, "HEAD", "/a").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_used_under_a_general_key_stays_used_where_another_key_had_no_limit_in_between() {
    let all = || of(Limits::unlimited(), &[]).route("GET /m/{id}", slow(3));
    for free in [Limits::unlimited(), Limits::exempt()] {
        let layer = throttle(all());
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 3);
        reload(&layer, all().route("GET /m/a", free.clone()));
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 9, "no limit");
        reload(&layer, all().route("GET /m/a", slow(3)));
        assert_eq!(
            passed(&layer, 9, "GET", "/m/a").await,
            0,
            "a key of its own"
        );

        let layer = throttle(all().route("GET /m/a", slow(3)));
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 3);
        reload(&layer, all().route("GET /m/a", free));
        reload(&layer, all());
        assert_eq!(
            passed(&layer, 9, "GET", "/m/a").await,
            0,
            "no key of its own"
        );
    }
}

/// A router that has `/x`, and two answers of it that are not read.
#[cfg(feature = "axum")]
async fn two_in_flight(layer: &ThrottleLayer, what: &str) -> (axum::Router, [Response<Body>; 2]) {
    let app = axum::Router::new().route("/x", axum::routing::get(async || "served"));
    let app = app.layer(layer.clone());
    let one = send(&app, request("GET", "/x")).await;
    let two = send(&app, request("GET", "/x")).await;
    let passed = [one.status(), two.status()];
    assert!(passed.iter().all(|status| status.is_success()), "{what}");
    (app, [one, two])
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_route_keeps_its_balance_and_slots_where_default_takes_other_requests_than_before() {
    use tower_throttle::route::CatchAll::{Unmatched, Unrouted};

    let limits = || Limits::from(slow(3)).in_flight(2);
    for undeclared in [Undeclared::PerRoute, Undeclared::Shared] {
        let rules = |catch_all| {
            of(limits(), &["$default"])
                .catch_all(catch_all)
                .undeclared(undeclared)
        };
        for (first, second) in [(Unmatched, Unrouted), (Unrouted, Unmatched)] {
            let what = format!("{undeclared:?}, {first:?}, then {second:?}");
            let layer = throttle(rules(first));
            let (app, two) = two_in_flight(&layer, &what).await;
            reload(&layer, rules(second));
            let third = send(&app, request("GET", "/x")).await;
            assert_eq!(third.status(), 503, "{what}: two are in flight");
            drop(two);
            let passed = admitted(&app, 9, "GET", "/x").await;
            assert_eq!(passed, 1, "{what}: one is left of three");
            for catch_all in [first, second, second, first] {
                reload(&layer, rules(catch_all));
                let passed = admitted(&app, 9, "GET", "/x").await;
                assert_eq!(passed, 0, "{what}: {catch_all:?} again");
            }
            let passed = admitted(&app, 9, "GET", "/unknown").await;
            assert_eq!(passed, 0, "{what}: `$default` had those requests too");
        }
    }
}

/// Nobody asks in between, so no route of the router has taken over what was used. It is kept for those that are asked
/// for later.
#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn what_was_used_stays_used_on_a_route_that_default_leaves_alone_when_it_has_limits_again() {
    use tower_throttle::{
        route::CatchAll::{Unmatched, Unrouted},
        rules::Undeclared::{PerRoute, Shared},
    };

    let limits = || Limits::from(slow(3)).in_flight(2);
    let default = |catch_all| of(limits(), &["$default"]).catch_all(catch_all);
    let without = || of(limits(), &[]);
    let unlimited = || without().route("$default", Limits::unlimited());
    // (what, the rules that the requests were admitted under, the rules after them, the rules after those)
    let table = [
        (
            "had shared it",
            without().undeclared(Shared),
            without(),
            default(Unrouted),
        ),
        (
            "had it under `$default`",
            default(Unmatched),
            without(),
            default(Unrouted),
        ),
        (
            "had it under `$default`, and shares it",
            default(Unmatched),
            without(),
            default(Unrouted).undeclared(Shared),
        ),
        (
            "had it under `$default` before that was unlimited",
            default(Unmatched),
            unlimited(),
            default(Unrouted).undeclared(PerRoute),
        ),
    ];
    let table = table.iter().flat_map(|row| [(1, row), (3, row)]);
    for (turns, (what, first, second, third)) in table {
        let what = format!("{what}, {turns} turns");
        let layer = throttle(first.clone());
        let (app, two) = two_in_flight(&layer, &what).await;
        for _ in 0..turns {
            reload(&layer, second.clone());
            reload(&layer, third.clone());
        }
        let refused = send(&app, request("GET", "/x")).await;
        assert_eq!(refused.status(), 503, "{what}: two are in flight");
        drop(two);
        let passed = admitted(&app, 9, "GET", "/x").await;
        assert_eq!(passed, 1, "{what}: one is left of three");
        let passed = admitted(&app, 9, "GET", "/unknown").await;
        assert_eq!(passed, 1, "{what}: `$default` inherits as well");
    }
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn requests_that_default_leaves_to_their_routes_take_nothing_of_what_it_has_left() {
    use tower_throttle::route::CatchAll::{Unmatched, Unrouted};

    let rules = |catch_all| {
        let rules = Rules::new().default_route(slow(5));
        let default = Rate::new(1, SECOND).burst(2);
        rules.route("$default", default).catch_all(catch_all)
    };
    let layer = throttle(rules(Unrouted));
    let app = axum::Router::new().route("/x", axum::routing::get(async || "served"));
    let app = app.layer(layer.clone());
    // While the route has requests of its own, while `$default` takes them, and while it does no more.
    assert_eq!(admitted(&app, 9, "GET", "/x").await, 5);
    assert_eq!(admitted(&app, 9, "GET", "/unknown").await, 2);
    reload(&layer, rules(Unmatched));
    assert_eq!(admitted(&app, 9, "GET", "/x").await, 0);
    advance(9 * SECOND).await;
    assert_eq!(admitted(&app, 9, "GET", "/unknown").await, 2);
    advance(2 * SECOND).await;
    reload(&layer, rules(Unrouted));
    assert_eq!(admitted(&app, 9, "GET", "/unknown").await, 2);
    assert_eq!(admitted(&app, 9, "GET", "/x").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_closed_in_between_keeps_its_slots_and_all_balances() {
    let limits = || Limits::from(slow(9)).quota(Quota::per_week(3)).in_flight(2);
    let clients = |plan: Plan| Rules::new().clients(Clients::by_header("x-api-key").each(plan));
    let ways: [(&str, &dyn Fn(Limits) -> Rules); 7] = [
        ("a key", &|limits| Rules::new().route("GET /x", limits)),
        ("the total", &|limits| Rules::new().total(limits)),
        ("each client", &|limits| clients(limits.into())),
        ("a plan's route", &|limits| {
            clients(Plan::new(Limits::unlimited()).route("GET /x", limits))
        }),
        ("the default route", &|limits| of(limits, &[])),
        ("the default route, shared", &|limits| {
            of(limits, &[]).undeclared(Undeclared::Shared)
        }),
        ("a key with the default's limits", &|limits| {
            of(limits, &["GET /{x}"])
        }),
    ];
    for (what, rules) in ways {
        let layer = throttle(rules(limits()));
        let two = held(&layer, 2, "/x").await;
        assert_eq!(two.len(), 2);
        for closed in [
            Limits::closed(),
            Limits::closed(),
            Rate::per_second(0).into(),
        ] {
            reload(&layer, rules(closed.clone()));
            assert_eq!(passed(&layer, 9, "GET", "/x").await, 0, "{what}: closed");
            let told = |layer: &ThrottleLayer| layer.handle().snapshot().limits.len();
            assert_eq!(told(&layer), told(&throttle(rules(closed))), "{what}: told");
        }
        let changes = layer.handle().reload(rules(limits()));
        let changes = changes.expect("rules that hold together").to_string();
        assert!(changes.contains("new"), "{what}: {changes}");
        let third = held(&layer, 9, "/x").await;
        assert_eq!(third.len(), 0, "{what}: two are in flight");
        drop(two);
        let left = passed(&layer, 9, "GET", "/x").await;
        assert_eq!(left, 1, "{what}: one is left of three");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_on_a_route_that_was_closed_stays_used_under_another_key() {
    let limits = || Limits::from(slow(9)).quota(Quota::per_week(3)).in_flight(2);
    let key = |key: &str, limits: Limits| {
        of(
            Limits::from(slow(9)).quota(Quota::per_week(3)).in_flight(2),
            &[],
        )
        .route(key, limits)
    };
    let none = || of(limits(), &[]);
    let closed = Limits::closed;
    let ways: [(&str, [Rules; 3]); 7] = [
        (
            "closed, and without its key",
            [key("GET /x", limits()), key("GET /x", closed()), none()],
        ),
        (
            "closed, and under a more general key",
            [
                key("GET /x", limits()),
                key("GET /x", closed()),
                key("GET /{x}", limits()),
            ],
        ),
        (
            "closed by a key that is new",
            [none(), key("GET /x", closed()), key("GET /x", limits())],
        ),
        (
            "closed by a more general key",
            [
                key("GET /x", limits()),
                key("GET /{x}", closed()),
                key("GET /{x}", limits()),
            ],
        ),
        (
            "closed by a more special key",
            [
                key("GET /{x}", limits()),
                key("GET /x", closed()).route("GET /{x}", limits()),
                key("GET /x", limits()),
            ],
        ),
        (
            "closed, and without limits",
            [
                key("GET /x", limits()),
                key("GET /x", closed()),
                key("GET /x", Limits::unlimited()),
            ],
        ),
        (
            "closed with all routes, by a key that goes",
            [none(), of(closed(), &["GET /x"]), of(closed(), &[])],
        ),
    ];
    for (what, [before, closed, after]) in ways {
        let layer = throttle(before.clone());
        let two = held(&layer, 2, "/x").await;
        assert_eq!(two.len(), 2);
        reload(&layer, closed);
        assert_eq!(passed(&layer, 9, "GET", "/x").await, 0, "{what}: closed");
        reload(&layer, after);
        for opened in [before, none()] {
            reload(&layer, opened);
            let third = held(&layer, 9, "/x").await;
            assert_eq!(third.len(), 0, "{what}: two are in flight");
        }
        drop(two);
        let left = passed(&layer, 9, "GET", "/x").await;
        assert_eq!(left, 1, "{what}: one is left of three");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_comes_back_no_faster_while_a_route_is_closed_than_before() {
    let rate = |millis| Rate::new(1, Duration::from_millis(millis)).burst(3);
    let default = |millis| Rules::new().default_route(rate(millis));
    let closed = Limits::closed;
    // Each has `/a` at 700 ms, then closed, then at 700 ms.
    let ways: [(&str, [Rules; 3]); 3] = [
        (
            "closed by a general key as the default's rate changes",
            [
                default(700),
                default(100).route("ANY /{rest+}", closed()),
                default(700),
            ],
        ),
        (
            "closed by its key as the default's rate changes",
            [
                default(700),
                default(100).route("GET /a", closed()),
                default(100).route("GET /a", rate(700)),
            ],
        ),
        (
            "closed by a key that was faster",
            [
                default(700)
                    .route("GET /a", rate(700))
                    .route("GET /{x}", rate(100)),
                default(700).route("GET /{x}", closed()),
                default(700).route("GET /{x}", rate(700)),
            ],
        ),
    ];
    for (what, [before, closed, after]) in ways {
        let layer = throttle(before);
        assert_eq!(passed(&layer, 9, "GET", "/a").await, 3, "{what}");
        reload(&layer, closed);
        advance(Duration::from_millis(650)).await;
        reload(&layer, after);
        assert_eq!(passed(&layer, 9, "GET", "/a").await, 0, "{what}");
        advance(Duration::from_millis(50)).await;
        assert_eq!(passed(&layer, 9, "GET", "/a").await, 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_keys_had_used_is_kept_by_who_follows_a_key_without_limit_that_took_their_requests() {
    let keys = ["GET /m/a", "GET /m/{id}"];
    for (key, free) in keys.into_iter().zip(["ANY /m/a", "ANY /{rest+}"]) {
        let all = || Rules::new().route("$default", slow(3));
        let free = || all().route(free, Limits::unlimited());
        let layer = throttle(free().route(key, slow(3)));
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 3);
        reload(&layer, free());
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 9, "no limit");
        reload(&layer, all());
        assert_eq!(passed(&layer, 9, "GET", "/m/a").await, 0, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_finds_room_of_its_own_keeps_what_was_used_while_there_was_none() {
    let layer = throttle(of(slow(2), &[]));
    for route in 0..1_024 {
        assert_eq!(passed(&layer, 1, "GET", &format!("/{route}")).await, 1);
    }
    assert_eq!(passed(&layer, 3, "GET", "/late").await, 2);
    // Its room is free now.
    reload(&layer, of(slow(2), &["GET /0"]));
    assert_eq!(passed(&layer, 3, "GET", "/late").await, 0);
    assert_eq!(passed(&layer, 3, "GET", "/1").await, 1);
    advance(86_400 * SECOND).await;
    assert_eq!(passed(&layer, 3, "GET", "/late").await, 1);
}

/// The default route had no limit of the key's kind when the key was lost, and has one when all undeclared routes begin to
/// share.
#[tokio::test(start_paused = true)]
async fn what_was_used_under_a_lost_key_is_a_part_of_what_routes_share_from_then_on() {
    let default = || Rules::new().default_route(Quota::per_week(99));
    let layer = throttle(default().route("GET /a", slow(5)));
    assert_eq!(passed(&layer, 3, "GET", "/a").await, 3);
    reload(&layer, default());
    reload(&layer, of(slow(5), &[]).undeclared(Undeclared::Shared));
    assert_eq!(passed(&layer, 9, "GET", "/a").await, 2);
}

/// A route that is asked for later begins with what undeclared routes have shared. Under a limit that has become
/// another one in between, a shared charge comes back as by that one; and with a limit that is gone the charge is gone.
#[tokio::test(start_paused = true)]
async fn what_routes_have_shared_follows_the_limits_that_follow_for_those_that_come_later() {
    let rate = |burst| Limits::from(Rate::new(1, SECOND).burst(burst)).named("each");
    // Windows that end in 2043.
    let quota = || Limits::from(Quota::per(9, Duration::from_nanos(1 << 60))).named("each");
    let longer = || Limits::from(Quota::per(9, Duration::from_nanos(1 << 61)));
    let slots = || Limits::new().in_flight(9);
    // (what, the limits that follow, in turn, how many of the last ones are there at once, and after a minute)
    let table = [
        ("a rate, a quota, a rate", vec![quota(), rate(4)], [1, 4]),
        (
            "a rate, a quota, slots, a rate",
            vec![quota(), slots(), rate(4)],
            [4, 4],
        ),
        (
            "a rate, two quotas, a rate",
            vec![quota(), longer().rate(slow(9)), rate(4)],
            [4, 4],
        ),
        ("a rate, a quota", vec![quota()], [6, 6]),
        ("a rate, two quotas", vec![quota(), longer()], [6, 6]),
    ];
    for (what, then, expected) in table {
        for (is_late, expected) in [false, true].into_iter().zip(expected) {
            let layer = throttle(of(rate(4), &[]).undeclared(Undeclared::Shared));
            assert_eq!(passed(&layer, 3, "GET", "/a").await, 3, "{what}");
            for limits in &then {
                reload(&layer, of(limits.clone(), &[]));
            }
            if is_late {
                advance(60 * SECOND).await;
            }
            // Rules that change nothing have each loss looked at.
            reload(&layer, of(then[then.len() - 1].clone(), &[]));
            assert_eq!(
                passed(&layer, 20, "GET", "/b").await,
                expected,
                "{what}, {is_late}"
            );
        }
    }
}

/// Counted and settled after the route got its key, at less than was counted.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_counted_late_come_back_where_they_are_settled_at_less() {
    let rules =
        |keys: &[&str]| of(Limits::new().tokens(slow(100)), keys).estimate(Estimate::fixed(5));
    for keys in [&[][..], &["GET /a"][..]] {
        let layer = throttle(rules(&[]));
        let (answer, usage) = counted(&layer, "/a").await;
        reload(&layer, rules(keys));
        assert!(usage.add(40));
        assert!(usage.settle(2));
        drop(answer);
        // Two are used, 98 are left: nineteen requests of five.
        assert_eq!(passed(&layer, 30, "GET", "/a").await, 19, "{keys:?}");
    }
}

/// A nanosecond lies between the reservation and the reload.
#[tokio::test(start_paused = true)]
async fn a_part_of_a_unit_that_has_come_back_with_time_costs_none_of_the_others() {
    let rules =
        |keys: &[&str]| of(Limits::new().tokens(slow(10)), keys).estimate(Estimate::fixed(1));
    for keys in [&[][..], &["GET /a"][..]] {
        let layer = throttle(rules(&[]));
        let (answer, usage) = counted(&layer, "/a").await;
        advance(Duration::from_nanos(1)).await;
        reload(&layer, rules(keys));
        assert!(usage.settle(0));
        drop(answer);
        assert_eq!(passed(&layer, 30, "GET", "/a").await, 10, "{keys:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_key_under_which_nothing_was_used_keeps_no_tokens_from_coming_back() {
    let rules =
        |keys: &[&str]| of(Limits::new().tokens(slow(100)), keys).estimate(Estimate::fixed(50));
    for first in [&[][..], &["GET /a"][..]] {
        let layer = throttle(rules(first));
        reload(&layer, rules(&[]));
        let (answer, usage) = counted(&layer, "/a").await;
        reload(&layer, rules(&["GET /a"]));
        assert!(usage.settle(0));
        drop(answer);
        assert_eq!(passed(&layer, 9, "GET", "/a").await, 2, "{first:?}");
    }
}
