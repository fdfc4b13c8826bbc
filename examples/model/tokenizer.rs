//! Byte-pair encoding: every text has tokens, and frequent words have one.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

pub(crate) type Token = u16;

/// Stands between paragraphs; no text contains it.
pub(crate) const END: Token = Token::MAX;

/// The number of pairs that are merged into tokens of their own.
const MERGES: usize = 800;

/// Merging costs the square of a word's length, so a word without end must not reach it whole.
const LONGEST_WORD: usize = 32;

#[derive(Debug)]
pub(crate) struct Tokenizer {
    /// The bytes of every token, the 256 single bytes first.
    pieces: Vec<Vec<u8>>,
    /// The token that two neighbours become. The older a merge, the smaller its token.
    merges: HashMap<(Token, Token), Token>,
}

impl Tokenizer {
    pub(crate) fn train(corpus: &str) -> Self {
        let mut tokenizer = Self {
            pieces: (0..=u8::MAX).map(|byte| vec![byte]).collect(),
            merges: HashMap::new(),
        };
        let mut counts = BTreeMap::<&str, usize>::new();
        for word in words(corpus) {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(Vec<Token>, usize)> = counts
            .into_iter()
            .map(|(word, count)| (bytes(word), count))
            .collect();

        for _ in 0..MERGES {
            let mut pairs = HashMap::<(Token, Token), usize>::new();
            for (word, count) in &words {
                for pair in word.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            // The order of a hash map is not the same twice: among equals, the smallest pair wins.
            let best = pairs
                .into_iter()
                .max_by_key(|&(pair, count)| (count, Reverse(pair)));
            let Some((pair, 2..)) = best else { break };
            let merged = tokenizer.merge(pair);
            for (word, _) in &mut words {
                replace(word, pair, merged);
            }
        }
        tokenizer
    }

    fn merge(&mut self, pair: (Token, Token)) -> Token {
        let piece = [self.piece(pair.0), self.piece(pair.1)].concat();
        let token = Token::try_from(self.pieces.len()).expect("256 + MERGES fit a token");
        self.pieces.push(piece);
        self.merges.insert(pair, token);
        token
    }

    pub(crate) fn encode(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        for word in words(text) {
            let mut word = bytes(word);
            while let Some((merged, pair)) = word
                .windows(2)
                .map(|pair| (pair[0], pair[1]))
                .filter_map(|pair| Some((*self.merges.get(&pair)?, pair)))
                .min()
            {
                replace(&mut word, pair, merged);
            }
            tokens.append(&mut word);
        }
        tokens
    }

    pub(crate) fn decode(&self, token: Token) -> Cow<'_, str> {
        String::from_utf8_lossy(self.piece(token))
    }

    pub(crate) fn vocabulary(&self) -> impl Iterator<Item = (Token, Cow<'_, str>)> {
        (0..).zip(
            self.pieces
                .iter()
                .map(|piece| String::from_utf8_lossy(piece)),
        )
    }

    fn piece(&self, token: Token) -> &[u8] {
        self.pieces
            .get(usize::from(token))
            .map_or(&[], Vec::as_slice)
    }
}

fn bytes(word: &str) -> Vec<Token> {
    word.bytes().map(Token::from).collect()
}

/// Splits into words and single signs, each with the space before it. Nothing is lost.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bare = rest.strip_prefix(' ').unwrap_or(rest);
        let space = rest.len() - bare.len();
        let letters: usize = bare
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .take(LONGEST_WORD)
            .map(char::len_utf8)
            .sum();
        let sign = bare.chars().next().map_or(0, char::len_utf8);
        let (word, after) = rest.split_at(space + if letters > 0 { letters } else { sign });
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

fn replace(word: &mut Vec<Token>, pair: (Token, Token), merged: Token) {
    let mut at = 0;
    while at + 1 < word.len() {
        if (word[at], word[at + 1]) == pair {
            word[at] = merged;
            word.remove(at + 1);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = "the river, the river; the sea and the river";

    #[test]
    fn every_text_survives_encoding() {
        let tokenizer = Tokenizer::train(CORPUS);
        for text in [
            "",
            " ",
            "The river does not hurry.",
            "  two spaces,\n\na paragraph\tand a tab ",
            "Grüße aus 東京 🚲",
            &"x".repeat(1000),
        ] {
            let tokens = tokenizer.encode(text);
            let bytes: Vec<u8> = tokens
                .iter()
                .flat_map(|&t| tokenizer.piece(t))
                .copied()
                .collect();
            assert_eq!(bytes, text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn a_frequent_word_is_one_token() {
        let tokenizer = Tokenizer::train(CORPUS);
        assert_eq!(tokenizer.encode(" river").len(), 1);
        assert_eq!(tokenizer.encode(" the").len(), 1);
        assert!(tokenizer.encode(" zyzzyva").len() > 1);
    }
}
