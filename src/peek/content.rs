//! The fields of a request that say whether its body can be read.

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};

use crate::{
    facts::UnreadReason,
    head::{number, trim_ows_bytes},
};

/// Returns the reason for which a body with these fields is not read.
///
/// One encoding in any line will do, and white space, case and empty elements take no part: who decodes the body may
/// look at any line. But every line of the type has to be multipart: what is read in spite of that turns out to be
/// malformed, while a second line would be a way past the scanner.
pub(super) fn unreadable(headers: &HeaderMap) -> Option<UnreadReason> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if codings.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_coding)) {
        return Some(UnreadReason::Encoded);
    }
    let types = headers.get_all(CONTENT_TYPE).iter();
    let mut types = types.map(|line| is_multipart(line.as_bytes()));
    let is_multipart = types.next()? && types.all(|is_multipart| is_multipart);
    is_multipart.then_some(UnreadReason::Multipart)
}

/// Tells whether one element of the field changes the bytes of a body (RFC 9110, section 8.4).
fn is_coding(element: &[u8]) -> bool {
    let element = trim_ows_bytes(element);
    !element.is_empty() && !element.eq_ignore_ascii_case(b"identity")
}

fn is_multipart(value: &[u8]) -> bool {
    const MULTIPART: &[u8] = b"multipart/";
    let start = trim_ows_bytes(value).get(..MULTIPART.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(MULTIPART))
}

/// The length of a body as its head declares it.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    number(headers, CONTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn reason(name: &HeaderName, lines: &[&str]) -> Option<UnreadReason> {
        let lines = lines.iter().map(|line| {
            let value = HeaderValue::from_str(line).expect("a value");
            (name.clone(), value)
        });
        let mut headers = HeaderMap::new();
        lines.for_each(|(name, value)| {
            headers.append(name, value);
        });
        unreadable(&headers)
    }

    #[test]
    fn encodings_are_seen_in_any_spelling_and_line() {
        let table: [(&[&str], bool); 12] = [
            (&[], false),
            (&["identity"], false),
            (&[" IDENTITY\t"], false),
            (&["identity, identity"], false),
            (&[""], false),
            (&[" , ,"], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["identity,\tbr"], true),
            (&["identity", "zstd"], true),
            (&["", "x"], true),
            (&["identity;q=1"], true),
        ];
        for (lines, is_encoded) in table {
            let expected = is_encoded.then_some(UnreadReason::Encoded);
            assert_eq!(reason(&CONTENT_ENCODING, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_type_is_multipart_if_each_line_is() {
        let table: [(&[&str], bool); 7] = [
            (&[], false),
            (&["application/json"], false),
            (&["multipart/form-data; boundary=x"], true),
            (&[" MultiPart/Mixed"], true),
            (&["multipart"], false),
            (&["application/json", "multipart/form-data"], false),
            (&["multipart/form-data", "application/json"], false),
        ];
        for (lines, is_multipart) in table {
            let expected = is_multipart.then_some(UnreadReason::Multipart);
            assert_eq!(reason(&CONTENT_TYPE, lines), expected, "{lines:?}");
        }
    }
}
