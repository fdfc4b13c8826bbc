//! R16: queued requests are bounded in time and number, served first come, first served, and leave no trace when they
//! are cancelled.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod support;

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use futures_util_lite::poll_once;
use http::{Request, Response, StatusCode};
use tokio::{task::JoinHandle, time::Instant};
use tower::{Layer, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_throttle::{
    Clients, Limits, Rate, Rules, Throttle, Usage, body::ResponseBody, usage::Estimate,
};

use support::{decision, throttle};

/// One look at a future.
mod futures_util_lite {
    use std::{future::Future, pin::Pin, task::Poll};

    pub(crate) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }
}

type Answer = Response<ResponseBody<Body>>;
type Serve = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Serve>>;

fn service(rules: Rules) -> Service {
    let serve: Serve = |_| std::future::ready(Ok(Response::new(Body::from("served"))));
    throttle(rules).layer(service_fn(serve))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn call(
    service: &Service,
    request: Request<Body>,
) -> impl Future<Output = Answer> + Send + 'static {
    let answer = service.clone().oneshot(request);
    async { answer.await.unwrap_or_else(|never| match never {}) }
}

/// In a task, which has entered the line when this returns.
async fn enter(service: &Service, request: Request<Body>) -> JoinHandle<Answer> {
    let task = tokio::spawn(call(service, request));
    tokio::task::yield_now().await;
    task
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_as_long_as_its_rate_asks_and_no_longer_than_it_may() {
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(2));
    let service = service(Rules::new().route("GET /", limits));
    let start = Instant::now();
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(enter(&service, request("/")).await);
    }
    let refused = call(&service, request("/")).await;
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "refused at once, not after waiting in vain"
    );
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        decision(&refused).retry_after(),
        Some(seconds(3)),
        "behind those in line"
    );
    for (place, answer) in (0..).zip(line) {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(decision(&answer).waited(), seconds(place));
        assert_eq!(start.elapsed(), seconds(place), "in order");
    }
    let spent = call(&service, request("/")).await;
    assert_eq!(
        decision(&spent).waited(),
        seconds(1),
        "the bucket is as after three"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_those_in_line() {
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(9));
    let service = service(Rules::new().route("GET /", limits));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..5 {
        let (order, answer) = (Arc::clone(&order), call(&service, request("/")));
        tasks.push(tokio::spawn(async move {
            answer.await;
            order.lock().expect("no panic").push(number);
        }));
        tokio::task::yield_now().await;
        // At the very moment at which the first in line may go, and before it has.
        tokio::time::advance(Duration::from_millis(300)).await;
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_goes_to_the_first_in_line_when_it_comes_free() {
    let limits = Limits::new().in_flight(1).max_wait(seconds(5));
    let service = service(Rules::new().route("GET /", limits));
    let held = call(&service, request("/")).await;
    let first = enter(&service, request("/")).await;
    let second = enter(&service, request("/")).await;
    tokio::time::advance(seconds(2)).await;
    assert!(!first.is_finished() && !second.is_finished());
    drop(held);
    let first = first.await.expect("no panic");
    assert_eq!(decision(&first).waited(), seconds(2), "at once");
    assert!(!second.is_finished(), "the slot is taken");
    let start = Instant::now();
    let second = second.await.expect("no panic");
    assert_eq!(start.elapsed(), seconds(3), "five in all");
    assert_eq!(
        second.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "the server is busy"
    );
    assert_eq!(second.headers()["retry-after"], "1");
    drop(first);
    assert_eq!(call(&service, request("/")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_its_place_and_has_taken_nothing() {
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(2));
    let service = service(Rules::new().route("GET /", limits));
    let start = Instant::now();
    assert_eq!(call(&service, request("/")).await.status(), StatusCode::OK);
    let first = enter(&service, request("/")).await;
    let second = enter(&service, request("/")).await;
    let full = call(&service, request("/")).await;
    assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    let third = enter(&service, request("/")).await;
    assert_eq!(second.await.expect("no panic").status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(1), "it has moved up");
    assert_eq!(third.await.expect("no panic").status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(2), "and there was room behind it");
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let limits = Limits::new()
        .in_flight(1)
        .max_wait(seconds(60))
        .max_waiting(3);
    let service = service(Rules::new().default_route(limits));
    let _held = call(&service, request("/")).await;
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(enter(&service, request("/")).await);
    }
    let start = Instant::now();
    let refused = call(&service, request("/")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let _other = call(&service, request("/other")).await;
    let other = enter(&service, request("/other")).await;
    assert!(!other.is_finished(), "another route has another line");
    line.pop().expect("three").abort();
    tokio::task::yield_now().await;
    let fourth = enter(&service, request("/")).await;
    assert!(!fourth.is_finished(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_its_own_deadline() {
    let limits = Limits::new()
        .rate(Rate::per_second(1))
        .in_flight(2)
        .max_wait(seconds(60));
    let service = service(Rules::new().total(limits));
    let ask = |timeout: &'static str| {
        let mut request = request("/");
        request
            .headers_mut()
            .insert("grpc-timeout", timeout.parse().expect("a value"));
        request
    };
    let start = Instant::now();
    let held = call(&service, ask("1S")).await;
    let at_once = call(&service, ask("1S")).await;
    assert_eq!(at_once.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "at its deadline its turn would come"
    );
    let waits = call(&service, ask("1001m")).await;
    assert_eq!(waits.status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(1));
    // Both slots are held: for those nobody knows the wait.
    tokio::time::advance(seconds(5)).await;
    let start = Instant::now();
    let late = call(&service, ask("3S")).await;
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        start.elapsed() < seconds(3) + Duration::from_millis(2),
        "{:?}",
        start.elapsed()
    );
    drop((held, waits));
}

#[tokio::test(start_paused = true)]
async fn a_scope_without_patience_refuses_at_once() {
    let route = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(9));
    let clients = Clients::by_header("x-api-key").each(Rate::per_hour(1).burst(2));
    let service = service(Rules::new().route("GET /", route).clients(clients));
    let start = Instant::now();
    for waited in [0, 1] {
        let answer = call(&service, request("/")).await;
        assert_eq!(decision(&answer).waited(), seconds(waited));
    }
    let refused = call(&service, request("/")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        start.elapsed(),
        seconds(1),
        "its client's rate does not allow the wait"
    );
}

#[tokio::test(start_paused = true)]
async fn it_goes_over_to_the_line_of_what_refuses_then_and_keeps_its_turn() {
    // The route lets one through a second, and the server serves one at a time.
    let route = Limits::new()
        .rate(Rate::per_second(1))
        .max_wait(seconds(30));
    let total = Limits::new().in_flight(1).max_wait(seconds(30));
    let service = service(Rules::new().total(total).route("GET /a", route));
    let held = call(&service, request("/a")).await;
    let early = enter(&service, request("/a")).await;
    let late = enter(&service, request("/b")).await;
    tokio::time::advance(seconds(2)).await;
    assert!(!early.is_finished() && !late.is_finished());
    drop(held);
    let early = early.await.expect("no panic");
    assert_eq!(
        decision(&early).waited(),
        seconds(2),
        "who came first is first"
    );
    assert!(!late.is_finished());
    drop(early);
    assert_eq!(late.await.expect("no panic").status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn one_clients_line_holds_up_nobody_else() {
    let each = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(5));
    let clients = Clients::by_header("x-api-key").each(each);
    let total = Limits::new().in_flight(8).max_wait(seconds(5));
    let service = service(Rules::new().total(total).clients(clients));
    let ask = |key: &'static str| {
        let mut request = request("/");
        request
            .headers_mut()
            .insert("x-api-key", key.parse().expect("a value"));
        request
    };
    let _greedy = call(&service, ask("greedy")).await;
    let waits = enter(&service, ask("greedy")).await;
    let start = Instant::now();
    for key in ["a", "b", "c"] {
        assert_eq!(call(&service, ask(key)).await.status(), StatusCode::OK);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(waits.await.expect("no panic").status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_not_starved_by_small_ones() {
    let tokens = Limits::new()
        .tokens(Rate::per_second(10).burst(10))
        .max_wait(seconds(60));
    let rules = Rules::new()
        .total(tokens)
        .estimate(Estimate::by_header("x-tokens").exact());
    let service = service(rules);
    let ask = |tokens: &'static str| {
        let mut request = request("/");
        request
            .headers_mut()
            .insert("x-tokens", tokens.parse().expect("a value"));
        request
    };
    let start = Instant::now();
    assert_eq!(call(&service, ask("10")).await.status(), StatusCode::OK);
    let large = enter(&service, ask("10")).await;
    let mut small = Vec::new();
    for _ in 0..20 {
        small.push(enter(&service, ask("1")).await);
    }
    assert_eq!(large.await.expect("no panic").status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(1), "as if it were alone");
    for small in small {
        assert_eq!(small.await.expect("no panic").status(), StatusCode::OK);
    }
    assert_eq!(start.elapsed(), seconds(3));
    let never = call(&service, ask("11")).await;
    assert_eq!(
        never.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "above the burst"
    );
    assert_eq!(decision(&never).retry_after(), None);
    assert_eq!(start.elapsed(), seconds(3), "at once");
}

#[tokio::test(start_paused = true)]
async fn who_would_find_room_stands_behind_those_who_need_more() {
    let tokens = Limits::new()
        .tokens(Rate::per_second(10).burst(10))
        .max_wait(seconds(60));
    let rules = Rules::new()
        .total(tokens)
        .estimate(Estimate::by_header("x-tokens").exact());
    let service = service(rules);
    let ask = |tokens: &'static str| {
        let mut request = request("/");
        let tokens = tokens.parse().expect("a value");
        request.headers_mut().insert("x-tokens", tokens);
        request
    };
    let start = Instant::now();
    assert_eq!(call(&service, ask("10")).await.status(), StatusCode::OK);
    let large = enter(&service, ask("10")).await;
    tokio::time::advance(Duration::from_millis(500)).await;
    // Five are there, and it asks for one.
    let small = enter(&service, ask("1")).await;
    assert!(!small.is_finished() && !large.is_finished());
    assert_eq!(large.await.expect("no panic").status(), StatusCode::OK);
    assert_eq!(
        start.elapsed(),
        seconds(1),
        "nobody took of what it waited for"
    );
    let small = small.await.expect("no panic");
    assert_eq!(decision(&small).waited(), Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_come_back_wake_who_waits_for_them() {
    let tokens = Limits::new()
        .tokens(Rate::per_minute(60).burst(60))
        .max_wait(seconds(60));
    let rules = Rules::new().total(tokens).estimate(Estimate::fixed(50));
    let serve = |request: Request<Body>| async move {
        let usage: Option<&Usage> = request.extensions().get();
        let mut response = Response::new(Body::empty());
        response
            .extensions_mut()
            .insert(usage.expect("tokens are limited").clone());
        Ok::<_, Infallible>(response)
    };
    let service = throttle(rules).layer(service_fn(serve));
    let start = Instant::now();
    let first = service
        .clone()
        .oneshot(request("/"))
        .await
        .expect("never fails");
    let waits = tokio::spawn(service.clone().oneshot(request("/")));
    tokio::task::yield_now().await;
    tokio::time::advance(seconds(5)).await;
    let usage: &Usage = first.extensions().get().expect("usage");
    assert!(usage.settle(10), "forty come back");
    let second = waits.await.expect("no panic").expect("never fails");
    assert_eq!(second.status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(5));
}

#[tokio::test(start_paused = true)]
async fn it_is_the_service_that_was_polled_ready_that_is_called() {
    // tower's limit panics if a service is called that was not polled ready, and holds a permit if it was.
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(9));
    let service = ServiceBuilder::new()
        .layer(throttle(Rules::new().total(limits)))
        .layer(ConcurrencyLimitLayer::new(2))
        .service(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(tokio::spawn(service.clone().oneshot(request("/"))));
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    for task in tasks {
        let answer = task.await.expect("no panic").expect("never fails");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(start.elapsed(), seconds(5), "six at one a second");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_future_tells_nothing_and_can_be_dropped_at_any_poll() {
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(9));
    let service = service(Rules::new().total(limits));
    assert_eq!(call(&service, request("/")).await.status(), StatusCode::OK);
    for polls in 0..3 {
        let mut waits = Box::pin(service.clone().oneshot(request("/")));
        for _ in 0..polls {
            assert!(poll_once(waits.as_mut()).await.is_pending());
        }
    }
    let start = Instant::now();
    assert_eq!(call(&service, request("/")).await.status(), StatusCode::OK);
    assert_eq!(start.elapsed(), seconds(1), "those before it left no trace");
}

/// A request that runs, counted until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn under_threads_every_slot_is_handed_on() {
    // As many at a time as there are slots, and each request ends; a wake-up that is lost would leave it
    // waiting for ever.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let limits = Limits::new()
            .in_flight(2)
            .max_wait(Duration::MAX)
            .max_waiting(1_000);
        let most = Arc::new(AtomicUsize::new(0));
        let current = Arc::new(AtomicUsize::new(0));
        let serve = {
            let (most, current) = (Arc::clone(&most), Arc::clone(&current));
            move |_: Request<Body>| {
                let (most, current) = (Arc::clone(&most), Arc::clone(&current));
                async move {
                    let now = current.fetch_add(1, Ordering::SeqCst) + 1;
                    let _counted = Counted(current);
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            }
        };
        let service = throttle(Rules::new().total(limits)).layer(service_fn(serve));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let service = service.clone();
            tasks.spawn(async move {
                for turn in 0..500 {
                    let mut call = Box::pin(service.clone().oneshot(request("/")));
                    // Some go away when it might just have become their turn.
                    if turn % 5 == 0 && poll_once(call.as_mut()).await.is_pending() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    if turn % 5 == 0 {
                        continue;
                    }
                    let answer = call.await.expect("never fails");
                    assert_eq!(answer.status(), StatusCode::OK);
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.expect("no panic");
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
    });
}
