//! The result of reading a body.

use std::{fmt, sync::Arc};

use super::{RequestFacts, scan::FactsScanner};

/// The facts of a request's body, or the reason why it was not read. A handler finds them in the extensions.
///
/// ```
/// use http::Request;
/// use tower_throttle::facts::BodyFacts;
///
/// fn model(request: &Request<()>) -> Option<&str> {
///     request.extensions().get::<BodyFacts>()?.facts()?.model()
/// }
/// # assert_eq!(model(&Request::new(())), None);
/// ```
///
/// Clones share the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFacts {
    facts: Result<Arc<RequestFacts>, UnreadReason>,
}

impl BodyFacts {
    /// Reads a whole body, for a layer of your own that has it, for [previews](crate::Handle::preview), and for tests of
    /// handlers.
    ///
    /// ```
    /// use tower_throttle::facts::BodyFacts;
    ///
    /// let body = BodyFacts::of(br#"{"model":"small","max_tokens":20}"#);
    /// assert_eq!(body.facts().and_then(|facts| facts.max_output_tokens()), Some(20));
    /// ```
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut scanner = FactsScanner::new();
        scanner.feed(body);
        Self::new(scanner.finish())
    }

    /// Returns the facts, if the body was read.
    #[must_use]
    pub fn facts(&self) -> Option<&RequestFacts> {
        self.facts.as_deref().ok()
    }

    /// Returns the reason why the body was not read, if it was not.
    #[must_use]
    pub fn unread(&self) -> Option<UnreadReason> {
        self.facts.as_ref().err().copied()
    }

    /// Makes the result of a scan.
    pub(crate) fn new(facts: Result<RequestFacts, UnreadReason>) -> Self {
        Self {
            facts: facts.map(Arc::new),
        }
    }
}

/// The reason why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnreadReason {
    /// The body is larger than what may be read.
    TooLarge,
    /// The body is encoded, for example compressed: it has a `Content-Encoding`.
    Encoded,
    /// The body has several parts, such as a form with files, by its `Content-Type`.
    Multipart,
    /// The body breaks the [rules](super#rules). For [`Models::by_header`](crate::Models::by_header): the field is not
    /// UTF-8.
    Malformed,
    /// The body is the tunnel of a `CONNECT`.
    Tunnel,
    /// The body failed before its end.
    Cut,
    /// No layer has read the body. [`BodyFacts`] never have this reason; it is that of requests without them, in
    /// metrics.
    Absent,
}

impl UnreadReason {
    /// Returns the reason in snake case, as for a label of a metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::Multipart => "multipart",
            Self::Malformed => "malformed",
            Self::Tunnel => "tunnel",
            Self::Cut => "cut",
            Self::Absent => "absent",
        }
    }
}

impl fmt::Display for UnreadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is too large",
            Self::Encoded => "the body is encoded",
            Self::Multipart => "the body has several parts",
            Self::Malformed => "the body is malformed",
            Self::Tunnel => "the body is a tunnel",
            Self::Cut => "the body failed before its end",
            Self::Absent => "no layer has read the body",
        })
    }
}
