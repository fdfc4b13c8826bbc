//! The framing of refusals: HTTP, gRPC or gRPC-Web.

use http::{HeaderMap, Method, Version, header::CONTENT_TYPE};

use super::grpc;
use crate::head;

/// The framing of refusals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Chosen by the request: gRPC for a `POST` over HTTP/2 of `application/grpc`, gRPC-Web for a `POST` of
    /// `application/grpc-web`, else HTTP.
    ///
    /// A client can thus choose the framing of its refusal, but not whether it is refused.
    #[default]
    Auto,
    /// Always HTTP.
    Http,
    /// Always gRPC: gRPC-Web for a request of `application/grpc-web`, whatever its method and version,
    /// else gRPC itself.
    ///
    /// Use it for a throttle inside of tonic's `GrpcWebLayer`, which passes gRPC-Web on as `application/grpc` over
    /// HTTP/1.1 and would encode an HTTP answer as if it were gRPC. Outside of that layer the default works.
    Grpc,
}

/// The framing of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Http,
    /// gRPC or gRPC-Web, with the answer's content type.
    Grpc(&'static str),
}

impl Protocol {
    pub(crate) fn framing(self, method: &Method, version: Version, headers: &HeaderMap) -> Framing {
        match self {
            Self::Http => Framing::Http,
            Self::Grpc => {
                let web = head::first_value(headers, &CONTENT_TYPE).and_then(web);
                Framing::Grpc(web.unwrap_or(grpc::CONTENT_TYPE))
            }
            Self::Auto => detect(method, version, headers),
        }
    }
}

/// Detects gRPC by the whole content type, ignoring ASCII case: `application/grpc` is followed by nothing, `+` or `;`,
/// so that `application/grpc-web` does not match.
fn detect(method: &Method, version: Version, headers: &HeaderMap) -> Framing {
    if *method != Method::POST {
        return Framing::Http;
    }
    let Some(content_type) = head::first_value(headers, &CONTENT_TYPE) else {
        return Framing::Http;
    };
    if is(content_type, grpc::CONTENT_TYPE) && version >= Version::HTTP_2 {
        return Framing::Grpc(grpc::CONTENT_TYPE);
    }
    web(content_type).map_or(Framing::Http, Framing::Grpc)
}

/// Returns whether a content type is of this family: the family's name, followed by nothing, `+` or `;`.
fn is(content_type: &[u8], family: &str) -> bool {
    content_type
        .get(..family.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(family.as_bytes()))
        && matches!(content_type.get(family.len()), None | Some(b'+' | b';'))
}

/// The content type that answers a gRPC-Web request.
fn web(content_type: &[u8]) -> Option<&'static str> {
    let (family, with_proto) = grpc::WEB_CONTENT_TYPES
        .iter()
        .find(|(family, _)| is(content_type, family))?;
    let rest = &content_type[family.len()..];
    let proto = rest
        .get(..6)
        .is_some_and(|rest| rest.eq_ignore_ascii_case(b"+proto"));
    Some(if proto { with_proto } else { family })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_from_what_looks_like_it() {
        let grpc = Framing::Grpc("application/grpc");
        let web = Framing::Grpc("application/grpc-web");
        let table = [
            ("POST", Version::HTTP_2, "application/grpc", grpc),
            ("POST", Version::HTTP_2, "Application/gRPC", grpc),
            ("POST", Version::HTTP_2, "application/grpc+proto", grpc),
            (
                "POST",
                Version::HTTP_2,
                "application/grpc;charset=utf-8",
                grpc,
            ),
            ("POST", Version::HTTP_3, "application/grpc", grpc),
            ("POST", Version::HTTP_11, "application/grpc", Framing::Http),
            ("GET", Version::HTTP_2, "application/grpc", Framing::Http),
            ("POST", Version::HTTP_2, "application/grpcx", Framing::Http),
            ("POST", Version::HTTP_2, "application/json", Framing::Http),
            ("POST", Version::HTTP_2, "application/grpc-web", web),
            ("POST", Version::HTTP_11, "application/grpc-web", web),
            ("POST", Version::HTTP_11, "application/grpc-web+json", web),
            (
                "POST",
                Version::HTTP_11,
                "application/grpc-web+proto",
                Framing::Grpc("application/grpc-web+proto"),
            ),
            (
                "POST",
                Version::HTTP_11,
                "application/grpc-web-text",
                Framing::Grpc("application/grpc-web-text"),
            ),
            (
                "POST",
                Version::HTTP_11,
                "application/grpc-web-text+proto",
                Framing::Grpc("application/grpc-web-text+proto"),
            ),
            (
                "POST",
                Version::HTTP_11,
                "application/grpc-webx",
                Framing::Http,
            ),
            (
                "GET",
                Version::HTTP_11,
                "application/grpc-web",
                Framing::Http,
            ),
        ];
        for (method, version, content_type, expected) in table {
            let method = method.parse().expect("a method");
            let headers =
                HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(
                detect(&method, version, &headers),
                expected,
                "{method} {version:?} {content_type}"
            );
        }
        assert_eq!(
            detect(&Method::POST, Version::HTTP_2, &HeaderMap::new()),
            Framing::Http
        );
    }
}
