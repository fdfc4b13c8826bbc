//! R16: a queued request whose holder does not poll it blocks no other. It is skipped, and keeps its turn.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads the clock that it has paused"
)]

mod support;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::{
    task::JoinHandle,
    time::{Instant, advance, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{Limits, Rate, Rules, Throttle, body::ResponseBody, store::MemoryStore};

use support::{build, decision, request, throttling};

type Answer = Response<ResponseBody<Body>>;
type Serve = fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>;
type Service = Throttle<tower::util::ServiceFn<Serve>>;

/// The place where the balances lie.
#[derive(Debug, Clone, Copy)]
enum Balances {
    Here,
    InAStore,
}

const BOTH: [Balances; 2] = [Balances::Here, Balances::InAStore];

fn service(limits: Limits, balances: Balances) -> Service {
    let serve: Serve = |_| std::future::ready(Ok(Response::new(Body::from("served"))));
    let builder = throttling(Rules::new().route("GET /", limits));
    let builder = match balances {
        Balances::Here => builder,
        Balances::InAStore => builder.store(MemoryStore::new()),
    };
    build(builder).layer(service_fn(serve))
}

fn call(service: &Service) -> impl Future<Output = Answer> + Send + 'static {
    let answer = service.clone().oneshot(request("GET", "/"));
    async { answer.await.unwrap_or_else(|never| match never {}) }
}

/// In a task, which has entered the line when this returns.
async fn enter(service: &Service) -> JoinHandle<Answer> {
    let task = tokio::spawn(call(service));
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    task
}

/// In a future that has entered the line and is not polled any more.
async fn held(service: &Service) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    let mut future: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(call(service));
    let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    assert!(polled.is_pending(), "it waits in line");
    future
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// More than a silent place costs those behind it: see `Limits::max_wait`.
const SOON: Duration = Duration::from_millis(250);

#[tokio::test(start_paused = true)]
async fn a_future_that_is_held_and_not_polled_does_not_block_a_rate() {
    for balances in BOTH {
        let limits = Limits::new()
            .rate(Rate::per_second(1))
            .max_wait(seconds(30));
        let service = service(limits, balances);
        assert_eq!(call(&service).await.status(), StatusCode::OK);
        let _held = held(&service).await;
        let start = Instant::now();
        let answer = call(&service).await;
        assert_eq!(answer.status(), StatusCode::OK, "{balances:?}");
        let waited = start.elapsed();
        assert!(waited < seconds(1) + SOON, "{balances:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_futures_that_are_forgotten_do_not_keep_a_slot_from_the_eleventh() {
    for balances in BOTH {
        let limits = Limits::new().in_flight(1).max_wait(seconds(30));
        let service = service(limits, balances);
        let slot = call(&service).await;
        for _ in 0..10 {
            mem::forget(held(&service).await);
        }
        let eleventh = enter(&service).await;
        advance(seconds(3)).await;
        let start = Instant::now();
        drop(slot);
        let answer = eleventh.await.expect("no panic");
        assert_eq!(answer.status(), StatusCode::OK, "{balances:?}");
        let waited = start.elapsed();
        assert!(waited < seconds(1), "{balances:?}: {waited:?}");
    }
}

/// `call` alone has entered it.
#[tokio::test(start_paused = true)]
async fn a_future_that_was_never_polled_does_not_block_the_line() {
    use tower::Service as _;
    let limits = Limits::new().in_flight(1).max_wait(seconds(30));
    let mut service = service(limits, Balances::Here);
    let slot = call(&service).await;
    let _never = service.call(request("GET", "/"));
    let second = enter(&service).await;
    drop(slot);
    let start = Instant::now();
    assert_eq!(second.await.expect("no panic").status(), StatusCode::OK);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_passed_over_keeps_its_turn_if_it_comes_back_in_time() {
    for balances in BOTH {
        let limits = Limits::new()
            .rate(Rate::per_second(1))
            .max_wait(seconds(30));
        let service = service(limits, balances);
        assert_eq!(call(&service).await.status(), StatusCode::OK);
        let start = Instant::now();
        let late = held(&service).await;
        let second = enter(&service).await;
        let third = enter(&service).await;
        assert_eq!(second.await.expect("no panic").status(), StatusCode::OK);
        let passed = start.elapsed();
        // The second came before the third.
        assert_eq!(late.await.status(), StatusCode::OK);
        assert!(start.elapsed() < passed + seconds(1) + SOON, "{balances:?}");
        assert!(!third.is_finished(), "{balances:?}");
        assert_eq!(third.await.expect("no panic").status(), StatusCode::OK);
        assert!(start.elapsed() > seconds(3), "one a second");
    }
}

/// A forgotten place was once woken for each slot that came free, and every later request was refused after its whole
/// time.
#[tokio::test(start_paused = true)]
async fn an_hour_later_a_forgotten_place_is_gone() {
    for balances in BOTH {
        let limits = Limits::new()
            .in_flight(1)
            .max_wait(seconds(5))
            .max_waiting(1);
        let service = service(limits, balances);
        let slot = call(&service).await;
        mem::forget(held(&service).await);
        drop(slot);
        advance(seconds(3_600)).await;
        let start = Instant::now();
        let slot = call(&service).await;
        assert_eq!(slot.status(), StatusCode::OK, "{balances:?}");
        assert_eq!(start.elapsed(), Duration::ZERO, "{balances:?}");
        let waits = enter(&service).await;
        assert!(!waits.is_finished(), "{balances:?}: there is room in line");
        drop(slot);
        assert_eq!(waits.await.expect("no panic").status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_place_lengthens_no_wait_of_those_who_come_later() {
    let limits = Limits::new().rate(Rate::per_second(1)).max_wait(seconds(3));
    let service = service(limits, Balances::Here);
    assert_eq!(call(&service).await.status(), StatusCode::OK);
    for _ in 0..2 {
        mem::forget(held(&service).await);
    }
    // The third is behind both, finds that neither asks, and passes them.
    let third = enter(&service).await;
    advance(Duration::from_millis(2_500)).await;
    assert_eq!(third.await.expect("no panic").status(), StatusCode::OK);
    let start = Instant::now();
    let fourth = call(&service).await;
    assert_eq!(fourth.status(), StatusCode::OK);
    assert!(start.elapsed() < seconds(1) + SOON, "{:?}", start.elapsed());
    assert!(decision(&fourth).waited() < seconds(1) + SOON);
}

#[tokio::test(start_paused = true)]
async fn passing_over_admits_no_more_than_the_slots() {
    for balances in BOTH {
        let limits = Limits::new().in_flight(2).max_wait(seconds(30));
        let service = service(limits, balances);
        let mut slots = vec![call(&service).await, call(&service).await];
        let mut late = Vec::new();
        for _ in 0..3 {
            late.push(held(&service).await);
        }
        let mut tasks = Vec::new();
        for _ in 0..3 {
            tasks.push(enter(&service).await);
        }
        slots.clear();
        sleep(seconds(1)).await;
        let served = tasks.iter().filter(|task| task.is_finished()).count();
        assert_eq!(served, 2, "{balances:?}: two slots, and they hold them");
        for future in &mut late {
            let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            assert!(polled.is_pending(), "{balances:?}: no slot is free");
        }
        let (done, waits): (Vec<_>, Vec<_>) = tasks.into_iter().partition(JoinHandle::is_finished);
        for task in done {
            drop(task.await.expect("no panic"));
        }
        // Those who came first have come back.
        for future in late {
            assert_eq!(future.await.status(), StatusCode::OK, "{balances:?}");
        }
        for task in waits {
            assert_eq!(task.await.expect("no panic").status(), StatusCode::OK);
        }
    }
}
