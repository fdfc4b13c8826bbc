//! R1 as seen from outside, where the exact time of a decision is unknown.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{cmp::Reverse, ops::Range};

/// The span in which a request was decided, in nanoseconds: no earlier than the first and no later than the second.
pub(crate) type Between = (u64, u64);

/// The window in which more were let through than a bucket gives, if there is one: from when the first of them was
/// decided at the earliest to when the last was at the latest.
///
/// A request counts in a window only if it was certainly decided there. A bucket that pays for a request in an
/// `interval` gives at most `burst` at once, and one more for each interval that has passed.
pub(crate) fn too_many(admitted: &[Between], burst: u64, interval: u64) -> Option<Between> {
    let signed = |nanos: u64| i64::try_from(nanos).expect("nanoseconds");
    let mut ends: Vec<usize> = (0..admitted.len()).collect();
    ends.sort_unstable_by_key(|&request| admitted[request].1);
    let mut ranks = vec![0; ends.len()];
    for (rank, &request) in ends.iter().enumerate() {
        ranks[request] = rank;
    }
    let mut begins: Vec<usize> = (0..admitted.len()).collect();
    begins.sort_unstable_by_key(|&request| Reverse(admitted[request].0));

    // Window by window, the one that begins last first: in each is one request more than in the one before. The nth of
    // them to end may end when `n - burst` intervals have passed, and no earlier.
    let mut slack = Slack::new(ends.len());
    for request in begins {
        let (from, to) = admitted[request];
        assert!(from <= to, "{from} to {to}");
        let rank = ranks[request];
        slack.add(rank..rank + 1, signed(to) - Slack::FAR);
        slack.add(rank..ends.len(), -signed(interval));
        if slack.least[1] + signed(burst * interval) < signed(from) {
            return Some((from, admitted[ends[slack.find()]].1));
        }
    }
    None
}

/// A refusal before which something was certainly left of a bucket that gives `burst` at once and one more for each
/// `interval`, if there is one. Requests came one after the other.
///
/// An admitted request counts as charged as late as it can have been, and the refusal as decided as early as it can
/// have been: then the bucket has least.
pub(crate) fn refused_for_nothing(
    admitted: &[Between],
    refused: &[Between],
    burst: u64,
    interval: u64,
) -> Option<Between> {
    let paid = admitted.iter().map(|&between| (between.0, between.1, true));
    let all = paid.chain(refused.iter().map(|&between| (between.0, between.1, false)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    // When it is full again.
    let mut full = 0;
    for (from, to, is_admitted) in all {
        if is_admitted {
            full = to.max(full) + interval;
        } else if full <= from + (burst - 1) * interval {
            return Some((from, to));
        }
    }
    None
}

/// Numbers of which whole ranges are added to, and of which the least is sought.
struct Slack {
    /// The least of the numbers below each node of a heap.
    least: Vec<i64>,
    /// The amounts to be added to all numbers below each node.
    added: Vec<i64>,
}

impl Slack {
    /// The value of a place that holds no number: larger than any number that counts.
    const FAR: i64 = i64::MAX / 2;

    fn new(numbers: usize) -> Self {
        let leaves = numbers.next_power_of_two();
        Self {
            least: vec![Self::FAR; 2 * leaves],
            added: vec![0; 2 * leaves],
        }
    }

    fn add(&mut self, range: Range<usize>, amount: i64) {
        self.add_below(1, 0..self.least.len() / 2, &range, amount);
    }

    fn add_below(&mut self, node: usize, own: Range<usize>, range: &Range<usize>, amount: i64) {
        if own.end <= range.start || range.end <= own.start {
            return;
        }
        if range.start <= own.start && own.end <= range.end {
            self.least[node] += amount;
            self.added[node] += amount;
            return;
        }
        let middle = (own.start + own.end) / 2;
        self.add_below(2 * node, own.start..middle, range, amount);
        self.add_below(2 * node + 1, middle..own.end, range, amount);
        self.least[node] = self.least[2 * node].min(self.least[2 * node + 1]) + self.added[node];
    }

    /// Returns the place of the least number.
    fn find(&self) -> usize {
        let leaves = self.least.len() / 2;
        let mut node = 1;
        while node < leaves {
            node *= 2;
            if self.least[node + 1] < self.least[node] {
                node += 1;
            }
        }
        node - leaves
    }
}

/// Asserts that `too_many` finds one too many, and one only if it is too many.
pub(crate) fn proved() {
    const BURST: u64 = 5;
    const INTERVAL: u64 = 100;
    let exact = |late: u64| {
        let burst = (0..BURST).map(|_| (1_000, 1_000 + late));
        let rest = (1..200).map(move |turn| (1_000 + turn * INTERVAL, 1_000 + turn * INTERVAL));
        burst.chain(rest).collect::<Vec<_>>()
    };
    assert_eq!(too_many(&[], BURST, INTERVAL), None);
    assert_eq!(too_many(&exact(0), BURST, INTERVAL), None);
    for one_more in [(1_000, 1_099), (7_000, 7_000), (20_803, 20_850), (900, 900)] {
        let mut admitted = exact(0);
        admitted.push(one_more);
        let found = too_many(&admitted, BURST, INTERVAL);
        assert_eq!(
            found.is_some(),
            one_more.0 != 900,
            "{one_more:?}: {found:?}"
        );
    }
    // The one that is refused finds nothing, or something.
    let spent: Vec<_> = (0..BURST).map(|_| (1_000, 1_000)).collect();
    for (refused, is_for_nothing) in [(1_000, false), (1_099, false), (1_100, true), (9_000, true)]
    {
        let found = refused_for_nothing(&spent, &[(refused, refused + 1)], BURST, INTERVAL);
        assert_eq!(found.is_some(), is_for_nothing, "{refused}: {found:?}");
    }
    // A nanosecond too soon, and what may have been later.
    let mut admitted = exact(0);
    admitted[50].1 -= 1;
    admitted[50].0 -= 1;
    assert_eq!(too_many(&admitted, BURST, INTERVAL), Some((1_000, 5_599)));
    admitted[50].1 += 1;
    assert_eq!(too_many(&admitted, BURST, INTERVAL), None);
}
