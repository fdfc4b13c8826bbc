//! The routes that may have requests in common with another one, found without a look at each.

use std::{collections::HashMap, hash::BuildHasher};

use foldhash::fast::FixedState;

use super::{
    comparisons::compared,
    key::{Pattern, RouteKey, Segment},
};

/// Routes by number, found by the segments of their paths.
///
/// To find those that overlap with a route takes as many steps as there are segments and routes that share them,
/// however many others there are. Only a parameter is followed into all literals in its place.
#[derive(Debug)]
pub(crate) struct Overlaps {
    /// The root is the first.
    nodes: Vec<SegmentNode>,
    /// Routes that may take any path.
    any: Vec<usize>,
    len: usize,
}

/// A segment of the paths of routes, and what follows it.
#[derive(Debug, Default)]
struct SegmentNode {
    literals: HashMap<u64, usize, FixedState>,
    param: Option<usize>,
    /// Routes whose path ends here.
    ends: Vec<usize>,
    /// Routes whose path goes on from here, with at least one segment.
    greedy: Vec<usize>,
}

/// The path of a route: a hash for each literal segment. A parameter is `None`, whatever comes after it.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(super) segments: Vec<Option<u64>>,
    /// At least one unknown segment follows.
    pub(super) goes_on: bool,
}

impl Trail {
    /// The path of a key. `None`: any.
    pub(crate) fn of(key: &RouteKey, hash: impl Fn(&str) -> u64) -> Option<Self> {
        let Pattern::Path {
            segments, greedy, ..
        } = key.pattern()
        else {
            return None;
        };
        let segment = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(hash(text)),
            // Followed into all that is in its place: a hash does not tell the end of a segment.
            Segment::Param | Segment::SuffixedParam(_) => None,
        };
        Some(Self {
            segments: segments.iter().map(segment).collect(),
            goes_on: *greedy,
        })
    }

    fn of_key(key: &RouteKey) -> Option<Self> {
        Self::of(key, |text| FixedState::default().hash_one(text))
    }
}

impl Overlaps {
    pub(crate) fn of<'a>(keys: impl IntoIterator<Item = &'a RouteKey>) -> Self {
        keys.into_iter().map(Trail::of_key).collect()
    }

    /// Adds a key under the next number.
    pub(crate) fn insert(&mut self, key: &RouteKey) {
        self.insert_trail(Trail::of_key(key));
    }

    fn insert_trail(&mut self, trail: Option<Trail>) {
        let number = self.len;
        self.len += 1;
        let Some(Trail { segments, goes_on }) = trail else {
            self.any.push(number);
            return;
        };
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Some(hash) => *node.literals.entry(hash).or_insert(next),
                None => *node.param.get_or_insert(next),
            };
            if at == next {
                self.nodes.push(SegmentNode::default());
            }
        }
        let node = &mut self.nodes[at];
        match goes_on {
            true => node.greedy.push(number),
            false => node.ends.push(number),
        }
    }

    /// The numbers of all routes, in their order, that may take a path of a key. Their methods play no part.
    pub(crate) fn with(&self, key: &RouteKey) -> Vec<usize> {
        self.with_trail(Trail::of_key(key).as_ref())
    }

    /// The numbers of all routes, in their order, that may take a path of a route.
    pub(crate) fn with_trail(&self, trail: Option<&Trail>) -> Vec<usize> {
        let Some(Trail { segments, goes_on }) = trail else {
            return (0..self.len).collect();
        };
        let mut found = self.any.clone();
        let mut ahead = vec![(0, 0)];
        while let Some((at, depth)) = ahead.pop() {
            compared();
            let node = &self.nodes[at];
            let next = segments.get(depth);
            let ends_here = match goes_on {
                true => depth > segments.len(),
                false => depth == segments.len(),
            };
            if ends_here {
                found.extend(&node.ends);
            }
            if next.is_some() || *goes_on {
                found.extend(&node.greedy);
            }
            let deeper = |child: &usize| (*child, depth + 1);
            match next {
                Some(Some(hash)) => ahead.extend(node.literals.get(hash).map(deeper)),
                Some(None) => ahead.extend(node.literals.values().map(deeper)),
                None if *goes_on => ahead.extend(node.literals.values().map(deeper)),
                None => continue,
            }
            ahead.extend(node.param.as_ref().map(deeper));
        }
        found.sort_unstable();
        found
    }
}

/// Each route under the next number. `None`: it may take any path.
impl FromIterator<Option<Trail>> for Overlaps {
    fn from_iter<I: IntoIterator<Item = Option<Trail>>>(trails: I) -> Self {
        let mut overlaps = Self::default();
        for trail in trails {
            overlaps.insert_trail(trail);
        }
        overlaps
    }
}

impl Default for Overlaps {
    fn default() -> Self {
        Self {
            nodes: vec![SegmentNode::default()],
            any: Vec::new(),
            len: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_keys_are_found_that_share_a_path_and_no_others_if_no_parameter_has_an_end(
            keys in prop::collection::vec(
                "(GET|ANY) (/(a|b|a:v|\\{p\\}|\\{p\\}:v|\\{p\\}a:v)){1,3}(/\\{r\\+\\})?|[$]default",
                1..20,
            ),
        ) {
            // Each parameter of a key takes a name of its own.
            let named = |text: &String| {
                let words = text.split("{p}").enumerate();
                let words = words.map(|(index, word)| match index {
                    0 => word.to_owned(),
                    index => format!("{{p{index}}}{word}"),
                });
                words.collect::<String>().parse().expect("a key")
            };
            let keys: Vec<RouteKey> = keys.iter().map(named).collect();
            let overlaps = Overlaps::of(&keys);
            let of_any = |key: &RouteKey| match key.as_str().split_once(' ') {
                Some((_, path)) => format!("ANY {path}").parse().expect("a key"),
                None => key.clone(),
            };
            // The key as the index has it: its parameters have no ends.
            let without_ends = |key: &RouteKey| -> RouteKey {
                let text = key.as_str().replace("}a:v", "}").replace("}:v", "}");
                text.parse().expect("a key")
            };
            for key in &keys {
                let any = of_any(key);
                let found = overlaps.with(key);
                let meets = |other: &usize| any.meets(&keys[*other]);
                let missed = (0..keys.len()).filter(meets).find(|it| !found.contains(it));
                prop_assert_eq!(missed, None, "{} among {:?}", key, &keys);
                let any = without_ends(&any);
                let expected = (0..keys.len()).filter(|other| any.meets(&without_ends(&keys[*other])));
                let expected: Vec<usize> = expected.collect();
                prop_assert_eq!(found, expected, "{} among {:?}", key, &keys);
            }
        }
    }
}
