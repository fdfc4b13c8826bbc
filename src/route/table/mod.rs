//! Declared routes, found by method and path.
//!
//! The order is API Gateway's. Paths without a greedy end come first, segment by segment: a literal
//! before a parameter, and of parameters that with the longest literal after it. Then paths with a greedy end, the longest first. Then `$default`. A path counts
//! only if it has a key for the request's method: its own, for `HEAD` that of `GET`, or `ANY`, in this
//! order. A more specific path without one does not hide a less specific one that has it.
//!
//! Paths without parameters are one look-up, however many there are. The others are a walk along
//! the segments, so that the cost grows with the length of the path and not with the number of routes;
//! only keys that differ from each other in literal against parameter, segment for segment, add to it.
//!
//! Where the host's router has matched the request, its template is heeded: a segment that is a literal
//! there is not taken for a parameter while a key has the literal. The key of the handler that runs is
//! thus found, though routers do not all choose as API Gateway does: under `/x/{*rest}` and `/{a}/{b}`
//! axum takes `/x/1` for the former, API Gateway for the latter.

mod tree;

use std::{borrow::Cow, collections::HashMap};

use foldhash::fast::FixedState;
use http::Method;

use self::tree::Tree;
use super::{
    catch_all::CatchAll,
    key::{Pattern, RouteKey, Segment, literal_path},
    readings::{Head, LiteralRoute, Reading, is_grpc_path},
    spelling::{Escapes, is_ambiguous, normalize},
};

/// A table of route keys with a value each.
#[derive(Debug)]
pub(crate) struct Table<V> {
    values: Vec<V>,
    /// The specificity of each key, by the number of its value.
    kinds: Vec<Specificity>,
    /// The path of some key, the root apart, ends with a slash.
    any_slash_end: bool,
    /// Paths without parameters.
    literals: Strings<Methods>,
    /// All other paths.
    tree: Tree,
    default: Option<usize>,
    /// True if `$default` takes only requests that match no route of the host's router.
    default_is_unrouted: bool,
}

/// The specificity of keys, the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Literal,
    /// A parameter has a literal after it.
    SuffixedParams,
    Params,
    Greedy,
    Default,
}

impl Specificity {
    fn of(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Default => Self::Default,
            Pattern::Path { greedy: true, .. } => Self::Greedy,
            Pattern::Path { segments, .. } => {
                let of_segment = |segment: &Segment| match segment {
                    Segment::Literal(_) => Self::Literal,
                    Segment::Param => Self::Params,
                    Segment::SuffixedParam(_) => Self::SuffixedParams,
                };
                let params = segments.iter().map(of_segment);
                let params = params.filter(|kind| *kind != Self::Literal);
                params.min().unwrap_or(Self::Literal)
            }
        }
    }
}

/// The keys of one path: indices of values by method.
#[derive(Debug, Default)]
struct Methods {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
    /// True if the path may be read in several ways.
    is_ambiguous: bool,
    /// True if the path has the shape of a gRPC method.
    is_grpc: bool,
}

/// The keys that come into question for a request.
#[derive(Debug, Clone, Copy)]
struct Candidates<'a> {
    method: &'a Method,
    /// Only keys that name the method.
    is_named: bool,
    /// True if a parameter matches an empty segment too, unless it is the last.
    empty_params: bool,
    /// The way in which the literal after a parameter is compared.
    escapes: Escapes,
}

impl Methods {
    /// Enters a value under a method. Fails with the value that the method has already.
    fn insert(&mut self, method: Option<&Method>, value: usize) -> Result<(), usize> {
        let Some(method) = method else {
            return take(&mut self.any, value);
        };
        match self.position(method) {
            Some(taken) => Err(taken),
            None => {
                self.named.push((method.clone(), value));
                Ok(())
            }
        }
    }

    #[inline]
    fn position(&self, wanted: &Method) -> Option<usize> {
        let found = self.named.iter().find(|(method, _)| method == wanted);
        found.map(|&(_, value)| value)
    }

    #[inline]
    fn find(&self, wanted: Candidates<'_>) -> Option<usize> {
        let named = self.position(wanted.method);
        if wanted.is_named {
            return named;
        }
        named
            .or_else(|| {
                let head = *wanted.method == Method::HEAD;
                head.then(|| self.position(&Method::GET)).flatten()
            })
            .or(self.any)
    }
}

impl<'a> Candidates<'a> {
    #[inline]
    fn by(head: &Head<'a>) -> Self {
        Self {
            method: head.method,
            is_named: false,
            empty_params: head.empty_params,
            escapes: head.escapes,
        }
    }
}

impl<V> Table<V> {
    pub(crate) fn new() -> Self {
        Self {
            values: Vec::new(),
            kinds: Vec::new(),
            any_slash_end: false,
            literals: Strings::default(),
            tree: Tree::new(),
            default: None,
            default_is_unrouted: false,
        }
    }

    /// Sets which requests `$default` takes.
    pub(crate) fn catch_all(&mut self, catch_all: CatchAll) {
        self.default_is_unrouted = catch_all == CatchAll::Unrouted;
    }

    /// Returns which requests `$default` takes.
    pub(crate) fn takes(&self) -> CatchAll {
        match self.default_is_unrouted {
            true => CatchAll::Unrouted,
            false => CatchAll::Unmatched,
        }
    }

    /// Returns whether the parameter of some key has a literal after it.
    pub(crate) fn any_suffixes(&self) -> bool {
        self.tree.any_suffixes()
    }

    /// The value of each route, in the order in which they were added.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter()
    }

    /// The value of the route that was added under a number, from zero on.
    pub(crate) fn value(&self, number: usize) -> Option<&V> {
        self.values.get(number)
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// The value of the route that means the same.
    pub(crate) fn insert(&mut self, key: &RouteKey, value: V) -> Result<(), &V> {
        let index = self.values.len();
        let inserted = match key.pattern() {
            Pattern::Default => take(&mut self.default, index),
            Pattern::Path {
                method,
                segments,
                greedy,
            } => self
                .methods(segments, *greedy)
                .insert(method.as_ref(), index),
        };
        match inserted {
            Ok(()) => {
                self.values.push(value);
                self.kinds.push(Specificity::of(key.pattern()));
                self.any_slash_end |= has_slash_end(key.pattern());
                Ok(())
            }
            Err(taken) => Err(&self.values[taken]),
        }
    }

    /// The keys of a path, made if there are none yet.
    fn methods(&mut self, segments: &[Segment], greedy: bool) -> &mut Methods {
        if let Some(path) = literal_path(segments).filter(|_| !greedy) {
            return self.literals.entry(&path, || Methods {
                is_ambiguous: is_ambiguous(&path),
                is_grpc: is_grpc_path(&path),
                ..Methods::default()
            });
        }
        self.tree.methods(segments, greedy)
    }

    /// The route a request falls under.
    #[inline]
    pub(crate) fn find(&self, head: &Head<'_>) -> Option<&V> {
        self.matched(Candidates::by(head), head)
            .or_else(|| self.default_for(head))
            .map(|index| &self.values[index])
    }

    /// The value of `$default`, if it takes this request, which no other key matches.
    #[inline]
    fn default_for(&self, head: &Head<'_>) -> Option<usize> {
        self.default
            .filter(|_| !self.default_is_unrouted || head.template().is_none())
    }

    /// The route of a path that equals a literal key and has one reading only.
    #[inline(always)]
    pub(crate) fn plain(&self, head: &Head<'_>) -> Option<LiteralRoute<'_, V>> {
        let methods = self.literals.get(head.path)?;
        let found = methods.find(Candidates::by(head))?;
        (!methods.is_ambiguous).then(|| LiteralRoute {
            value: &self.values[found],
            is_grpc: methods.is_grpc,
        })
    }

    /// The route of a path that has one reading only, where it is not [`plain`](Self::plain).
    #[inline]
    pub(crate) fn beside_plain(&self, head: &Head<'_>) -> Option<&V> {
        self.in_tree(Candidates::by(head), head, head.path)
            .or_else(|| self.default_for(head))
            .map(|index| &self.values[index])
    }

    /// Returns the route that one reading of a request falls under.
    pub(crate) fn find_as(&self, reading: &Reading<'_>) -> Option<&V> {
        let head = reading.head();
        if reading.is_upgrade() {
            let connect = head.read_as(&Method::CONNECT, head.path);
            if let Some(named) = self.find_if_named(&connect) {
                return Some(named);
            }
        }
        self.find(head)
    }

    /// The route a request falls under, if its key names the request's method.
    fn find_if_named(&self, head: &Head<'_>) -> Option<&V> {
        let wanted = Candidates::by(head);
        let found = self.matched(wanted, head)?;
        let is_named = true;
        let named = self.matched(Candidates { is_named, ..wanted }, head);
        (named == Some(found)).then(|| &self.values[found])
    }

    /// The route of the same path with a slash more or less at its end, if its key is more specific than that of the
    /// path itself.
    #[inline(always)]
    pub(crate) fn of_other_end(&self, head: &Head<'_>) -> Option<&V> {
        let has_slash = head.path.ends_with('/') && head.path.len() > 1;
        if !has_slash && !self.any_slash_end {
            return None;
        }
        self.at_other_end(head)
    }

    #[cold]
    fn at_other_end(&self, head: &Head<'_>) -> Option<&V> {
        // A request that a router gives to a greedy route is not at the root of a nested service.
        if head.template().is_some_and(|path| path.contains("{*")) {
            return None;
        }
        let other: Cow<'_, str> = match head.path.strip_suffix('/') {
            Some("") => return None,
            Some(shorter) => shorter.into(),
            None if head.path.starts_with('/') => format!("{}/", head.path).into(),
            // `OPTIONS *` and `CONNECT` to an authority have no path, and so no end of it.
            None => return None,
        };
        let other = head.read_as(head.method, &other);
        let found = self.matched(Candidates::by(&other), &other)?;
        let own = self.matched(Candidates::by(head), head);
        own.is_none_or(|own| self.kinds[found] < self.kinds[own])
            .then(|| &self.values[found])
    }

    #[inline]
    fn matched(&self, wanted: Candidates<'_>, head: &Head<'_>) -> Option<usize> {
        // Literal keys are stored in normal form, so a path that equals one needs no work.
        if let Some(value) = self.literal(wanted, head.path) {
            return Some(value);
        }
        let path = match head.escapes {
            // Whatever can be compared in normal form has it.
            Escapes::Sent => Cow::Borrowed(head.path),
            Escapes::Normal | Escapes::Decoded => normalize(head.path),
        };
        if let Cow::Owned(path) = &path {
            if let Some(value) = self.literal(wanted, path) {
                return Some(value);
            }
        }
        self.in_tree(wanted, head, &path)
    }

    /// The best key with parameters for a path in normal form.
    #[inline]
    fn in_tree(&self, wanted: Candidates<'_>, head: &Head<'_>, path: &str) -> Option<usize> {
        if self.tree.is_empty() {
            return None;
        }
        let relative = path.strip_prefix('/')?;
        // A segment that the router matched literally is no parameter of a key, if there is a choice.
        (head
            .template()
            .and_then(|template| template.strip_prefix('/')))
        .and_then(|template| self.tree.find(relative, Some(template), wanted))
        .or_else(|| self.tree.find(relative, None, wanted))
    }

    #[inline]
    fn literal(&self, wanted: Candidates<'_>, path: &str) -> Option<usize> {
        self.literals.get(path)?.find(wanted)
    }
}

/// Strings with a value each: compared one by one while they are few, hashed once they are many.
///
/// The strings are configured; what a client sends is only looked up, so that there is no flooding to
/// defend against.
#[derive(Debug)]
enum Strings<T> {
    Few(Vec<(Box<str>, T)>),
    Many(HashMap<Box<str>, T, FixedState>),
}

impl<T> Strings<T> {
    /// Up to here comparing is faster than hashing: most strings differ in their length already.
    const FEW: usize = 8;

    #[inline(always)]
    fn get(&self, text: &str) -> Option<&T> {
        match self {
            Self::Few(few) => {
                let found = few.iter().find(|(known, _)| **known == *text);
                found.map(|(_, value)| value)
            }
            Self::Many(many) => Self::among(many, text),
        }
    }

    /// The value of a string among many. Out of line, so that few are compared where the caller looks them up.
    #[inline(never)]
    fn among<'a>(many: &'a HashMap<Box<str>, T, FixedState>, text: &str) -> Option<&'a T> {
        many.get(text)
    }

    /// The value of a string, made if it is new.
    fn entry(&mut self, text: &str, make: impl FnOnce() -> T) -> &mut T {
        if let Self::Few(few) = self {
            let known = few.iter().any(|(known, _)| **known == *text);
            if !known && few.len() == Self::FEW {
                *self = Self::Many(few.drain(..).collect());
            }
        }
        match self {
            Self::Few(few) => {
                let known = few.iter().position(|(known, _)| **known == *text);
                let index = known.unwrap_or_else(|| {
                    few.push((text.into(), make()));
                    few.len() - 1
                });
                &mut few[index].1
            }
            Self::Many(many) => many.entry(text.into()).or_insert_with(make),
        }
    }
}

impl<T> Default for Strings<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

/// Returns whether the path of a key ends with a slash, and is not the root.
fn has_slash_end(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Path {
            segments,
            greedy: false,
            ..
        } => {
            let last = segments
                .split_last()
                .filter(|(_, before)| !before.is_empty());
            last.is_some_and(|(last, _)| matches!(last, Segment::Literal(text) if text.is_empty()))
        }
        Pattern::Default | Pattern::Path { .. } => false,
    }
}

/// Fills a place, if it is free.
fn take(place: &mut Option<usize>, value: usize) -> Result<(), usize> {
    match *place {
        Some(taken) => Err(taken),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Extensions;

    use super::*;

    #[test]
    fn all_values_are_there_as_they_were_added() {
        let mut table = Table::new();
        for (value, key) in ["GET /b", "$default", "GET /a/{id}", "POST /b"]
            .iter()
            .enumerate()
        {
            let key = key.parse().expect("a route key");
            assert_eq!(table.insert(&key, value), Ok(()));
        }
        let values: Vec<_> = table.values().copied().collect();
        assert_eq!(values, [0, 1, 2, 3]);
        let taken = "GET /b".parse().expect("a route key");
        assert_eq!(table.insert(&taken, 4), Err(&0));
        assert_eq!(table.values().count(), 4);
    }

    #[test]
    fn each_string_keeps_its_value_however_many_there_are() {
        let mut strings = Strings::default();
        for count in 0..40usize {
            assert_eq!(strings.get(&format!("/{count}")), None);
            assert_eq!(*strings.entry(&format!("/{count}"), || count), count);
            for known in 0..=count {
                assert_eq!(strings.get(&format!("/{known}")), Some(&known));
                let entry = strings.entry(&format!("/{known}"), || unreachable!("known"));
                assert_eq!(*entry, known);
            }
            let are_few = matches!(strings, Strings::Few(_));
            assert_eq!(are_few, count < Strings::<usize>::FEW);
        }
    }

    fn table(keys: &[&'static str]) -> Table<&'static str> {
        let mut table = Table::new();
        for key in keys {
            let parsed = key.parse().expect("a route key");
            table.insert(&parsed, *key).expect("a new key");
        }
        table
    }

    #[test]
    fn a_literal_path_of_several_readings_is_not_decided_by_its_key_alone() {
        let none = Extensions::new();
        let table = table(&["GET /a", "GET /b//c"]);
        let plain = |path| {
            let found = table.plain(&Head::alone(&Method::GET, path, &none));
            found.map(|route| *route.value)
        };
        assert_eq!(plain("/a"), Some("GET /a"));
        assert_eq!(plain("/b//c"), None);
    }

    #[test]
    fn a_slash_more_or_less_leads_to_a_key_only_if_it_is_more_specific() {
        let none = Extensions::new();
        let cases: [(&[&str], &str, Option<&str>); 7] = [
            (&["GET /a/{id}", "GET /a/b/"], "/a/b", Some("GET /a/b/")),
            (&["GET /a/{id}/", "GET /a/b"], "/a/b/", Some("GET /a/b")),
            (&["GET /a/b", "GET /a/{id}/"], "/a/b", None),
            (
                &["GET /a/{id}", "GET /a/{id}:run/"],
                "/a/b:run",
                Some("GET /a/{id}:run/"),
            ),
            (&["GET /a/{id}:run", "GET /a/{id}/"], "/a/b:run", None),
            (&["GET /a/{id}", "GET /{any}/b/"], "/a/b", None),
            (&["GET /a/b/"], "/a/b", Some("GET /a/b/")),
        ];
        for (keys, path, expected) in cases {
            let table = table(keys);
            let found = table.of_other_end(&Head::alone(&Method::GET, path, &none));
            assert_eq!(found.copied(), expected, "{keys:?}, {path}");
        }
    }
}
