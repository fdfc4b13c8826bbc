//! Refusals as the clients of known APIs expect them.

mod body;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};

use super::{
    dialect::{Dialect, dialect_headers},
    policies::policies,
    problem::{Problem, RefusalHead, head, template},
    rejection::Rejection,
};
use crate::decision::Denial;

impl Rejection for Dialect {
    fn reject(&self, denial: &Denial, request: &Parts) -> Response<Bytes> {
        let dialect = *self;
        if dialect == Self::Problem {
            return Problem.reject(denial, request);
        }
        let policies = policies(denial.limit_set());
        let RefusalHead {
            mut headers,
            status,
            wait,
        } = head(denial, |ends| template(policies.as_ref(), ends));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let error = body::ErrorBody { denial, wait };
        let (own_status, body) = match dialect {
            Self::Problem | Self::OpenAi => (None, error.open_ai()),
            Self::Anthropic => {
                let overloaded = StatusCode::from_u16(529).ok();
                let busy = denial.is_saturated();
                (overloaded.filter(|_| busy), error.anthropic())
            }
            Self::ApiGateway => {
                headers.insert(
                    "x-amzn-errortype",
                    HeaderValue::from_static(error.exception()),
                );
                (None, error.api_gateway())
            }
            Self::AzureApiManagement => (None, error.azure()),
            Self::KServe => (None, error.kserve()),
            Self::JsonRpc => (None, error.json_rpc()),
        };
        if dialect.tells_more() {
            headers.extend(dialect_headers(dialect, &denial.limits(), || denial.wall()));
        }
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = own_status.unwrap_or(status);
        *answer.headers_mut() = headers;
        answer
    }

    fn dialect(&self) -> Dialect {
        *self
    }
}
