//! Estimates of model tokens from the facts of a body.

use crate::{facts::RequestFacts, limit::token_demand::TokenDemand};

/// The weights by which the facts of a body become a number of model tokens, for
/// [`Estimate::from_body`](crate::usage::Estimate::from_body).
///
/// The number is that of the input and of the output, which limits of either kind reserve apart:
///
/// - **Input**: a token for every four bytes of text, one for each token that is sent as a number, and 1,000 for each
///   image, sound or file.
/// - **Output**: the most tokens that the request asks for, or 1,000 if it does not say, for each
///   [answer](RequestFacts::choices) to each [prompt](RequestFacts::prompts). A most of less than one token, which some
///   servers take for [no maximum](RequestFacts::is_output_unbounded), never makes it less than 1,000. No answers and no
///   prompts count as one.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct BodyEstimate {
    pub(crate) bytes_per_token: u64,
    pub(crate) tokens_per_item: u64,
    pub(crate) output: u64,
    pub(crate) max_output: u64,
}

impl BodyEstimate {
    /// Creates the weights above.
    pub fn new() -> Self {
        Self {
            bytes_per_token: 4,
            tokens_per_item: 1_000,
            output: 1_000,
            max_output: u64::MAX,
        }
    }

    /// Sets the bytes of UTF-8 that count as one token. Default: 4, which is typical of English; other scripts have
    /// fewer. Zero counts as one.
    pub fn bytes_per_token(mut self, bytes: u64) -> Self {
        self.bytes_per_token = bytes;
        self
    }

    /// Sets the tokens of an image, a sound or a file that the body holds, whatever its size. Default: 1,000. With zero
    /// they count nothing.
    pub fn tokens_per_item(mut self, tokens: u64) -> Self {
        self.tokens_per_item = tokens;
        self
    }

    /// Sets the tokens of an answer to a request that does not state its maximum, or states one of less than one token,
    /// such as −1. Default: 1,000. With zero, only the input of such a request counts.
    pub fn output(mut self, tokens: u64) -> Self {
        self.output = tokens;
        self
    }

    /// Sets the most tokens that an answer can have, whatever the request asks for. Default: no bound. With zero, only
    /// the input counts.
    pub fn max_output(mut self, tokens: u64) -> Self {
        self.max_output = tokens;
        self
    }

    /// Returns the numbers for the facts of a body.
    pub(crate) fn tokens(&self, facts: &RequestFacts) -> TokenDemand {
        let text = facts.text_bytes().div_ceil(self.bytes_per_token.max(1));
        let items = facts.items().saturating_mul(self.tokens_per_item);
        let input = text.saturating_add(items).saturating_add(facts.token_ids());
        let output = match facts.max_output_tokens() {
            Some(most) if !facts.is_output_unbounded() => most,
            most => most.unwrap_or(0).max(self.output),
        };
        let output = output.min(self.max_output);
        // A server answers once to a request for no answer.
        let answers = facts.choices().unwrap_or(1).max(1);
        let answers = answers.saturating_mul(facts.prompts().max(1));
        TokenDemand {
            input,
            output: output.saturating_mul(answers),
            undivided: 0,
        }
    }
}

impl Default for BodyEstimate {
    fn default() -> Self {
        Self::new()
    }
}
