//! Paths with parameters and greedy ends: a walk along the segments.
//!
//! A segment that is a literal is preferred to one that is a parameter, segment by segment, and a path that ends to one
//! that goes on greedily. Where the host's router tells its template, a segment that is a literal there is taken for no
//! parameter.

use super::{Candidates, Methods, Strings};
use crate::route::key::Segment;

/// All paths of a table that have parameters or a greedy end.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first is the root.
    nodes: Vec<PathNode>,
    any_params: bool,
    any_greedy: bool,
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

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![PathNode::default()],
            any_params: false,
            any_greedy: false,
        }
    }

    /// Returns whether there is no path.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.any_params && !self.any_greedy
    }

    /// Returns the keys of a path, made if there are none yet.
    pub(super) fn methods(&mut self, segments: &[Segment], greedy: bool) -> &mut Methods {
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
