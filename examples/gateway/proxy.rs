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
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_throttle::PeerAddr;

pub(crate) type ProxyBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// Sends requests on to one upstream.
pub(crate) struct Proxy {
    upstream: Uri,
    http1: Client<HttpConnector, Incoming>,
    /// gRPC is spoken over HTTP/2 alone.
    http2: Client<HttpConnector, Incoming>,
}

impl Proxy {
    pub(crate) fn new(upstream: Uri) -> Self {
        let client = || Client::builder(TokioExecutor::new());
        Self {
            upstream,
            http1: client().build_http(),
            http2: client().http2_only(true).build_http(),
        }
    }

    /// The upstream's answer, or that there is none.
    pub(crate) async fn forward(&self, mut request: Request<Incoming>) -> Response<ProxyBody> {
        let is_grpc = is_grpc(request.headers());
        let client = if is_grpc { &self.http2 } else { &self.http1 };
        if let Err(error) = self.address(&mut request, is_grpc) {
            eprintln!("{error}");
            return unavailable(StatusCode::BAD_REQUEST, "Bad Request");
        }
        match client.request(request).await {
            Ok(mut response) => {
                remove_hop_by_hop(response.headers_mut());
                response.map(|body| body.boxed_unsync())
            }
            Err(error) => {
                eprintln!("{}: {error}", self.upstream);
                unavailable(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
            }
        }
    }

    /// Has a request go to the upstream.
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

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
    })
}

/// What concerns one connection and not the message.
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

/// As API Gateway says it.
fn unavailable(status: StatusCode, message: &str) -> Response<ProxyBody> {
    let body = Full::from(format!("{{\"message\":\"{message}\"}}"));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
