//! Reproducible random numbers: SplitMix64, and drawing from weights with a temperature.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use super::tokenizer::Token;

/// A seed for a request that brought none.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(())
}

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0 and less than 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws one token. The colder, the surer the best one wins; at 0 it always does.
    pub(crate) fn sample(
        &mut self,
        candidates: &BTreeMap<Token, f64>,
        temperature: f64,
    ) -> Option<Token> {
        let (&best, &top) = candidates.iter().max_by(|a, b| a.1.total_cmp(b.1))?;
        if temperature == 0.0 {
            return Some(best);
        }
        // Scores are taken relative to the best, so that a cold power cannot round all of them to 0.
        let weight = |score: f64| (score / top).powf(temperature.recip());
        let total: f64 = candidates.values().map(|&score| weight(score)).sum();
        let mut left = self.unit() * total;
        for (&token, &score) in candidates {
            left -= weight(score);
            if left < 0.0 {
                return Some(token);
            }
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_weights() {
        let candidates = BTreeMap::from([(1, 0.75), (2, 0.25)]);
        let mut random = Random::new(1);
        let ones = (0..10_000)
            .filter(|_| random.sample(&candidates, 1.0) == Some(1))
            .count();
        assert!((7_300..7_700).contains(&ones), "{ones} of 10,000");
    }

    #[test]
    fn cold_draws_take_the_best() {
        let candidates = BTreeMap::from([(1, 1e-9), (2, 2e-9)]);
        let mut random = Random::new(1);
        for temperature in [0.0, 0.01] {
            for _ in 0..100 {
                assert_eq!(
                    random.sample(&candidates, temperature),
                    Some(2),
                    "{temperature}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        assert_eq!(Random::new(1).sample(&BTreeMap::new(), 1.0), None);
    }
}
