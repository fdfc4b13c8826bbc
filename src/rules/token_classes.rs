//! The classes of requests by the models whose tokens have a price or an estimate of their own.

use crate::model::{NamePatternError, NamePatterns};

/// The named classes: those of the names of prices and of estimates together, each once.
///
/// The longest of all names that match a model stands for it, and so tells the longest of the prices and of the
/// estimates.
#[derive(Debug)]
pub(super) struct TokenClasses {
    /// `None`: no request needs a class.
    pub(super) names: Option<NamePatterns>,
    /// For each class the number of its price, if it has one.
    pub(super) prices: Vec<Option<usize>>,
    /// For each class the number of its estimate, if it has one.
    pub(super) estimates: Vec<Option<usize>>,
}

impl TokenClasses {
    /// Makes the classes. `prices` and `estimates` are names that hold together; `None` where rules have no prices.
    pub(super) fn new(prices: Option<&[&str]>, estimates: &[&str]) -> Self {
        if prices.is_none() && estimates.is_empty() {
            return Self {
                names: None,
                prices: Vec::new(),
                estimates: Vec::new(),
            };
        }
        let prices = prices.unwrap_or_default();
        let mut names = prices.to_vec();
        names.extend(estimates.iter().filter(|name| !prices.contains(name)));
        let numbers_in = |own: &[&str]| -> Result<Vec<_>, NamePatternError> {
            let own = NamePatterns::new(own.iter().copied())?;
            Ok(names.iter().map(|name| own.find(name)).collect())
        };
        let checked = "names that were checked";
        Self {
            prices: numbers_in(prices).expect(checked),
            estimates: numbers_in(estimates).expect(checked),
            names: Some(NamePatterns::new(names.iter().copied()).expect(checked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::hash_set, prelude::*};

    use super::*;
    use crate::cases::cases;

    fn found(own: &[&str], name: &str) -> Option<usize> {
        let own = NamePatterns::new(own.iter().copied()).expect("proper names");
        own.find(name)
    }

    #[test]
    fn rules_without_names_need_no_classes() {
        assert!(TokenClasses::new(None, &[]).names.is_none());
        let classes = TokenClasses::new(Some(&[]), &[]);
        assert!(classes.names.is_some(), "the others have a price");
    }

    #[test]
    fn a_name_of_one_has_the_longest_of_the_other() {
        let prices = ["gpt*", "gpt-4o", "gpt-4o-mini*"];
        let estimates = ["gpt-4o*", "gpt-4o-mini-1", "llama", "gpt*"];
        let classes = TokenClasses::new(Some(&prices), &estimates);
        let expected = [
            // (price, estimate), by the names of prices and then those of estimates alone
            (Some(0), Some(3)),
            (Some(1), Some(0)),
            (Some(2), Some(0)),
            (Some(0), Some(0)),
            (Some(2), Some(1)),
            (None, Some(2)),
        ];
        let numbers: Vec<_> = classes.prices.into_iter().zip(classes.estimates).collect();
        assert_eq!(numbers, expected);
    }

    proptest! {
        #![proptest_config(cases(1_000))]

        #[test]
        fn a_class_has_the_price_and_the_estimate_that_its_models_have_alone(
            prices in hash_set("[ab]{1,3}\\*?|\\*", 0..6),
            estimates in hash_set("[ab]{1,3}\\*?|\\*", 0..6),
            name in "[ab]{1,4}",
        ) {
            let prices: Vec<_> = prices.iter().map(String::as_str).collect();
            let estimates: Vec<_> = estimates.iter().map(String::as_str).collect();
            let classes = TokenClasses::new(Some(&prices), &estimates);
            let class = classes.names.as_ref().and_then(|names| names.find(&name));
            let number = |numbers: &[Option<usize>]| class.and_then(|class| numbers[class]);
            prop_assert_eq!(number(&classes.prices), found(&prices, &name));
            prop_assert_eq!(number(&classes.estimates), found(&estimates, &name));
        }
    }
}
