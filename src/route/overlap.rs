//! Finds the requests that two routes have in common.

use http::Method;

use super::{
    comparisons::compared,
    key::{Pattern, RouteKey, Segment},
    overlaps::Trail,
    readings::{Head, family},
};

impl RouteKey {
    /// Returns whether some request may match both keys.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        compared();
        let (
            Pattern::Path {
                method,
                segments,
                greedy,
            },
            Pattern::Path {
                method: other_method,
                segments: others,
                greedy: other_greedy,
            },
        ) = (self.pattern(), other.pattern())
        else {
            // `$default` takes whatever no other key does.
            return true;
        };
        let methods = match (method, other_method) {
            (Some(method), Some(other)) => family(method) == family(other),
            _ => true,
        };
        let lengths = match (greedy, other_greedy) {
            (false, false) => segments.len() == others.len(),
            (true, false) => segments.len() < others.len(),
            (false, true) => others.len() < segments.len(),
            (true, true) => true,
        };
        let same = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            _ => true,
        };
        methods && lengths && segments.iter().zip(others).all(same)
    }

    /// Returns whether a request that matches both keys is this one's.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        let (
            Pattern::Path {
                method,
                segments,
                greedy,
            },
            Pattern::Path {
                method: other_method,
                segments: others,
                greedy: other_greedy,
            },
        ) = (self.pattern(), other.pattern())
        else {
            return *other.pattern() == Pattern::Default && self != other;
        };
        if greedy != other_greedy {
            return !greedy;
        }
        let is_param = |segment: &&Segment| **segment == Segment::Param;
        for (one, other) in segments.iter().zip(others) {
            match (is_param(&one), is_param(&other)) {
                (false, true) => return true,
                (true, false) => return false,
                _ => {}
            }
        }
        match segments.len().cmp(&others.len()) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => match (method, other_method) {
                (Some(_), None) => true,
                // `HEAD` falls to `GET`.
                (Some(method), Some(other)) => *method == Method::HEAD && *other == Method::GET,
                (None, _) => false,
            },
        }
    }
}

/// A path that is not kept, as keyed hashes of its segments: enough to tell which keys match it.
#[derive(Debug)]
pub(crate) struct Shape {
    family: &'static str,
    segments: Box<[u64]>,
    /// True if segments follow that are not kept.
    goes_on: bool,
}

impl Shape {
    /// The most segments that are kept.
    const LONGEST: usize = 16;

    pub(crate) fn of(head: &Head<'_>, hash: impl Fn(&str) -> u64) -> Self {
        // Whichever of its spellings came first.
        let path = head.canonical();
        let mut segments = path.strip_prefix('/').unwrap_or(&path).split('/');
        let kept = segments.by_ref().take(Self::LONGEST);
        Self {
            family: head.family(),
            segments: kept.map(hash).collect(),
            goes_on: segments.next().is_some(),
        }
    }

    /// The path, as far as it is kept.
    pub(crate) fn trail(&self) -> Trail {
        Trail {
            segments: self.segments.iter().copied().map(Some).collect(),
            goes_on: self.goes_on,
        }
    }

    /// Returns whether some request for the path may match a key. `hash` is the one that made the shape.
    pub(crate) fn meets(&self, key: &RouteKey, hash: impl Fn(&str) -> u64) -> bool {
        compared();
        let Pattern::Path {
            method,
            segments,
            greedy,
        } = key.pattern()
        else {
            return true;
        };
        let (own, wanted) = (self.segments.len(), segments.len());
        let lengths = match (self.goes_on, greedy) {
            (false, false) => own == wanted,
            (false, true) => wanted < own,
            (true, false) => own < wanted,
            (true, true) => true,
        };
        let same = |(own, wanted): (&u64, &Segment)| match wanted {
            Segment::Literal(text) => *own == hash(text),
            Segment::Param => true,
        };
        let methods = method
            .as_ref()
            .is_none_or(|method| family(method) == self.family);
        methods && lengths && self.segments.iter().zip(segments).all(same)
    }

    /// Returns whether all requests for the path whose method belongs to the same family match a key that it meets.
    pub(crate) fn is_within(&self, key: &RouteKey) -> bool {
        match key.pattern() {
            Pattern::Default => true,
            Pattern::Path { method: None, .. } => true,
            Pattern::Path {
                method: Some(method),
                ..
            } => *method == *self.family,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Extensions;
    use proptest::prelude::*;

    use super::*;
    use crate::route::{overlaps::Overlaps, table::Table};

    const WORDS: [&str; 4] = ["a", "b", "{p}", "{q}"];
    const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "ANY"];

    fn key() -> impl Strategy<Value = RouteKey> {
        let words = prop::collection::vec(0..WORDS.len(), 1..4);
        let key = (0..METHODS.len(), words, 0..4_usize).prop_map(|(method, words, end)| {
            let mut key = format!("{} ", METHODS[method]);
            for (index, word) in words.into_iter().enumerate() {
                match WORDS[word] {
                    param if param.starts_with('{') => key.push_str(&format!("/{{p{index}}}")),
                    word => key.push_str(&format!("/{word}")),
                }
            }
            match end {
                0 => key.push_str("/{rest+}"),
                1 => "$default".clone_into(&mut key),
                _ => {}
            }
            key.parse().expect("a key")
        });
        key.boxed()
    }

    proptest! {
        /// The table says of each request which key takes it: keys that share one meet, and the one that takes it beats
        /// the other.
        #[test]
        fn keys_meet_and_beat_each_other_as_the_table_says(one in key(), other in key()) {
            let none = Extensions::new();
            let alone = |key: &RouteKey| {
                let mut table = Table::new();
                table.insert(key, ()).expect("the first");
                table
            };
            let tables = [alone(&one), alone(&other)];
            let mut both = Table::new();
            both.insert(&one, 0).expect("the first");
            prop_assume!(both.insert(&other, 1).is_ok());
            for method in ["GET", "HEAD", "POST", "PUT"] {
                let method: Method = method.parse().expect("a method");
                for path in ["/a", "/b", "/c", "/a/a", "/a/b", "/c/b", "/a/b/a", "/b/c/c", "/c/c/c/c", "/a/b/b/a/a"] {
                    let head = Head::alone(&method, path, &none);
                    let shape = Shape::of(&head, |segment| segment.len() as u64);
                    let _ = shape.meets(&one, |segment| segment.len() as u64);
                    let matched = tables.each_ref().map(|table| table.find(&head).is_some());
                    if matched != [true, true] {
                        continue;
                    }
                    prop_assert!(one.meets(&other) && other.meets(&one), "{one} and {other} on {path}");
                    let winner = both.find(&head).expect("one of them");
                    prop_assert_eq!(one.beats(&other), *winner == 0, "{} and {} on {} {}", one, other, method, path);
                    prop_assert_eq!(other.beats(&one), *winner == 1, "{} and {} on {} {}", one, other, method, path);
                }
            }
        }

        /// A path whose segments are hashed meets the keys that match it.
        #[test]
        fn a_shape_meets_the_keys_that_match_its_path(key in key(), path in "(/[abc]){1,20}") {
            let hash = |segment: &str| {
                std::hash::BuildHasher::hash_one(&foldhash::fast::FixedState::default(), segment)
            };
            let none = Extensions::new();
            let mut table = Table::new();
            table.insert(&key, ()).expect("the first");
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
                let head = Head::alone(&method, &path, &none);
                let shape = Shape::of(&head, hash);
                let near: Overlaps = [Trail::of(&key, hash)].into_iter().collect();
                let is_near = !near.with_trail(Some(&shape.trail())).is_empty();
                prop_assert!(is_near || !shape.meets(&key, hash), "{key} on {path}");
                if table.find(&head).is_some() {
                    prop_assert!(shape.meets(&key, hash), "{key} on {path}");
                } else if shape.meets(&key, hash) && path.len() < 32 {
                    // A key of the same family, with another method.
                    prop_assert!(!shape.is_within(&key), "{key} on {method} {path}");
                }
            }
        }
    }
}
