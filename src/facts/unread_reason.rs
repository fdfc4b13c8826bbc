//! The reasons for which bodies are not read.

use std::fmt;

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
    /// No layer has read the body. [`BodyFacts`](super::BodyFacts) never have this reason; it is that of requests without them, in
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
