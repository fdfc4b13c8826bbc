//! Route keys: a method and a path.

use std::{
    collections::HashSet,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use http::Method;

use super::{comparisons::compared, spelling::normalize, suffix::Suffix};
use crate::error::debug_as_display;

/// A route: a method and a path, as API Gateway writes them.
///
/// | written | matches |
/// |---|---|
/// | `GET /pets` | this method on this path; `GET` covers `HEAD` |
/// | `ANY /pets` | every method that has no key of its own on this path |
/// | `GET /pets/{id}` | one path segment that is not empty |
/// | `POST /models/{id}:generate` | one path segment with this end, and at least one character before it |
/// | `GET /pets/{proxy+}`, `GET /pets/{*rest}` | all that follows, at least one character |
/// | `$default` | every request that no other key matches |
///
/// Query, fragment and host take no part. Paths are case-sensitive. `/pets/` is not `/pets`, but a host may match
/// either, so a request for one is also charged to the key of the other, unless its own key is as specific.
/// Percent-encoded letters, digits and `-._~` equal the plain ones (RFC 3986, section 6.2.2.2). A request that its host
/// may match to either of two keys is charged to [both](crate::guides::limits#route-keys).
///
/// ```
/// use tower_throttle::RouteKey;
///
/// let key: RouteKey = "POST /v1/models/{id}".parse()?;
/// assert_eq!(key.to_string(), "POST /v1/models/{id}");
/// assert!("/v1/models".parse::<RouteKey>().is_err());
/// # Ok::<(), tower_throttle::route::RouteKeyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RouteKey {
    text: Box<str>,
    pattern: Pattern,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Default,
    Path {
        /// `None` is `ANY`.
        method: Option<Method>,
        segments: Vec<Segment>,
        /// True if the path goes on with at least one character.
        greedy: bool,
    },
}

/// A segment of a path. Parameters are equal whatever their names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(Box<str>),
    Param,
    /// A parameter with a literal after it.
    SuffixedParam(Suffix),
}

impl RouteKey {
    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The method and the path in normal form, if the key names a method and has no parameters.
    pub(crate) fn literal(&self) -> Option<(&Method, String)> {
        let Pattern::Path {
            method: Some(method),
            segments,
            greedy: false,
        } = &self.pattern
        else {
            return None;
        };
        Some((method, literal_path(segments)?))
    }

    /// Returns the key as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for RouteKey {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Two keys are equal if they match the same route: parameter names do not count.
impl PartialEq for RouteKey {
    fn eq(&self, other: &Self) -> bool {
        compared();
        self.pattern == other.pattern
    }
}

impl Eq for RouteKey {}

impl Hash for RouteKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pattern.hash(state);
    }
}

/// An error in a route key. `Display` states the fault, and what to write instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteKeyError {
    /// Not a method and a path.
    #[error("expected a method, one space and a path, such as `POST /v1/chat`, or `$default`")]
    Shape,
    /// Not a method in capitals.
    #[error("`{0}` is not a method; write one in capitals, such as `GET`, or `ANY` for all")]
    Method(String),
    /// The path does not begin with a slash.
    #[error("path `{0}` does not begin with `/`")]
    Slash(String),
    /// The path contains a character that no request path has.
    #[error("path contains {0:?}; a route key has no query, fragment or spaces")]
    Character(char),
    /// A percent sign that begins no escape.
    #[error(
        "`%` in segment `{0}` is not followed by two hexadecimal digits; write a literal one as `%25`"
    )]
    Escape(String),
    /// A segment has text before a parameter, several parameters, text after a greedy one, or a parameter in another
    /// router's syntax.
    #[error(
        "segment `{0}`: a parameter begins its segment, `{{name}}` or `{{name}}:verb`; as the whole last segment it may \
         be greedy, `{{name+}}` or `{{*name}}`"
    )]
    Segment(String),
    /// A parameter without a valid name.
    #[error(
        "parameter `{0}` has no valid name; use letters, digits, `_`, `-` and `.`, and no pattern"
    )]
    ParameterName(String),
    /// Two parameters of one name.
    #[error("parameter `{0}` is used twice; use each name once")]
    ParameterTwice(String),
    /// A greedy parameter before the end.
    #[error("greedy parameter `{0}` is not the last segment; only the last segment can be greedy")]
    GreedyNotLast(String),
}

debug_as_display!(RouteKeyError);

impl FromStr for RouteKey {
    type Err = RouteKeyError;

    fn from_str(text: &str) -> Result<Self, RouteKeyError> {
        let pattern = if text == "$default" {
            Pattern::Default
        } else {
            let (method, path) = text.split_once(' ').ok_or(RouteKeyError::Shape)?;
            if method.is_empty() || path.trim_start() != path || path.is_empty() {
                return Err(RouteKeyError::Shape);
            }
            let method = parse_method(method)?;
            let (segments, greedy) = parse_path(path)?;
            Pattern::Path {
                method,
                segments,
                greedy,
            }
        };
        Ok(Self {
            text: text.into(),
            pattern,
        })
    }
}

fn parse_method(method: &str) -> Result<Option<Method>, RouteKeyError> {
    if method == "ANY" {
        return Ok(None);
    }
    let known = method
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    Method::from_bytes(method.as_bytes())
        .ok()
        .filter(|_| known)
        .map(Some)
        .ok_or_else(|| RouteKeyError::Method(method.to_owned()))
}

fn parse_path(path: &str) -> Result<(Vec<Segment>, bool), RouteKeyError> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(RouteKeyError::Slash(path.to_owned()));
    };
    let unfit =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '<' | '>' | '`');
    if let Some(character) = relative.chars().find(|&c| unfit(c)) {
        return Err(RouteKeyError::Character(character));
    }
    let mut segments = Vec::new();
    let mut names = HashSet::new();
    let mut words = relative.split('/').peekable();
    while let Some(word) = words.next() {
        let param = parameter(word)?;
        let literal = param.as_ref().map_or(word, |param| param.suffix);
        if !escapes_are_whole(literal) {
            return Err(RouteKeyError::Escape(word.to_owned()));
        }
        let Some(param) = param else {
            segments.push(Segment::Literal(normalize(word).into()));
            continue;
        };
        if !names.insert(param.name) {
            return Err(RouteKeyError::ParameterTwice(param.name.to_owned()));
        }
        if !param.greedy {
            segments.push(param.segment());
        } else if words.peek().is_some() {
            return Err(RouteKeyError::GreedyNotLast(word.to_owned()));
        } else {
            return Ok((segments, true));
        }
    }
    Ok((segments, false))
}

fn escapes_are_whole(word: &str) -> bool {
    let hex = |byte: &u8| byte.is_ascii_hexdigit();
    let mut ends = word.split('%').skip(1).map(str::as_bytes);
    ends.all(|end| end.get(..2).is_some_and(|digits| digits.iter().all(hex)))
}

/// The path of segments none of which is a parameter.
pub(super) fn literal_path(segments: &[Segment]) -> Option<String> {
    let mut path = String::new();
    for segment in segments {
        let Segment::Literal(text) = segment else {
            return None;
        };
        path.push('/');
        path.push_str(text);
    }
    Some(path)
}

/// The name of the parameter in each segment of a key's text. `None`: there is none.
pub(super) fn parameters(text: &str) -> impl Iterator<Item = Option<&str>> {
    let path = text.split_once(" /").map(|(_, path)| path);
    path.into_iter()
        .flat_map(|path| path.split('/'))
        .map(|word| {
            let parameter = parameter(word).ok().flatten();
            parameter.map(|parameter| parameter.name)
        })
}

struct Parameter<'a> {
    name: &'a str,
    greedy: bool,
    /// The literal after it, as written. Empty: there is none.
    suffix: &'a str,
}

impl Parameter<'_> {
    /// The segment of a parameter that is not greedy.
    fn segment(&self) -> Segment {
        match self.suffix {
            "" => Segment::Param,
            suffix => Segment::SuffixedParam(Suffix::new(suffix)),
        }
    }
}

/// The parameter that a segment is, or begins with, if it is one.
fn parameter(word: &str) -> Result<Option<Parameter<'_>>, RouteKeyError> {
    let inner = word.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let Some((inner, suffix)) = inner else {
        // Older routers write parameters as `:id` and `*rest`: most likely one is meant.
        return if word.contains(['{', '}']) || word.starts_with([':', '*']) {
            Err(RouteKeyError::Segment(word.to_owned()))
        } else {
            Ok(None)
        };
    };
    let (name, greedy) = match (inner.strip_prefix('*'), inner.strip_suffix('+')) {
        (Some(_), Some(_)) => return Err(RouteKeyError::ParameterName(word.to_owned())),
        (Some(name), None) | (None, Some(name)) => (name, true),
        (None, None) => (inner, false),
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(RouteKeyError::ParameterName(word.to_owned()));
    }
    // With a greedy parameter's sign outside of its braces, most likely one is meant.
    if suffix.contains(['{', '}']) || greedy && !suffix.is_empty() || matches!(suffix, "+" | "*") {
        return Err(RouteKeyError::Segment(word.to_owned()));
    }
    Ok(Some(Parameter {
        name,
        greedy,
        suffix,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn key(text: &str) -> RouteKey {
        text.parse().expect("a route key")
    }

    #[test]
    fn keys_that_mean_the_same_find_each_other() {
        let mut kept = HashMap::new();
        for text in ["GET /a/{id}", "POST /a/{id}", "GET /a/id", "GET /a/{id+}"] {
            assert_eq!(kept.insert(key(text), text), None, "{text}");
        }
        let found = kept.get(&key("GET /a/{name}"));
        assert_eq!(found, Some(&"GET /a/{id}"));
        // As far apart as two numbers of 64 bits are.
        let hasher = foldhash::fast::FixedState::default();
        let hash = |text| std::hash::BuildHasher::hash_one(&hasher, key(text));
        assert_eq!(hash("GET /a/{id}"), hash("GET /a/{name}"));
        assert_ne!(hash("GET /a/{id}"), hash("POST /a/{id}"));
    }

    #[test]
    fn a_parameter_may_have_a_literal_after_it_and_nothing_else() {
        let table = [
            ("{id}:run", Ok(":run")),
            ("{id}.json", Ok(".json")),
            ("{id}%7Erun", Ok("~run")),
            ("{id}caf\u{e9}", Ok("caf%C3%A9")),
            ("{id}++", Ok("++")),
            ("{id}+", Err(())),
            ("{id}*", Err(())),
            ("run:{id}", Err(())),
            ("{a}{b}", Err(())),
            ("{a}-{b}", Err(())),
            ("{a}:b}", Err(())),
            ("{{a}}", Err(())),
            ("{a+}:run", Err(())),
            ("{*a}:run", Err(())),
        ];
        for (word, expected) in table {
            let read = format!("GET /{word}").parse::<RouteKey>();
            let suffix = read.map(|key| match key.pattern() {
                Pattern::Path { segments, .. } => segments.clone(),
                Pattern::Default => Vec::new(),
            });
            let expected = expected.map(|suffix| vec![Segment::SuffixedParam(Suffix::new(suffix))]);
            assert_eq!(suffix.map_err(drop), expected, "{word}");
        }
        let mut kept = HashMap::new();
        for text in [
            "GET /{id}:run",
            "GET /{id}:stop",
            "GET /{id}",
            "GET /:run%7E",
        ] {
            if let Ok(key) = text.parse::<RouteKey>() {
                assert_eq!(kept.insert(key, text), None, "{text}");
            }
        }
        assert_eq!(kept.get(&key("GET /{name}:r%75n")), Some(&"GET /{id}:run"));
        assert_eq!(kept.get(&key("GET /{name}:ru")), None);
    }

    #[test]
    fn a_key_is_told_as_it_was_written() {
        let text = "GET /%7Ea/{id}";
        let key = key(text);
        let told: &str = key.as_ref();
        assert_eq!(
            (told, key.as_str(), key.to_string().as_str()),
            (text, text, text)
        );
    }

    #[test]
    fn a_percent_sign_begins_an_escape_or_is_an_error() {
        for (word, is_whole) in [
            ("%41", true),
            ("a%25b", true),
            ("%", false),
            ("100%", false),
            ("%4", false),
            ("%zz", false),
            ("%41%4", false),
            ("{a}%41", true),
            ("{a}:b%", false),
            ("{a}%4", false),
        ] {
            let read = format!("GET /{word}").parse::<RouteKey>();
            let expected = match is_whole {
                true => Ok(()),
                false => Err(RouteKeyError::Escape(word.to_owned())),
            };
            assert_eq!(read.map(drop), expected, "{word}");
        }
    }
}
