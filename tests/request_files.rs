//! One request of each kind from its head to the end of its answer, for `scripts/request-files`, which counts the files
//! that each passes.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_throttle::{Rate, Rules, ThrottleLayer, store::MemoryStore};

/// Drives a request to its end. Callgrind collects what runs in here, and nothing else.
#[inline(never)]
fn traced_request(request: &mut dyn FnMut()) {
    request();
}

/// Sends one request to a route of these rules, after some others, and returns its status.
fn status(throttle: &ThrottleLayer, earlier: usize) -> StatusCode {
    let model = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
    });
    let mut service = throttle.layer(model);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().expect("a runtime");
    let mut send = || {
        let request = Request::post("/v1/chat").body(()).expect("a request");
        runtime.block_on(async {
            let service = service.ready().await.expect("it never fails");
            let answer = service.call(request).await.expect("it never fails");
            let status = answer.status();
            answer.into_body().collect().await.expect("a whole body");
            status
        })
    };
    for _ in 0..earlier {
        send();
    }
    let mut status = None;
    traced_request(&mut || status = Some(send()));
    status.expect("it was sent")
}

fn rules() -> Rules {
    Rules::new()
        .total(Rate::per_second(100))
        .route("POST /v1/chat", Rate::per_hour(2))
}

fn throttle() -> ThrottleLayer {
    ThrottleLayer::new(rules()).expect("rules that hold together")
}

#[test]
fn admitted() {
    assert_eq!(status(&throttle(), 1), StatusCode::OK);
}

/// Two others were refused before, since the second has an answer kept that is copied from then on.
#[test]
fn refused() {
    assert_eq!(status(&throttle(), 4), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn over_a_store() {
    let throttle = ThrottleLayer::builder(rules())
        .store(MemoryStore::new())
        .build()
        .expect("limits that a store keeps");
    assert_eq!(status(&throttle, 1), StatusCode::OK);
}
