//! Paths that have one reading.
//!
//! A server may decode escapes once or twice, merge slashes, resolve dots, or cut the path at a delimiter. A path is
//! canonical if none of that changes its segments.

use std::borrow::Cow;

use crate::route::normalize;

/// A reason for which servers may read a path in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ambiguity {
    #[error("does not begin with a slash")]
    Relative,
    #[error("has an encoded slash")]
    EncodedSlash,
    #[error("has a backslash")]
    Backslash,
    #[error("has an empty segment")]
    EmptySegment,
    #[error("has a dot segment")]
    DotSegment,
    #[error("leads above its root")]
    AboveRoot,
    #[error("has a character outside of ASCII")]
    NotAscii,
    #[error("has a delimiter: a semicolon, or an encoded semicolon, question mark or number sign")]
    Delimiter,
    #[error("has an escape that is encoded again")]
    DoubleEscape,
    #[error("has a control character")]
    Control,
    #[error("has a percent sign without two hexadecimal digits, or escapes that are not UTF-8")]
    Escape,
}

/// Refuses a path that is not canonical.
pub(super) fn strict(path: &str) -> Result<(), Ambiguity> {
    let mut segments = path
        .strip_prefix('/')
        .ok_or(Ambiguity::Relative)?
        .split('/')
        .peekable();
    while let Some(segment) = segments.next() {
        // The path may end with a slash.
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Ambiguity::EmptySegment);
        }
        if !segment.is_ascii() {
            return Err(Ambiguity::NotAscii);
        }
        let decoded = decode(segment)?;
        if decoded.contains('/') {
            return Err(Ambiguity::EncodedSlash);
        }
        if decoded.contains('\\') {
            return Err(Ambiguity::Backslash);
        }
        if matches!(&*decoded, "." | "..") {
            return Err(Ambiguity::DotSegment);
        }
    }
    Ok(())
}

/// Rewrites a path to its canonical form. `None` if it has that already.
pub(super) fn normal(path: &str) -> Result<Option<String>, Ambiguity> {
    if !path.starts_with('/') {
        return Err(Ambiguity::Relative);
    }
    let path_with_slashes = with_slashes(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_with_slash = false;
    for segment in path_with_slashes.split('/') {
        let decoded = decode(segment)?;
        ends_with_slash = matches!(&*decoded, "" | "." | "..");
        match &*decoded {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(Ambiguity::AboveRoot)?;
            }
            _ => kept.push(segment),
        }
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in kept {
        canonical.push('/');
        canonical.push_str(&normalize(segment));
    }
    if ends_with_slash {
        canonical.push('/');
    }
    Ok((canonical != path).then_some(canonical))
}

/// Writes a slash for each character that a server may take for one.
fn with_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', '\\']) {
        return Cow::Borrowed(path);
    }
    let spellings = ["\\", "%2F", "%2f", "%5C", "%5c"];
    let replaced = |path: String, spelling| path.replace(spelling, "/");
    Cow::Owned(spellings.into_iter().fold(path.to_owned(), replaced))
}

/// Decodes the escapes of a segment, once. Neither decoding it again nor cutting it may change its meaning.
fn decode(segment: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if segment.contains(';') {
        return Err(Ambiguity::Delimiter);
    }
    if segment.contains(|character: char| character.is_control()) {
        return Err(Ambiguity::Control);
    }
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(hexadecimal).ok_or(Ambiguity::Escape);
                digit()? * 16 + digit()?
            }
            _ => byte,
        };
        decoded.push(byte);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| Ambiguity::Escape)?;
    if decoded.contains([';', '?', '#']) {
        return Err(Ambiguity::Delimiter);
    }
    if decoded.contains(|character: char| character.is_control()) {
        return Err(Ambiguity::Control);
    }
    if has_escape(&decoded) {
        return Err(Ambiguity::DoubleEscape);
    }
    Ok(Cow::Owned(decoded))
}

fn has_escape(text: &str) -> bool {
    let mut windows = text.as_bytes().windows(3);
    windows.any(|window| {
        window[0] == b'%' && window[1].is_ascii_hexdigit() && window[2].is_ascii_hexdigit()
    })
}

fn hexadecimal(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Ambiguity::*, *};

    #[test]
    fn each_spelling_is_refused_or_rewritten() {
        // (path, strict, normalizing)
        let table = [
            ("/", Ok(()), Ok("/")),
            ("/v1/chat", Ok(()), Ok("/v1/chat")),
            ("/v1/chat/", Ok(()), Ok("/v1/chat/")),
            ("/v1/%63hat", Ok(()), Ok("/v1/chat")),
            ("/caf%c3%a9", Ok(()), Ok("/caf%C3%A9")),
            ("/100%25", Ok(()), Ok("/100%25")),
            ("/a%20b:c@d!$&'()*+,=", Ok(()), Ok("/a%20b:c@d!$&'()*+,=")),
            (
                "/v1%2E0/.well-known/...",
                Ok(()),
                Ok("/v1.0/.well-known/..."),
            ),
            ("/v1/chat%2Fx", Err(EncodedSlash), Ok("/v1/chat/x")),
            ("/v1%2fchat", Err(EncodedSlash), Ok("/v1/chat")),
            ("/v1/chat%5Cx", Err(Backslash), Ok("/v1/chat/x")),
            ("/v1\\chat", Err(Backslash), Ok("/v1/chat")),
            ("//v1/chat", Err(EmptySegment), Ok("/v1/chat")),
            ("/v1//chat", Err(EmptySegment), Ok("/v1/chat")),
            ("/v1/chat//", Err(EmptySegment), Ok("/v1/chat/")),
            ("/v1/%2F/chat", Err(EncodedSlash), Ok("/v1/chat")),
            ("/v1/./chat", Err(DotSegment), Ok("/v1/chat")),
            ("/v1/x/../chat", Err(DotSegment), Ok("/v1/chat")),
            ("/v1/%2e%2E/chat", Err(DotSegment), Ok("/chat")),
            ("/v1/x%2F..%2fchat", Err(EncodedSlash), Ok("/v1/chat")),
            ("/v1/.%2e", Err(DotSegment), Ok("/")),
            ("/..", Err(DotSegment), Err(AboveRoot)),
            ("/a/../../b", Err(DotSegment), Err(AboveRoot)),
            ("/caf\u{e9}", Err(NotAscii), Ok("/caf%C3%A9")),
            ("/v1/chat;x=1", Err(Delimiter), Err(Delimiter)),
            ("/v1/x/..;/chat", Err(Delimiter), Err(Delimiter)),
            ("/v1/chat%3bx", Err(Delimiter), Err(Delimiter)),
            ("/v1/chat%3Fx", Err(Delimiter), Err(Delimiter)),
            ("/v1/chat%23", Err(Delimiter), Err(Delimiter)),
            ("/v1/chat%252Fx", Err(DoubleEscape), Err(DoubleEscape)),
            ("/v1/chat%25%32%46x", Err(DoubleEscape), Err(DoubleEscape)),
            ("/v1/%25252Fx", Err(DoubleEscape), Err(DoubleEscape)),
            ("/v1/chat%00", Err(Control), Err(Control)),
            ("/v1/chat%0d%0A", Err(Control), Err(Control)),
            ("/v1/chat%7F", Err(Control), Err(Control)),
            ("/v1/chat%C2%85", Err(Control), Err(Control)),
            ("/v1%c0%afchat", Err(Escape), Err(Escape)),
            ("/v1/%zz", Err(Escape), Err(Escape)),
            ("/v1/%4", Err(Escape), Err(Escape)),
            ("/v1/%", Err(Escape), Err(Escape)),
            ("/v1/%%2F", Err(Escape), Err(Escape)),
            ("/v1/%+2", Err(Escape), Err(Escape)),
            ("", Err(Relative), Err(Relative)),
            ("*", Err(Relative), Err(Relative)),
            ("v1", Err(Relative), Err(Relative)),
        ];
        for (path, refused, rewritten) in table {
            assert_eq!(strict(path), refused, "{path}");
            let normal = normal(path).map(|normal| normal.unwrap_or_else(|| path.to_owned()));
            assert_eq!(
                normal.as_deref(),
                rewritten.as_ref().map(|path| *path),
                "{path}"
            );
        }
    }

    /// A path of pieces that servers read in different ways.
    fn path() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "/", "//", "a", "B", "v1", ".", "..", "%2e", "%2E", "%2F", "%2f", "%5c", "\\", "%25",
            "%", "2F", "2e", "%61", "%c3%a9", "%c0%af", "\u{e9}", ";", "%3b", "%3F", "%00", "%20",
            "~", "%7E", "{", "*",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// A server that decodes, cuts, merges and resolves as much as any does.
    fn most_eager_reading(path: &str) -> Vec<String> {
        let mut text = path.to_owned();
        for _ in 0..3 {
            text = decoded_where_possible(&text).replace('\\', "/");
        }
        let mut segments = Vec::new();
        for segment in text.split(['?', '#']).next().unwrap_or_default().split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment.to_owned()),
            }
        }
        segments
    }

    /// A server that decodes the segments once and does nothing else.
    fn plain_reading(path: &str) -> Vec<String> {
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        segments.map(decoded_where_possible).collect()
    }

    fn decoded_where_possible(text: &str) -> String {
        let mut decoded = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let code = after.get(..2).and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 16).ok().filter(|_| byte == b'%')
            });
            decoded.push(code.unwrap_or(byte));
            rest = if code.is_some() { &after[2..] } else { after };
        }
        String::from_utf8_lossy(&decoded).into_owned()
    }

    proptest! {
        #![proptest_config(crate::cases::cases(4_096))]

        #[test]
        fn a_path_that_passes_has_one_reading(path in path()) {
            if strict(&path).is_ok() {
                prop_assert_eq!(most_eager_reading(&path), plain_reading(&path));
            }
        }

        #[test]
        fn a_rewritten_path_passes_and_is_not_rewritten_again(path in path()) {
            if let Ok(rewritten) = normal(&path) {
                let canonical = rewritten.unwrap_or_else(|| path.clone());
                prop_assert_eq!(strict(&canonical), Ok(()));
                prop_assert_eq!(normal(&canonical), Ok(None));
                prop_assert_eq!(most_eager_reading(&canonical), plain_reading(&canonical));
            }
        }

        #[test]
        fn rewriting_keeps_the_segments_of_a_path_that_passes(path in path()) {
            if strict(&path).is_ok() {
                let rewritten = normal(&path);
                prop_assert!(rewritten.is_ok(), "{:?}", rewritten);
                let canonical = rewritten.ok().flatten().unwrap_or_else(|| path.clone());
                prop_assert_eq!(plain_reading(&canonical), plain_reading(&path));
            }
        }
    }
}
