//! The parts of a request that tell whose it is.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request::Parts};

use crate::field;

/// The head of a request, for closures that find out whose it is and what it may do.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self::of(request)
    }
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

impl<'a> RequestHead<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// The method.
    #[must_use]
    pub fn method(self) -> &'a Method {
        self.method
    }

    /// The target, as it was sent.
    #[must_use]
    pub fn uri(self) -> &'a Uri {
        self.uri
    }

    pub(crate) fn version(self) -> Version {
        self.version
    }

    /// The header fields.
    #[must_use]
    pub fn headers(self) -> &'a HeaderMap {
        self.headers
    }

    /// The value of a header field as text: of several lines the first that is not empty, without the white space
    /// around it. `None` if there is none, or if it is no UTF-8.
    ///
    /// Prefer it to [`headers`](Self::headers) for what tells clients apart: HTTP/2 hands on white space that HTTP/1.1
    /// takes off, so that a client could be a new one with each space that it adds.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a str> {
        field::text(self.headers, name)
    }

    /// Returns the request's extensions: what layers outside have put there, such as an authenticated user.
    #[must_use]
    pub fn extensions(self) -> &'a Extensions {
        self.extensions
    }
}
