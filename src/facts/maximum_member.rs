//! The members that state the most tokens of an answer.

use std::fmt;

/// A member of a body that states the most tokens of an answer. Each server reads some of them and ignores the others:
/// [the guide](crate::guides::costs#maxima-that-a-server-ignores) has a table, for
/// [`BodyEstimate::maximum_from`](crate::usage::BodyEstimate::maximum_from).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MaximumMember {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// `max_output_tokens`.
    MaxOutputTokens,
    /// `n_predict`.
    NPredict,
    /// `generationConfig.maxOutputTokens`, each name in camel or in snake case.
    GenerationConfig,
    /// `inferenceConfig.maxTokens`.
    InferenceConfig,
    /// `options.num_predict`.
    Options,
}

impl MaximumMember {
    /// All of them, in the order of their documentation.
    pub(crate) const ALL: [Self; 7] = [
        Self::MaxTokens,
        Self::MaxCompletionTokens,
        Self::MaxOutputTokens,
        Self::NPredict,
        Self::GenerationConfig,
        Self::InferenceConfig,
        Self::Options,
    ];

    /// Returns the member as a body has it, with a full stop before a member of a member, such as
    /// `options.num_predict`. Documents of rules name it so.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::NPredict => "n_predict",
            Self::GenerationConfig => "generationConfig.maxOutputTokens",
            Self::InferenceConfig => "inferenceConfig.maxTokens",
            Self::Options => "options.num_predict",
        }
    }
}

impl fmt::Display for MaximumMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some of the members.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MaximumMembers(u8);

impl MaximumMembers {
    pub(crate) const ALL: Self = Self((1 << MaximumMember::ALL.len()) - 1);

    fn bit(member: MaximumMember) -> u8 {
        1 << member as u8
    }

    pub(crate) fn contains(self, member: MaximumMember) -> bool {
        self.0 & Self::bit(member) != 0
    }

    /// Returns whether one of the members is in both.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the members that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = MaximumMember> {
        let all = MaximumMember::ALL.into_iter();
        all.filter(move |member| self.contains(*member))
    }
}

impl Extend<MaximumMember> for MaximumMembers {
    fn extend<I: IntoIterator<Item = MaximumMember>>(&mut self, members: I) {
        for member in members {
            self.0 |= Self::bit(member);
        }
    }
}

impl FromIterator<MaximumMember> for MaximumMembers {
    fn from_iter<I: IntoIterator<Item = MaximumMember>>(members: I) -> Self {
        let mut all = Self::default();
        all.extend(members);
        all
    }
}

impl fmt::Debug for MaximumMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
