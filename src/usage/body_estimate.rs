//! Estimates of model tokens from the facts of a body.

use crate::facts::{MaximumMember, MaximumMembers};

/// The weights by which the facts of a body become a number of model tokens, for
/// [`Estimate::from_body`](crate::usage::Estimate::from_body).
///
/// The number is that of the input and of the output, which limits of either kind reserve apart:
///
/// - **Input**: a token for every four bytes of text, one for each token that is sent as a number, and 1,000 for each
///   image, sound or file.
/// - **Output**: the most tokens that the request asks for, or 1,000 if it does not say, for each
///   [answer](crate::facts::RequestFacts::choices) to each [prompt](crate::facts::RequestFacts::prompts). A maximum of
///   less than one token, which some servers take for [none](crate::facts::RequestFacts::is_output_unbounded), counts as
///   none. No answers and no prompts count as one. A maximum in a member that the server ignores would make a
///   request too cheap: name those that it reads by [`maximum_from`](Self::maximum_from).
///
/// A sum above 2⁶⁴ − 1 counts as 2⁶⁴ − 1. A limit reserves no more than a part of its burst; see [`Estimate`].
///
/// [`Estimate`]: crate::usage::Estimate
///
/// ```
/// use tower_throttle::{
///     Limits, Rate, Rules,
///     usage::{BodyEstimate, Estimate},
/// };
///
/// let rules = Rules::new()
///     .default_route(Limits::new().tokens(Rate::per_minute(90_000)))
///     .estimate(Estimate::from_body(BodyEstimate::new().output(4_096)).or(8_192));
/// # let _ = rules;
/// ```
///
/// A part that is not set has the default or, in the weights [of a model](crate::usage::Estimate::model), that for all
/// models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct BodyEstimate {
    pub(crate) bytes_per_token: Option<u64>,
    pub(crate) tokens_per_item: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) max_output: Option<u64>,
    pub(crate) maximum_from: Option<MaximumMembers>,
}

impl BodyEstimate {
    /// Creates the weights above.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the bytes of UTF-8 that count as one token. Default: 4, which is typical of English; other scripts have
    /// fewer. Zero counts as one.
    pub fn bytes_per_token(mut self, bytes: u64) -> Self {
        self.bytes_per_token = Some(bytes);
        self
    }

    /// Sets the tokens of an image, a sound or a file that the body holds, whatever its size. Default: 1,000. With zero
    /// they count nothing.
    pub fn tokens_per_item(mut self, tokens: u64) -> Self {
        self.tokens_per_item = Some(tokens);
        self
    }

    /// Sets the tokens of an answer to a request that does not state its maximum, or states one of less than one token,
    /// such as −1. Default: 1,000. With zero, only the input of such a request counts.
    pub fn output(mut self, tokens: u64) -> Self {
        self.output = Some(tokens);
        self
    }

    /// Sets the most tokens that an answer can have, whatever the request asks for. Default: no bound. With zero, only
    /// the input counts.
    pub fn max_output(mut self, tokens: u64) -> Self {
        self.max_output = Some(tokens);
        self
    }

    /// Sets the members of the body from which the server reads the maximum. A request that states it by others alone is
    /// estimated as one that does not state it, and not below what it states. Default: any of them. Without a member, no
    /// maximum makes a request cheaper.
    ///
    /// ```
    /// use tower_throttle::{facts::MaximumMember, usage::BodyEstimate};
    ///
    /// // vLLM's chats. `{"n_predict": 1}` means nothing to it, and is estimated at 1,000 tokens.
    /// let estimate = BodyEstimate::new()
    ///     .maximum_from([MaximumMember::MaxTokens, MaximumMember::MaxCompletionTokens]);
    /// # let _ = estimate;
    /// ```
    pub fn maximum_from(mut self, members: impl IntoIterator<Item = MaximumMember>) -> Self {
        self.maximum_from = Some(members.into_iter().collect());
        self
    }

    /// Returns the numbers that were set, with their names, in the order in which they are written.
    pub(crate) fn numbers(&self) -> [(&'static str, Option<u64>); 4] {
        let Self {
            bytes_per_token,
            tokens_per_item,
            output,
            max_output,
            maximum_from: _,
        } = *self;
        [
            ("bytes_per_token", bytes_per_token),
            ("tokens_per_item", tokens_per_item),
            ("output", output),
            ("max_output", max_output),
        ]
    }
}
