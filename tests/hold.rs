//! R15, R25 and R26: a guard that a handler keeps holds the slots and the account of its request beyond the response,
//! and they end once, however the guard ends.

mod support;
#[path = "support/told.rs"]
mod told;

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{advance, timeout},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_throttle::{
    Clients, Handle, Limits, Models, Plan, Rate, Rules, Throttle, ThrottleLayer, Usage,
    body::{Hold, KeptRequest, ResponseBody},
    store::MemoryStore,
    usage::Estimate,
};

use told::{Does, Told};

use support::{build, bytes, hourly, request, throttle, throttling};

const RUNS: u64 = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// A route whose requests reserve ten tokens and may be kept.
fn rules() -> Rules {
    let limits = Limits::new().in_flight(1).tokens(hourly(1_000_000));
    let rules = Rules::new().route("POST /job", limits.keep(true));
    rules.estimate(Estimate::fixed(10))
}

/// Returns the requests in flight, and the tokens that are charged.
fn held(handle: &Handle) -> (u64, u64) {
    let limits = handle.snapshot().limits;
    let in_flight = limits.iter().find_map(|limit| limit.in_flight);
    let tokens = limits.iter().find(|limit| limit.burst == 1_000_000);
    let left = tokens.and_then(|tokens| tokens.remaining);
    (in_flight.expect("a cap"), 1_000_000 - left.expect("tokens"))
}

/// The way in which a kept request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Task,
    Panic,
    Aborted,
    ServiceError,
    NeverPolled,
    DroppedResponse,
    Reload,
}

/// Work that goes on after its response, until it is told to end.
#[derive(Clone, Default)]
struct Work {
    go: Arc<Notify>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Keeps each request in a task, which counts 27 tokens before it ends.
#[expect(clippy::needless_pass_by_value, reason = "as services take it")]
fn start(
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, &'static str>> + Send + 'static {
    let extensions = request.extensions();
    let end = *extensions.get::<End>().expect("an end");
    let work = extensions.get::<Work>().expect("work").clone();
    let usage = extensions.get::<Usage>().expect("tokens").clone();
    let hold = extensions.get::<Hold>().expect("it may be kept");
    let kept = hold.keep().expect("it has not ended");
    let go = Arc::clone(&work.go);
    let task = tokio::spawn(async move {
        let _kept = kept;
        go.notified().await;
        assert!(usage.add(27), "the account is open");
        if end == End::Panic {
            // Without the report of the hook.
            std::panic::resume_unwind(Box::new("a broken task"));
        }
    });
    *work.task.lock().expect("no panic") = Some(task);
    async move {
        match end {
            End::ServiceError => Err("a broken service"),
            _ => Ok(Response::new(Body::from("started"))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_kept_request_frees_its_slot_once_and_charges_what_was_added() {
    let layer = throttle(rules());
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(start));
    let mut charged = 0;
    let ends = [
        End::Task,
        End::Panic,
        End::Aborted,
        End::ServiceError,
        End::NeverPolled,
        End::DroppedResponse,
        End::Reload,
    ];
    for (run, end) in (0..RUNS).flat_map(|run| ends.map(|end| (run, end))) {
        let work = Work::default();
        let mut request = request("POST", "/job");
        request.extensions_mut().insert(work.clone());
        request.extensions_mut().insert(end);
        let answer = service.ready().await.expect("ready").call(request);
        match end {
            End::NeverPolled => drop(answer),
            End::ServiceError => assert!(answer.await.is_err(), "{run}"),
            End::DroppedResponse => drop(answer.await),
            _ => assert_eq!(bytes(answer.await.expect("a response")).await, "started"),
        }
        assert_eq!(held(&handle), (1, charged + 10), "{end:?} {run}: kept");
        if end == End::Reload {
            handle.reload(rules()).expect("rules that hold together");
        }
        let task = work.task.lock().expect("no panic").take();
        let task = task.expect("it was started");
        match end {
            End::Aborted => task.abort(),
            _ => work.go.notify_one(),
        }
        let ended = task.await;
        assert_eq!(ended.is_ok(), !matches!(end, End::Panic | End::Aborted));
        // Nothing was added: the reservation stands.
        charged += if end == End::Aborted { 10 } else { 27 };
        assert_eq!(held(&handle), (0, charged), "{end:?} {run}: ended");
    }
}

/// A server that ends drops its tasks, and the guards in them.
#[test]
fn the_end_of_the_runtime_frees_what_its_tasks_have_kept() {
    let layer = throttle(rules());
    let handle = layer.handle();
    for run in 1..=RUNS {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let mut request = request("POST", "/job");
        request.extensions_mut().insert(Work::default());
        request.extensions_mut().insert(End::Task);
        let answer = layer.layer(service_fn(start)).oneshot(request);
        let answer = runtime.block_on(answer).expect("a response");
        drop(answer);
        assert_eq!(held(&handle), (1, 10 * run), "{run}: kept");
        drop(runtime);
        assert_eq!(held(&handle), (0, 10 * run), "{run}: ended");
    }
}

/// A handler that is the test: it answers with its hold and account.
type Answered = Response<ResponseBody<Body>>;
type ByTest = Throttle<tower::util::ServiceFn<fn(Request<Body>) -> Answering>>;
type Answering = std::future::Ready<Result<Response<Body>, std::convert::Infallible>>;

fn told(layer: &ThrottleLayer) -> ByTest {
    let answer: fn(Request<Body>) -> Answering = |mut request| {
        let extensions = mem::take(request.extensions_mut());
        let mut response = Response::new(Body::from("served"));
        *response.extensions_mut() = extensions;
        std::future::ready(Ok(response))
    };
    layer.layer(service_fn(answer))
}

async fn ask(service: &ByTest, method: &str, path: &str) -> Answered {
    support::send(service, request(method, path)).await
}

fn hold<B>(response: &Response<B>) -> Hold {
    let hold = response.extensions().get::<Hold>();
    hold.expect("it may be kept").clone()
}

#[tokio::test(start_paused = true)]
async fn requests_of_the_routes_that_say_so_may_be_kept_and_no_others() {
    let rules = Rules::new()
        .default_route(Limits::from(hourly(99)).keep(true))
        .route("GET /inherits", hourly(9))
        .route("GET /unlimited", Limits::unlimited())
        .route("GET /not", Limits::new().keep(false))
        .route("GET /free", Limits::exempt())
        .route("GET /a/{id}", Limits::new().keep(false));
    let layer = throttle(rules);
    let service = told(&layer);
    let table = [
        ("/undeclared", true),
        ("/inherits", true),
        ("/unlimited", true),
        ("/not", false),
        ("/free", false),
        ("/a/b", false),
        // It may mean two routes.
        ("/inherits/", true),
        ("/%6eot", true),
    ];
    for (path, may_be_kept) in table {
        let answer = ask(&service, "GET", path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let hold = answer.extensions().get::<Hold>();
        assert_eq!(hold.is_some(), may_be_kept, "{path}");
    }
    let handle = layer.handle();
    let changes = handle.reload(Rules::new().default_route(Limits::from(hourly(99)).keep(false)));
    let changes = changes.expect("rules that hold together").to_string();
    assert!(
        changes.contains("default route, keep: true => "),
        "{changes}"
    );
    let answer = ask(&service, "GET", "/undeclared").await;
    assert!(
        answer.extensions().get::<Hold>().is_none(),
        "a reload holds"
    );
}

#[test]
fn only_routes_may_be_kept() {
    let keeps = || Limits::from(hourly(9)).keep(true);
    let clients = |plan: Plan| Rules::new().clients(Clients::by_header("x-api-key").each(plan));
    let models = || Models::by_header("x-model").model("small", hourly(9));
    let table = [
        (Rules::new().total(keeps()), "the total"),
        (clients(Plan::new(keeps())), "each client"),
        (
            clients(Plan::new(hourly(9)).route("GET /", keeps())),
            "each client, route `GET /`",
        ),
        (
            Rules::new().models(models().model("large", keeps())),
            "model `large`",
        ),
        (
            Rules::new().models(models().otherwise(keeps())),
            "model `otherwise`",
        ),
    ];
    for (rules, place) in table {
        let error = ThrottleLayer::new(rules).expect_err(place).to_string();
        let expected =
            "`keep` is that of a route in the rules, or of the default route; set it there";
        assert_eq!(error, format!("{place}: {expected}"));
    }
    let rules = Rules::new().route("GET /", Limits::exempt().keep(true));
    let error = ThrottleLayer::new(rules).expect_err("exempt").to_string();
    assert!(
        error.contains("`keep` cannot be combined with `exempt`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_holds_nothing_and_keeps_nothing_after_the_end() {
    let layer = build(throttling(rules()).track_in_flight(true));
    let handle = layer.handle();
    let service = told(&layer);
    let answer = ask(&service, "POST", "/job").await;
    let (hold, usage) = (hold(&answer), answer.extensions().get::<Usage>().cloned());
    assert_eq!(format!("{hold:?}"), r#"Hold { route: "POST /job", .. }"#);
    bytes(answer).await;
    assert_eq!((held(&handle).0, handle.in_flight()), (0, Some(0)), "inert");
    assert!(hold.keep().is_none() && hold.clone().keep_at_most(SECOND).is_none());
    assert!(!usage.expect("tokens").add(1), "the account has ended");
}

/// The first guard and the last of several: the request ends with the last, or with the response.
#[tokio::test(start_paused = true)]
async fn the_last_holder_ends_the_request() {
    let layer = build(throttling(rules()).track_in_flight(true));
    let handle = layer.handle();
    let service = told(&layer);
    let state = || (held(&handle).0, handle.in_flight());
    for response_ends_last in [true, false] {
        let answer = ask(&service, "POST", "/job").await;
        let hold = hold(&answer);
        let mut guards: Vec<_> = (0..3).filter_map(|_| hold.keep()).collect();
        guards.extend(hold.keep_at_most(SECOND));
        assert_eq!(guards.len(), 4);
        let mut answer = Some(answer);
        if !response_ends_last {
            bytes(answer.take().expect("an answer")).await;
        }
        while guards.len() > 1 {
            drop(guards.swap_remove(0));
            assert_eq!(state(), (1, Some(1)));
        }
        drop(guards);
        let is_open = u64::from(response_ends_last);
        assert_eq!(state().0, is_open);
        drop(answer);
        assert_eq!(state(), (0, Some(0)));
    }
}

/// Two throttles around one service: the inner one finds the hold of the outer one.
#[tokio::test(start_paused = true)]
async fn each_of_two_throttles_keeps_its_part() {
    let total = |in_flight| {
        let limits = Limits::new().in_flight(in_flight).keep(true);
        throttle(
            Rules::new()
                .default_route(limits)
                .undeclared(tower_throttle::rules::Undeclared::Shared),
        )
    };
    let layers = [total(3), total(2)];
    let serve = |mut request: Request<Body>| {
        let mut response = Response::new(Body::from("served"));
        *response.extensions_mut() = mem::take(request.extensions_mut());
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    };
    let [outer, inner] = layers.clone();
    let service = ServiceBuilder::new().layer(outer).layer(inner);
    let service = service.service(service_fn(serve));
    let answer = support::send(&service, request("GET", "/")).await;
    let kept = hold(&answer).keep();
    bytes(answer).await;
    let in_flight = || {
        layers.each_ref().map(|layer| {
            let routes = layer.handle();
            let answer = routes.try_acquire(&request("GET", "/"));
            answer.is_ok()
        })
    };
    assert_eq!(in_flight(), [true; 2]);
    let others: Vec<_> = (0..2)
        .map(|_| layers[0].handle().try_acquire(&request("GET", "/")))
        .collect();
    assert_eq!(in_flight(), [false, true], "one of three is kept");
    drop(kept);
    assert_eq!(in_flight(), [true; 2]);
    drop(others);
}

/// A request with a guard that nobody drops, bound to ten seconds, whose response has ended.
async fn lost(service: &ByTest, path: &str) -> (KeptRequest, Option<Usage>) {
    let answer = ask(service, "POST", path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let kept = hold(&answer).keep_at_most(10 * SECOND);
    let usage = answer.extensions().get::<Usage>().cloned();
    bytes(answer).await;
    (kept.expect("it has not ended"), usage)
}

#[tokio::test(start_paused = true)]
async fn a_lost_guard_is_ended_by_the_next_refusal_after_its_bound() {
    let layer = throttle(rules());
    let handle = layer.handle();
    let service = told(&layer);
    let expired = || handle.snapshot().routes[0].expired;
    let (kept, usage) = lost(&service, "/job").await;
    advance(10 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(ask(&service, "POST", "/job").await.status(), 503);
    assert!(!kept.has_expired());
    advance(Duration::from_nanos(1)).await;
    assert_eq!((held(&handle).0, expired()), (1, 0), "no timer ends it");
    let next = ask(&service, "POST", "/job").await;
    assert_eq!(next.status(), StatusCode::OK);
    assert_eq!(expired(), 1);
    assert!(kept.has_expired());
    assert!(!usage.expect("tokens").add(1), "the account has ended");
    drop(kept);
    assert_eq!(held(&handle), (1, 20), "a late drop does nothing");
    drop(next);
    assert_eq!((held(&handle), expired()), ((0, 20), 1));
}

/// Whichever limits the request has that is refused, and however it is decided on.
#[tokio::test(start_paused = true)]
async fn each_way_of_a_refusal_ends_lost_guards() {
    let job = || Limits::new().keep(true);
    let total = Limits::new().in_flight(1);
    let plain = Rules::new().total(total.clone()).route("POST /job", job());
    let patient = total.clone().max_wait(60 * SECOND);
    let models = Models::from_body().on("POST /chat");
    let by_body = plain.clone().route("POST /chat", Limits::new());
    let by_body = by_body.models(models.model("small", hourly(9)));
    let store = |rules| {
        let rules = plain.clone().route("GET /plain", Limits::from(rules));
        build(throttling(rules).store(MemoryStore::new()))
    };
    let down = Told::new();
    down.does(Does::Fails);
    let shared = plain.clone().route("GET /plain", hourly(9));
    let outage = build(throttling(shared).store(down));
    let table = [
        (
            "plain limits",
            throttle(plain.clone().route("GET /plain", hourly(9))),
        ),
        ("a total alone", throttle(plain.clone())),
        (
            "shadows",
            throttle(plain.clone().route("GET /plain", hourly(9).shadow())),
        ),
        ("a line", throttle(plain.clone().total(patient))),
        ("a store", store(hourly(9))),
        ("a store's shadow", store(hourly(9).shadow())),
        ("before the body", throttle(by_body)),
        ("an outage", outage),
    ];
    for (way, layer) in table {
        let service = told(&layer);
        if way == "an outage" {
            // From here on the store is known to be down.
            drop(ask(&service, "GET", "/plain").await);
        }
        let (kept, _) = lost(&service, "/job").await;
        advance(10 * SECOND).await;
        let ask = async {
            match way {
                "before the body" => {
                    let throttle = layer.layer(support::served());
                    let peek = layer.peek_layer().layer(throttle);
                    let answer = peek.oneshot(request("POST", "/chat")).await;
                    answer.expect("no error").status()
                }
                _ => ask(&service, "GET", "/plain").await.status(),
            }
        };
        let status = timeout(SECOND / 10, ask).await;
        assert_eq!(status.expect("it does not wait"), StatusCode::OK, "{way}");
        let limits = layer.handle().snapshot().limits;
        assert!(limits.iter().all(|limit| limit.waited == 0), "{way}");
        assert!(kept.has_expired(), "{way}");
        let (kept, _) = lost(&service, "/job").await;
        advance(10 * SECOND).await;
        assert!(
            layer
                .handle()
                .try_acquire(&request("GET", "/plain"))
                .is_ok()
                || way.contains("store"),
            "{way}"
        );
        assert!(
            kept.has_expired() || way.contains("store"),
            "{way}: a permit"
        );
    }
}

/// A request in line is woken at the bound, by the timer that it has for the end of its wait.
#[tokio::test(start_paused = true)]
async fn a_request_in_line_passes_at_the_bound() {
    let total = Limits::new().in_flight(1).max_wait(60 * SECOND);
    let rules = Rules::new()
        .total(total)
        .route("POST /job", Limits::new().keep(true));
    let layer = throttle(rules);
    let service = told(&layer);
    let (kept, _) = lost(&service, "/job").await;
    let line = [(); 2].map(|()| tokio::spawn(ask_other(service.clone())));
    let [first, second] = line;
    tokio::task::yield_now().await;
    advance(9 * SECOND).await;
    assert!(!first.is_finished());
    let tick = Duration::from_millis(2);
    let first = timeout(SECOND + tick, first)
        .await
        .expect("at the bound")
        .expect("no panic");
    assert_eq!(first.status(), StatusCode::OK);
    assert!(kept.has_expired());
    assert!(!second.is_finished(), "one slot came back");
    drop(first);
    assert_eq!(second.await.expect("no panic").status(), StatusCode::OK);
}

/// The guard gets its bound while others are in line already: with the end of its answer, or with that of a later guard.
#[tokio::test(start_paused = true)]
async fn a_request_in_line_is_told_of_a_bound_that_comes_later() {
    let total = Limits::new().in_flight(1).max_wait(60 * SECOND);
    let rules = || {
        let job = Limits::new().keep(true);
        Rules::new()
            .total(total.clone())
            .route("POST /job", job)
            .route("GET /other", hourly(9))
    };
    let here = throttle(rules());
    let stored = build(throttling(rules()).store(MemoryStore::new()));
    for (place, layer) in [("here", here), ("with a store", stored)] {
        let service = told(&layer);
        let answer = ask(&service, "POST", "/job").await;
        let hold = hold(&answer);
        let [short, long] = [10, 40].map(|most| hold.keep_at_most(most * SECOND));
        let mut line = tokio::spawn(ask_other(service.clone()));
        tokio::task::yield_now().await;
        bytes(answer).await;
        advance(5 * SECOND).await;
        drop(long);
        let in_line = timeout(4 * SECOND, &mut line).await;
        assert!(in_line.is_err(), "{place}: before the bound");
        let passes = timeout(2 * SECOND, line).await;
        let passes = passes.unwrap_or_else(|_| panic!("{place}: not at the bound"));
        assert_eq!(
            passes.expect("no panic").status(),
            StatusCode::OK,
            "{place}"
        );
        assert!(short.expect("a guard").has_expired(), "{place}");
    }
}

async fn ask_other(service: ByTest) -> Answered {
    ask(&service, "GET", "/other").await
}

/// (the bounds of the guards in seconds, whether the response goes on, when a refusal ends the request)
#[tokio::test(start_paused = true)]
async fn a_bound_ends_only_what_is_held_by_bounded_guards_alone() {
    const NEVER: Duration = Duration::from_secs(1_000_000_000);
    let bounds = |bounds: &[u64]| bounds.iter().copied().map(Duration::from_secs).collect();
    let table: [(Vec<Duration>, bool, bool, Option<Duration>); 7] = [
        (bounds(&[0]), false, false, Some(Duration::ZERO)),
        (bounds(&[5, 20, 5]), false, false, Some(20 * SECOND)),
        (bounds(&[5]), true, false, None),
        (bounds(&[5]), false, true, None),
        (vec![Duration::MAX], false, false, None),
        (vec![NEVER], false, false, Some(NEVER)),
        (bounds(&[]), false, true, None),
    ];
    for (bounds, response_goes_on, is_kept_without, end) in table {
        let layer = throttle(rules());
        let service = told(&layer);
        let answer = ask(&service, "POST", "/job").await;
        let hold = hold(&answer);
        let unbounded = is_kept_without.then(|| hold.keep().expect("it has not ended"));
        let kept: Vec<_> = bounds
            .iter()
            .filter_map(|most| hold.keep_at_most(*most))
            .collect();
        assert_eq!(kept.len(), bounds.len());
        let answer = response_goes_on.then_some(answer);
        let refused = async || ask(&service, "POST", "/job").await.status() == 503;
        match end {
            Some(end) => {
                if let Some(before) = end.checked_sub(Duration::from_nanos(1)) {
                    advance(before).await;
                    assert!(refused().await, "{bounds:?}: before the end");
                    advance(Duration::from_nanos(1)).await;
                }
                assert!(!refused().await, "{bounds:?}: at the end");
                assert!(kept.iter().all(KeptRequest::has_expired));
            }
            None => {
                advance(NEVER).await;
                assert!(refused().await, "{bounds:?}: held");
                assert!(!kept.iter().any(KeptRequest::has_expired));
                drop((answer, unbounded));
                // The bounds of the others hold from here on.
                assert_eq!(
                    refused().await,
                    bounds.contains(&Duration::MAX),
                    "{bounds:?}"
                );
            }
        }
    }
}

/// The longest of the bounds counts only as long as its guard is there.
#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_takes_its_bound_along() {
    let layer = throttle(rules());
    let service = told(&layer);
    let answer = ask(&service, "POST", "/job").await;
    let hold = hold(&answer);
    let [short, long] = [5, 60].map(|most| hold.keep_at_most(most * SECOND));
    bytes(answer).await;
    advance(10 * SECOND).await;
    assert_eq!(ask(&service, "POST", "/job").await.status(), 503);
    drop(long);
    assert_eq!(ask(&service, "POST", "/job").await.status(), 200);
    assert!(short.expect("a guard").has_expired());
    assert!(hold.keep().is_none(), "it has ended");
}

/// Rates that refuse end nothing: no slot would come back.
#[tokio::test(start_paused = true)]
async fn limits_without_caps_end_nothing() {
    let rules = Rules::new()
        .route("POST /job", Limits::new().in_flight(1).keep(true))
        .route("GET /rate", Rate::per_hour(1));
    let layer = throttle(rules);
    let service = told(&layer);
    let (kept, _) = lost(&service, "/job").await;
    advance(10 * SECOND).await;
    for expected in [200, 429] {
        assert_eq!(ask(&service, "GET", "/rate").await.status(), expected);
    }
    assert!(!kept.has_expired());
}
