//! Declared routes, found by method and path.
//!
//! The order is API Gateway's. Paths without a greedy end come first, segment by segment: a literal
//! before a parameter. Then paths with a greedy end, the longest first. Then `$default`. A path counts
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

use std::borrow::Cow;

use http::Method;

use super::{
    catch_all::CatchAll,
    head::Head,
    key::{Pattern, RouteKey, Segment, literal_path},
    spelling::{is_ambiguous, normalize},
    strings::Strings,
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
    /// All paths with parameters; the root is the first.
    nodes: Vec<PathNode>,
    any_params: bool,
    any_greedy: bool,
    default: Option<usize>,
    /// True if `$default` takes only requests that match no route of the host's router.
    default_is_unrouted: bool,
}

/// The specificity of keys, the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Literal,
    Params,
    Greedy,
    Default,
}

impl Specificity {
    fn of(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Default => Self::Default,
            Pattern::Path { greedy: true, .. } => Self::Greedy,
            Pattern::Path { segments, .. } => match segments.contains(&Segment::Param) {
                true => Self::Params,
                false => Self::Literal,
            },
        }
    }
}

/// A segment of paths with parameters, and what follows it.
#[derive(Debug, Default)]
struct PathNode {
    literals: Strings<usize>,
    param: Option<usize>,
    /// Keys whose path ends here.
    ends: Methods,
    /// Keys whose path goes on greedily from here.
    greedy: Methods,
}

/// The keys of one path: indices of values by method.
#[derive(Debug, Default)]
struct Methods {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
    /// True if the path may be read in several ways.
    is_ambiguous: bool,
}

/// The keys that come into question for a request.
#[derive(Debug, Clone, Copy)]
struct Candidates<'a> {
    method: &'a Method,
    /// Only keys that name the method.
    is_named: bool,
    /// True if a parameter matches an empty segment too, unless it is the last.
    empty_params: bool,
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
            nodes: vec![PathNode::default()],
            any_params: false,
            any_greedy: false,
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
            let is_ambiguous = is_ambiguous(&path);
            return self.literals.entry(&path, || Methods {
                is_ambiguous,
                ..Methods::default()
            });
        }
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let child = match segment {
                Segment::Literal(text) => *self.nodes[at].literals.entry(text, || next),
                Segment::Param => *self.nodes[at].param.get_or_insert(next),
            };
            if child == next {
                self.nodes.push(PathNode::default());
            }
            at = child;
        }
        self.any_greedy |= greedy;
        self.any_params |= !greedy;
        if greedy {
            &mut self.nodes[at].greedy
        } else {
            &mut self.nodes[at].ends
        }
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
    #[inline]
    pub(crate) fn plain(&self, head: &Head<'_>) -> Option<&V> {
        let methods = self.literals.get(head.path)?;
        let found = methods.find(Candidates::by(head))?;
        (!methods.is_ambiguous).then(|| &self.values[found])
    }

    /// The route of a path that has one reading only, where it is not [`plain`](Self::plain).
    #[inline]
    pub(crate) fn beside_plain(&self, head: &Head<'_>) -> Option<&V> {
        self.in_tree(Candidates::by(head), head, head.path)
            .or_else(|| self.default_for(head))
            .map(|index| &self.values[index])
    }

    /// The route a request falls under, if its key names the request's method.
    pub(crate) fn find_if_named(&self, head: &Head<'_>) -> Option<&V> {
        let wanted = Candidates::by(head);
        let found = self.matched(wanted, head)?;
        let is_named = true;
        let named = self.matched(Candidates { is_named, ..wanted }, head);
        (named == Some(found)).then(|| &self.values[found])
    }

    /// The route of the same path with a slash more or less at its end, if its key is more specific than that of the
    /// path itself.
    #[inline]
    pub(crate) fn of_other_end(&self, head: &Head<'_>) -> Option<&V> {
        let has_slash = head.path.ends_with('/') && head.path.len() > 1;
        if !has_slash && !self.any_slash_end {
            return None;
        }
        self.at_other_end(head)
    }

    #[cold]
    fn at_other_end(&self, head: &Head<'_>) -> Option<&V> {
        // What a router gives to a greedy route is not at the root of a nested service.
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
        let other = head.read_as(head.method, &other, head.empty_params);
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
        let path = normalize(head.path);
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
        if !self.any_params && !self.any_greedy {
            return None;
        }
        let relative = path.strip_prefix('/')?;
        // What the router took for a literal is no parameter of a key, where there is a choice.
        (head
            .template()
            .and_then(|template| template.strip_prefix('/')))
        .and_then(|template| self.walk(relative, Some(template), wanted))
        .or_else(|| self.walk(relative, None, wanted))
    }

    fn walk(&self, path: &str, template: Option<&str>, wanted: Candidates<'_>) -> Option<usize> {
        let full = || self.full(0, Some(path), template, wanted);
        let greedy = || self.greedy(0, path, template, wanted);
        (self.any_params.then(full).flatten()).or_else(|| self.any_greedy.then(greedy).flatten())
    }

    #[inline]
    fn literal(&self, wanted: Candidates<'_>, path: &str) -> Option<usize> {
        self.literals.get(path)?.find(wanted)
    }

    /// The best key below `node` whose path ends where `rest` ends. As deep as the longest key.
    fn full(
        &self,
        node: usize,
        rest: Option<&str>,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let node = &self.nodes[node];
        let Some(rest) = rest else {
            return node.ends.find(wanted);
        };
        let (segment, rest) = split(rest);
        let (literal_only, template) = step(template);
        let literal = node.literals.get(segment);
        literal
            .and_then(|&child| self.full(child, rest, template, wanted))
            .or_else(|| {
                let fits = !segment.is_empty() || (wanted.empty_params && rest.is_some());
                let child = node.param.filter(|_| fits && !literal_only)?;
                self.full(child, rest, template, wanted)
            })
    }

    /// The best key at or below `node` that goes on greedily.
    fn greedy(
        &self,
        node: usize,
        rest: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let node = &self.nodes[node];
        let (literal_only, template) = step(template);
        let deeper = match split(rest) {
            (segment, Some(rest)) => {
                let literal = node.literals.get(segment);
                literal
                    .and_then(|&child| self.greedy(child, rest, template, wanted))
                    .or_else(|| {
                        let fits = !segment.is_empty() || wanted.empty_params;
                        let child = node.param.filter(|_| fits && !literal_only)?;
                        self.greedy(child, rest, template, wanted)
                    })
            }
            (_, None) => None,
        };
        deeper.or_else(|| {
            (!rest.is_empty() && !literal_only)
                .then(|| node.greedy.find(wanted))
                .flatten()
        })
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

/// Returns whether the next segment of a router's template is a literal, and what follows the segment. Nothing
/// follows a greedy end, nor a template that is not known.
fn step(template: Option<&str>) -> (bool, Option<&str>) {
    let Some(template) = template else {
        return (false, None);
    };
    let (segment, rest) = split(template);
    let greedy = segment.starts_with("{*");
    let literal = !segment.starts_with('{') || segment.starts_with("{{");
    (literal, rest.filter(|_| !greedy))
}

/// The first segment, and what follows its slash if there is one. Segments are short, and a plain loop
/// over them beats a search that is made for long texts.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.bytes().position(|byte| byte == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_template_is_walked_segment_by_segment() {
        let table = [
            (None, (false, None)),
            (Some("a/{b}"), (true, Some("{b}"))),
            (Some("{b}/c"), (false, Some("c"))),
            (Some("{{b}/c"), (true, Some("c"))),
            (Some("{*rest}"), (false, None)),
            (Some("{*rest}/c"), (false, None)),
            (Some("a"), (true, None)),
        ];
        for (template, expected) in table {
            assert_eq!(step(template), expected, "{template:?}");
        }
    }
}
