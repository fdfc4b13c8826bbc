//! Finds the requests that two routes have in common.

use std::cmp::{Ordering, Reverse};

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
        let meet = |(one, other): (&Segment, &Segment)| one.meets(other);
        methods && lengths && segments.iter().zip(others).all(meet)
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
        for (one, other) in segments.iter().zip(others) {
            match one.rank().cmp(&other.rank()) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        match segments.len().cmp(&others.len()) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => match (method, other_method) {
                (Some(_), None) => true,
                // `HEAD` falls to `GET`.
                (Some(method), Some(other)) => *method == Method::HEAD && *other == Method::GET,
                (None, _) => false,
            },
        }
    }
}

impl Segment {
    /// Returns whether some segment of a path may match both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(other)) => one == other,
            (Self::Param, _) | (_, Self::Param) => true,
            (Self::SuffixedParam(one), Self::SuffixedParam(other)) => one.meets(other),
            (Self::SuffixedParam(suffix), Self::Literal(text))
            | (Self::Literal(text), Self::SuffixedParam(suffix)) => suffix.may_end(text),
        }
    }

    /// Ranks a segment, the most specific first: a literal, a parameter with the longest literal after it, and any other
    /// parameter.
    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Literal(_) => (0, Reverse(0)),
            Self::SuffixedParam(suffix) => (1, Reverse(suffix.len())),
            Self::Param => (2, Reverse(0)),
        }
    }
}

/// A path that is not kept, as keyed hashes of its segments: enough to tell which keys match it.
#[derive(Debug)]
pub(crate) struct Shape {
    family: &'static str,
    segments: Box<[u64]>,
    /// The ends of these segments. Empty if none has a colon or an escape.
    ends: Box<[SegmentEnd]>,
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
        let kept: Vec<&str> = segments.by_ref().take(Self::LONGEST).collect();
        let ends = match path.contains([':', '%']) {
            true => kept.iter().map(|it| SegmentEnd::of(it, &hash)).collect(),
            false => Box::default(),
        };
        Self {
            family: head.family(),
            segments: kept.into_iter().map(hash).collect(),
            ends,
            goes_on: segments.next().is_some(),
        }
    }

    /// The end of a segment.
    fn end(&self, index: usize) -> SegmentEnd {
        self.ends.get(index).copied().unwrap_or(SegmentEnd::NoColon)
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
        let same = |(index, (own, wanted)): (usize, (&u64, &Segment))| match wanted {
            Segment::Literal(text) => *own == hash(text),
            Segment::Param => true,
            Segment::SuffixedParam(suffix) => {
                self.end(index).is(suffix.as_str(), &hash).unwrap_or(true)
            }
        };
        let methods = method
            .as_ref()
            .is_none_or(|method| family(method) == self.family);
        let mut pairs = self.segments.iter().zip(segments).enumerate();
        methods && lengths && pairs.all(same)
    }

    /// Returns whether all requests for the path whose method belongs to the same family are known to match a key that
    /// it meets.
    pub(crate) fn is_within(&self, key: &RouteKey) -> bool {
        match key.pattern() {
            Pattern::Default => true,
            Pattern::Path {
                method, segments, ..
            } => {
                let is_known = |(index, segment): (usize, &Segment)| match segment {
                    Segment::Literal(_) | Segment::Param => true,
                    Segment::SuffixedParam(suffix) => {
                        matches!(self.end(index), SegmentEnd::Verb(_)) && is_verb(suffix.as_str())
                    }
                };
                let methods = method.as_ref().is_none_or(|it| *it == *self.family);
                methods && segments.iter().enumerate().all(is_known)
            }
        }
    }
}

/// The end of a segment as far as it is kept, which a key may have as the literal after a parameter.
///
/// Google's APIs put a verb behind a colon there: such an end is told exactly. Of others nothing is known.
#[derive(Debug, Clone, Copy)]
enum SegmentEnd {
    /// No colon with a character before it, and no escape.
    NoColon,
    /// The hash of the last colon and of what follows, where something is before it and nothing is escaped.
    Verb(u64),
    /// An escape may be a colon to the host.
    Unknown,
}

impl SegmentEnd {
    fn of(segment: &str, hash: impl Fn(&str) -> u64) -> Self {
        match segment.rfind(':') {
            _ if segment.contains('%') => Self::Unknown,
            None | Some(0) => Self::NoColon,
            Some(colon) => Self::Verb(hash(&segment[colon..])),
        }
    }

    /// Returns whether a segment ends with a literal and has something before it. `None`: nobody knows.
    fn is(self, suffix: &str, hash: impl Fn(&str) -> u64) -> Option<bool> {
        match self {
            Self::NoColon if suffix.contains(':') => Some(false),
            Self::Verb(verb) if is_verb(suffix) => Some(verb == hash(suffix)),
            Self::NoColon | Self::Verb(_) | Self::Unknown => None,
        }
    }
}

/// Returns whether a literal after a parameter is a colon and a verb, without an escape.
fn is_verb(suffix: &str) -> bool {
    suffix.rfind(':') == Some(0) && !suffix.contains('%')
}

#[cfg(test)]
mod tests {
    use http::Extensions;
    use proptest::prelude::*;

    use super::*;
    use crate::route::{overlaps::Overlaps, table::Table};

    const WORDS: [&str; 7] = ["a", "b", "a:v", "{p}", "{q}", "{r}:v", "{s}a:v"];
    const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "ANY"];

    fn key() -> impl Strategy<Value = RouteKey> {
        let words = prop::collection::vec(0..WORDS.len(), 1..4);
        let key = (0..METHODS.len(), words, 0..4_usize).prop_map(|(method, words, end)| {
            let mut key = format!("{} ", METHODS[method]);
            for (index, word) in words.into_iter().enumerate() {
                match WORDS[word] {
                    param if param.starts_with('{') => {
                        key.push_str(&format!("/{{p{index}}}{}", &param[3..]));
                    }
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
                for path in [
                    "/a", "/b", "/c", "/a/a", "/a/b", "/c/b", "/a/b/a", "/b/c/c", "/c/c/c/c", "/a/b/b/a/a", "/a:v", "/:v",
                    "/ca:v", "/c:v/a", "/a/a:v", "/ca:v/a:v", "/a/b/c:v", "/ca:v/c:v/b",
                ] {
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
        fn a_shape_meets_the_keys_that_match_its_path(key in key(), path in "(/([abc]|a:v|ba:v|b:v)){1,20}") {
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

    #[test]
    fn keys_of_other_methods_do_not_meet_and_head_beats_get() {
        let key = |key: &str| key.parse::<RouteKey>().expect("a key");
        for (one, other, meets, beats) in [
            ("GET /a", "POST /a", false, false),
            ("GET /a", "GET /b", false, false),
            ("HEAD /a", "GET /a", true, true),
            ("GET /a", "HEAD /a", true, false),
            ("GET /a", "ANY /a", true, true),
            ("ANY /a", "GET /a", true, false),
            ("ANY /a", "ANY /b", false, false),
            ("PUT /a", "GET /a", false, false),
        ] {
            assert_eq!(key(one).meets(&key(other)), meets, "{one}, {other}");
            assert_eq!(key(one).beats(&key(other)), beats, "{one}, {other}");
        }
    }
}
