//! The members of an answer that mean something: those on the way to a usage, and those with text of the model.

use super::counts::TokenCount;

/// An object on the way to a usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Answer,
    /// `response` of the Responses API, and of Gemini behind some gateways.
    Response,
    /// `message` of Anthropic's first event, or of Ollama's answers.
    Message,
    /// `delta`: Cohere's last one has the usage.
    Delta,
    /// Cohere's `meta`.
    Meta,
    Usage,
    /// Cohere's `billed_units`.
    Billed,
    /// The details of a count of the input.
    Details,
    /// llama.cpp's `timings`.
    Timings,
}

/// The meaning of the value that a member has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerMember {
    /// An object is on the way to a usage.
    pub(super) container: Option<Container>,
    /// A number is a count.
    pub(super) count: Option<TokenCount>,
    /// An object or an array has text somewhere.
    pub(super) has_text: bool,
    /// A string is text.
    pub(super) is_text: bool,
}

const OTHER: AnswerMember = AnswerMember {
    container: None,
    count: None,
    has_text: false,
    is_text: false,
};

impl AnswerMember {
    const fn container(container: Container) -> Self {
        Self {
            container: Some(container),
            ..OTHER
        }
    }

    const fn with_text(self) -> Self {
        Self {
            has_text: true,
            ..self
        }
    }

    const fn or_text(self) -> Self {
        Self {
            is_text: true,
            ..self
        }
    }

    fn count(count: Option<TokenCount>) -> Self {
        Self { count, ..OTHER }
    }
}

impl Container {
    /// Returns the meaning of a member. Events that repeat all text at the end have it in `text`.
    #[inline(always)]
    pub(super) fn member(self, name: &[u8], is_event: bool) -> AnswerMember {
        match self {
            // By their first byte: most are none of these.
            Self::Answer => match (name.first(), name) {
                (Some(b'u'), b"usage" | b"usageMetadata") => AnswerMember::container(Self::Usage),
                (Some(b'c'), b"choices" | b"candidates" | b"content_block")
                | (Some(b'o'), b"output")
                | (Some(b't'), b"token") => OTHER.with_text(),
                (Some(b'd'), b"delta") => {
                    AnswerMember::container(Self::Delta).with_text().or_text()
                }
                (Some(b'm'), b"message") => AnswerMember::container(Self::Message).with_text(),
                (Some(b'r'), b"response") => AnswerMember::container(Self::Response).or_text(),
                (Some(b'c'), b"content") => OTHER.with_text().or_text(),
                (Some(b't'), b"text") if !is_event => OTHER.or_text(),
                // Ollama's, beside an empty `response`.
                (Some(b't'), b"thinking") => OTHER.or_text(),
                (Some(b'm'), b"meta") => AnswerMember::container(Self::Meta),
                (Some(b't'), b"timings") => AnswerMember::container(Self::Timings),
                (Some(b'p' | b'e' | b't'), name) => {
                    AnswerMember::count(TokenCount::in_answer(name))
                }
                _ => OTHER,
            },
            Self::Response => match name {
                b"usage" | b"usageMetadata" => AnswerMember::container(Self::Usage),
                b"candidates" => OTHER.with_text(),
                b"meta" => AnswerMember::container(Self::Meta),
                _ => OTHER,
            },
            Self::Message | Self::Delta => match name {
                b"usage" => AnswerMember::container(Self::Usage),
                _ => OTHER,
            },
            Self::Meta => match name {
                b"billed_units" => AnswerMember::container(Self::Billed),
                _ => OTHER,
            },
            Self::Usage => match name {
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    AnswerMember::container(Self::Details)
                }
                b"billed_units" => AnswerMember::container(Self::Billed),
                name => AnswerMember::count(TokenCount::in_usage(name)),
            },
            Self::Billed => AnswerMember::count(TokenCount::in_usage(name)),
            Self::Details => AnswerMember::count(TokenCount::in_details(name)),
            Self::Timings => AnswerMember::count(TokenCount::in_timings(name)),
        }
    }
}

/// Returns whether a string is text below a member that has text somewhere.
#[inline(always)]
pub(super) fn is_text(name: &[u8]) -> bool {
    matches!(
        name,
        b"content"
            | b"text"
            | b"reasoning_content"
            | b"reasoning"
            | b"thinking"
            | b"refusal"
            | b"arguments"
            | b"args"
            | b"input"
            | b"partial_json"
            | b"transcript"
            | b"tool_plan"
            | b"code"
    )
}

/// Returns whether all that is below a member is text: the arguments of a tool.
pub(super) fn is_all_text(name: &[u8]) -> bool {
    matches!(name, b"arguments" | b"args" | b"input")
}
