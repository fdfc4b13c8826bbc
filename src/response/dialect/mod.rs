//! The APIs whose clients a throttle may answer.

mod headers;

pub(super) use self::headers::dialect_headers;
/// The form of refusals and of the fields that tell what is left: as clients of known APIs expect them.
///
/// ```
/// use tower_throttle::{Rate, Rules, ThrottleLayer, response::Dialect};
///
/// // One for the layer, and another for a route.
/// let rules = Rules::new()
///     .default_route(Rate::per_second(10))
///     .rejection("POST /v1/messages", Dialect::Anthropic);
/// let throttle = ThrottleLayer::builder(rules)
///     .rejection(Dialect::OpenAi)
///     .build()?;
/// # let _ = throttle;
/// # Ok::<(), tower_throttle::RulesError>(())
/// ```
///
/// Whatever the dialect, a refusal carries `Retry-After` and `retry-after-ms` (none if it can never pass),
/// `x-should-retry: false` where it is of no use to come back within a minute, `Cache-Control: no-store`, and the
/// `RateLimit` field that names the limit. gRPC requests are answered in gRPC. Where the
/// [server is busy](crate::Denial::is_saturated) or [nobody can decide](crate::Denial::is_unavailable) the status is
/// 503, if the dialect has none of its own.
///
/// Dialects that have fields of their own tell in them of the published limit that refused longest, or else has the
/// least left; what a limit that is closed has no time for is left out. Where the inner service tells any of these
/// fields itself, as one does that passes on the answers of such an API, its own stand alone.
/// [`ThrottleLayerBuilder::rate_limit_headers`](crate::ThrottleLayerBuilder::rate_limit_headers) turns the fields off
/// on admitted responses.
///
/// Messages tell the wait in words that some clients read (`try again in 2s`), and nothing of quotas or billing,
/// for which they would give up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// [`Problem`](crate::response::Problem): a problem document (RFC 9457) that OpenAI's SDKs read too. No fields but
    /// the IETF's.
    #[default]
    Problem,
    /// OpenAI's API: `{"error":{"message":…,"type":"requests","param":null,"code":"rate_limit_exceeded"}}`.
    ///
    /// Admitted responses tell `x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests`, the time
    /// until all is there again (`1s`, `6m0s`, `120ms`); the same with `-tokens` where those are limited.
    OpenAi,
    /// Anthropic's API: `{"type":"error","error":{"type":"rate_limit_error","message":…}}`, and 529 with
    /// `overloaded_error` where the server is busy.
    ///
    /// Admitted responses tell `anthropic-ratelimit-requests-limit`, `-remaining` and `-reset`, the moment at which
    /// all is there again (RFC 3339); the same with `-tokens` where those are limited.
    Anthropic,
    /// Amazon API Gateway: `{"message":"Too Many Requests"}` with `x-amzn-errortype: TooManyRequestsException`, and
    /// `{"message":"Limit Exceeded"}` with `LimitExceededException` for a quota. No fields but the IETF's.
    ApiGateway,
    /// Azure API Management: `{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 2 seconds." }`,
    /// or `Token limit is exceeded.`
    ///
    /// Its policies leave the names of fields to their author, and tell nothing but what remains: admitted responses
    /// tell it as Azure OpenAI does, `x-ratelimit-remaining-requests` and `-tokens`. A quota is answered with 429
    /// like the rest, not with the 403 of its quota policies, after which clients do not come back.
    AzureApiManagement,
    /// KServe's Open Inference Protocol over HTTP, as Triton and others speak it:
    /// `{"error":"Rate limit reached for requests. Please try again in 2s."}`. The error is a string, because Triton's
    /// clients for Python raise a `TypeError` on an object. No fields but the IETF's.
    ///
    /// The protocol's gRPC service needs no dialect: it is answered in gRPC.
    KServe,
    /// JSON-RPC 2.0 over HTTP, as servers of the Model Context Protocol (MCP) speak it:
    /// `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":…,"data":{"retryAfter":2,"retryAfterMs":1420}}}`.
    /// No fields but the IETF's.
    ///
    /// - `id` is `null`, because it stands in the request's body, which a refusal does not read. MCP's SDK for Python
    ///   takes such an error for the answer to the request that it sent.
    /// - `code` is -32005, which EIP-1474 calls "Limit exceeded", or -32014 where the server is busy or nobody can
    ///   decide. Both are among the codes that MCP leaves to implementations (-32000 to -32019).
    /// - `data` has the wait in seconds and in milliseconds, rounded up, at least 1. A request that can never pass has
    ///   none.
    /// - The status stays 429 or 503, so that proxies and clients of HTTP see a refusal, too.
    JsonRpc,
}

impl Dialect {
    /// Tells whether admitted responses tell more than the IETF's fields.
    pub(crate) fn tells_more(self) -> bool {
        match self {
            Self::Problem | Self::ApiGateway | Self::KServe | Self::JsonRpc => false,
            Self::OpenAi | Self::Anthropic | Self::AzureApiManagement => true,
        }
    }
}
