//! The APIs whose error format a throttle can use.

mod headers;

pub(super) use self::headers::dialect_headers;
/// The format of refusals and of rate-limit header fields, as clients of a known API expect it.
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
/// In every dialect a refusal carries `Retry-After` and `retry-after-ms` (neither if the request can never pass),
/// `x-should-retry: false` if a retry within a minute is useless, `Cache-Control: no-store`, and the `RateLimit` field
/// that names the limit, if one has refused. gRPC requests are answered in gRPC. If the
/// [server is busy](crate::Denial::is_saturated) or [shutting down](crate::Denial::is_shutting_down), or the
/// [store cannot decide](crate::Denial::is_unavailable), the status is 503, unless the dialect has a status of its own
/// for that.
///
/// The header fields of a dialect describe the published limit that refused for the longest time, or else the one with
/// the least left. A closed limit has no reset time, so that field is left out. If the inner service sets any of these
/// fields itself, as a proxy of such an API does, its fields are kept and none is added.
/// [`ThrottleLayerBuilder::rate_limit_headers`](crate::ThrottleLayerBuilder::rate_limit_headers) turns the fields off
/// on admitted responses.
///
/// Messages state the wait in words that some clients parse (`try again in 2s`). They mention neither quotas nor
/// billing, which would make clients give up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// [`Problem`](crate::response::Problem): a problem document (RFC 9457) that OpenAI's SDKs read too. Only the
    /// IETF's header fields.
    #[default]
    Problem,
    /// OpenAI's API: `{"error":{"message":…,"type":"requests","param":null,"code":"rate_limit_exceeded"}}`.
    ///
    /// Admitted responses carry `x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests`, the time
    /// until the limit is full again (`1s`, `6m0s`, `120ms`). Token limits add the same with `-tokens`.
    OpenAi,
    /// Anthropic's API: `{"type":"error","error":{"type":"rate_limit_error","message":…}}`, and 529 with
    /// `overloaded_error` where the server is busy.
    ///
    /// Admitted responses carry `anthropic-ratelimit-requests-limit`, `-remaining` and `-reset`, the moment at which
    /// the limit is full again (RFC 3339). Token limits add the same with `-tokens`.
    Anthropic,
    /// Amazon API Gateway: `{"message":"Too Many Requests"}` with `x-amzn-errortype: TooManyRequestsException`, and
    /// `{"message":"Limit Exceeded"}` with `LimitExceededException` for a quota. Only the IETF's header fields.
    ApiGateway,
    /// Azure API Management: `{ "statusCode": 429, "message": "Rate limit is exceeded. Try again in 2 seconds." }`,
    /// or `Token limit is exceeded.`
    ///
    /// Its policies let authors name the header fields and report only remaining units. Admitted responses carry those
    /// of Azure OpenAI: `x-ratelimit-remaining-requests` and `-tokens`. A quota is answered with 429 like other limits,
    /// not with the 403 of its quota policies, after which clients do not retry.
    AzureApiManagement,
    /// KServe's Open Inference Protocol over HTTP, as Triton and others speak it:
    /// `{"error":"Rate limit reached for requests. Please try again in 2s."}`. The error is a string, because Triton's
    /// clients for Python raise a `TypeError` on an object. Only the IETF's header fields.
    ///
    /// The protocol's gRPC service needs no dialect: it is answered in gRPC.
    KServe,
    /// JSON-RPC 2.0 over HTTP, as servers of the Model Context Protocol (MCP) speak it:
    /// `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":…,"data":{"retryAfter":2,"retryAfterMs":1420}}}`.
    /// Only the IETF's header fields.
    ///
    /// - `id` is `null`, because the id is in the request's body, which a refusal does not read. MCP's SDK for Python
    ///   takes such an error for the answer to the request that it sent.
    /// - `code` is -32005, which EIP-1474 calls "Limit exceeded", or -32014 if the server is busy or shutting down, or
    ///   the store cannot decide. MCP leaves both codes to implementations (-32000 to -32019).
    /// - `data` has the wait in seconds and in milliseconds, rounded up, at least 1. For a request that can never pass
    ///   there is no `data`.
    /// - The status stays 429 or 503, so that proxies and clients of HTTP see a refusal, too.
    JsonRpc,
}

impl Dialect {
    /// Returns whether admitted responses carry more than the IETF's fields.
    pub(crate) fn tells_more(self) -> bool {
        match self {
            Self::Problem | Self::ApiGateway | Self::KServe | Self::JsonRpc => false,
            Self::OpenAi | Self::Anthropic | Self::AzureApiManagement => true,
        }
    }
}
