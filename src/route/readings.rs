//! The parts of a request that take part in routing, and the routes that it may match.
//!
//! A [`Head`] has the method, the path, and the match of the host's router.
//!
//! The host chooses the handler of a request, and not all hosts choose by the same method and path as route keys. A
//! request that its host may match to either of two routes is charged to both, so that no spelling of it dodges one:
//!
//! - **Paths** with escapes or empty segments: see [`spelling`](super::spelling).
//! - **gRPC.** tonic matches only the path, whatever the method. A gRPC request is read as its own method and as
//!   `POST`. It is recognized by its content type, by the layer's protocol, or by a path such as
//!   `/inference.v1.Inference/Generate`.
//! - **A final slash.** A nested service of axum has its root with and without it, and so have many servers behind a
//!   proxy. A path without a key that is as specific is also charged to the key of the other spelling.
//! - **`CONNECT` with a path** opens a WebSocket over HTTP/2 (RFC 8441), where HTTP/1.1 has `GET`. It is read as its
//!   own method and as `GET`, unless the key of its own reading names `CONNECT`.
//!
//! Nearly all requests have one reading, which a look at the method and one scan of the path find out.

use std::{borrow::Cow, hash::Hash, hash::Hasher};

#[cfg(feature = "axum")]
use axum::extract::{MatchedPath, OriginalUri};
use http::{Extensions, HeaderMap, Method, Uri, header::CONTENT_TYPE};

use super::spelling::{Escapes, Spelling, canonical, is_ambiguous, spellings};
use crate::head;

/// Method and path of a request, as route keys see them.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// The path that is compared with keys: as it was sent, or another reading of it.
    pub(crate) path: &'a str,
    /// The path as it was sent.
    sent: &'a str,
    /// True if a parameter of a key matches an empty segment too.
    pub(super) empty_params: bool,
    /// The way in which the literal after a parameter of a key is compared.
    pub(super) escapes: Escapes,
    extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    #[inline(always)]
    pub(crate) fn of(method: &'a Method, uri: &'a Uri, extensions: &'a Extensions) -> Self {
        let sent = original_path(extensions).unwrap_or_else(|| uri.path());
        Self::alone(method, sent, extensions)
    }

    /// A method and a path of no request.
    #[inline(always)]
    pub(crate) fn alone(method: &'a Method, path: &'a str, extensions: &'a Extensions) -> Self {
        Self {
            method,
            path,
            sent: path,
            empty_params: false,
            escapes: Escapes::Normal,
            extensions,
        }
    }

    /// Returns the router's template of the route, if the host provides one.
    #[inline]
    pub(crate) fn template(&self) -> Option<&'a str> {
        template(self.extensions)
    }

    /// Returns the canonical path for all spellings of an undeclared route: normal, and without empty segments.
    pub(crate) fn canonical(&self) -> Cow<'a, str> {
        canonical(self.sent)
    }

    /// The same request, read with another method or path.
    pub(super) fn read_as<'b>(&'b self, method: &'b Method, path: &'b str) -> Head<'b> {
        Head {
            method,
            path,
            ..*self
        }
    }

    /// The same request, read with another method and as its path is spelled.
    fn spelled<'b>(&'b self, method: &'b Method, spelling: &'b Spelling<'_>) -> Head<'b> {
        Head {
            method,
            path: &spelling.path,
            empty_params: spelling.empty_params,
            escapes: spelling.escapes,
            ..*self
        }
    }

    /// Returns the method under which an undeclared route is kept. `HEAD` goes with `GET`; all unknown methods go
    /// together, so that inventing them gains nothing.
    pub(crate) fn family(&self) -> &'static str {
        family(self.method)
    }
}

/// Returns the template of the route that the host's router has matched, nested prefixes included.
#[cfg(feature = "axum")]
fn template(extensions: &Extensions) -> Option<&str> {
    extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

/// Returns the path as the host's outermost router saw it, before nested routers stripped their prefix.
#[cfg(feature = "axum")]
#[inline(always)]
fn original_path(extensions: &Extensions) -> Option<&str> {
    extensions.get::<OriginalUri>().map(|uri| uri.0.path())
}

/// Returns no template, since there is no router.
#[cfg(not(feature = "axum"))]
fn template(_: &Extensions) -> Option<&str> {
    None
}

/// Returns no path: that of the request is the only one.
#[cfg(not(feature = "axum"))]
fn original_path(_: &Extensions) -> Option<&str> {
    None
}

pub(super) fn family(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "ANY",
    }
}

/// The identity of an undeclared route.
impl Hash for Head<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.family().hash(state);
        match self.template() {
            Some(template) => template.hash(state),
            None => self.canonical().hash(state),
        }
    }
}

/// All readings of a request that may have several.
#[derive(Debug)]
pub(crate) struct Readings<'a> {
    head: &'a Head<'a>,
    paths: Vec<Spelling<'a>>,
    others: OtherMethods,
}

/// Methods that a request is read as besides its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OtherMethods {
    /// True if the request may be a gRPC call.
    post: bool,
    /// True if the request may open a WebSocket.
    get: bool,
}

/// One reading of a request.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    head: Head<'a>,
    /// True if `CONNECT` is read as `GET`.
    is_upgrade: bool,
}

impl<'a> Readings<'a> {
    /// Finds the readings of a request. `None`: the head is the only one.
    ///
    /// `uri` and `headers` are of the same request, as a nested service sees it. `is_grpc`: all requests are gRPC.
    /// `is_plain`: the path equals a literal key that has one reading. `any_suffixes`: some key that the readings are
    /// compared with has a literal after a parameter.
    #[inline(always)]
    pub(crate) fn of(
        head: &'a Head<'a>,
        uri: &Uri,
        headers: &HeaderMap,
        is_grpc: bool,
        is_plain: bool,
        any_suffixes: bool,
    ) -> Option<Self> {
        let others = OtherMethods::of(head.method, uri, headers, is_grpc, is_grpc_path);
        let is_plain = is_plain || !is_ambiguous(head.path);
        match is_plain && others == OtherMethods::default() {
            true => None,
            false => Some(Self::all(head, others, any_suffixes)),
        }
    }

    #[cold]
    fn all(head: &'a Head<'a>, others: OtherMethods, any_suffixes: bool) -> Self {
        let mut others = others;
        others.post |= *head.method != Method::POST && is_grpc_path(&canonical(head.path));
        Self {
            head,
            paths: spellings(head.path, head.template(), any_suffixes),
            others,
        }
    }

    /// The readings, the likeliest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Reading<'_>> {
        let others = self.others;
        self.paths.iter().flat_map(move |spelling| {
            let read_as = |method, is_upgrade| Reading {
                head: self.head.spelled(method, spelling),
                is_upgrade,
            };
            let own = read_as(self.head.method, false);
            let post = others.post.then(|| read_as(&Method::POST, false));
            let get = others.get.then(|| read_as(&Method::GET, true));
            [Some(own), post, get].into_iter().flatten()
        })
    }
}

/// The route of a path that equals a literal key and has one reading only.
pub(crate) struct LiteralRoute<'a, V> {
    pub(crate) value: &'a V,
    /// True if the path has the shape of a gRPC method.
    pub(super) is_grpc: bool,
}

impl<V> LiteralRoute<'_, V> {
    /// Returns whether a request of this route may be read as other methods besides its own. The arguments are those of
    /// [`Readings::of`].
    #[inline(always)]
    pub(crate) fn has_other_methods(
        &self,
        head: &Head<'_>,
        uri: &Uri,
        headers: &HeaderMap,
        is_grpc: bool,
    ) -> bool {
        // Looked at beforehand, unless a nested service sees another path.
        let is_path = |path: &str| match std::ptr::eq(path, head.path) {
            true => self.is_grpc,
            false => is_grpc_path(path),
        };
        let others = OtherMethods::of(head.method, uri, headers, is_grpc, is_path);
        others != OtherMethods::default()
    }
}

impl OtherMethods {
    #[inline(always)]
    fn of(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        is_grpc: bool,
        is_grpc_path: impl FnOnce(&str) -> bool,
    ) -> Self {
        if matches!(*method, Method::POST) {
            return Self::default();
        }
        // The path that a nested service sees.
        let path = uri.path();
        Self {
            post: is_grpc || is_grpc_path(path) || has_grpc_content_type(headers),
            get: matches!(*method, Method::CONNECT) && path.starts_with('/'),
        }
    }
}

impl Reading<'_> {
    pub(crate) fn head(&self) -> &Head<'_> {
        &self.head
    }

    /// Returns whether `CONNECT` is read as `GET`.
    pub(super) fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }
}

/// Returns whether a path has the shape of a gRPC method: two segments, in the first a dot and after the last one an
/// upper-case letter, which the second begins with too.
#[inline]
pub(crate) fn is_grpc_path(path: &str) -> bool {
    let path = path.as_bytes();
    let Some((b'/', path)) = path.split_first() else {
        return false;
    };
    let Some(slash) = path.iter().position(|&byte| byte == b'/') else {
        return false;
    };
    let (service, method) = (&path[..slash], &path[slash + 1..]);
    if !method.first().is_some_and(u8::is_ascii_uppercase) {
        return false;
    }
    let dot = service.iter().rposition(|&byte| byte == b'.');
    dot.and_then(|dot| service.get(dot + 1))
        .is_some_and(u8::is_ascii_uppercase)
        && !method.contains(&b'/')
}

/// Returns whether one of the lines of the content type is gRPC's: nobody knows which of them a server reads.
#[inline(always)]
fn has_grpc_content_type(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let are_grpc = || {
        headers.get_all(CONTENT_TYPE).iter().any(|value| {
            let essence = head::trim_ows_bytes(value.as_bytes()).get(..GRPC.len());
            essence.is_some_and(|essence| essence.eq_ignore_ascii_case(GRPC))
        })
    };
    // Most requests that are no `POST` have none.
    headers.contains_key(CONTENT_TYPE) && are_grpc()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn each_method_that_is_known_is_kept_apart_and_all_others_go_together() {
        let family = |method: &str| {
            let method = method.parse().expect("a method");
            Head::alone(&method, "/", &Extensions::new()).family()
        };
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
        ] {
            assert_eq!(family(method), method);
        }
        for (method, other) in [("HEAD", "GET"), ("PROPFIND", "ANY"), ("get", "ANY")] {
            assert_eq!(family(method), other, "{method}");
        }
    }

    /// `method path` of each reading.
    fn readings(method: &str, path: &str, content_type: &str, is_grpc: bool) -> Vec<String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, content_type)
            .body(())
            .expect("a request");
        let head = Head::of(request.method(), request.uri(), request.extensions());
        let (uri, headers) = (request.uri(), request.headers());
        let readings = Readings::of(&head, uri, headers, is_grpc, false, false);
        let told = |reading: &Reading<'_>| format!("{} {}", reading.head.method, reading.head.path);
        let all = readings.as_ref().map(|readings| {
            let all = readings.iter().map(|reading| told(&reading));
            all.collect()
        });
        all.unwrap_or_default()
    }

    #[test]
    fn most_requests_have_one_reading() {
        for (method, path, content_type) in [
            ("GET", "/v1/models", ""),
            ("POST", "/v1/chat/completions", "application/json"),
            (
                "POST",
                "/inference.v1.Inference/Generate",
                "application/grpc",
            ),
            ("PUT", "/v1.0/chat", "text/plain"),
            ("OPTIONS", "*", ""),
            ("CONNECT", "a.example:1", ""),
        ] {
            let found = readings(method, path, content_type, false);
            assert!(found.is_empty(), "{method} {path}: {found:?}");
        }
        assert!(readings("POST", "/a", "", true).is_empty());
    }

    #[test]
    fn a_request_is_read_as_each_method_that_it_may_mean() {
        type Case = (
            &'static str,
            &'static str,
            &'static str,
            bool,
            &'static [&'static str],
        );
        let table: [Case; 6] = [
            ("PUT", "/a.B/C", "", false, &["PUT /a.B/C", "POST /a.B/C"]),
            (
                "GET",
                "/a",
                "application/grpc",
                false,
                &["GET /a", "POST /a"],
            ),
            ("GET", "/a", "", true, &["GET /a", "POST /a"]),
            ("CONNECT", "/ws", "", false, &["CONNECT /ws", "GET /ws"]),
            (
                "CONNECT",
                "/a.B/C",
                "",
                false,
                &["CONNECT /a.B/C", "POST /a.B/C", "GET /a.B/C"],
            ),
            (
                "PUT",
                "/a.B//C",
                "",
                false,
                &[
                    "PUT /a.B//C",
                    "POST /a.B//C",
                    "PUT /a.B//C",
                    "POST /a.B//C",
                    "PUT /a.B/C",
                    "POST /a.B/C",
                ],
            ),
        ];
        for (method, path, content_type, is_grpc, expected) in table {
            let found = readings(method, path, content_type, is_grpc);
            assert_eq!(found, expected, "{method} {path} {content_type}");
        }
    }

    #[test]
    fn a_grpc_path_has_two_segments_of_its_shape() {
        for (path, expected) in [
            ("/inference.v1.Inference/Generate", true),
            ("/a.B/C", true),
            ("/a.b.C/Dd", true),
            ("/.B/C", true),
            ("/v1.0/chat", false),
            ("/v1.0/Chat", false),
            ("/a.B/c", false),
            ("/a.b/C", false),
            ("/A.b/C", false),
            ("/B/C", false),
            ("/a./C", false),
            ("/a.B/", false),
            ("/a.B", false),
            ("/a.B/C/", false),
            ("/a.B/C/d", false),
            ("//C", false),
            ("/", false),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(is_grpc_path(path), expected, "{path}");
        }
    }
}
