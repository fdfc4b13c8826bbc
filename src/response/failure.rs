//! Responses that tell of a failure of the service.

use http::{HeaderMap, HeaderValue, StatusCode};

/// Returns whether a response tells of a failure of the service, and not of a fault of its client: by its status, or by
/// gRPC's in the same block of fields, which stands for one (`google.rpc.Code`). A deadline that has passed is the client's.
pub(crate) fn is_failure(status: StatusCode, headers: &HeaderMap) -> bool {
    let grpc = || headers.get("grpc-status").map(HeaderValue::as_bytes);
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || matches!(grpc(), Some(b"2" | b"8" | b"13" | b"14" | b"15"))
}
