//! A client for a throttled service that answers 200 to everything.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Handle, Rules, ThrottleLayer, ThrottleLayerBuilder, body::ResponseBody,
    decision::DecisionIn,
};

pub(crate) struct Client {
    layer: ThrottleLayer,
}

impl Client {
    pub(crate) fn new(rules: Rules) -> Self {
        Self::with(ThrottleLayer::builder(rules))
    }

    /// A client of a layer that puts its decisions into responses.
    pub(crate) fn with(builder: ThrottleLayerBuilder) -> Self {
        Self::of(build(builder.decision(DecisionIn::Response)))
    }

    /// A client of a layer as it is.
    pub(crate) fn of(layer: ThrottleLayer) -> Self {
        Self { layer }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.layer.handle()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).await
    }

    pub(crate) async fn request(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Empty::new());
        self.send(request.expect("a request")).await
    }

    pub(crate) async fn send(&self, request: Request<Empty<Bytes>>) -> Answer {
        let inner = service_fn(|_: Request<Empty<Bytes>>| async {
            let mut response = Response::new(Full::new(Bytes::from_static(b"served")));
            response
                .headers_mut()
                .insert("x-served", "1".parse().expect("a value"));
            Ok::<_, Infallible>(response)
        });
        let response = self.layer.layer(inner).oneshot(request).await;
        let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        let body = body.collect().await.unwrap_or_else(|never| match never {});
        Answer {
            status: head.status,
            headers: head.headers,
            decision: head.extensions.get::<Decision>().cloned(),
            body: body.to_bytes(),
        }
    }
}

pub(crate) fn build(builder: ThrottleLayerBuilder) -> ThrottleLayer {
    builder.build().expect("rules that hold together")
}

/// An answer to `GET /` whose body is not read.
pub(crate) async fn hold(layer: &ThrottleLayer) -> Response<ResponseBody<Empty<Bytes>>> {
    let serve = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let request = Request::get("/").body(()).expect("a request");
    let answer = layer.layer(serve).oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) decision: Option<Decision>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Tells whether the inner service answered.
    pub(crate) fn is_admitted(&self) -> bool {
        self.headers.contains_key("x-served")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("visible ASCII"))
    }

    pub(crate) fn decision(&self) -> &Decision {
        self.decision
            .as_ref()
            .expect("a decision in the extensions")
    }

    /// The exact wait that was decided.
    /// The names of the limits that refused.
    pub(crate) fn violated(&self) -> Vec<String> {
        let limits = self.decision().limits();
        let refused = limits.filter(tower_throttle::decision::LimitStatus::is_refused);
        refused.map(|limit| limit.name().to_owned()).collect()
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        self.decision().retry_after()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}
