//! Paths that a proxy forwards have one reading, the same for the throttle and the server behind.

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use http::{Request, Response, StatusCode, Uri};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_throttle::{
    Decision, Rules, ThrottleLayer, canonical_path::CanonicalPathLayer, rules::Undeclared,
};

use support::{admitted, bytes, hourly, request, send, throttle, values};

/// A service that notes the URI of each request it gets.
#[derive(Clone, Default)]
struct Upstream {
    seen: Arc<Mutex<Vec<Uri>>>,
}

impl Upstream {
    fn note(&self, uri: &Uri) {
        self.lock().push(uri.clone());
    }

    fn taken(&self) -> Vec<String> {
        self.lock().drain(..).map(|uri| uri.to_string()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Uri>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A proxy to this upstream.
    fn behind(
        self,
        paths: CanonicalPathLayer,
        limits: ThrottleLayer,
    ) -> impl Service<
        Request<Body>,
        Response = Response<impl http_body::Body<Data = bytes::Bytes, Error = axum::Error>>,
        Error = Infallible,
    > + Clone {
        let upstream = self;
        ServiceBuilder::new()
            .layer(paths)
            .layer(limits)
            .service(service_fn(move |request: Request<Body>| {
                upstream.note(request.uri());
                async { Ok(Response::new(Body::from("served"))) }
            }))
    }
}

/// One declared route, and a bucket that all other paths share.
fn limits() -> ThrottleLayer {
    throttle(
        Rules::new()
            .default_route(hourly(3))
            .undeclared(Undeclared::Shared)
            .route("POST /v1/chat/completions", hourly(2)),
    )
}

/// Spellings of `/v1/chat/completions` that some server takes for it.
const SPELLINGS: [&str; 16] = [
    "/v1/chat%2Fcompletions",
    "/v1%2fchat/completions",
    "/v1%2Fchat%2fcompletions",
    "/v1/chat%5Ccompletions",
    "/v1/chat\\completions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "/v1/./chat/completions",
    "/v1/%2e/chat/completions",
    "/v1/x/../chat/completions",
    "/v1/x/.%2E/chat/completions",
    "/v1/x/..%2Fchat/completions",
    "/v1/x%5C..%5cchat/completions",
    "/%2Fv1/chat/completions",
    "/v1/.//chat/%2e/completions",
];

#[tokio::test(start_paused = true)]
async fn no_spelling_of_a_path_is_sent_on_by_the_strict_layer() {
    let upstream = Upstream::default();
    let proxy = upstream
        .clone()
        .behind(CanonicalPathLayer::strict(), limits());
    for path in SPELLINGS {
        let answer = send(&proxy, request("POST", path)).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(
            values(&answer, "content-type"),
            ["application/problem+json"]
        );
        let text = String::from_utf8_lossy(&bytes(answer).await).into_owned();
        let problem: serde_json::Value = serde_json::from_str(&text).expect("a problem document");
        assert_eq!(problem["status"], 400, "{path}");
        let detail = problem["detail"].as_str().expect("a reason");
        assert!(detail.starts_with("the path has "), "{path}: {detail}");
    }
    assert_eq!(upstream.taken(), [""; 0]);
    // The refused requests have cost nothing.
    assert_eq!(admitted(&proxy, 5, "POST", "/v1/chat/completions").await, 2);
    assert_eq!(admitted(&proxy, 5, "POST", "/v1/models").await, 3);
}

#[tokio::test(start_paused = true)]
async fn all_spellings_of_a_path_have_one_limit_behind_the_normalizing_layer() {
    let upstream = Upstream::default();
    let proxy = upstream
        .clone()
        .behind(CanonicalPathLayer::normalizing(), limits());
    let mut passed = 0;
    for path in SPELLINGS {
        let answer = send(&proxy, request("POST", &format!("{path}?q=//%2F"))).await;
        assert_ne!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        passed += usize::from(answer.status() == StatusCode::OK);
    }
    assert_eq!(passed, 2);
    assert_eq!(upstream.taken(), ["/v1/chat/completions?q=//%2F"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_head_has_the_fields_of_a_body_and_none() {
    let proxy = Upstream::default().behind(CanonicalPathLayer::strict(), limits());
    let whole = bytes(send(&proxy, request("GET", "//")).await).await;
    let answer = send(&proxy, request("HEAD", "//")).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(values(&answer, "content-length"), [whole.len().to_string()]);
    assert_eq!(bytes(answer).await, "");
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_request_target_is_read_alike() {
    let upstream = Upstream::default();
    let strict = upstream
        .clone()
        .behind(CanonicalPathLayer::strict(), throttle(Rules::new()));
    let normalizing = upstream
        .clone()
        .behind(CanonicalPathLayer::normalizing(), throttle(Rules::new()));
    // (method, target, strict, normalizing)
    let absolute = "http://user@host:81/a%2Fb?x=1";
    let table = [
        ("GET", "/a?x=//", Some("/a?x=//"), Some("/a?x=//")),
        ("GET", absolute, None, Some("http://user@host:81/a/b?x=1")),
        ("GET", "http://host//a", None, Some("http://host/a")),
        (
            "GET",
            "http://host",
            Some("http://host/"),
            Some("http://host/"),
        ),
        (
            "GET",
            "http://host?x",
            Some("http://host/?x"),
            Some("http://host/?x"),
        ),
        ("OPTIONS", "*", Some("*"), Some("*")),
        ("GET", "*", None, None),
        ("CONNECT", "host:443", Some("host:443"), Some("host:443")),
        ("GET", "host:443", None, None),
        (
            "CONNECT",
            "https://host/ws//x",
            None,
            Some("https://host/ws/x"),
        ),
        ("PROPFIND", "/a/../..", None, None),
    ];
    for (method, target, through_strict, through_normalizing) in table {
        let request = || request(method, target);
        let status = send(&strict, request()).await.status();
        assert_eq!(
            status.is_success(),
            through_strict.is_some(),
            "{method} {target}"
        );
        assert_eq!(
            upstream.taken(),
            Vec::from_iter(through_strict),
            "{method} {target}"
        );
        let status = send(&normalizing, request()).await.status();
        assert_eq!(
            status.is_success(),
            through_normalizing.is_some(),
            "{method} {target}"
        );
        assert_eq!(
            upstream.taken(),
            Vec::from_iter(through_normalizing),
            "{method} {target}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_passes_is_answered_unchanged() {
    let service = CanonicalPathLayer::default().layer(service_fn(|request: Request<Body>| async {
        let mut answer = Response::new(request.into_body());
        *answer.status_mut() = StatusCode::CREATED;
        answer
            .headers_mut()
            .insert("x-inner", "1".parse().expect("a value"));
        Ok::<_, Infallible>(answer)
    }));
    let request = Request::post("/v1/%63hat")
        .body(Body::from("sent"))
        .expect("a request");
    let answer = send(&service, request).await;
    assert_eq!(
        (answer.status(), values(&answer, "x-inner")),
        (StatusCode::CREATED, vec!["1"])
    );
    assert_eq!(bytes(answer).await, "sent");
}

proptest! {
    #![proptest_config(cases::cases(1_024))]

    /// The layer sends on the path that the throttle was asked about, and sends it on again as it is.
    #[test]
    fn a_path_that_passes_is_the_path_that_is_matched_and_sent_on(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "/", "v1", "chat", "%63hat", "%2F", "%5c", "\\", ".", "..", "%2e", "%25", "2F", "%00", ";", "?", "{",
            "%C3%A9", "\u{e9}",
        ]), 0..14),
        normalizing: bool,
    ) {
        let target = format!("/{}", pieces.concat());
        let Ok(uri) = target.parse::<Uri>() else {
            return Ok(());
        };
        let paths = match normalizing {
            true => CanonicalPathLayer::normalizing(),
            false => CanonicalPathLayer::strict(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let upstream = Upstream::default();
            let rules = Rules::new().default_route(hourly(9)).route("GET /v1/chat", hourly(9));
            let layer = throttle(rules);
            let ask = |uri: Uri| {
                let proxy = upstream.clone().behind(paths.clone(), layer.clone());
                let mut request = Request::new(Body::empty());
                *request.uri_mut() = uri;
                proxy.oneshot(request)
            };
            let answer = ask(uri.clone()).await.expect("infallible");
            if answer.status() == StatusCode::BAD_REQUEST {
                prop_assert!(upstream.taken().is_empty());
                return Ok(());
            }
            prop_assert_eq!(answer.status(), StatusCode::OK);
            let sent = upstream.taken();
            prop_assert_eq!(sent.len(), 1);
            if !normalizing {
                prop_assert_eq!(&sent[0], &uri.to_string());
            }
            let decision: Decision = answer.extensions().get().cloned().expect("a decision");
            let forwarded: Uri = sent[0].parse().expect("a URI");
            let is_chat = forwarded.path().replace("%63", "c") == "/v1/chat";
            prop_assert_eq!(decision.route() == "GET /v1/chat", is_chat, "{}", forwarded);
            prop_assert_eq!(forwarded.query(), uri.query());
            let again = ask(forwarded).await.expect("infallible");
            prop_assert_eq!(again.status(), StatusCode::OK);
            prop_assert_eq!(upstream.taken(), sent);
            Ok(())
        })?;
    }
}
