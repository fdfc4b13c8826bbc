//! Measures how evenly clients are served.

/// The index of Jain, Chiu and Hawe ("A Quantitative Measure of Fairness and Discrimination for Resource Allocation in
/// Shared Computer Systems", DEC-TR-301, 1984) of what each of `n` clients was given:
///
/// ```text
/// (Σ x)² / (n × Σ x²)
/// ```
///
/// 1 if all have the same, and `k / n` if `k` of them have the same and the others nothing. `None` if nobody has
/// anything.
pub(crate) fn index(given: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for x in given {
        count += 1.0;
        sum += x;
        squares += x * x;
    }
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

/// Returns each client's share if `total` were shared so that nobody has more than was asked for, and whoever has less
/// than asked for has as much as anybody: the max-min fair share (Bertsekas and Gallager, "Data Networks", 6.5.2).
pub(crate) fn fair_shares(asked: &[u32], total: u64) -> Vec<f64> {
    let mut sorted = asked.to_vec();
    sorted.sort_unstable();
    let mut left = total as f64;
    let mut level = 0.0;
    for (index, &next) in sorted.iter().enumerate() {
        level = left / (sorted.len() - index) as f64;
        if f64::from(next) >= level {
            break;
        }
        left -= f64::from(next);
    }
    asked
        .iter()
        .map(|&asked| f64::from(asked).min(level))
        .collect()
}

/// The index of what each was given in proportion to its fair share, so that nobody seems to be wronged who has not
/// asked for more. Pairs of what was asked for and what was given; who has not asked does not count.
pub(crate) fn index_of_shares(clients: &[(u32, u32)]) -> Option<f64> {
    let clients = clients.iter().filter(|(asked, _)| *asked > 0);
    let (asked, given): (Vec<_>, Vec<_>) = clients.copied().unzip();
    let total = given.iter().copied().map(u64::from).sum();
    let shares = fair_shares(&asked, total);
    index(
        given
            .iter()
            .zip(shares)
            .map(|(&given, share)| f64::from(given) / share),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: Option<f64>, expected: f64, what: &str) {
        let found = found.expect(what);
        assert!(
            (found - expected).abs() < 1e-9,
            "{what}: {found} is not {expected}"
        );
    }

    #[test]
    fn the_index_is_that_of_the_paper() {
        assert_near(index([5.0; 7]), 1.0, "all alike");
        assert_near(index([3.0, 3.0, 0.0, 0.0, 0.0]), 0.4, "two of five");
        assert_near(index([1.0, 2.0, 3.0]), 36.0 / 42.0, "uneven");
        assert_near(index([10.0, 20.0, 30.0]), 36.0 / 42.0, "whatever the unit");
        assert_eq!(index([0.0, 0.0]), None);
        assert_eq!(index([]), None);
    }

    #[test]
    fn shares_are_level_where_more_is_asked_for() {
        assert_eq!(fair_shares(&[10, 10, 10], 15), [5.0; 3]);
        assert_eq!(fair_shares(&[2, 100, 6], 18), [2.0, 10.0, 6.0]);
        assert_eq!(
            fair_shares(&[1, 2, 3], 6),
            [1.0, 2.0, 3.0],
            "all that is asked for"
        );
        assert_eq!(fair_shares(&[4, 4], 0), [0.0, 0.0]);
    }

    #[test]
    fn who_asks_for_little_is_not_wronged() {
        assert_near(
            index_of_shares(&[(1, 1), (50, 50), (0, 0)]),
            1.0,
            "all served",
        );
        assert_near(
            index_of_shares(&[(2, 2), (90, 10), (90, 10)]),
            1.0,
            "by shares",
        );
        // Half of what there is goes to one of five.
        let found = index_of_shares(&[(80, 40), (10, 10), (20, 10), (20, 10), (20, 10)]);
        assert!(
            found.is_some_and(|found| (0.6..0.8).contains(&found)),
            "{found:?}"
        );
    }
}
