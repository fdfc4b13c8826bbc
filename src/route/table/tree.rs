//! Paths with parameters and greedy ends: a walk along the segments.
//!
//! A segment that is a literal is preferred to one that is a parameter, segment by segment, and a path that ends to one
//! that goes on greedily. Of parameters with a literal after them the longest literal is preferred, and all of them to
//! one without. Where the host's router tells its template, a segment that is a literal there is taken for no parameter,
//! and one that ends with a literal there for no parameter with a shorter one or none.

use super::{Candidates, Methods, Strings};
use crate::route::{key::Segment, spelling::normalize, suffix::Suffix};

/// All paths of a table that have parameters or a greedy end.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first is the root.
    nodes: Vec<PathNode>,
    any_params: bool,
    any_greedy: bool,
    any_suffixes: bool,
}

/// A segment of paths with parameters, and what follows it.
#[derive(Debug, Default)]
struct PathNode {
    literals: Strings<usize>,
    param: Param,
    /// Keys whose path ends here.
    ends: Methods,
    /// Keys whose path goes on greedily from here.
    greedy: Methods,
}

/// The parameters in one place, and what follows each.
#[derive(Debug, Default)]
enum Param {
    #[default]
    None,
    /// One that is the whole segment.
    Whole(usize),
    /// Some with a literal after them. Behind a pointer, since few keys have such.
    Suffixed(Box<SuffixedParams>),
}

/// The parameters in one place, of which some have a literal after them.
#[derive(Debug, Default)]
struct SuffixedParams {
    /// The longest literal first.
    suffixed: Vec<(Suffix, usize)>,
    whole: Option<usize>,
}

impl Param {
    /// Returns what follows the parameter that is the whole segment, made if there is none.
    fn whole_or_insert(&mut self, next: usize) -> usize {
        match self {
            Self::None => {
                *self = Self::Whole(next);
                next
            }
            Self::Whole(child) => *child,
            Self::Suffixed(params) => *params.whole.get_or_insert(next),
        }
    }

    /// Returns what follows the parameter with a literal after it, made if there is none.
    fn suffixed_or_insert(&mut self, suffix: &Suffix, next: usize) -> usize {
        let whole = match self {
            Self::None => None,
            Self::Whole(child) => Some(*child),
            Self::Suffixed(params) => return params.entry(suffix, next),
        };
        let suffixed = vec![(suffix.clone(), next)];
        *self = Self::Suffixed(Box::new(SuffixedParams { suffixed, whole }));
        next
    }
}

impl SuffixedParams {
    fn entry(&mut self, suffix: &Suffix, next: usize) -> usize {
        let known = self.suffixed.iter().find(|(known, _)| known == suffix);
        if let Some((_, child)) = known {
            return *child;
        }
        let longer = |(known, _): &(Suffix, usize)| known.len() >= suffix.len();
        let at = self.suffixed.partition_point(longer);
        self.suffixed.insert(at, (suffix.clone(), next));
        next
    }

    /// Finds the best key below the parameters that a segment fits. `find` looks below one of them. `template` begins
    /// with the same segment, and `fits_whole` tells if a parameter without a literal fits.
    #[cold]
    fn find(
        &self,
        segment: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
        fits_whole: bool,
        find: impl Fn(usize) -> Option<usize>,
    ) -> Option<usize> {
        let least = template.map_or(Some(0), |template| suffix_length(split(template).0));
        let fits = |suffix: &Suffix| {
            least.is_some_and(|least| suffix.len() >= least) && suffix.ends(segment, wanted.escapes)
        };
        let mut suffixed = self.suffixed.iter().filter(|(suffix, _)| fits(suffix));
        suffixed
            .find_map(|&(_, child)| find(child))
            .or_else(|| find(self.whole.filter(|_| fits_whole)?))
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![PathNode::default()],
            any_params: false,
            any_greedy: false,
            any_suffixes: false,
        }
    }

    /// Returns whether there is no path.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any_params && !self.any_greedy
    }

    /// Returns whether some parameter has a literal after it.
    pub(super) fn any_suffixes(&self) -> bool {
        self.any_suffixes
    }

    /// Returns the keys of a path, made if there are none yet.
    pub(super) fn methods(&mut self, segments: &[Segment], greedy: bool) -> &mut Methods {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            let child = match segment {
                Segment::Literal(text) => *node.literals.entry(text, || next),
                Segment::Param => node.param.whole_or_insert(next),
                Segment::SuffixedParam(suffix) => {
                    self.any_suffixes = true;
                    node.param.suffixed_or_insert(suffix, next)
                }
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

    /// Finds the best key for a path in normal form, without its first slash. `template` is that of the host's router.
    pub(super) fn find(
        &self,
        path: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let full = || self.full(0, Some(path), template, wanted);
        let greedy = || self.greedy(0, path, template, wanted);
        (self.any_params.then(full).flatten()).or_else(|| self.any_greedy.then(greedy).flatten())
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
        let Some(path) = rest else {
            return node.ends.find(wanted);
        };
        let (segment, rest) = split(path);
        let (literal_only, following) = step(template);
        let literal = node.literals.get(segment);
        literal
            .and_then(|&child| self.full(child, rest, following, wanted))
            .or_else(|| {
                let fits = !segment.is_empty() || (wanted.empty_params && rest.is_some());
                let fits = fits && !literal_only;
                match &node.param {
                    Param::Whole(child) if fits => self.full(*child, rest, following, wanted),
                    Param::Suffixed(params) => self.full_suffixed(params, path, template, wanted),
                    Param::None | Param::Whole(_) => None,
                }
            })
    }

    /// Goes on with [`full`](Self::full) where a parameter has a literal after it.
    #[cold]
    fn full_suffixed(
        &self,
        params: &SuffixedParams,
        path: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let (segment, rest) = split(path);
        let (literal_only, following) = step(template);
        let fits = !segment.is_empty() || (wanted.empty_params && rest.is_some());
        let find = |child| self.full(child, rest, following, wanted);
        params.find(segment, template, wanted, fits && !literal_only, find)
    }

    /// The best key at or below `node` that goes on greedily.
    fn greedy(
        &self,
        node: usize,
        path: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let node = &self.nodes[node];
        let (literal_only, following) = step(template);
        let deeper = match split(path) {
            (segment, Some(rest)) => {
                let literal = node.literals.get(segment);
                literal
                    .and_then(|&child| self.greedy(child, rest, following, wanted))
                    .or_else(|| {
                        let fits = !segment.is_empty() || wanted.empty_params;
                        let fits = fits && !literal_only;
                        match &node.param {
                            Param::Whole(child) if fits => {
                                self.greedy(*child, rest, following, wanted)
                            }
                            Param::Suffixed(params) => {
                                self.greedy_suffixed(params, path, template, wanted)
                            }
                            Param::None | Param::Whole(_) => None,
                        }
                    })
            }
            (_, None) => None,
        };
        deeper.or_else(|| {
            (!path.is_empty() && !literal_only)
                .then(|| node.greedy.find(wanted))
                .flatten()
        })
    }

    /// Goes on with [`greedy`](Self::greedy) where a parameter has a literal after it.
    #[cold]
    fn greedy_suffixed(
        &self,
        params: &SuffixedParams,
        path: &str,
        template: Option<&str>,
        wanted: Candidates<'_>,
    ) -> Option<usize> {
        let (segment, rest) = split(path);
        let rest = rest?;
        let (literal_only, following) = step(template);
        let fits = !segment.is_empty() || wanted.empty_params;
        let find = |child| self.greedy(child, rest, following, wanted);
        params.find(segment, template, wanted, fits && !literal_only, find)
    }
}

/// Returns whether the next segment of a router's template is a literal or has one, and what follows the segment.
/// Nothing follows a greedy end, nor a template that is not known.
fn step(template: Option<&str>) -> (bool, Option<&str>) {
    let Some(template) = template else {
        return (false, None);
    };
    let (segment, rest) = split(template);
    let greedy = segment.starts_with("{*");
    let literal = !segment.starts_with('{') || segment.starts_with("{{") || !segment.ends_with('}');
    (literal, rest.filter(|_| !greedy))
}

/// Returns the length of the literal after the parameter of a template's segment, which may be zero. `None`: there is no
/// parameter, or something before it.
fn suffix_length(segment: &str) -> Option<usize> {
    let inner = segment.strip_prefix('{').filter(|it| !it.starts_with('{'));
    let (_, suffix) = inner?.split_once('}')?;
    Some(normalize(suffix).len())
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
    use crate::route::{
        key::{Pattern, RouteKey},
        spelling::Escapes,
    };

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
            (Some("{b}:c/d"), (true, Some("d"))),
            (Some("a{b}/c"), (true, Some("c"))),
        ];
        for (template, expected) in table {
            assert_eq!(step(template), expected, "{template:?}");
        }
    }

    #[test]
    fn a_template_rules_out_parameters_that_are_less_specific() {
        let keys = [
            "GET /models/{m}",
            "GET /{a}/{m}:run",
            "GET /{a}/{m}-big:run",
            "GET /models/{*rest}",
            "GET /{*rest}",
        ];
        let mut tree = Tree::new();
        for (index, key) in keys.iter().enumerate() {
            let key: RouteKey = key.parse().expect("a key");
            if let Pattern::Path {
                method,
                segments,
                greedy,
            } = key.pattern()
            {
                let methods = tree.methods(segments, *greedy);
                methods.insert(method.as_ref(), index).expect("new");
            }
        }
        let table = [
            (None, Some(0)),
            (Some("models/{m}"), Some(0)),
            (Some("{a}/{m}"), Some(0)),
            (Some("{a}/{m}:run"), Some(2)),
            (Some("{a}/{m}-big:run"), Some(2)),
            (Some("{a}/{m}so-big:run"), Some(4)),
            (Some("models/so-big:run"), None),
            (Some("{*rest}"), Some(0)),
            (Some("{a}:run/{*rest}"), Some(0)),
        ];
        let wanted = Candidates {
            method: &http::Method::GET,
            is_named: false,
            empty_params: false,
            escapes: Escapes::Normal,
        };
        for (template, expected) in table {
            let found = tree.find("models/so-big:run", template, wanted);
            assert_eq!(found, expected, "{template:?}");
        }
    }

    #[test]
    fn a_template_tells_the_literal_after_its_parameter() {
        let table = [
            ("a", None),
            ("a{b}", None),
            ("{{b}}:c", None),
            ("{b}", Some(0)),
            ("{*b}", Some(0)),
            ("{b}:c", Some(2)),
            ("{b}%7e", Some(1)),
        ];
        for (segment, expected) in table {
            assert_eq!(suffix_length(segment), expected, "{segment}");
        }
    }
}
