//! The values of parameters in the paths of requests.

use std::borrow::Cow;

use super::{
    key::{Pattern, RouteKey, Segment, parameters},
    readings::Head,
    spelling::{Escapes, decode},
    suffix::Suffix,
};

/// The place of a parameter in the paths that match a route key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathParameter {
    /// The number of segments before it.
    index: usize,
    /// The literal after it.
    suffix: Option<Suffix>,
    /// True if it is all that follows.
    greedy: bool,
}

impl PathParameter {
    /// Finds the parameter of a key that has this name.
    pub(crate) fn of(key: &RouteKey, name: &str) -> Option<Self> {
        let Pattern::Path { segments, .. } = key.pattern() else {
            return None;
        };
        let index = parameters(key.as_str()).position(|parameter| parameter == Some(name))?;
        let suffix = match segments.get(index) {
            Some(Segment::SuffixedParam(suffix)) => Some(suffix.clone()),
            Some(Segment::Literal(_) | Segment::Param) | None => None,
        };
        Some(Self {
            index,
            suffix,
            greedy: index == segments.len(),
        })
    }

    /// Returns whether the value may contain slashes.
    pub(crate) fn is_greedy(&self) -> bool {
        self.greedy
    }

    /// Returns the value in the path of a request that matches the key, with escapes decoded once. `None`: the path does
    /// not match.
    pub(crate) fn value<'a>(&self, head: &Head<'a>) -> Option<Cow<'a, [u8]>> {
        let relative = head.path.strip_prefix('/')?;
        let segment = match self.greedy {
            true => relative.splitn(self.index + 1, '/').nth(self.index)?,
            false => relative.split('/').nth(self.index)?,
        };
        // A request has no such character, but a reading of it: see `spelling`.
        if segment.contains('\0') {
            let sent = segment.replace('\0', "");
            let value = self.without_suffix(&sent, head.escapes)?;
            return Some(Cow::Owned(value.into_owned()));
        }
        self.without_suffix(segment, head.escapes)
    }

    fn without_suffix<'a>(&self, segment: &'a str, escapes: Escapes) -> Option<Cow<'a, [u8]>> {
        match &self.suffix {
            None => Some(decode(segment)),
            Some(suffix) => suffix.value(segment, escapes),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Extensions, Method};

    use super::*;

    #[test]
    fn a_value_is_what_stands_in_the_place_of_its_parameter() {
        let table = [
            ("POST /{model}", "/a", Some("a")),
            ("POST /{model}", "/a%2Fb%252F%C3%A9", Some("a/b%2F\u{e9}")),
            ("POST /{model}", "/%%41%", Some("%A%")),
            ("POST /{model}", "/a/", Some("a")),
            ("POST /{model}", "/caf\u{e9}", Some("caf\u{e9}")),
            ("POST /v1/{x}/{model}/run", "/v1/a/b/run", Some("b")),
            ("POST /v1/{model}/{x}:run", "/v1/a/b:run", Some("a")),
            ("POST /v1/{model}:run", "/v1/a:b:run", Some("a:b")),
            ("POST /v1/{model}:run", "/v1/a:b:r%75n", Some("a:b")),
            ("POST /v1/{model}:run", "/v1/%3A:run", Some(":")),
            ("POST /v1/{model+}", "/v1/a/b%2Fc/", Some("a/b/c/")),
            ("POST /v1/{*model}", "/v1/a", Some("a")),
            ("POST /v1/{models}", "/v1/a", None),
            ("POST /v1/model", "/v1/model", None),
            ("POST /v1/x/{model}", "/v1", None),
            ("$default", "/v1", None),
        ];
        for (key, path, expected) in table {
            let key = key.parse().expect("a key");
            let parameter = PathParameter::of(&key, "model");
            let extensions = Extensions::new();
            let head = Head::alone(&Method::POST, path, &extensions);
            let value = parameter.and_then(|parameter| parameter.value(&head));
            assert_eq!(
                value.as_deref(),
                expected.map(str::as_bytes),
                "{key} {path}"
            );
        }
    }

    #[test]
    fn each_reading_has_a_value_of_its_own() {
        let key = "POST /{model}:run".parse().expect("a key");
        let parameter = PathParameter::of(&key, "model").expect("a parameter");
        let (method, extensions) = (Method::POST, Extensions::new());
        let value = |path, escapes| {
            let mut head = Head::alone(&method, path, &extensions);
            head.escapes = escapes;
            let value = parameter.value(&head)?;
            Some(String::from_utf8(value.into_owned()).expect("text"))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(value("/%61%3Arun", Escapes::Decoded), text("a"));
        assert_eq!(value("/\0%61:run", Escapes::Sent), text("a"));
        assert_eq!(value("/a:run", Escapes::Sent), text("a"));
        assert_eq!(value("/a:r%75n", Escapes::Sent), None);
    }
}
