//! Answers to requests whose bodies were not read in time.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};

use super::{answer::Answer, strip};

/// The cause for which a body was not read in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyTimeout {
    /// The client has not sent it.
    Body,
    /// There was no room to keep it.
    Room,
}

impl BodyTimeout {
    /// Returns the name of what was missing, as metrics have it.
    pub(crate) fn missing(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Room => "room",
        }
    }

    /// Answers a request whose time is over, as a problem document (RFC 9457).
    ///
    /// A client that sends too slowly is told 408, and its connection closes, as RFC 9110, section 15.5.9, has it: the
    /// rest of its body is not waited for. HTTP/2 has no such field (RFC 9113, section 8.2.2): the server resets the
    /// stream.
    pub(crate) fn answer(self, request: &Parts) -> Answer {
        let (status, body) = match self {
            Self::Body => (
                StatusCode::REQUEST_TIMEOUT,
                r#"{"type":"about:blank","title":"Request Timeout","status":408,"detail":"the body did not arrive in time"}"#,
            ),
            Self::Room => (
                StatusCode::SERVICE_UNAVAILABLE,
                r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many bodies are being read"}"#,
            ),
        };
        let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Body if request.version < Version::HTTP_2 => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Body => {}
            Self::Room => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
        }
        if request.method == Method::HEAD {
            strip(&mut answer);
        }
        Answer::new(answer)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// The status, the connection field, the wait and the length of the body.
    fn answer(
        timeout: BodyTimeout,
        method: &str,
        version: Version,
    ) -> (u16, Option<HeaderValue>, Option<HeaderValue>, usize) {
        let request = Request::builder().method(method).version(version).body(());
        let (request, ()) = request.expect("a request").into_parts();
        let mut data = Bytes::new();
        let response = timeout
            .answer(&request)
            .respond(|body| data = body.into_data());
        let field = |name| response.headers().get(name).cloned();
        let (connection, wait) = (field(CONNECTION), field(RETRY_AFTER));
        (response.status().as_u16(), connection, wait, data.len())
    }

    #[test]
    fn an_answer_closes_a_connection_of_http_1_and_has_no_body_for_head() {
        let (close, second) = (
            HeaderValue::from_static("close"),
            HeaderValue::from_static("1"),
        );
        let (late, full) = (BodyTimeout::Body, BodyTimeout::Room);
        let [http_1, http_2] = [Version::HTTP_11, Version::HTTP_2];
        for (timeout, method, version, status, connection, wait, has_body) in [
            (late, "POST", http_1, 408, Some(&close), None, true),
            (late, "HEAD", http_1, 408, Some(&close), None, false),
            (late, "POST", http_2, 408, None, None, true),
            (full, "POST", http_1, 503, None, Some(&second), true),
            (full, "HEAD", http_2, 503, None, Some(&second), false),
        ] {
            let told = answer(timeout, method, version);
            let context = format!("{timeout:?} {method} {version:?}: {told:?}");
            assert_eq!((told.0, told.1.as_ref()), (status, connection), "{context}");
            assert_eq!((told.2.as_ref(), told.3 > 0), (wait, has_body), "{context}");
        }
    }
}
