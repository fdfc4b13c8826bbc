//! A streaming reverse proxy (RFC 9110, section 7.6).

use bytes::Bytes;
use http::uri::PathAndQuery;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::{Client, Error};
use tower_throttle::client::PeerAddr;

use crate::again::{Again, Upload};
use crate::connector::{Connector, client};
use crate::host::warn;

pub(crate) type ProxyBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// Fields by which some servers read another method or path than those of the request line, which were matched.
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Sends requests on to one upstream.
pub(crate) struct Proxy {
    upstream: Uri,
    http1: Client<Connector, Upload>,
    /// gRPC is spoken over HTTP/2 alone.
    http2: Client<Connector, Upload>,
}

impl Proxy {
    pub(crate) fn new(upstream: Uri) -> Self {
        Self {
            upstream,
            http1: client(|builder| builder),
            http2: client(|builder| builder.http2_only(true)),
        }
    }

    /// Returns the upstream's answer, or one that there is none.
    pub(crate) async fn forward(&self, mut request: Request<Incoming>) -> Response<ProxyBody> {
        // No tunnels, and nothing that concerns the server as a whole (`OPTIONS *`).
        if request.method() == Method::CONNECT || !request.uri().path().starts_with('/') {
            return unavailable(StatusCode::BAD_REQUEST, "Bad Request");
        }
        let is_grpc = is_grpc(request.headers());
        let client = if is_grpc { &self.http2 } else { &self.http1 };
        if let Err(error) = self.address(&mut request, is_grpc) {
            warn(error);
            return unavailable(StatusCode::BAD_REQUEST, "Bad Request");
        }
        match send(client, request).await {
            Ok(mut response) => {
                remove_hop_by_hop(response.headers_mut());
                response.map(|body| body.boxed_unsync())
            }
            Err(error) => {
                warn(format_args!("{}: {error}", self.upstream));
                unavailable(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
            }
        }
    }

    /// Addresses a request to the upstream.
    fn address(&self, request: &mut Request<Incoming>, is_grpc: bool) -> Result<(), http::Error> {
        let asked = request
            .uri()
            .path_and_query()
            .map_or("/", PathAndQuery::as_str);
        let base = self.upstream.path().trim_end_matches('/');
        let mut uri = self.upstream.clone().into_parts();
        uri.path_and_query = Some(format!("{base}{asked}").parse()?);
        let host = request.headers().get(HOST).cloned();
        let host = host.or_else(|| {
            let authority = request.uri().authority()?;
            HeaderValue::from_str(authority.as_str()).ok()
        });
        *request.uri_mut() = Uri::from_parts(uri)?;
        *request.version_mut() = if is_grpc {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };

        let peer = request
            .extensions()
            .get::<PeerAddr>()
            .map(|peer| peer.0.ip());
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        for name in OVERRIDES {
            headers.remove(name);
        }
        if is_grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        // The client writes its own from the address.
        headers.remove(HOST);
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
        if let Some(host) = host {
            headers.insert("x-forwarded-host", host);
        }
        if let Some(peer) = peer {
            headers.append("x-forwarded-for", HeaderValue::from_str(&peer.to_string())?);
        }
        Ok(())
    }
}

/// Sends a request, and once more where that is of no harm.
async fn send(
    client: &Client<Connector, Upload>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Error> {
    let (request, again) = Again::of(request);
    let mut result = client.request(request).await;
    if let Err(error) = &result {
        if let Some(request) = again.after(error) {
            result = client.request(request).await;
        }
    }
    result
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
    })
}

/// Removes the fields that concern one connection and not the message.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Answers as API Gateway does.
fn unavailable(status: StatusCode, message: &str) -> Response<ProxyBody> {
    let body = Full::from(format!("{{\"message\":\"{message}\"}}"));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
