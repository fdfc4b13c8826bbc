//! Bodies that are written so that their model is missed: each is charged as a plain request for that model would be, or
//! as one for every model.

#[path = "support/cases.rs"]
mod cases;
#[path = "support/mod.rs"]
mod support;

use std::{convert::Infallible, fmt};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{Limits, Models, Rules, ThrottleLayer, limit::Scope};

use support::{decision, hourly, throttle};

/// The classes of models, each with the cost of a request.
const CLASSES: [(&str, u64); 3] = [("large", 8), ("small*", 1), ("otherwise", 2)];

/// The cost of a request whose model is not read: that of the dearest.
const UNREAD: u64 = 8;

fn rules() -> Rules {
    let limits = |cost| Limits::from(hourly(1_000)).cost(cost);
    let [(large, dear), (small, cheap), (_, other)] = CLASSES;
    Rules::new().total(hourly(1_000)).models(
        Models::from_body()
            .model(large, limits(dear))
            .model(small, limits(cheap))
            .otherwise(limits(other)),
    )
}

/// Returns the class that a plain request for a model has.
fn class_of(model: Option<&str>) -> &'static str {
    match model {
        Some("large") => "large",
        Some(name) if name.starts_with("small") => "small*",
        _ => "otherwise",
    }
}

/// A name of a member: `model`, another, or one that is nearly the same.
fn name() -> impl Strategy<Value = &'static str> {
    let model = [
        r#""model""#,
        r#""mod\u0065l""#,
        r#""\u006d\u006F\u0064\u0065\u006c""#,
    ];
    let other = [
        r#""Model""#,
        r#""model ""#,
        r#""mode""#,
        r#""model\u0000""#,
        r#""messages""#,
        r#""metadata""#,
        r#""""#,
    ];
    prop_oneof![
        1 => prop::sample::select(model.to_vec()),
        1 => prop::sample::select(other.to_vec()),
    ]
}

/// A value: the name of a model, written in some way.
fn named() -> impl Strategy<Value = String> {
    let names = [
        r#""large""#,
        r#""small""#,
        r#""small-2""#,
        r#""\u006carge""#,
        r#""sm\u0061ll""#,
        r#""Large""#,
        r#""large ""#,
        r#""""#,
    ];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

/// A value: the name of a model, or anything else, seldom what is no JSON.
fn value() -> impl Strategy<Value = String> {
    let others = ["null", "true", "1", "-0", "[]", "{}", "\"\u{e9}\""];
    let leaf = prop_oneof![
        20 => named(),
        10 => prop::sample::select(others.to_vec()).prop_map(str::to_owned),
        3 => (0..5_000_usize).prop_map(|length| format!("\"{}\"", "a".repeat(length))),
        1 => prop::sample::select(vec!["1e400", r#""\ud800""#]).prop_map(str::to_owned),
    ];
    let nested = leaf.prop_recursive(3, 12, 4, |inner| {
        let object = prop::collection::vec((name(), inner.clone()), 0..4);
        let object = object.prop_map(|members| written(&members, ""));
        let array = prop::collection::vec(inner, 0..4);
        let array = array.prop_map(|values| format!("[{}]", values.join(",")));
        prop_oneof![object, array]
    });
    prop_oneof![3 => named(), 1 => nested]
}

fn written(members: &[(&str, String)], space: &str) -> String {
    let members = members.iter();
    let members: Vec<_> = members
        .map(|(name, value)| format!("{space}{name}{space}:{space}{value}{space}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A body: an object, whole, cut, followed by something, or with a byte of no UTF-8.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let space = prop::sample::select(&["", " ", "\n\t ", "\r\n"][..]);
    let object = (prop::collection::vec((name(), value()), 0..4), space);
    let object = object.prop_map(|(members, space)| written(&members, space).into_bytes());
    let object = object.boxed();
    let end = |end: &'static [u8]| move |body: Vec<u8>| -> Vec<u8> { [&body[..], end].concat() };
    prop_oneof![
        12 => object.clone(),
        1 => object.clone().prop_map(end(b" \n")),
        1 => object.clone().prop_map(end(b"{\"model\":\"small\"}")),
        1 => object.clone().prop_map(end(b",")),
        1 => object.clone().prop_map(|body| [b"\xef\xbb\xbf", &body[..]].concat()),
        1 => object.clone().prop_map(|body| [b"[", &body[..], b"]"].concat()),
        2 => (object.clone(), any::<prop::sample::Index>()).prop_map(|(body, at)| {
            let at = at.index(body.len());
            body[..at].to_vec()
        }),
        2 => (object, any::<prop::sample::Index>(), prop::sample::select(&[0xff, 0x80, 0, b'"', b'\\'][..]))
            .prop_map(|(mut body, at, byte)| {
                let at = at.index(body.len());
                body[at] = byte;
                body
            }),
    ]
}

/// Header fields, and whether the body may be read with them.
fn fields() -> impl Strategy<Value = (Vec<(&'static str, &'static str)>, bool)> {
    prop_oneof![
        4 => Just((vec![("content-type", "application/json")], true)),
        1 => Just((vec![], true)),
        1 => Just((vec![("content-type", "text/plain")], true)),
        1 => Just((vec![("content-encoding", "identity")], true)),
        1 => Just((vec![("content-encoding", "identity"), ("content-encoding", " GZIP")], false)),
        1 => Just((vec![("content-encoding", "unheard-of")], false)),
        1 => Just((vec![("content-type", "Multipart/form-data; boundary=x")], false)),
    ]
}

/// The names of an object's members, each as often as it is given.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = members.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Returns how often the model is named at the top, where a name in another case counts for two.
fn namings(body: &[u8]) -> usize {
    let names = serde_json::from_slice(body).map_or(Vec::new(), |Names(names)| names);
    // Go's parser takes a name in any case.
    let names = names
        .iter()
        .filter(|name| name.eq_ignore_ascii_case("model"));
    names.map(|name| if name == "model" { 1 } else { 2 }).sum()
}

/// Sends a body in frames of these lengths, and returns the model it was charged to, and what that has cost. The
/// handler gets the same bytes.
fn charged(
    body: &[u8],
    frames: &[usize],
    fields: &[(&'static str, &'static str)],
) -> (String, u64) {
    let throttle: ThrottleLayer = throttle(rules());
    let mut rest = body;
    let mut parts = Vec::new();
    for length in frames.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, others) = rest.split_at((*length).min(rest.len()));
        parts.push(Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(
            part,
        ))));
        rest = others;
    }
    let mut request =
        Request::post("/chat").body(Body::new(StreamBody::new(tokio_stream::iter(parts))));
    let headers: &mut HeaderMap = request.as_mut().expect("a request").headers_mut();
    for (name, value) in fields {
        headers.append(*name, value.parse().expect("a value"));
    }
    let handler = service_fn(|request: Request<_>| async {
        let body = BodyExt::collect(request.into_body())
            .await
            .expect("a whole body");
        Ok::<_, Infallible>(Response::new(Body::from(body.to_bytes())))
    });
    let service = throttle.peek_layer().layer(throttle.layer(handler));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let answer = service
            .oneshot(request.expect("a request"))
            .await
            .expect("no error");
        assert_eq!(answer.status(), StatusCode::OK);
        let model = decision(&answer)
            .model()
            .expect("charged by model")
            .to_owned();
        let answered = answer.into_body().collect().await.expect("a whole body");
        assert_eq!(answered.to_bytes(), body, "the handler got the same");
        let snapshot = throttle.handle().snapshot();
        let used = |scope, name: Option<&str>| {
            let mut limits = snapshot.limits.iter();
            let limit = limits.find(|it| it.scope == scope && it.model.as_deref() == name);
            1_000 - limit.and_then(|it| it.remaining).expect("a balance")
        };
        for (class, _) in CLASSES {
            let expected = u64::from(model == class || model == "unread");
            assert_eq!(
                used(Scope::Model, Some(class)),
                expected,
                "{class} for {model}"
            );
        }
        (model, used(Scope::Total, None))
    })
}

proptest! {
    #![proptest_config(cases::cases(2_000))]

    #[test]
    fn no_body_is_charged_less_than_the_model_that_it_names(
        body in body(),
        frames in prop::collection::vec(1..2_000_usize, 1..6),
        (fields, is_readable) in fields(),
    ) {
        let (model, cost) = charged(&body, &frames, &fields);
        // What any server would take it for: some take the first of several members, and some the last.
        let is_certain = is_readable && namings(&body) < 2;
        let read: Option<Value> = serde_json::from_slice(&body).ok().filter(Value::is_object);
        let text = String::from_utf8_lossy(&body);
        match read {
            _ if body.is_empty() && is_readable => prop_assert_eq!(&model, "otherwise"),
            Some(read) if is_certain && model != "unread" => {
                let class = class_of(read["model"].as_str());
                let (_, expected) = CLASSES.iter().find(|(name, _)| *name == class).expect("a class");
                prop_assert_eq!(&model, class, "{}", text);
                prop_assert_eq!(cost, *expected, "{}", text);
            }
            _ => {
                prop_assert_eq!(&model, "unread", "{}", text);
                prop_assert_eq!(cost, UNREAD, "{}", text);
            }
        }
    }
}

/// A plain body is read: unread is not the answer to all.
#[test]
fn plain_bodies_are_read() {
    let table = [
        (r#"{"model":"large"}"#, "large"),
        (
            r#"{"messages":[{"model":"large"}],"model":"small"}"#,
            "small*",
        ),
        (r#"{"mod\u0065l":"l\u0061rge"}"#, "large"),
        (r#"{"messages":[]}"#, "otherwise"),
        (r#"{"model":"LARGE"}"#, "otherwise"),
        (r#"{"model":"small","model":"small"}"#, "unread"),
        (r#"{"model":"large","mod\u0065l":"small"}"#, "unread"),
        (r#"{"Model":"large"}"#, "unread"),
        (r#"{"model":["large"]}"#, "unread"),
    ];
    for (body, expected) in table {
        let json = [("content-type", "application/json")];
        for frames in [1, 7, 10_000] {
            let (model, _) = charged(body.as_bytes(), &[frames], &json);
            assert_eq!(model, expected, "{body}");
        }
    }
}
