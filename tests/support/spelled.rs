//! Requests with random spellings, on which routers and the throttle might differ.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{convert::Infallible, env};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

pub(crate) type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A host of either kind, as a client sees it.
pub(crate) fn boxed<S, B>(service: S) -> App
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)))
}

/// A generator of numbers (SplitMix64), so that a run is the same each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((number ^ number >> 31) % bound as u64).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Methods that a client may send.
pub(crate) const METHODS: [&str; 12] = [
    "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "post",
    "BREW",
];

/// A path with one change that some host overlooks.
pub(crate) fn spelled_otherwise(random: &mut Random, path: &str) -> String {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    let mut other = path.to_owned();
    let Some(&slash) = slashes.get(random.below(slashes.len().max(1))) else {
        return other;
    };
    match random.below(8) {
        0..=2 => other.insert_str(slash, random.of(&["/", "/", "//", "///"])),
        3 => {
            let letters = path
                .char_indices()
                .filter(|(_, c)| c.is_ascii_alphanumeric());
            let letters: Vec<_> = letters.collect();
            if !letters.is_empty() {
                let (at, letter) = random.of(&letters);
                let escape = match random.one_in(2) {
                    true => format!("%{:02x}", u32::from(letter)),
                    false => format!("%{:02X}", u32::from(letter)),
                };
                other.replace_range(at..=at, &escape);
            }
        }
        4 => other.insert_str(slash, random.of(&["/.", "/..", "/%2e", "/%2E%2e"])),
        5 if slash > 0 => other.replace_range(slash..=slash, random.of(&["%2F", "%2f", "%5C"])),
        6 if other.len() > 1 && other.ends_with('/') => {
            other.pop();
        }
        6 => other.push('/'),
        _ => {
            // A segment is left out.
            let end = path[slash + 1..]
                .find('/')
                .map_or(path.len(), |at| slash + 1 + at);
            other.replace_range(slash + 1..end, "");
        }
    }
    other
}

/// Fields that a browser asks with before it sends a request from another origin.
pub(crate) fn as_preflight(fields: &mut HeaderMap) {
    let origin = HeaderValue::from_static("https://app.example");
    fields.insert("origin", origin);
    let asks = HeaderValue::from_static("POST");
    fields.insert("access-control-request-method", asks);
}

/// Returns the number of requests that are sent: `ROUTED`, or 20,000.
pub(crate) fn routed() -> usize {
    env::var("ROUTED").map_or(20_000, |count| count.parse().expect("a number"))
}
