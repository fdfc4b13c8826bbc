//! So many events a second, and a count of those that were not told.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;

/// Lets a few events of each second through. It guards nothing but its own counts, hence relaxed: at the turn of a
/// second a few more may pass.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    second: AtomicU64,
    told: AtomicU64,
    suppressed: AtomicU64,
}

impl Sampler {
    /// Events a second.
    const MOST: u64 = 10;

    /// Returns how many events before the one at `now` were not told; `None` if that one is not to be told either.
    pub(crate) fn tells(&self, now: Nanos) -> Option<u64> {
        let second = now / 1_000_000_000 + 1;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.told.store(0, Ordering::Relaxed);
        }
        if self.told.fetch_add(1, Ordering::Relaxed) < Self::MOST {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_and_a_count_of_the_others() {
        const SECOND: Nanos = 1_000_000_000;
        let sampler = Sampler::default();
        for second in 0..3 {
            let told = (0..25).map(|event| sampler.tells(second * SECOND + event));
            let told: Vec<_> = told.flatten().collect();
            assert_eq!(told.len(), 10);
            assert_eq!(told[0], if second == 0 { 0 } else { 15 });
            assert!(told[1..].iter().all(|suppressed| *suppressed == 0));
        }
    }
}
