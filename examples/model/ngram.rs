//! Counts of successive tokens, and the back-off for sequences without counts.

use std::collections::{BTreeMap, HashMap};

use super::tokenizer::{END, Token};

/// The weight of a shorter context beside a longer one ("stupid back-off").
const BACK_OFF: f64 = 0.2;

#[derive(Debug)]
pub(crate) struct Ngrams {
    /// The most tokens by which the next one is chosen.
    context: usize,
    /// Counts of how often each token followed a context of up to so many tokens.
    followers: HashMap<Box<[Token]>, BTreeMap<Token, u32>>,
}

impl Ngrams {
    /// Knows nothing, and will choose a token by so many before it.
    pub(crate) fn new(context: usize) -> Self {
        let followers = HashMap::new();
        Self { context, followers }
    }

    pub(crate) fn learn(&mut self, paragraph: &[Token]) {
        let tokens = [&[END], paragraph, &[END]].concat();
        for at in 1..tokens.len() {
            for start in at.saturating_sub(self.context)..=at {
                let followers = self.followers.entry(tokens[start..at].into()).or_default();
                *followers.entry(tokens[at]).or_default() += 1;
            }
        }
    }

    /// Returns the number of contexts that it knows.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.followers.len()
    }

    /// Every token that may come next, with its score: its share among the followers of the
    /// longest context it was seen after, times `BACK_OFF` for each token the context had to lose.
    ///
    /// Tokens that were never seen after the last one come last of all, when nothing else is
    /// known: half a word must not be followed by just anything.
    pub(crate) fn candidates(&self, context: &[Token]) -> BTreeMap<Token, f64> {
        let mut candidates = BTreeMap::new();
        let mut weight = 1.0;
        for start in context.len().saturating_sub(self.context)..=context.len() {
            if start == context.len() && !candidates.is_empty() {
                break;
            }
            if let Some(followers) = self.followers.get(&context[start..]) {
                let total: u32 = followers.values().sum();
                for (&token, &count) in followers {
                    candidates
                        .entry(token)
                        .or_insert(weight * f64::from(count) / f64::from(total));
                }
            }
            weight *= BACK_OFF;
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_context_outweighs_a_shorter_one() {
        let mut ngrams = Ngrams::new(4);
        ngrams.learn(&[1, 2, 3]);
        ngrams.learn(&[4, 2, 5]);
        ngrams.learn(&[4, 2, 5]);

        let after_1_2 = ngrams.candidates(&[END, 1, 2]);
        assert_eq!(after_1_2[&3], 1.0, "the whole context was seen");
        assert_eq!(
            after_1_2[&5],
            BACK_OFF * BACK_OFF * 2.0 / 3.0,
            "seen after the last token alone"
        );
        assert!(!after_1_2.contains_key(&1), "never seen after 2");
    }

    #[test]
    fn an_unknown_context_falls_back_to_all_tokens() {
        let mut ngrams = Ngrams::new(4);
        ngrams.learn(&[1, 2, 3]);
        let tokens: Vec<Token> = ngrams.candidates(&[9]).into_keys().collect();
        assert_eq!(tokens, [1, 2, 3, END]);
    }
}
