//! The parts of a request that take part in routing: method, path, and what the host's router says of them.

use std::{borrow::Cow, hash::Hash, hash::Hasher};

#[cfg(feature = "axum")]
use axum::extract::{MatchedPath, OriginalUri};
use http::{Extensions, Method, Uri};

use super::spelling::canonical;

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
    extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    #[inline]
    pub(crate) fn of(method: &'a Method, uri: &'a Uri, extensions: &'a Extensions) -> Self {
        let sent = original_path(extensions).unwrap_or_else(|| uri.path());
        Self::alone(method, sent, extensions)
    }

    /// A method and a path of no request.
    pub(crate) fn alone(method: &'a Method, path: &'a str, extensions: &'a Extensions) -> Self {
        Self {
            method,
            path,
            sent: path,
            empty_params: false,
            extensions,
        }
    }

    /// The router's own name for the route, where the host tells one.
    #[inline]
    pub(crate) fn template(&self) -> Option<&'a str> {
        template(self.extensions)
    }

    /// The path that stands for the spellings of an undeclared route: normal, and without empty segments.
    pub(crate) fn canonical(&self) -> Cow<'a, str> {
        canonical(self.sent)
    }

    /// The same request, read with another method or path.
    pub(super) fn read_as<'b>(
        &'b self,
        method: &'b Method,
        path: &'b str,
        empty_params: bool,
    ) -> Head<'b> {
        Head {
            method,
            path,
            empty_params,
            ..*self
        }
    }

    /// The method an undeclared route is kept under. `HEAD` goes with `GET`; methods that no
    /// specification knows go together, so that inventing them gains nothing.
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
fn original_path(extensions: &Extensions) -> Option<&str> {
    extensions.get::<OriginalUri>().map(|uri| uri.0.path())
}

/// Returns `None`: there is no router to ask, and the path decides.
#[cfg(not(feature = "axum"))]
fn template(_: &Extensions) -> Option<&str> {
    None
}

/// Returns `None`: there is no router to ask, and the path decides.
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

#[cfg(test)]
mod tests {
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
}
