//! A layer that refuses, or rewrites, paths that servers may read in several ways.

mod future;
mod path;

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue},
    uri::PathAndQuery,
};
use tower::{Layer, Service};

pub use self::future::CanonicalPathFuture;
use self::path::Ambiguity;
use crate::{body::ResponseBody, response::strip};

/// A layer for proxies and file servers: it admits a path only if the server behind reads it as the throttle does.
///
/// Limits are found by the path as the throttle reads it. A server behind a proxy may read the same characters as
/// another path: uvicorn decodes `%2F`, nginx merges `//`, servlet containers drop `;x=1`. A service in the same
/// process that is not a router may do so, too: `ServeDir` of tower-http decodes `%2F` and ignores `//` and `/./`.
/// Requests for one resource then have as many spellings as there are buckets. Put this layer around the
/// [throttle](crate::ThrottleLayer), so that one path is matched, charged and forwarded:
///
/// ```
/// use std::convert::Infallible;
///
/// use http::{Request, Response, StatusCode};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_throttle::{canonical_path::CanonicalPathLayer, rules::Undeclared};
/// use tower_throttle::{Rate, Rules, ThrottleLayer};
///
/// async fn forward(request: Request<()>) -> Result<Response<String>, Infallible> {
///     Ok(Response::new(request.uri().path().to_owned()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rules = Rules::new()
///     .default_route(Rate::per_second(10).burst(5))
///     .undeclared(Undeclared::Shared)
///     .route("POST /v1/chat/completions", Rate::per_second(1));
/// let mut service = ServiceBuilder::new()
///     .layer(CanonicalPathLayer::strict())
///     .layer(ThrottleLayer::new(rules)?)
///     .service(service_fn(forward));
/// let spelled = Request::post("/v1/chat%2Fcompletions").body(())?;
/// assert_eq!(service.ready().await?.call(spelled).await?.status(), StatusCode::BAD_REQUEST);
/// # Ok(())
/// # }
/// ```
///
/// | in the path | [`strict`](Self::strict) | [`normalizing`](Self::normalizing) |
/// |---|---|---|
/// | `%2F`, `%5C`, `\` | 400 | become `/` |
/// | an empty segment, `//` | 400 | is dropped |
/// | a segment `.` or `..`, also as `%2e` | 400 | is resolved; 400 above the root |
/// | escapes of letters, digits, `-`, `.`, `_`, `~` | stay | become the character |
/// | escapes in lower case, `%c3` | stay | become upper case |
/// | characters outside of ASCII | 400 | become escapes |
/// | `;`, `%3B`, `%3F`, `%23`: a server may cut the path there | 400 | 400 |
/// | `%252F`: a server may decode it twice | 400 | 400 |
/// | `%00` and other control characters, escapes that are not UTF-8, `%` without two digits | 400 | 400 |
///
/// A final `/` stays: the throttle also charges such a path to the key without it, unless there is a key with it, or
/// axum's route for the request is greedy (`/{*path}`). Every path that `normalizing` forwards is one that `strict`
/// admits. Query, host, method and header fields take no part.
/// Requests without a path (`OPTIONS *`, and `CONNECT` to an authority) pass.
///
/// The answer is a problem document (RFC 9457) with status 400 that states the fault, also for gRPC.
///
/// Upper and lower case are different. If a server behind treats `/V1/Chat` as `/v1/chat`, limit it by
/// [`Rules::total`](crate::Rules::total) or a shared bucket for [undeclared routes](crate::rules::Undeclared::Shared)
/// as well.
///
/// In axum, `normalizing` goes around the outermost router as a whole, since `Router::layer` runs after routing. Inside
/// a router (`fallback_service`, `route_service`, `nest_service`) the throttle finds limits by the path as it was sent,
/// axum's `OriginalUri`, and not by what `normalizing` makes of it: use `strict` there.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct CanonicalPathLayer {
    mode: Mode,
}

/// The treatment of a path that can be read in more than one way.
#[derive(Debug, Clone, Copy, Default)]
enum Mode {
    #[default]
    Strict,
    Normalizing,
}

impl CanonicalPathLayer {
    /// Creates a layer that answers 400 to a path that can be read in several ways. The default.
    pub fn strict() -> Self {
        Self { mode: Mode::Strict }
    }

    /// Creates a layer that rewrites the request's path to its normal form, and answers 400 if it has none.
    pub fn normalizing() -> Self {
        Self {
            mode: Mode::Normalizing,
        }
    }
}

impl<S> Layer<S> for CanonicalPathLayer {
    type Service = CanonicalPath<S>;

    fn layer(&self, inner: S) -> CanonicalPath<S> {
        CanonicalPath {
            inner,
            mode: self.mode,
        }
    }
}

/// A service that sees only paths with one reading. Made by [`CanonicalPathLayer`].
#[derive(Debug, Clone)]
pub struct CanonicalPath<S> {
    inner: S,
    mode: Mode,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CanonicalPath<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = CanonicalPathFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.mode.admit(&mut request) {
            Ok(()) => CanonicalPathFuture::admitted(self.inner.call(request)),
            Err(ambiguity) => {
                let mut answer = problem(&ambiguity);
                if *request.method() == Method::HEAD {
                    strip(&mut answer);
                }
                CanonicalPathFuture::refused(answer)
            }
        }
    }
}

impl Mode {
    fn admit<B>(self, request: &mut Request<B>) -> Result<(), Ambiguity> {
        let path = request.uri().path();
        let is_without_path = match *request.method() {
            Method::OPTIONS => path == "*",
            Method::CONNECT => path.is_empty(),
            _ => false,
        };
        if is_without_path {
            return Ok(());
        }
        match self {
            Self::Strict => path::strict(path),
            Self::Normalizing => {
                if let Some(normal) = path::normal(path)? {
                    let uri = with_path(request.uri(), &normal).ok_or(Ambiguity::Escape)?;
                    *request.uri_mut() = uri;
                }
                Ok(())
            }
        }
    }
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}

fn problem(ambiguity: &Ambiguity) -> Response<Bytes> {
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\"detail\":\"the path {ambiguity}\"}}"
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn auto_traits() {
        fn traits<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static>() {}
        traits::<CanonicalPathLayer>();
        traits::<CanonicalPath<()>>();
    }
}
