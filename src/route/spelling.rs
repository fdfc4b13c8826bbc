//! The readings that a host may give one path.
//!
//! Keys are compared with paths in a normal form. Hosts read paths in other ways:
//!
//! - **Escapes.** A router that compares paths as they were sent takes `/files/%68ealth` for `/files/{id}`, even if it
//!   has `/files/health`.
//! - **Empty segments.** axum takes an empty segment for a parameter, a nested service of axum drops one slash where
//!   it begins, and other servers merge slashes.
//! - **Ends of segments.** `m%3Arun` ends with `:run` for a host that decodes it first, and `m:r%75n` does not for one
//!   that compares it as it was sent. Looked at only where a key has a literal after a parameter.
//!
//! A request does not show which of its readings the host uses.

use std::borrow::Cow;

/// The ways in which hosts compare the literal after a parameter with a segment that has escapes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Escapes {
    /// In normal form, as route keys are compared: an escape that stays one is a character of its own.
    #[default]
    Normal,
    /// Decoded: the path may be sent as `m%3Arun` where the key has `{id}:run`.
    Decoded,
    /// As they were sent: `m%3Arun` may end with `Arun`, and `m:r%75n` does not end with `:run`.
    Sent,
}

/// One reading of a path.
#[derive(Debug)]
pub(super) struct Spelling<'a> {
    pub(super) path: Cow<'a, str>,
    /// True if a parameter of a key matches an empty segment too.
    pub(super) empty_params: bool,
    /// The way in which the literal after a parameter is compared. [`Escapes::Sent`]: the path has no other normal form.
    pub(super) escapes: Escapes,
}

/// Returns whether a path may have several readings: it has a percent sign, a character beyond ASCII or two slashes in
/// a row.
///
/// Looks at eight bytes at a time. May be wrong about a path that has one reading, never about one that has several.
#[inline]
pub(super) fn is_ambiguous(path: &str) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero, and perhaps of bytes above one.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut after_slash = 0;
    let mut is_ambiguous = |word: u64| {
        let slashes = zeros(word ^ (ONES * u64::from(b'/')));
        let pairs = slashes & ((slashes << 8) | after_slash);
        after_slash = slashes >> 56;
        (zeros(word ^ (ONES * u64::from(b'%'))) | pairs | (word & HIGH)) != 0
    };
    let mut words = path.as_bytes().chunks_exact(8);
    for word in words.by_ref() {
        let Ok(word) = word.try_into() else {
            return true;
        };
        if is_ambiguous(u64::from_le_bytes(word)) {
            return true;
        }
    }
    let rest = words.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    is_ambiguous(u64::from_le_bytes(word))
}

/// Lists the readings of a path, the likeliest first. `template`: the router's name for the route, where it is known.
/// `any_suffixes`: some key has a literal after a parameter.
pub(super) fn spellings<'a>(
    path: &'a str,
    template: Option<&str>,
    any_suffixes: bool,
) -> Vec<Spelling<'a>> {
    let mut spellings = Vec::new();
    for path in with_fewer_slashes(path) {
        let ends_differ = any_suffixes && path.contains('%');
        let decoded = ends_differ.then(|| (path.clone(), Escapes::Decoded));
        let as_sent = match with_escaped_parameters(&path, template) {
            Some(marked) => Some(Cow::Owned(marked)),
            // All that is escaped is in normal form, which an end may cut in two all the same.
            None => (ends_differ && template.is_none()).then(|| path.clone()),
        };
        let as_sent = as_sent.map(|path| (path, Escapes::Sent));
        let normal = Some((path, Escapes::Normal));
        // A router that is known has compared the path as it was sent, and given empty segments to parameters.
        let paths = match template {
            Some(_) => [as_sent, normal, decoded],
            None => [normal, as_sent, decoded],
        };
        for (path, escapes) in paths.into_iter().flatten() {
            let both = [template.is_some(), template.is_none()];
            let has_empty = path.contains("//");
            for empty_params in both.into_iter().take(1 + usize::from(has_empty)) {
                spellings.push(Spelling {
                    path: path.clone(),
                    empty_params,
                    escapes,
                });
            }
        }
    }
    spellings
}

/// The most combinations of slashes that are looked at.
const MOST: usize = 16;
/// And of a path of more bytes than [`LONG`].
const MOST_IF_LONG: usize = 4;
const LONG: usize = 4_096;

/// Lists the paths that differ in the lengths of their runs of slashes: each run as it is, by one shorter and as a
/// single slash, in all combinations as far as there are not too many; the path itself first, and always the one
/// whose slashes are all merged.
///
/// If a path has too many, only the runs at its beginning are combined, since keys are no longer than their segments.
fn with_fewer_slashes(path: &str) -> Vec<Cow<'_, str>> {
    if !path.contains("//") {
        return vec![Cow::Borrowed(path)];
    }
    let most = match path.len() {
        0..=LONG => MOST,
        _ => MOST_IF_LONG,
    };
    let mut begun = vec![String::with_capacity(path.len())];
    let mut rest = path;
    while let Some(at) = rest.find("//") {
        let (text, from) = rest.split_at(at);
        let after = from.trim_start_matches('/');
        let run = from.len() - after.len();
        let mut lengths = vec![run, run - 1, 1];
        lengths.dedup();
        if begun.len() * lengths.len() > most {
            break;
        }
        let of_length = |length: usize| {
            let end = "/".repeat(length);
            begun.iter().map(move |path| format!("{path}{text}{end}"))
        };
        begun = lengths.into_iter().flat_map(of_length).collect();
        rest = after;
    }
    let mut paths: Vec<Cow<'_, str>> = Vec::with_capacity(begun.len() + 1);
    for mut path in begun {
        path.push_str(rest);
        paths.push(Cow::Owned(path));
    }
    let merged = merge_slashes(path);
    if !paths.contains(&merged) {
        paths.push(merged);
    }
    paths
}

/// The path with each run of slashes as a single one.
fn merge_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    Cow::Owned(merged)
}

/// The path with each escaped segment made unlike any literal of a key that the router has taken for a parameter, or
/// may have; all others are in normal form. `None`: there is no such segment.
fn with_escaped_parameters(path: &str, template: Option<&str>) -> Option<String> {
    if !path.as_bytes().contains(&b'%') && path.is_ascii() {
        return None;
    }
    let mut parts = template.map(|template| template.split('/'));
    let mut greedy = false;
    let mut found = false;
    let mut marked = String::with_capacity(path.len() + 1);
    for (index, segment) in path.split('/').enumerate() {
        let is_parameter = match &mut parts {
            Some(parts) => {
                let part = parts.next().unwrap_or("");
                greedy |= part.starts_with("{*");
                let parameter = part.replace("{{", "").contains('{');
                (greedy || parameter) && (segment.contains('%') || !segment.is_ascii())
            }
            // A key's literal in its normal form is taken at its word.
            None => *normalize(segment) != *segment,
        };
        if index > 0 {
            marked.push('/');
        }
        if is_parameter {
            // No path holds it, so no key does.
            marked.push('\0');
            marked.push_str(segment);
            found = true;
        } else {
            marked.push_str(&normalize(segment));
        }
    }
    found.then_some(marked)
}

/// The path that stands for all spellings of an undeclared route: in normal form, and without empty segments.
pub(super) fn canonical(path: &str) -> Cow<'_, str> {
    match merge_slashes(path) {
        Cow::Borrowed(path) => normalize(path),
        Cow::Owned(path) => Cow::Owned(normalize(&path).into_owned()),
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
        let escaped = bytes.get(at..at + 2).and_then(escaped);
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

/// Decodes all escapes of a text, once. What only looks like an escape stays as it is.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%')
            .then(|| escaped(bytes.get(at + 1..at + 3)?))
            .flatten();
        decoded.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    Cow::Owned(decoded)
}

/// The byte that two hexadecimal digits stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let mut digits = digits.iter().map(|&digit| char::from(digit).to_digit(16));
    let (high, low) = (digits.next()??, digits.next()??);
    u8::try_from(high * 16 + low).ok()
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
    fn a_path_is_ambiguous_wherever_the_sign_for_it_stands() {
        for length in 0..40 {
            let plain = "/ab.%c"[..4].repeat(10)[..length].to_owned();
            assert!(!is_ambiguous(&plain), "{plain}");
            for at in 0..length {
                for sign in ["%", "//", "\u{e9}"] {
                    let mut path = plain.clone();
                    path.insert_str(at, sign);
                    assert!(is_ambiguous(&path), "{path}");
                }
            }
        }
        for path in ["/", "/a/b", "/a/", "/$&/0", "/a/b.c/d/e.f"] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }

    #[test]
    fn each_run_of_slashes_is_kept_shortened_by_one_and_merged() {
        let table: [(&str, &[&str]); 6] = [
            ("/a/b", &["/a/b"]),
            ("/a//b", &["/a//b", "/a/b"]),
            ("//a", &["//a", "/a"]),
            ("/a//", &["/a//", "/a/"]),
            ("/a////b", &["/a////b", "/a///b", "/a/b"]),
            ("/a//b//c", &["/a//b//c", "/a/b//c", "/a//b/c", "/a/b/c"]),
        ];
        for (path, expected) in table {
            assert_eq!(with_fewer_slashes(path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_of_many_runs_is_read_in_so_many_ways_and_merged_among_them() {
        for (count, most) in [(9, MOST), (2_000, MOST_IF_LONG)] {
            let path = "/a//b".repeat(count);
            let paths = with_fewer_slashes(&path);
            assert_eq!(paths.len(), most + 1);
            assert_eq!(paths[0], path);
            assert!(paths.contains(&Cow::from("/a/b".repeat(count))));
        }
    }

    #[test]
    fn an_escaped_parameter_is_made_unlike_any_literal() {
        // (path, the router's template, what is looked for)
        let table = [
            (
                "/files/%68ealth",
                Some("/files/{id}"),
                Some("/files/\0%68ealth"),
            ),
            (
                "/files/caf%C3%A9",
                Some("/files/{id}"),
                Some("/files/\0caf%C3%A9"),
            ),
            (
                "/files/caf\u{e9}",
                Some("/files/{id}"),
                Some("/files/\0caf\u{e9}"),
            ),
            ("/files/health", Some("/files/{id}"), None),
            ("/fi%6Ces/x", Some("/files/{id}"), None),
            ("/{%62}/x", Some("/{{b}}/{id}"), None),
            ("/a/x/%62", Some("/a/{*rest}"), Some("/a/x/\0%62")),
            ("/a/x/b", Some("/a/{*rest}"), None),
            ("/%61/%62", Some("/{a}/b"), Some("/\0%61/b")),
            ("/%61:v/b", Some("/{a}:v/b"), Some("/\0%61:v/b")),
            ("/v-%61/b", Some("/v-{a}/b"), Some("/\0v-%61/b")),
            ("/a/%62", Some("/a"), None),
            ("/files/%68ealth", None, Some("/files/\0%68ealth")),
            ("/%61/%62", None, Some("/\0%61/\0%62")),
            ("/files/caf%C3%A9", None, None),
            ("/files/caf%c3%a9", None, Some("/files/\0caf%c3%a9")),
        ];
        for (path, template, expected) in table {
            assert_eq!(
                with_escaped_parameters(path, template).as_deref(),
                expected,
                "{path} on {template:?}"
            );
        }
    }

    #[test]
    fn a_router_that_is_known_gives_empty_segments_and_escapes_to_parameters_first() {
        let order = |template| {
            let spellings = spellings("/a//%62", template, false);
            let told = spellings.iter();
            told.map(|it| (it.path.to_string(), it.empty_params))
                .collect::<Vec<_>>()
        };
        let own = |path: &str, empty| (path.to_owned(), empty);
        let unknown = [
            own("/a//%62", false),
            own("/a//%62", true),
            own("/a//\0%62", false),
            own("/a//\0%62", true),
            own("/a/%62", false),
            own("/a/\0%62", false),
        ];
        assert_eq!(order(None), unknown);
        let known = [
            own("/a//\0%62", true),
            own("/a//\0%62", false),
            own("/a//%62", true),
            own("/a//%62", false),
            own("/a/\0%62", true),
            own("/a/%62", true),
        ];
        assert_eq!(order(Some("/a/{x}/{y}")), known);
    }

    #[test]
    fn escapes_are_read_in_all_ways_where_a_key_has_a_literal_after_a_parameter() {
        let read = |path: &'static str, template| {
            let spellings = spellings(path, template, true);
            let told = spellings.iter();
            told.map(|it| (it.path.to_string(), it.escapes))
                .collect::<Vec<_>>()
        };
        let own = |path: &str, escapes| (path.to_owned(), escapes);
        let expected = [
            own("/%6D:v", Escapes::Normal),
            own("/\0%6D:v", Escapes::Sent),
            own("/%6D:v", Escapes::Decoded),
        ];
        assert_eq!(read("/%6D:v", None), expected);
        let in_normal_form = [
            own("/m%3Av", Escapes::Normal),
            own("/m%3Av", Escapes::Sent),
            own("/m%3Av", Escapes::Decoded),
        ];
        assert_eq!(read("/m%3Av", None), in_normal_form);
        let known = [
            own("/\0m%3Av", Escapes::Sent),
            own("/m%3Av", Escapes::Normal),
            own("/m%3Av", Escapes::Decoded),
        ];
        assert_eq!(read("/m%3Av", Some("/{m}")), known);
        assert_eq!(read("/m//v", None).len(), 3, "no escapes");
    }

    #[test]
    fn all_spellings_of_an_undeclared_route_are_one() {
        for path in ["/u/v~", "//u/v~", "/u//v~", "///u////v%7e", "/%75/v~"] {
            assert_eq!(canonical(path), "/u/v~", "{path}");
        }
        assert_eq!(canonical("/u/v/"), "/u/v/");
        assert_eq!(canonical("/u/v//"), "/u/v/");
    }
}
