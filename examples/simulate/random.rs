//! Reproducible random numbers: SplitMix64 (Steele, Lea and Flood 2014), written out, so that no version of a library
//! changes the meaning of a seed.

/// Numbers for one purpose, so that what one purpose draws changes nothing of another.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const ARRIVALS: u64 = 1;
    pub(crate) const CLIENTS: u64 = 2;
    pub(crate) const ROUTES: u64 = 3;
    pub(crate) const PLANS: u64 = 4;
    pub(crate) const MANNERS: u64 = 5;
    pub(crate) const SERVICE: u64 = 6;
    pub(crate) const TOKENS: u64 = 7;

    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(mix(seed) ^ purpose))
    }

    /// The random numbers of one request, whatever others have drawn.
    pub(crate) fn of(seed: u64, purpose: u64, number: u64) -> Self {
        Self(mix(mix(mix(seed) ^ purpose) ^ number))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// At least 0 and less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        // Never the logarithm of zero.
        -mean * (1.0 - self.unit()).ln()
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws from weights.
#[derive(Debug)]
pub(crate) struct Weights(Vec<f64>);

impl Weights {
    pub(crate) fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let sums = weights.into_iter().map(|weight| {
            sum += weight;
            sum
        });
        Self(sums.collect())
    }

    /// The number of one of them.
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let last = self.0.len().saturating_sub(1);
        if last == 0 {
            return 0;
        }
        let place = random.unit() * self.0[last];
        self.0.partition_point(|&sum| sum <= place).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_what_it_meant() {
        // The first numbers of SplitMix64 from 1234567, as its authors' code in C prints them.
        let mut random = Random(1_234_567);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
            ]
        );
    }

    #[test]
    fn draws_follow_the_weights() {
        let weights = Weights::new([1.0, 0.0, 3.0]);
        let mut random = Random::new(1, 1);
        let mut drawn = [0; 3];
        for _ in 0..10_000 {
            drawn[weights.draw(&mut random)] += 1;
        }
        assert_eq!(drawn[1], 0);
        assert!((2_400..2_600).contains(&drawn[0]), "{drawn:?}");
    }

    #[test]
    fn exponential_draws_have_their_mean() {
        let mut random = Random::new(1, 1);
        let sum: f64 = (0..100_000).map(|_| random.exponential(3.0)).sum();
        let mean = sum / 100_000.0;
        assert!((2.95..3.05).contains(&mean), "{mean}");
    }
}
