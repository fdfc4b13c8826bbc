//! What of a request's head takes part in routing: method and path, nothing else.

use std::{borrow::Cow, hash::Hash, hash::Hasher};

use http::{Extensions, HeaderMap, Method, Request, header};

use super::router;

/// Method and path of a request, as route keys see them.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// The path as it was sent.
    pub(crate) path: &'a str,
    extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    #[inline]
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        let extensions = request.extensions();
        Self {
            method: request.method(),
            path: router::original_path(extensions).unwrap_or_else(|| request.uri().path()),
            extensions,
        }
    }

    /// A method and a path of no request.
    pub(crate) fn alone(method: &'a Method, path: &'a str, extensions: &'a Extensions) -> Self {
        Self {
            method,
            path,
            extensions,
        }
    }

    /// The router's own name for the route, where the host tells one.
    #[inline]
    pub(crate) fn template(&self) -> Option<&'a str> {
        router::template(self.extensions)
    }

    /// The path again, with each segment made unlike any literal that the router took for a parameter and
    /// that is written with escapes. `None` if there is no such segment.
    ///
    /// A router that compares paths as they were sent takes `/files/%68ealth` for `/files/{id}` even if it
    /// has `/files/health`, and may not have it. Which of the two was meant cannot be told from the request.
    #[inline]
    pub(crate) fn without_escaped_literals(&self) -> Option<String> {
        let template = self.template()?;
        (self.path.contains('%')).then(|| self.without_literals_of(template))?
    }

    #[cold]
    fn without_literals_of(&self, template: &str) -> Option<String> {
        let mut template = template.split('/');
        let mut greedy = false;
        let mut found = false;
        let mut path = String::with_capacity(self.path.len() + 1);
        for (index, segment) in self.path.split('/').enumerate() {
            let part = template.next().unwrap_or("");
            greedy |= part.starts_with("{*");
            let param = greedy || (part.starts_with('{') && !part.starts_with("{{"));
            if index > 0 {
                path.push('/');
            }
            if param && *normalize(segment) != *segment {
                // No path holds it, so no key does.
                path.push('\0');
                found = true;
            }
            path.push_str(segment);
        }
        found.then_some(path)
    }

    /// The same request on another path.
    pub(crate) fn on<'b>(&'b self, path: &'b str) -> Head<'b> {
        Head { path, ..*self }
    }

    /// A CORS preflight: it carries no credentials and asks for permission only.
    #[inline]
    pub(crate) fn is_preflight(&self, headers: &HeaderMap) -> bool {
        *self.method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The method an undeclared route is kept under. `HEAD` goes with `GET`; methods that no
    /// specification knows go together, so that inventing them gains nothing.
    pub(crate) fn family(&self) -> &'static str {
        family(self.method)
    }
}

pub(super) fn family(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "ANY",
    }
}

/// The identity of an undeclared route.
impl Hash for Head<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.family().hash(state);
        match self.template() {
            Some(template) => template.hash(state),
            None => normalize(self.path).hash(state),
        }
    }
}

/// A path in which equal spellings are equal: percent-encoded unreserved characters are decoded and the
/// hexadecimal digits of the others are upper-case (RFC 3986, sections 6.2.2.1 and 6.2.2.2). `%2F` stays
/// within its segment.
pub(crate) fn normalize(path: &str) -> Cow<'_, str> {
    if !path.as_bytes().contains(&b'%') && path.is_ascii() {
        return Cow::Borrowed(path);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = path.as_bytes();
    let mut normal = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let escaped = bytes.get(at..at + 2).and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        match (byte, escaped) {
            (b'%', Some(code)) => {
                at += 2;
                if code.is_ascii_alphanumeric() || b"-._~".contains(&code) {
                    normal.push(char::from(code));
                } else {
                    push_escape(&mut normal, code, HEX);
                }
            }
            _ if byte.is_ascii() => normal.push(char::from(byte)),
            _ => push_escape(&mut normal, byte, HEX),
        }
    }
    Cow::Owned(normal)
}

fn push_escape(path: &mut String, byte: u8, digits: &[u8; 16]) {
    path.push('%');
    path.push(char::from(digits[usize::from(byte >> 4)]));
    path.push(char::from(digits[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_that_is_known_is_kept_apart_and_all_others_go_together() {
        let family = |method: &str| {
            let request = Request::builder().method(method).body(());
            Head::of(&request.expect("a request")).family()
        };
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
        ] {
            assert_eq!(family(method), method);
        }
        for (method, other) in [("HEAD", "GET"), ("PROPFIND", "ANY"), ("get", "ANY")] {
            assert_eq!(family(method), other, "{method}");
        }
    }

    #[test]
    fn equal_spellings_become_equal() {
        let table = [
            ("/v1/chat", "/v1/chat"),
            ("/v1/%63hat", "/v1/chat"),
            ("/%7Euser", "/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%2e%2E/x", "/../x"),
            ("/100%", "/100%"),
            ("/%4", "/%4"),
            ("/%zz", "/%zz"),
            ("/%%41", "/%A"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%2563hat", "/%2563hat"),
        ];
        for (path, normal) in table {
            assert_eq!(normalize(path), normal, "{path}");
        }
    }

    #[test]
    fn what_the_router_took_for_a_parameter_is_made_unlike_any_literal_if_it_has_escapes() {
        let extensions = Extensions::new();
        let without = |path, template| {
            Head::alone(&Method::GET, path, &extensions).without_literals_of(template)
        };
        // (path, the router's template, what is looked for)
        let table = [
            ("/files/%68ealth", "/files/{id}", Some("/files/\0%68ealth")),
            ("/files/health", "/files/{id}", None),
            ("/fi%6Ces/x", "/files/{id}", None),
            ("/{%62}/x", "/{{b}}/{id}", None),
            ("/a/x/%62", "/a/{*rest}", Some("/a/x/\0%62")),
            ("/a/x/b", "/a/{*rest}", None),
            ("/%61/%62", "/{a}/b", Some("/\0%61/%62")),
            ("/a/%62", "/a", None),
        ];
        for (path, template, expected) in table {
            assert_eq!(
                without(path, template).as_deref(),
                expected,
                "{path} on {template}"
            );
        }
    }
}
