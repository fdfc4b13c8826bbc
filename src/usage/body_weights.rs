//! The weights of a body's facts, for each model.

use super::body_estimate::BodyEstimate;
use crate::{
    facts::{MaximumMembers, RequestFacts},
    limit::{token_class::TokenClass, token_demand::TokenDemand},
};

/// Weights of which none is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyWeights {
    /// At least one.
    bytes_per_token: u64,
    tokens_per_item: u64,
    output: u64,
    max_output: u64,
    maximum_from: MaximumMembers,
}

impl BodyWeights {
    const DEFAULT: Self = Self {
        bytes_per_token: 4,
        tokens_per_item: 1_000,
        output: 1_000,
        max_output: u64::MAX,
        maximum_from: MaximumMembers::ALL,
    };

    /// Returns these weights with the parts that an estimate sets.
    fn with(self, estimate: &BodyEstimate) -> Self {
        let BodyEstimate {
            bytes_per_token,
            tokens_per_item,
            output,
            max_output,
            maximum_from,
        } = *estimate;
        Self {
            bytes_per_token: bytes_per_token.map_or(self.bytes_per_token, |bytes| bytes.max(1)),
            tokens_per_item: tokens_per_item.unwrap_or(self.tokens_per_item),
            output: output.unwrap_or(self.output),
            max_output: max_output.unwrap_or(self.max_output),
            maximum_from: maximum_from.unwrap_or(self.maximum_from),
        }
    }

    /// Returns weights by which no body has fewer tokens than by either.
    fn or_dearer(self, other: Self) -> Self {
        Self {
            bytes_per_token: self.bytes_per_token.min(other.bytes_per_token),
            tokens_per_item: self.tokens_per_item.max(other.tokens_per_item),
            output: self.output.max(other.output),
            max_output: self.max_output.max(other.max_output),
            maximum_from: self.maximum_from.and(other.maximum_from),
        }
    }

    /// Returns the tokens of an answer whose request states no maximum.
    fn answer(&self) -> u64 {
        self.output.min(self.max_output)
    }

    /// Returns the tokens for the facts of a body.
    pub(super) fn tokens(&self, facts: &RequestFacts) -> TokenDemand {
        let text = facts.text_bytes().div_ceil(self.bytes_per_token);
        let items = facts.items().saturating_mul(self.tokens_per_item);
        let input = text.saturating_add(items).saturating_add(facts.token_ids());
        let is_read = self.maximum_from.meets(facts.maximum_members());
        let output = match facts.max_output_tokens() {
            Some(most) if is_read && !facts.is_output_unbounded() => most,
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

/// The weights of rules, by the class of a request's tokens.
#[derive(Debug)]
pub(super) struct WeightTable {
    for_all: BodyWeights,
    /// By the position of each class. Empty if no model has weights of its own.
    by_class: Box<[BodyWeights]>,
}

impl WeightTable {
    /// `named` are the weights of each named class in their order, if its models have weights of their own.
    pub(super) fn new<'a>(
        for_all: &BodyEstimate,
        named: impl Iterator<Item = Option<&'a BodyEstimate>> + Clone,
    ) -> Self {
        let for_all = BodyWeights::DEFAULT.with(for_all);
        if named.clone().flatten().next().is_none() {
            let by_class = Box::default();
            return Self { for_all, by_class };
        }
        let named = named.map(|own| own.map_or(for_all, |own| for_all.with(own)));
        let named: Vec<_> = named.collect();
        let unread = named.iter().copied().fold(for_all, BodyWeights::or_dearer);
        let by_class = [for_all, unread].into_iter().chain(named).collect();
        Self { for_all, by_class }
    }

    /// Returns the weights of a class: those of requests whose model was not read if the class is one of other rules.
    pub(super) fn of(&self, class: TokenClass) -> &BodyWeights {
        let weights = self.by_class.get(class.position());
        let unread = || self.by_class.get(TokenClass::UNREAD.position());
        weights.or_else(unread).unwrap_or(&self.for_all)
    }

    /// Returns the fewest tokens of a request of a class whose body was not read: if models have weights of their own,
    /// those of an answer, lest a large one costs less for being hidden.
    pub(super) fn fewest_unread(&self, class: TokenClass) -> u64 {
        match self.by_class.is_empty() {
            true => 0,
            false => self.of(class).answer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BodyFacts, MaximumMember};

    /// The tokens of input and of output.
    fn tokens(weights: &BodyWeights, body: &str) -> (u64, u64) {
        let body = BodyFacts::of(body.as_bytes());
        let demand = weights.tokens(body.facts().expect("a readable body"));
        (demand.input, demand.output)
    }

    fn weights(estimate: BodyEstimate) -> BodyWeights {
        BodyWeights::DEFAULT.with(&estimate)
    }

    #[test]
    fn the_output_is_what_a_server_may_generate() {
        let weights = weights(BodyEstimate::new().output(500).max_output(8_000));
        let table = [
            ("", 500),
            (r#"{"max_tokens":20}"#, 20),
            (r#"{"max_tokens":9000}"#, 8_000),
            (r#"{"n_predict":20}"#, 20),
            // No maximum.
            (r#"{"n_predict":-1}"#, 500),
            (r#"{"max_tokens":20,"n_predict":-1}"#, 500),
            (r#"{"max_tokens":2000,"n_predict":-1}"#, 2_000),
            (r#"{"max_tokens":0}"#, 500),
            (r#"{"options":{"num_predict":0.5},"max_tokens":1}"#, 500),
            // Several answers.
            (r#"{"max_tokens":20,"n":3}"#, 60),
            (r#"{"max_tokens":20,"n":3,"best_of":5}"#, 100),
            (r#"{"max_tokens":20,"n":3,"best_of":-5}"#, 60),
            (r#"{"max_tokens":20,"n":0,"best_of":0}"#, 20),
            (r#"{"max_tokens":20,"best_of":1e30}"#, u64::MAX),
            (r#"{"prompt":["","",""],"max_tokens":20,"best_of":2}"#, 120),
            (r#"{"prompt":[[],[]]}"#, 1_000),
            (r#"{"prompt":[]}"#, 500),
        ];
        for (body, output) in table {
            assert_eq!(tokens(&weights, body), (0, output), "{body}");
        }
    }

    #[test]
    fn a_maximum_that_the_server_ignores_makes_no_request_cheaper() {
        use MaximumMember::{MaxCompletionTokens, MaxTokens, Options};
        let of = |members: &[MaximumMember]| {
            let members = members.iter().copied();
            weights(BodyEstimate::new().output(500).maximum_from(members))
        };
        let chats = of(&[MaxTokens, MaxCompletionTokens]);
        let ollama = of(&[Options]);
        let none = of(&[]);
        let any = weights(BodyEstimate::new().output(500));
        // By the members of chats, by Ollama's, by none, and by any.
        let table = [
            (r#"{"max_tokens":20}"#, [20, 500, 500, 20]),
            (r#"{"max_completion_tokens":20}"#, [20, 500, 500, 20]),
            (r#"{"n_predict":20}"#, [500, 500, 500, 20]),
            (r#"{"max_output_tokens":20}"#, [500, 500, 500, 20]),
            (r#"{"options":{"num_predict":20}}"#, [500, 20, 500, 20]),
            (r#"{"n_predict":9,"max_tokens":20}"#, [20, 500, 500, 20]),
            // Not below what is stated.
            (r#"{"n_predict":900}"#, [900; 4]),
            (r#"{"n_predict":900,"max_tokens":20}"#, [900; 4]),
            (r#"{"max_tokens":-1,"n_predict":20}"#, [500; 4]),
            (r#"{"max_tokens":null,"n_predict":20}"#, [500, 500, 500, 20]),
            ("{}", [500; 4]),
            // Where no server reads them.
            (r#"{"options":{"maxTokens":20}}"#, [500; 4]),
            (r#"{"generationConfig":{"num_predict":900}}"#, [500; 4]),
        ];
        for (body, outputs) in table {
            let all = [chats, ollama, none, any].map(|weights| tokens(&weights, body).1);
            assert_eq!(all, outputs, "{body}");
        }
        let dearest = chats.or_dearer(ollama);
        assert_eq!(tokens(&dearest, r#"{"max_tokens":20}"#), (0, 500));
        let both = chats.or_dearer(of(&[MaxTokens]));
        assert_eq!(tokens(&both, r#"{"max_tokens":20}"#), (0, 20));
        let own = BodyEstimate::new().maximum_from([Options]);
        assert_eq!(chats.with(&own), ollama);
        assert_eq!(ollama.with(&BodyEstimate::new().output(500)), ollama);
    }

    #[test]
    fn each_part_is_that_of_the_model_or_else_of_all() {
        let for_all = BodyEstimate::new()
            .bytes_per_token(2)
            .output(300)
            .tokens_per_item(10);
        let own = [
            BodyEstimate::new().bytes_per_token(1),
            BodyEstimate::new().tokens_per_item(0),
            BodyEstimate::new().output(700),
            BodyEstimate::new().max_output(200),
            BodyEstimate::new(),
        ];
        let table = WeightTable::new(&for_all, [None].into_iter().chain(own.iter().map(Some)));
        let body = r#"{"messages":["data:,","eight by"]}"#;
        let of = |class| tokens(table.of(class), body);
        let expected = [
            (14, 300),
            (18, 300),
            (4, 300),
            (14, 700),
            (14, 200),
            (14, 300),
        ];
        for (number, expected) in expected.into_iter().enumerate() {
            assert_eq!(of(TokenClass::named(number)), expected, "model {number}");
        }
        assert_eq!(of(TokenClass::OTHERWISE), (14, 300));
        assert_eq!(of(TokenClass::UNREAD), (18, 700), "the dearest of each");
        assert_eq!(of(TokenClass::named(9)), (18, 700), "of other rules");
        assert_eq!(table.fewest_unread(TokenClass::OTHERWISE), 300);
        assert_eq!(table.fewest_unread(TokenClass::UNREAD), 700);
        assert_eq!(table.fewest_unread(TokenClass::named(4)), 200);
    }

    #[test]
    fn without_weights_of_models_all_classes_have_those_for_all() {
        let table = WeightTable::new(&BodyEstimate::new().output(7), [None, None].into_iter());
        for class in [
            TokenClass::OTHERWISE,
            TokenClass::UNREAD,
            TokenClass::named(1),
        ] {
            assert_eq!(tokens(table.of(class), ""), (0, 7));
            assert_eq!(table.fewest_unread(class), 0);
        }
        assert!(table.by_class.is_empty(), "nothing is kept");
    }

    #[test]
    fn no_body_is_cheaper_by_the_dearest_weights() {
        let sizes = [
            (0, MaximumMember::MaxTokens),
            (1, MaximumMember::NPredict),
            (3, MaximumMember::MaxTokens),
            (4_000, MaximumMember::Options),
        ];
        let estimates = sizes.map(|(bytes, member)| {
            let estimate = BodyEstimate::new().bytes_per_token(bytes);
            let estimate = estimate.output(4_000 - bytes).max_output(bytes * 3);
            estimate.maximum_from([member])
        });
        let bodies = [
            r#"{"prompt":"some text"}"#,
            r#"{"prompt":["a","b"],"max_tokens":5000,"n":2}"#,
            r#"{"messages":["data:,"],"max_tokens":-1}"#,
            r#"{"max_tokens":2}"#,
            r#"{"n_predict":2}"#,
        ];
        for one in estimates.map(weights) {
            for other in estimates.map(weights) {
                for body in bodies {
                    let dearest = tokens(&one.or_dearer(other), body);
                    for own in [one, other].map(|own| tokens(&own, body)) {
                        assert!(
                            own.0 <= dearest.0 && own.1 <= dearest.1,
                            "{one:?} {other:?} {body}"
                        );
                    }
                }
            }
        }
    }
}
