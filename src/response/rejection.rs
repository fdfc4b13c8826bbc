//! Answers to refused requests.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Response, Version,
    header::{CONNECTION, CONTENT_LENGTH},
    request::Parts,
};

use super::dialect::Dialect;
use crate::decision::Denial;

/// Builds the answer to a refused request.
///
/// A closure is a rejection, and its answer is sent as it is. [`Problem`](super::Problem) is the default and a good
/// basis for custom answers. A [`Dialect`] answers as clients of a known API expect.
///
/// ```
/// use http::{Response, StatusCode, request::Parts};
/// use tower_throttle::{Denial, Rate, Rules, ThrottleLayer, response::{Problem, Rejection}};
///
/// let layer = ThrottleLayer::builder(Rules::new().total(Rate::per_second(100)))
///     .rejection(|denial: &Denial, request: &Parts| {
///         let mut answer = Problem.reject(denial, request);
///         *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
///         answer
///     })
///     .build()?;
/// # let _ = layer;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// The rejection answers requests over plain HTTP. A gRPC request gets a gRPC status, unless
/// [`Protocol::Http`](super::Protocol::Http) is set. The body is removed from the answer to a `HEAD` request.
pub trait Rejection: Send + Sync + 'static {
    /// Returns the whole answer: status, header fields and body.
    fn reject(&self, denial: &Denial, request: &Parts) -> Response<Bytes>;

    /// Returns the dialect whose header fields are added to admitted responses, besides the IETF's. Default: only the
    /// IETF's.
    ///
    /// Override it for answers that are based on a dialect:
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Response, request::Parts};
    /// use tower_throttle::{Denial, response::{Dialect, Rejection}};
    ///
    /// struct Signed;
    ///
    /// impl Rejection for Signed {
    ///     fn reject(&self, denial: &Denial, request: &Parts) -> Response<Bytes> {
    ///         let mut answer = Dialect::OpenAi.reject(denial, request);
    ///         answer.headers_mut().insert("server", http::HeaderValue::from_static("inference"));
    ///         answer
    ///     }
    ///
    ///     fn dialect(&self) -> Dialect {
    ///         Dialect::OpenAi
    ///     }
    /// }
    /// ```
    fn dialect(&self) -> Dialect {
        Dialect::Problem
    }
}

/// The rejections of single routes, as users write them.
#[derive(Clone, Default)]
pub(crate) struct Rejections(pub(crate) Vec<RouteRejection>);

/// The rejection of one route.
#[derive(Clone)]
pub(crate) struct RouteRejection {
    pub(crate) key: Box<str>,
    pub(crate) rejection: Arc<dyn Rejection>,
    /// The dialect, if the rejection is nothing but a dialect.
    pub(crate) dialect: Option<Dialect>,
}

impl fmt::Debug for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.iter().map(|on_route| match on_route.dialect {
            Some(dialect) => (&on_route.key, format!("{dialect:?}")),
            None => (&on_route.key, "<fn>".to_owned()),
        });
        f.debug_map().entries(keys).finish()
    }
}

impl<F, T> Rejection for F
where
    F: Fn(&Denial, &Parts) -> Response<T> + Send + Sync + 'static,
    T: Into<Bytes>,
{
    fn reject(&self, denial: &Denial, request: &Parts) -> Response<Bytes> {
        self(denial, request).map(Into::into)
    }
}

/// Removes the body, and keeps all fields and the length that the body would have had (RFC 9110, section 8.6).
pub(crate) fn strip(answer: &mut Response<Bytes>) {
    let body = std::mem::take(answer.body_mut());
    if !answer.headers().contains_key(CONTENT_LENGTH) {
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, body.len().into());
    }
}

/// Adds `Connection: close` to the answer of a closed throttle, so that the client connects anew, to another replica
/// perhaps. HTTP/2 has no such field (RFC 9113, section 8.2.2): the server itself ends its connections.
pub(crate) fn close_connection(answer: &mut Response<Bytes>, denial: &Denial, version: Version) {
    if denial.is_shutting_down() && version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
}
