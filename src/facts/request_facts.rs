//! The facts of one body.

use super::maximum_member::{MaximumMember, MaximumMembers};

/// Facts that the body of a request states; see the [module](super). Those of an empty body are the default: no member
/// is stated, and all sizes are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    pub(super) model: Option<Box<str>>,
    pub(super) service_tier: Option<Box<str>>,
    pub(super) is_stream: bool,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) maximum_members: MaximumMembers,
    pub(super) is_output_unbounded: bool,
    pub(super) choices: Option<u64>,
    pub(super) prompts: u64,
    pub(super) text_bytes: u64,
    pub(super) items: u64,
    pub(super) token_ids: u64,
}

impl RequestFacts {
    /// Returns the name of the model, `model`, of at most 256 bytes. `None` if it is not stated.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns `service_tier`, such as `priority` or `flex`, of at most 256 bytes. `None` if it is not stated.
    #[must_use]
    pub fn service_tier(&self) -> Option<&str> {
        self.service_tier.as_deref()
    }

    /// Returns whether the body asks for a stream: the value of `stream`, or false if it is not stated. Servers whose
    /// default is a stream, such as Ollama, may stream nevertheless.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Returns the largest number of tokens of one answer: the largest of `max_tokens`, `max_completion_tokens`,
    /// `max_output_tokens`, llama.cpp's `n_predict`, Gemini's `generationConfig.maxOutputTokens`, Bedrock's
    /// `inferenceConfig.maxTokens` and Ollama's `options.num_predict`. `None` if none is stated, or negative ones alone.
    /// It may be zero.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<u64> {
        self.max_output_tokens
    }

    /// Returns whether the body states a maximum by a member, be it a negative one.
    #[must_use]
    pub fn has_maximum(&self, member: MaximumMember) -> bool {
        self.maximum_members.contains(member)
    }

    /// Returns the members that state a maximum.
    pub(crate) fn maximum_members(&self) -> MaximumMembers {
        self.maximum_members
    }

    /// Returns whether one of these is less than one, by which some servers mean no maximum: negative numbers for
    /// llama.cpp, and zero too for Ollama.
    #[must_use]
    pub fn is_output_unbounded(&self) -> bool {
        self.is_output_unbounded
    }

    /// Returns the number of answers that a server generates to each prompt: the largest of `n`, `best_of`, llama.cpp's
    /// `n_cmpl` and Gemini's `generationConfig.candidateCount`. `None` if none is stated. It may be zero.
    #[must_use]
    pub fn choices(&self) -> Option<u64> {
        self.choices
    }

    /// Returns the number of prompts in an array `prompt`, each of which is answered: all of its values but numbers and
    /// literal names. Zero if it is no array, or one of token ids.
    #[must_use]
    pub fn prompts(&self) -> u64 {
        self.prompts
    }

    /// Returns the size of the text in bytes of UTF-8. The names in `tools`, `functions` and `response_format` are a part
    /// of it, since servers write these into the prompt.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Returns the number of items that are sent within the body: images, audio and files.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Returns the number of token ids, of prompts that are sent as tokens.
    #[must_use]
    pub fn token_ids(&self) -> u64 {
        self.token_ids
    }
}
