//! R23: what a client chooses about its answer (its format, its coding, how much of it is read) never makes it pay less
//! than what it received. Answers without usage are counted by reason.

mod support;

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_throttle::{
    Handle, Limits, Models, Rate, Rules, Usage,
    body::{Hold, KeptRequest},
    snapshot::MissingUsage,
    usage::Estimate,
};

use support::{build, throttle, throttling};

const BURST: u64 = 100_000;
const RESERVED: u64 = 50;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

/// The answer of a model, and what becomes of it.
#[derive(Clone)]
struct Case {
    status: StatusCode,
    content_type: &'static str,
    encoding: Option<&'static str>,
    frames: Vec<String>,
    /// As many frames are read. All of them, and it comes to its end.
    read: usize,
    settles: Option<u64>,
}

impl Case {
    fn new(content_type: &'static str, frames: impl IntoIterator<Item = String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            encoding: None,
            frames: frames.into_iter().collect(),
            read: usize::MAX,
            settles: None,
        }
    }

    fn cut_after(self, read: usize) -> Self {
        Self { read, ..self }
    }

    fn encoded(self, encoding: &'static str) -> Self {
        Self {
            encoding: Some(encoding),
            ..self
        }
    }

    fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn response(&self) -> Response<Body> {
        let frames = self.frames.clone().into_iter();
        let frames = frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame.into())));
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let mut response = Response::builder()
            .status(self.status)
            .header("content-type", self.content_type);
        if let Some(encoding) = self.encoding {
            response = response.header("content-encoding", encoding);
        }
        response.body(body).expect("a response")
    }
}

fn rules() -> Rules {
    let tokens = Limits::new().tokens(Rate::per_hour(1).burst(BURST));
    Rules::new()
        .total(tokens)
        .estimate(Estimate::fixed(RESERVED))
}

fn charged(handle: &Handle) -> u64 {
    let left = handle.snapshot().limits[0].remaining;
    BURST - left.expect("one balance")
}

fn missing(handle: &Handle) -> MissingUsage {
    let routes = handle.snapshot().routes;
    let [route] = &routes[..] else {
        panic!("one route, and not {routes:?}");
    };
    route.missing_usage
}

/// Returns what is charged for it, and what is counted.
async fn serve(case: Case) -> (u64, MissingUsage) {
    let throttle = build(throttling(rules()).usage_from_answers(true));
    let handle = throttle.handle();
    let read = case.read;
    let inner = service_fn(move |request: Request<Body>| {
        if let Some(total) = case.settles {
            let usage = request.extensions().get::<Usage>().expect("tokens");
            usage.settle(total);
        }
        std::future::ready(Ok::<_, Infallible>(case.response()))
    });
    let request = Request::post("/").body(Body::empty()).expect("a request");
    let response = throttle.layer(inner).oneshot(request).await;
    let mut body = Box::pin(response.expect("never fails").into_body());
    for _ in 0..read {
        if body.frame().await.is_none() {
            break;
        }
    }
    drop(body);
    (charged(&handle), missing(&handle))
}

fn delta(text: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n"
    )
}

fn last(input: u64, output: u64) -> String {
    format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}\n\n"
    )
}

fn done() -> String {
    "data: [DONE]\n\n".to_owned()
}

/// Four hundred bytes of text, in one event.
fn long() -> String {
    delta(&"text".repeat(100))
}

fn start(input: u64) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":{input},\"cache_read_input_tokens\":5,\"output_tokens\":1}}}}}}\n\n"
    )
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_charged_with_its_report_or_with_what_was_sent() {
    use MissingReason::{Absent, Cut, Encoding, Implausible, Malformed, Nothing};
    let whole = "{\"usage\":{\"total_tokens\":7}}".to_owned();
    let html = "<p>Hello</p>".repeat(100);
    let events = || Case::new(EVENTS, [long(), last(9, 12), done()]);
    let thought = "text".repeat(100);
    let thought = format!(
        "data: {{\"type\":\"content_block_delta\",\"delta\":{{\"thinking\":\"{thought}\"}}}}\n\n"
    );
    let anthropic = [start(20), thought];
    let all_bytes: usize = events().frames.iter().map(String::len).sum();
    let all_bytes = all_bytes.div_ceil(4) as u64;
    let table = [
        ("a report", Case::new(JSON, [whole.clone()]), 7, Nothing),
        ("a report in lines", Case::new(LINES, ["{\"response\":\"hi\"}\n{\"done\":true,\"prompt_eval_count\":3,\"eval_count\":4}\n".to_owned()]), 7, Nothing),
        ("a report at the end of a stream", events(), 21, Nothing),
        ("the client goes away after it", events().cut_after(2), 21, Nothing),
        ("the client goes away before it", events().cut_after(1), 100, Cut),
        ("the client goes away at once", events().cut_after(0), RESERVED, Cut),
        ("little was sent", Case::new(EVENTS, [delta("Hello"), last(9, 12)]).cut_after(1), RESERVED, Cut),
        ("a stream without a report", Case::new(EVENTS, [long(), done()]), 100, Absent),
        ("many small events", Case::new(EVENTS, vec![delta("a"); 80]), 80, Absent),
        ("text after the report", Case::new(EVENTS, [last(9, 12), long()]), 9 + 12 + 100, Absent),
        ("the input was told, and then it was cut", Case::new(EVENTS, anthropic.clone()).cut_after(2), 20 + 5 + 100, Cut),
        ("the input was told, and no output", Case::new(EVENTS, anthropic), 20 + 5 + 100, Absent),
        ("a compressed stream", events().encoded("gzip"), all_bytes, Encoding),
        ("a compressed stream, cut", Case::new(EVENTS, ["x".repeat(800), long()]).encoded("br").cut_after(1), 200, Encoding),
        ("a compressed answer", Case::new(JSON, ["x".repeat(4_000)]).encoded("br"), RESERVED, Encoding),
        ("a coding that is none", Case::new(JSON, [whole.clone()]).encoded("identity"), 7, Nothing),
        ("plain text", Case::new("text/plain", ["x".repeat(4_000)]), RESERVED, Encoding),
        ("events that are no JSON", Case::new(EVENTS, [format!("data: {}\n\n", "text".repeat(100))]), 100, Malformed),
        ("an input that was told beside no JSON", Case::new(EVENTS, ["data: ping\n\n".to_owned(), start(200), long()]), 200 + 5 + 101, Malformed),
        ("another page", Case::new(JSON, [html]), RESERVED, Malformed),
        ("a part of JSON", Case::new(JSON, [whole[..9].to_owned()]).with_status(StatusCode::PARTIAL_CONTENT), RESERVED, Malformed),
        ("an answer that is cut", Case::new(JSON, [format!("{{\"content\":\"{}", "text".repeat(100)), "\"}".to_owned()]).cut_after(1), 100, Cut),
        ("an answer without usage", Case::new(JSON, [format!("{{\"content\":\"{}\"}}", "text".repeat(100))]), 100, Absent),
        ("a report that cannot be", Case::new(EVENTS, [long(), last(1 << 40, 1)]), 100, Implausible),
        ("an input that cannot be", Case::new(EVENTS, [start(1 << 40), long()]), 100, Implausible),
        ("an error", Case::new(JSON, ["{\"error\":{}}".to_owned()]).with_status(StatusCode::BAD_GATEWAY), RESERVED, Nothing),
        ("nothing", Case::new("text/plain", []).with_status(StatusCode::NO_CONTENT), RESERVED, Nothing),
        ("the handler has settled", Case { settles: Some(3), ..Case::new("text/plain", ["x".to_owned()]) }, 3, Nothing),
        ("the handler has settled, and it is cut", Case { settles: Some(3), ..events() }.cut_after(1), 3, Nothing),
    ];
    for (what, case, expected, reason) in table {
        let (charged, missing) = serve(case).await;
        assert_eq!(charged, expected, "{what}");
        assert_eq!(reason.counts(), missing_counts(missing), "{what}");
    }
}

/// The one count that is not zero.
#[derive(Clone, Copy)]
enum MissingReason {
    Encoding,
    Cut,
    Absent,
    Malformed,
    Implausible,
    Nothing,
}

impl MissingReason {
    fn counts(self) -> [u64; 5] {
        std::array::from_fn(|count| u64::from(count == self as usize))
    }
}

fn missing_counts(missing: MissingUsage) -> [u64; 5] {
    let counts = [
        missing.encoding,
        missing.cut,
        missing.absent,
        missing.malformed,
        missing.implausible,
    ];
    assert_eq!(missing.total(), counts.iter().sum::<u64>());
    counts
}

/// In the first version a hundred of them cost a hundred tokens.
#[tokio::test(start_paused = true)]
async fn a_hundred_calls_that_are_cut_before_the_end_cost_a_hundred_answers() {
    let throttle = build(throttling(rules()).usage_from_answers(true));
    let handle = throttle.handle();
    let inner = service_fn(|_: Request<Body>| {
        let case = Case::new(EVENTS, [long(), long(), last(9, 200)]);
        std::future::ready(Ok::<_, Infallible>(case.response()))
    });
    let service = throttle.layer(inner);
    for _ in 0..100 {
        let request = Request::post("/").body(Body::empty()).expect("a request");
        let response = service.clone().oneshot(request).await.expect("never fails");
        let mut body = Box::pin(response.into_body());
        for _ in 0..2 {
            body.frame().await.expect("a frame").expect("no error");
        }
    }
    assert_eq!(charged(&handle), 100 * 200);
    assert_eq!(missing(&handle).cut, 100);
}

/// The layer of compression decides, and with it the client: outside of the throttle it changes nothing.
#[tokio::test(start_paused = true)]
async fn compression_hides_a_report_only_inside_of_the_throttle() {
    for (is_outside, expected, encoded) in [(true, 21, 0), (false, RESERVED, 1)] {
        let throttle = build(throttling(rules()).usage_from_answers(true));
        let handle = throttle.handle();
        let inner = service_fn(|_: Request<Body>| {
            let padding = "x".repeat(1_000);
            let json = format!("{{\"padding\":\"{padding}\",\"usage\":{{\"total_tokens\":21}}}}");
            std::future::ready(Ok::<_, Infallible>(Case::new(JSON, [json]).response()))
        });
        let request = Request::post("/").header("accept-encoding", "gzip");
        let request = request.body(Body::empty()).expect("a request");
        let compression = CompressionLayer::new();
        let builder = ServiceBuilder::new();
        match is_outside {
            true => {
                let service = builder.layer(compression).layer(throttle).service(inner);
                let response = service.oneshot(request).await.expect("never fails");
                assert_eq!(response.headers()["content-encoding"], "gzip");
                response.into_body().collect().await.expect("no error");
            }
            false => {
                let service = builder.layer(throttle).layer(compression).service(inner);
                let response = service.oneshot(request).await.expect("never fails");
                assert_eq!(response.headers()["content-encoding"], "gzip");
                response.into_body().collect().await.expect("no error");
            }
        }
        assert_eq!(charged(&handle), expected, "outside: {is_outside}");
        assert_eq!(missing(&handle).encoding, encoded, "outside: {is_outside}");
    }
}

/// A server drops the body of an answer to `HEAD` without a look at it.
#[tokio::test(start_paused = true)]
async fn answers_without_a_body_leave_the_reservation() {
    let throttle = build(throttling(rules()).usage_from_answers(true));
    let handle = throttle.handle();
    let inner = service_fn(|_: Request<Body>| {
        let mut response = Response::new(Body::empty());
        let json = http::HeaderValue::from_static(JSON);
        response.headers_mut().insert("content-type", json);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let request = Request::builder().method(Method::HEAD).uri("/");
    let request = request.body(Body::empty()).expect("a request");
    let response = throttle.layer(inner).oneshot(request).await;
    let body = response.expect("never fails").into_body();
    body.collect().await.expect("no error");
    assert_eq!(charged(&handle), RESERVED);
    assert_eq!(missing(&handle).total(), 0);
}

/// What the answer of a kept request reports is added: its account stays open until the guard is gone.
#[tokio::test(start_paused = true)]
async fn the_report_of_a_kept_request_is_added_and_settles_nothing() {
    let limits = Limits::new().keep(true);
    let throttle = build(throttling(rules().default_route(limits)).usage_from_answers(true));
    let handle = throttle.handle();
    // (what the answer reports, what is charged after it, after five more tokens, and after the guard)
    for (output, charged_by) in [(111, [120, 125, 125]), (11, [RESERVED, RESERVED, RESERVED])] {
        let before = charged(&handle);
        let inner = service_fn(move |request: Request<Body>| {
            let extensions = request.extensions();
            let kept = extensions.get::<Hold>().and_then(Hold::keep);
            let usage = extensions.get::<Usage>().cloned();
            let mut response = Case::new(EVENTS, [long(), last(9, output), done()]).response();
            let held = Arc::new((kept, usage));
            response.extensions_mut().insert(held);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let request = Request::post("/").body(Body::empty()).expect("a request");
        let response = throttle.layer(inner).oneshot(request).await;
        let (mut head, body) = response.expect("never fails").into_parts();
        let held = head
            .extensions
            .remove::<Arc<(Option<KeptRequest>, Option<Usage>)>>();
        body.collect().await.expect("no error");
        assert_eq!(charged(&handle) - before, charged_by[0]);
        let (kept, usage) = held.and_then(Arc::into_inner).expect("kept");
        assert!(usage.expect("an account").add(5), "it is open");
        assert_eq!(charged(&handle) - before, charged_by[1]);
        drop(kept);
        assert_eq!(charged(&handle) - before, charged_by[2]);
        assert_eq!(missing(&handle).total(), 0);
    }
}

/// Returns what is charged for a request to a path, of routes with these settings, whose answer reports seven tokens.
async fn serve_on(settings: [Option<bool>; 4], path: &str) -> u64 {
    let [throttle, default, own, other] = settings;
    let on_route = |setting: Option<bool>| match setting {
        None => Limits::new(),
        Some(read) => Limits::new().usage_from_answers(read),
    };
    let rules = rules()
        .default_route(on_route(default))
        .route("POST /own", on_route(own))
        .route("POST /{other}", on_route(other));
    let throttle = build(throttling(rules).usage_from_answers(throttle.unwrap_or(false)));
    let answer = Case::new(JSON, ["{\"usage\":{\"total_tokens\":7}}".to_owned()]);
    let inner = service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(answer.response()))
    });
    let request = Request::post(path).body(Body::empty()).expect("a request");
    let response = throttle.layer(inner).oneshot(request).await;
    let body = response.expect("never fails").into_body();
    body.collect().await.expect("a whole body");
    charged(&throttle.handle())
}

#[tokio::test(start_paused = true)]
async fn a_route_says_whether_its_answers_are_read() {
    let (yes, no) = (Some(true), Some(false));
    // (throttle, default route, route, another route), path, whether the answer is read
    let table = [
        ([no, None, None, None], "/own", false),
        ([yes, None, None, None], "/own", true),
        ([no, None, yes, None], "/own", true),
        ([yes, None, no, None], "/own", false),
        ([no, yes, None, None], "/own", true),
        ([no, yes, no, None], "/own", false),
        ([no, yes, None, None], "/a/b", true),
        ([yes, no, yes, None], "/a/b", false),
        ([yes, no, yes, None], "/own", true),
        // This may be either route.
        ([no, None, yes, None], "/%6Fwn", false),
        ([no, None, None, yes], "/%6Fwn", false),
        ([no, None, yes, yes], "/%6Fwn", true),
        ([yes, None, yes, None], "/%6Fwn", true),
        ([no, None, yes, no], "/%6Fwn", false),
        ([yes, None, no, yes], "/%6Fwn", false),
        ([no, None, None, None], "/%6Fwn", false),
        ([yes, None, None, None], "/%6Fwn", true),
    ];
    for (settings, path, is_read) in table {
        let expected = if is_read { 7 } else { RESERVED };
        assert_eq!(
            serve_on(settings, path).await,
            expected,
            "{settings:?}, {path}"
        );
    }
}

/// The setting stands for the requests of a model and at a cost, too.
#[tokio::test(start_paused = true)]
async fn the_setting_of_a_route_stays_with_its_models_and_costs() {
    let model = Limits::new().cost(2);
    let rules = rules()
        .route("POST /own", Limits::new().usage_from_answers(true))
        .models(Models::by_header("x-model").model("large", model));
    let throttle = throttle(rules);
    let answer = Case::new(JSON, ["{\"usage\":{\"total_tokens\":7}}".to_owned()]);
    let inner = service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(answer.response()))
    });
    let request = Request::post("/own").header("x-model", "large");
    let request = request.body(Body::empty()).expect("a request");
    let response = throttle.layer(inner).oneshot(request).await;
    let body = response.expect("never fails").into_body();
    body.collect().await.expect("a whole body");
    assert_eq!(charged(&throttle.handle()), 7);
}
