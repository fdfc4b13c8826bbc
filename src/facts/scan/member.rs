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
            _ if Self::NAMES
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known)) =>
            {
                Self::OtherCase
            }
            _ => Self::Other,
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
        Some(FactCount::MaxOutputTokens(Some(maximum)))
    }

    /// Returns the count that a setting in the member states, if it states one.
    pub(super) fn setting(self, name: &[u8]) -> Option<FactCount> {
        let maximum = match (self, name) {
            (
                Self::GenerationConfig | Self::GenerationConfigSnake,
                b"maxOutputTokens" | b"max_output_tokens",
            ) => Some(MaximumMember::GenerationConfig),
            (Self::InferenceConfig, b"maxTokens") => Some(MaximumMember::InferenceConfig),
            (Self::Options, b"num_predict") => Some(MaximumMember::Options),
            (_, b"maxOutputTokens" | b"max_output_tokens" | b"maxTokens" | b"num_predict") => None,
            (_, b"candidateCount" | b"candidate_count") => return Some(FactCount::Choices),
            _ => return None,
        };
        Some(FactCount::MaxOutputTokens(maximum))
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
            _ => 1 << self as u64,
        }
    }
}

/// A count that is a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactCount {
    /// The most tokens of the answer, without a member if no server reads it there.
    MaxOutputTokens(Option<MaximumMember>),
    /// The number of answers.
    Choices,
}

/// Returns whether a member of this name has encoded data as its value.
pub(super) fn is_data(name: &[u8]) -> bool {
    matches!(name, b"data" | b"file_data" | b"bytes")
}
