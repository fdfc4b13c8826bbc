//! The head of a request, and values of its fields, read without the optional white space around them.
//!
//! HTTP/1.1 servers take that white space off (RFC 9112, section 5.1). HTTP/2 forbids it (RFC 9113, section 8.2.1), but
//! servers hand it on: a client that adds a space to its key would be a new one with each space. Every field that this
//! crate reads is read here.

use http::{
    Extensions, HeaderMap, HeaderName, Method, Request, Uri, Version, header::AsHeaderName,
    request::Parts,
};

/// The head of a request, for user closures that identify clients, name models or estimate tokens.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self::of(request)
    }
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

impl<'a> RequestHead<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// Returns the method.
    #[must_use]
    pub fn method(self) -> &'a Method {
        self.method
    }

    /// Returns the target as it was sent.
    #[must_use]
    pub fn uri(self) -> &'a Uri {
        self.uri
    }

    pub(crate) fn version(self) -> Version {
        self.version
    }

    /// Returns the header fields.
    #[must_use]
    pub fn headers(self) -> &'a HeaderMap {
        self.headers
    }

    /// Returns the value of a header field as a string, without surrounding white space. If the field has several
    /// lines, the first that is not empty counts. `None` if there is none, or if it is not UTF-8.
    ///
    /// Prefer it to [`headers`](Self::headers) for identities: HTTP/2 passes on white space that HTTP/1.1 removes, so
    /// that a client could be a new one with each added space.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a str> {
        text(self.headers, name)
    }

    /// Returns the request's extensions: what layers outside have put there, such as an authenticated user.
    #[must_use]
    pub fn extensions(self) -> &'a Extensions {
        self.extensions
    }
}

/// Optional white space (RFC 9110, section 5.6.3).
const OPTIONAL_WHITE_SPACE: [char; 2] = [' ', '\t'];

/// A text without the optional white space around it.
pub(crate) fn trim_ows(text: &str) -> &str {
    text.trim_matches(OPTIONAL_WHITE_SPACE)
}

/// A value without the optional white space around it.
#[inline]
pub(crate) fn trim_ows_bytes(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The number of lines up to which a field is found by comparing names. The map would hash the name byte by byte, which
/// takes longer.
const FEW_LINES: usize = 8;

/// The first value of a field that is not empty, as [`first_value`] finds it, for fields that each request is asked
/// for.
#[inline]
pub(crate) fn first_value_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    if headers.len() > FEW_LINES {
        return first_value(headers, name);
    }
    let values = headers.iter().filter(|(other, _)| *other == name);
    let mut values = values.map(|(_, value)| trim_ows_bytes(value.as_bytes()));
    values.find(|value| !value.is_empty())
}

/// The first value of a field that is not empty.
pub(crate) fn first_value(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let values = headers.get_all(name).iter();
    let mut values = values.map(|value| trim_ows_bytes(value.as_bytes()));
    values.find(|value| !value.is_empty())
}

/// The first value of a field that is not empty, if it is UTF-8.
pub(crate) fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    std::str::from_utf8(first_value(headers, name)?).ok()
}

/// The value of a field that has one line alone, if it is UTF-8.
pub(crate) fn only_text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    std::str::from_utf8(trim_ows_bytes(only.as_bytes())).ok()
}

/// A number in decimal digits alone: without a sign, which [`str::parse`] would read. What is above the largest counts
/// as that.
pub(crate) fn number(headers: &HeaderMap, name: impl AsHeaderName) -> Option<u64> {
    let text = text(headers, name)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // Digits that are no number here are too many.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::CONTENT_LENGTH};

    use super::*;

    #[test]
    fn white_space_is_taken_off_both_ends_and_nowhere_else() {
        let table = [
            ("", ""),
            (" ", ""),
            (" \t \t", ""),
            ("a", "a"),
            (" a", "a"),
            ("a\t", "a"),
            ("\t a \t b \t", "a \t b"),
            // Other white space belongs to the value.
            ("\u{a0}a\u{a0}", "\u{a0}a\u{a0}"),
        ];
        for (value, expected) in table {
            assert_eq!(trim_ows(value), expected, "{value:?}");
            assert_eq!(
                trim_ows_bytes(value.as_bytes()),
                expected.as_bytes(),
                "{value:?}"
            );
        }
    }

    #[test]
    fn the_first_value_that_is_not_empty_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_str(value).expect("a value");
                headers.append(CONTENT_LENGTH, value);
            }
            number(&headers, &CONTENT_LENGTH)
        };
        let first = |values: &[&str]| {
            let name = HeaderName::from_static("x-key");
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("another"));
            for value in values {
                let value = HeaderValue::from_str(value).expect("a value");
                headers.append(&name, value);
            }
            let few = first_value_of(&headers, &name).map(<[u8]>::to_vec);
            for other in 0..FEW_LINES {
                let other: HeaderName = format!("x-{other}").parse().expect("a name");
                headers.insert(other, HeaderValue::from_static("another"));
            }
            let many = first_value_of(&headers, &name).map(<[u8]>::to_vec);
            assert_eq!(few, many, "{values:?}");
            let text = few.map(String::from_utf8);
            text.map(|text| text.expect("as it was written"))
        };
        let table: [(&[&str], Option<&str>); 5] = [
            (&[], None),
            (&["", " "], None),
            (&[" 12\t"], Some("12")),
            (&["\t", "12", "13"], Some("12")),
            (&["1 2"], Some("1 2")),
        ];
        for (values, expected) in table {
            assert_eq!(first(values).as_deref(), expected, "{values:?}");
        }
        let table: [(&[&str], Option<u64>); 8] = [
            (&[], None),
            (&["", " "], None),
            (&[" 12\t"], Some(12)),
            (&["\t", "12", "13"], Some(12)),
            (&["1 2"], None),
            (&["+12"], None),
            (&["18446744073709551615"], Some(u64::MAX)),
            (&["18446744073709551616"], Some(u64::MAX)),
        ];
        for (values, expected) in table {
            assert_eq!(read(values), expected, "{values:?}");
        }
    }
}
