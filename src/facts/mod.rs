//! Facts that the body of a request states.

use std::sync::Arc;

/// Facts that the body of a request to a model server states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestFacts {
    /// The model.
    pub model: Option<Box<str>>,
    pub text_bytes: u64,
    pub items: u64,
    pub token_ids: u64,
    pub max_output_tokens: Option<u64>,
    pub choices: Option<u64>,
}

/// A reason for which a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnreadReason {
    /// The body is larger than may be kept.
    TooLarge,
    /// The text is not what it has to be.
    Malformed,
    /// No layer has read the body.
    Absent,
}

impl UnreadReason {
    /// Returns the name of the reason, as metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Absent => "absent",
        }
    }
}

/// The facts of a request's body, in the extensions of the request.
#[derive(Debug, Clone)]
pub struct BodyFacts(Result<Arc<RequestFacts>, UnreadReason>);

impl BodyFacts {
    pub(crate) fn read(facts: RequestFacts) -> Self {
        Self(Ok(Arc::new(facts)))
    }

    pub(crate) fn not_read(reason: UnreadReason) -> Self {
        Self(Err(reason))
    }

    /// Returns the facts, if the body was read.
    #[must_use]
    pub fn facts(&self) -> Option<&RequestFacts> {
        self.0.as_deref().ok()
    }

    /// Returns the reason for which the body was not read.
    #[must_use]
    pub fn unread(&self) -> Option<UnreadReason> {
        self.0.as_ref().err().copied()
    }
}
