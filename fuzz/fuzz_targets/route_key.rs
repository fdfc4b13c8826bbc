//! Any text as route keys, one a line.
//!
//! - What parses is shown as it was written, and parses again to an equal key.
//! - Keys that parse and mean different routes make a table; others make an error that names the one at
//!   fault. Neither panics.
//! - A request for the very path of a key without parameters is charged to that key, whatever other keys
//!   there are.

#![no_main]

use std::{
    convert::Infallible,
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{Request, Response, Uri};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service, service_fn};
use tower_throttle::{
    Decision, Rate, RouteKey, Rules, RulesError, ThrottleLayer, decision::DecisionIn,
};

/// More keys would only make each run slower.
const MAX_KEYS: usize = 32;

/// A method no key names: it can only fall under `ANY`.
const UNNAMED: &str = "UNNAMED-METHOD";

fuzz_target!(|text: &str| {
    if text.contains(UNNAMED) {
        return;
    }
    let mut keys: Vec<RouteKey> = Vec::new();
    let mut repeated = false;
    for line in text.split('\n').take(MAX_KEYS) {
        match line.parse::<RouteKey>() {
            Ok(key) => {
                assert_eq!(key.to_string(), line, "a key is shown as it was written");
                assert_eq!(line.parse(), Ok(key.clone()), "and parses again");
                repeated |= keys.contains(&key);
                keys.push(key);
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                let refused = ThrottleLayer::new(rules(&keys).route(line, Rate::per_hour(1)));
                match refused.err() {
                    Some(RulesError::RouteKey { key, fault, .. }) => {
                        assert_eq!((key.as_str(), fault), (line, error));
                    }
                    other => panic!("`{line}` is no route key, but: {other:?}"),
                }
            }
        }
    }
    let builder = ThrottleLayer::builder(rules(&keys));
    match builder.decision(DecisionIn::Response).build() {
        Ok(layer) => {
            assert!(!repeated, "two keys of one route in {keys:?}");
            for key in &keys {
                a_literal_key_gets_its_own_requests(&layer, key);
            }
        }
        Err(RulesError::SameRoute { first, second, .. }) => {
            assert!(repeated, "no two keys of one route in {keys:?}");
            let (first, second) = (first.parse::<RouteKey>(), second.parse::<RouteKey>());
            assert!(first.is_ok() && first == second, "{first:?}, {second:?}");
        }
        Err(error) => panic!("{keys:?}: {error}"),
    }
});

fn rules(keys: &[RouteKey]) -> Rules {
    keys.iter().fold(Rules::new(), |rules, key| {
        rules.route(key, Rate::per_hour(1))
    })
}

fn a_literal_key_gets_its_own_requests(layer: &ThrottleLayer, key: &RouteKey) {
    let Some((method, path)) = key.as_str().split_once(' ') else {
        return;
    };
    let method = if method == "ANY" { UNNAMED } else { method };
    if path.contains('{') {
        return;
    }
    // Not every key's path can be sent: a request's has no `"`, for one.
    let Ok(uri) = Uri::builder().path_and_query(path).build() else {
        return;
    };
    if uri.path() != path {
        return;
    }
    let request = Request::builder().method(method).uri(uri).body(());
    let mut throttle = layer.layer(service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let future = pin!(throttle.call(request.expect("a method and a path")));
    let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("nothing here waits");
    };
    let decision = response.extensions().get::<Decision>();
    let route = decision.expect("a decision").route();
    assert_eq!(route, key.as_str(), "{method} {path}");
}
