//! R3 and R4: one state, however often a framework wraps and clones; decided in `call`, on the service
//! that was polled ready.

mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;
use tower_throttle::{
    Decision, Rate, Rules, Throttle, ThrottleLayer, ThrottleLayerBuilder, decision::DecisionIn,
    response::Dialect,
};

use support::{
    admitted, build, client, hourly, passes, request, send, serve, served, throttle, throttling,
    values,
};

/// No type parameters: a function can return it by name, and a struct can hold it.
fn limits() -> ThrottleLayer {
    throttle(rules())
}

fn rules() -> Rules {
    Rules::new().total(hourly(7)).route("GET /", hourly(4))
}

#[tokio::test]
async fn one_layer_serves_axum_tonic_and_hyper_at_once() {
    let throttle = limits();

    let app = Router::new()
        .route("/", get(async || "served"))
        .layer(throttle.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let axum = listener.local_addr().expect("an address");
    tokio::spawn(axum::serve(listener, app).into_future());

    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let tonic = listener.local_addr().expect("an address");
    let router = Server::builder()
        .layer(throttle.clone())
        .add_service(health);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));

    let hyper = serve(throttle.layer(served())).await;

    let status = async |address: SocketAddr, http2| {
        let request = request("GET", &format!("http://{address}/"));
        let answer = client(http2).request(request).await;
        answer.expect("an answer").status().as_u16()
    };
    let check = async || {
        let channel = Channel::from_shared(format!("http://{tonic}")).expect("a uri");
        let mut client = HealthClient::new(channel.connect().await.expect("a connection"));
        let answer = client.check(HealthCheckRequest::default()).await;
        answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    };
    assert_eq!(check().await, tonic::Code::Ok, "1 of 7");
    assert_eq!(status(axum, false).await, 200, "2 of 7, 1 of 4");
    assert_eq!(status(hyper, true).await, 200, "3 of 7, 2 of 4");
    assert_eq!(status(axum, true).await, 200, "4 of 7, 3 of 4");
    assert_eq!(status(hyper, false).await, 200, "5 of 7, 4 of 4");
    assert_eq!(status(hyper, false).await, 429, "the rule is spent");
    assert_eq!(status(axum, false).await, 429, "in axum as in hyper");
    assert_eq!(check().await, tonic::Code::Ok, "6 of 7: refusals are free");
    assert_eq!(check().await, tonic::Code::Ok, "7 of 7");
    assert_eq!(
        check().await,
        tonic::Code::ResourceExhausted,
        "the total is spent"
    );
}

#[tokio::test(start_paused = true)]
async fn clones_of_layer_and_service_share_one_state() {
    let rejection = |_: &_, _: &_| {
        let mut answer = Response::new("no");
        *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        answer
    };
    let builder = || throttling(rules());
    let builders = [
        ("a layer", builder()),
        (
            "a layer that writes no fields",
            builder().rate_limit_headers(false),
        ),
        (
            "a layer with another answer",
            builder().rejection(rejection),
        ),
    ];
    for (what, builder) in builders {
        let layer = build(builder);
        let first = layer.layer(served());
        let second = layer.clone().layer(served());
        let third = second.clone();
        let mut passed = 0;
        for _ in 0..5 {
            passed += admitted(&first, 1, "GET", "/").await;
            passed += admitted(&second, 1, "GET", "/").await;
            passed += admitted(&third, 1, "GET", "/").await;
        }
        assert_eq!(passed, 4, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn layers_made_apart_count_apart() {
    let (one, other) = (limits().layer(served()), limits().layer(served()));
    assert_eq!(admitted(&one, 9, "GET", "/").await, 4);
    assert_eq!(admitted(&other, 9, "GET", "/").await, 4);
}

#[tokio::test(start_paused = true)]
async fn of_a_setting_that_is_given_twice_the_last_one_counts() {
    let answer = async |builder: ThrottleLayerBuilder| {
        let service = build(builder).layer(served());
        assert!(passes(&service, request("GET", "/")).await);
        send(&service, request("GET", "/")).await
    };
    let builder = || ThrottleLayer::builder(Rules::new().total(hourly(1)));
    let own = |status: StatusCode| {
        move |_: &_, _: &_| {
            let mut answer = Response::new("no");
            *answer.status_mut() = status;
            answer
        }
    };
    let twice = builder().rejection(Dialect::OpenAi);
    let twice = twice.rejection(own(StatusCode::IM_A_TEAPOT));
    assert_eq!(answer(twice).await.status(), StatusCode::IM_A_TEAPOT);
    let decided = answer(builder().decision(DecisionIn::Response)).await;
    assert!(decided.extensions().get::<Decision>().is_some());
    let twice = builder().decision(DecisionIn::Response);
    let twice = answer(twice.decision(DecisionIn::Nowhere)).await;
    assert!(twice.extensions().get::<Decision>().is_none());
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_builder_are_layers_of_their_own() {
    let builder = throttling(rules());
    let silent = build(
        builder
            .clone()
            .rate_limit_headers(false)
            .decision(DecisionIn::Nowhere),
    );
    let layer = build(builder);
    let untold = send(&silent.layer(served()), request("GET", "/")).await;
    assert!(values(&untold, "ratelimit").is_empty());
    assert!(untold.extensions().get::<Decision>().is_none());
    let told = send(&layer.layer(served()), request("GET", "/")).await;
    assert!(
        values(&told, "ratelimit")[0].starts_with(r#""get";r=3;"#),
        "charged for the first time: {told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_made_anew_for_each_request_has_no_burst_of_its_own() {
    let layer = limits();
    let mut passed = 0;
    for _ in 0..20 {
        passed += admitted(&layer.layer(served()), 1, "GET", "/").await;
    }
    assert_eq!(passed, 4);
}

#[tokio::test(start_paused = true)]
async fn undeclared_routes_are_shared_like_declared_ones() {
    let layer = throttle(Rules::new().default_route(hourly(3)));
    let mut passed = 0;
    for _ in 0..10 {
        passed += admitted(&layer.clone().layer(served()), 1, "GET", "/unknown").await;
    }
    assert_eq!(passed, 3, "found by one is known to all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_on_many_threads_share_one_burst() {
    let service = throttle(Rules::new().total(hourly(700)).default_route(hourly(400)));
    let service = service.layer(served());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let service = service.clone();
        let path = ["/a", "/b"][task % 2];
        tasks.spawn(async move { (path, admitted(&service, 500, "GET", path).await) });
    }
    let mut passed = [0, 0];
    for (path, count) in tasks.join_all().await {
        passed[usize::from(path == "/b")] += count;
    }
    // A unit that one of them was about to give back may have stood in the way of the last request of another.
    for (passed, path) in passed.iter_mut().zip(["/a", "/b"]) {
        *passed += admitted(&service, 10, "GET", path).await;
    }
    assert_eq!(passed[0] + passed[1], 700, "the total, exactly: {passed:?}");
    assert!(
        passed.iter().all(|&route| (300..=400).contains(&route)),
        "neither route beyond its own: {passed:?}"
    );
}

#[tokio::test]
async fn a_service_for_each_connection_made_by_the_layer_shares_the_state() {
    let layer = limits();
    // As a `MakeService` does: nothing is cloned but the layer.
    let make = service_fn(move |request: Request<Incoming>| {
        let layer = layer.clone();
        async move { layer.layer(served()).oneshot(request).await }
    });
    let address = serve(make).await;
    let mut passed = 0;
    for connection in 0..10 {
        let request = request("GET", &format!("http://{address}/"));
        let answer = client(connection % 2 == 0).request(request).await;
        passed += usize::from(answer.expect("an answer").status() == StatusCode::OK);
    }
    assert_eq!(passed, 4);
}

/// Ready only after it was asked, and only itself: a clone has not been.
struct Careful {
    ready: bool,
    clones: Rc<Cell<usize>>,
    calls: Rc<Cell<usize>>,
}

impl Clone for Careful {
    fn clone(&self) -> Self {
        self.clones.set(self.clones.get() + 1);
        Self {
            ready: false,
            clones: Rc::clone(&self.clones),
            calls: Rc::clone(&self.calls),
        }
    }
}

impl Service<Request<Body>> for Careful {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(self.ready, "called without having been polled ready");
        self.ready = false;
        self.calls.set(self.calls.get() + 1);
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_polled_ready_is_the_one_called_and_none_is_cloned() {
    let (clones, calls) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut service = limits().layer(Careful {
        ready: false,
        clones: Rc::clone(&clones),
        calls: Rc::clone(&calls),
    });
    for attempt in 1..=6 {
        let answer = service
            .ready()
            .await
            .expect("ready")
            .call(request("GET", "/"));
        let answer = answer.await.expect("an answer");
        let expected = if attempt <= 4 { 200 } else { 429 };
        assert_eq!(answer.status(), expected, "attempt {attempt}");
    }
    assert_eq!(calls.get(), 4, "refused requests never reach it");
    assert_eq!(clones.get(), 0, "the in-process path clones nothing");
}

type Mocked = mock::Mock<Request<Body>, Response<Body>>;
type Handle = mock::Handle<Request<Body>, Response<Body>>;

/// A mock that panics if a service is called that was not polled ready, behind a throttle.
fn mocked(rules: Rules) -> (mock::Spawn<Throttle<Mocked>>, Handle) {
    mock::spawn_layer(throttle(rules))
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services_and_costs_nothing() {
    let (mut service, mut inner) = mocked(Rules::new().route("GET /", hourly(1)));
    inner.allow(0);
    for _ in 0..5 {
        assert!(service.poll_ready::<Request<Body>>().is_pending());
    }
    inner.allow(1);
    assert!(service.is_woken(), "the inner service's waker is passed on");
    for _ in 0..5 {
        let ready = service.poll_ready::<Request<Body>>();
        assert!(matches!(ready, Poll::Ready(Ok(()))), "{ready:?}");
    }
    let answer = tokio::spawn(service.call(request("GET", "/")));
    let (seen, respond) = inner.next_request().await.expect("the whole burst is left");
    assert_eq!(seen.uri(), "/");
    respond.send_response(Response::new(Body::empty()));
    let answer = answer.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_decision_falls_in_call_and_not_when_the_future_is_polled() {
    let (mut service, mut inner) = mocked(Rules::new().route("GET /", hourly(1)));
    inner.allow(9);
    let mut call = || {
        assert!(service.poll_ready::<Request<Body>>().is_ready());
        service.call(request("GET", "/"))
    };
    // Neither has been polled when the second is called.
    let (first, second) = (call(), call());
    let refused = at_once(second);
    assert_eq!(
        refused.expect("answered at once").status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    let first = tokio::spawn(first);
    let (_, respond) = inner.next_request().await.expect("the first");
    respond.send_response(Response::new(Body::empty()));
    let first = first.await.expect("no panic").expect("an answer");
    assert_eq!(first.status(), StatusCode::OK);
    assert!(
        matches!(inner.poll_request(), Poll::Pending),
        "the second never reached it"
    );
}

/// The answer of a future that has it at its first poll.
fn at_once<F, T, E>(future: F) -> Option<T>
where
    F: Future<Output = Result<T, E>>,
{
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(answer) => answer.ok(),
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_abandoned_before_its_answer_stays_charged() {
    let (mut service, mut inner) = mocked(Rules::new().route("GET /", hourly(2)));
    inner.allow(9);
    for _ in 0..2 {
        assert!(service.poll_ready::<Request<Body>>().is_ready());
        drop(service.call(request("GET", "/")));
    }
    assert!(service.poll_ready::<Request<Body>>().is_ready());
    let refused = at_once(service.call(request("GET", "/")));
    assert_eq!(
        refused.expect("answered at once").status(),
        StatusCode::TOO_MANY_REQUESTS,
        "going away is no way to go on for free"
    );
}

#[tokio::test(start_paused = true)]
async fn time_refills_what_all_clones_share() {
    let service = throttle(Rules::new().default_route(Rate::per_second(1).burst(2)));
    let service = service.layer(served());
    let clone = service.clone();
    assert_eq!(admitted(&service, 5, "GET", "/").await, 2);
    assert!(!passes(&clone, request("GET", "/")).await);
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert!(passes(&clone, request("GET", "/")).await);
    assert!(!passes(&service, request("GET", "/")).await);
}
