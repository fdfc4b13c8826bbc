//! The members that state facts.

use crate::facts::MaximumMember;

/// A member of the top-level object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactMember {
    /// Any without facts.
    Other,
    /// A name that is a fact's but for upper and lower case. Some parsers take it for that.
    OtherCase,
    Model,
    ServiceTier,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    /// The largest answer, as llama.cpp has it.
    NPredict,
    Choices,
    /// The answers that a server generates to choose from.
    BestOf,
    /// The number of answers, as llama.cpp has it.
    NCmpl,
    /// `generationConfig`: the settings of Gemini.
    GenerationConfig,
    /// `generation_config`: Gemini takes both.
    GenerationConfigSnake,
    /// The settings of Bedrock.
    InferenceConfig,
    /// The settings of Ollama.
    Options,
    Messages,
    Input,
    Prompt,
    System,
    Contents,
    Instructions,
    Tools,
    SystemInstruction,
    /// `systemInstruction`: Gemini takes both.
    SystemInstructionCamel,
    Suffix,
    Prediction,
    Functions,
    ResponseFormat,
    Documents,
    Query,
    Inputs,
    Message,
    ChatHistory,
}

impl FactMember {
    /// The names of facts whose meaning a change of case would hide.
    const NAMES: [&[u8]; 32] = [
        b"model",
        b"service_tier",
        b"stream",
        b"max_tokens",
        b"max_completion_tokens",
        b"max_output_tokens",
        b"n_predict",
        b"n",
        b"best_of",
        b"n_cmpl",
        b"generationConfig",
        b"generation_config",
        b"inferenceConfig",
        b"options",
        b"messages",
        b"input",
        b"prompt",
        b"system",
        b"contents",
        b"instructions",
        b"tools",
        b"system_instruction",
        b"systemInstruction",
        b"suffix",
        b"prediction",
        b"functions",
        b"response_format",
        b"documents",
        b"query",
        b"inputs",
        b"message",
        b"chat_history",
    ];

    pub(super) fn named(name: &[u8]) -> Self {
        match name {
            b"model" => Self::Model,
            b"service_tier" => Self::ServiceTier,
            b"stream" => Self::Stream,
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"max_output_tokens" => Self::MaxOutputTokens,
            b"n_predict" => Self::NPredict,
            b"n" => Self::Choices,
            b"best_of" => Self::BestOf,
            b"n_cmpl" => Self::NCmpl,
            b"generationConfig" => Self::GenerationConfig,
            b"generation_config" => Self::GenerationConfigSnake,
            b"inferenceConfig" => Self::InferenceConfig,
            b"options" => Self::Options,
            b"messages" => Self::Messages,
            b"input" => Self::Input,
            b"prompt" => Self::Prompt,
            b"system" => Self::System,
            b"contents" => Self::Contents,
            b"instructions" => Self::Instructions,
            b"tools" => Self::Tools,
            b"system_instruction" => Self::SystemInstruction,
            b"systemInstruction" => Self::SystemInstructionCamel,
            b"suffix" => Self::Suffix,
            b"prediction" => Self::Prediction,
            b"functions" => Self::Functions,
            b"response_format" => Self::ResponseFormat,
            b"documents" => Self::Documents,
            b"query" => Self::Query,
            b"inputs" => Self::Inputs,
            b"message" => Self::Message,
            b"chat_history" => Self::ChatHistory,
            _ => Self::unknown(name),
        }
    }

    /// Returns what a name is that is no fact's. Nearly all are of ASCII, and compared as a whole.
    #[inline(never)]
    fn unknown(name: &[u8]) -> Self {
        let mut names = Self::NAMES.iter();
        let is_another_case = match name.is_ascii() {
            true => names.any(|known| name.eq_ignore_ascii_case(known)),
            false => names.any(|known| is_other_case(name, known)),
        };
        match is_another_case {
            true => Self::OtherCase,
            false => Self::Other,
        }
    }

    /// Returns whether the member's value may begin with this byte.
    pub(super) fn takes(self, byte: u8) -> bool {
        match self {
            Self::Model | Self::ServiceTier => matches!(byte, b'"' | b'n'),
            Self::Stream => matches!(byte, b't' | b'f' | b'n'),
            _ if self.count().is_some() => matches!(byte, b'-' | b'0'..=b'9' | b'n'),
            _ => true,
        }
    }

    /// Returns the count that the member states, if it states one.
    pub(super) fn count(self) -> Option<FactCount> {
        let maximum = match self {
            Self::MaxTokens => MaximumMember::MaxTokens,
            Self::MaxCompletionTokens => MaximumMember::MaxCompletionTokens,
            Self::MaxOutputTokens => MaximumMember::MaxOutputTokens,
            Self::NPredict => MaximumMember::NPredict,
            Self::Choices | Self::BestOf | Self::NCmpl => return Some(FactCount::Choices),
            _ => return None,
        };
        Some(FactCount::MaxOutputTokens(maximum))
    }

    /// Returns the settings in the member that state counts. One in the object of another API means nothing.
    fn settings(self) -> &'static [(&'static [u8], FactCount)] {
        match self {
            Self::GenerationConfig | Self::GenerationConfigSnake => {
                const MAXIMUM: FactCount =
                    FactCount::MaxOutputTokens(MaximumMember::GenerationConfig);
                &[
                    (b"maxOutputTokens", MAXIMUM),
                    (b"max_output_tokens", MAXIMUM),
                    (b"candidateCount", FactCount::Choices),
                    (b"candidate_count", FactCount::Choices),
                ]
            }
            Self::InferenceConfig => &[(
                b"maxTokens",
                FactCount::MaxOutputTokens(MaximumMember::InferenceConfig),
            )],
            Self::Options => &[(
                b"num_predict",
                FactCount::MaxOutputTokens(MaximumMember::Options),
            )],
            _ => &[],
        }
    }

    /// Returns what a setting in the member states. Out of line, since most bodies have no settings.
    #[inline(never)]
    pub(super) fn setting(self, name: &[u8]) -> CountSetting {
        for (known, count) in self.settings() {
            if name == *known {
                return CountSetting::Count(*count);
            }
            if is_other_case(name, known) {
                return CountSetting::OtherCase;
            }
        }
        CountSetting::Other
    }

    /// Returns whether names in the member count: those of settings that are facts, and some in the text.
    #[inline]
    pub(super) fn names_count(self) -> bool {
        self as u8 >= Self::GenerationConfig as u8
    }

    /// Returns whether strings in the member are text.
    #[inline]
    pub(super) fn is_text(self) -> bool {
        self as u8 >= Self::Messages as u8
    }

    /// Returns whether the member has schemas, of which a server writes the names into the prompt too.
    #[inline]
    pub(super) fn has_schemas(self) -> bool {
        matches!(self, Self::Tools | Self::Functions | Self::ResponseFormat)
    }

    /// Returns whether numbers in arrays of the member are token ids.
    #[inline]
    pub(super) fn has_token_ids(self) -> bool {
        matches!(self, Self::Input | Self::Prompt)
    }

    /// Returns a bit of its own, or none of a member without facts.
    pub(super) fn bit(self) -> u64 {
        match self {
            Self::Other | Self::OtherCase => 0,
            // Gemini takes both for one. Of two instructions, both count.
            Self::GenerationConfigSnake => Self::GenerationConfig.bit(),
            _ => 1 << self as u64,
        }
    }
}

/// A count that is a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactCount {
    /// The most tokens of the answer.
    MaxOutputTokens(MaximumMember),
    /// The number of answers.
    Choices,
}

impl FactCount {
    /// Returns a bit of its own among the counts of one object of settings.
    pub(super) fn bit(self) -> u8 {
        match self {
            Self::MaxOutputTokens(_) => 1,
            Self::Choices => 2,
        }
    }
}

/// A setting in a member that has settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountSetting {
    Count(FactCount),
    /// A name that is a count's but for upper and lower case.
    OtherCase,
    Other,
}

/// Returns whether a member of this name has encoded data as its value.
pub(super) fn is_data(name: &[u8]) -> bool {
    matches!(name, b"data" | b"file_data" | b"bytes")
}

/// Returns whether a name is a known one but for the case, as Go's parser compares names: to it the long s and the sign
/// of the kelvin are letters of ASCII.
fn is_other_case(name: &[u8], known: &[u8]) -> bool {
    let mut rest = name;
    for letter in known {
        let (folded, after) = match rest {
            [0xC5, 0xBF, after @ ..] => (b's', after),
            [0xE2, 0x84, 0xAA, after @ ..] => (b'k', after),
            [byte, after @ ..] => (byte.to_ascii_lowercase(), after),
            [] => return false,
        };
        if folded != letter.to_ascii_lowercase() {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}
