//! What of a request tells whose it is.

use http::{Extensions, HeaderMap, Method, Request, Uri};

/// The head of a request, for closures that find out whose it is and what it may do.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
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

    /// The header fields.
    #[must_use]
    pub fn headers(self) -> &'a HeaderMap {
        self.headers
    }

    /// What layers outside have put there, such as an authenticated user.
    #[must_use]
    pub fn extensions(self) -> &'a Extensions {
        self.extensions
    }
}
