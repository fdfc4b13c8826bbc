//! The total that a scan should find, read with serde_json and without any regard to time or memory. The fuzz
//! target uses this file too.

use serde::de::IgnoredAny;
use serde_json::Value;

/// serde_json reads less than is JSON: no lone surrogates, wrong UTF-8 or numbers out of range.
#[derive(Debug)]
pub(super) struct CannotSay;

pub(super) fn json(text: &[u8]) -> Result<Option<u64>, CannotSay> {
    match serde_json::from_slice::<Value>(text) {
        Ok(answer) => Ok(total(&answer["usage"]).or_else(|| total(&answer["response"]["usage"]))),
        Err(_) if serde_json::from_slice::<IgnoredAny>(text).is_err() => Ok(None),
        Err(error) if error.to_string().starts_with("recursion limit") => Ok(None),
        Err(_) => Err(CannotSay),
    }
}

fn total(usage: &Value) -> Option<u64> {
    let count = |name| usage[name].as_u64();
    let sum = |one, other| count(one)?.checked_add(count(other)?);
    count("total_tokens")
        .or_else(|| sum("prompt_tokens", "completion_tokens"))
        .or_else(|| sum("input_tokens", "output_tokens"))
}

pub(super) fn event_stream(stream: &[u8]) -> Result<Option<u64>, CannotSay> {
    let mut stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let mut data: Vec<&[u8]> = Vec::new();
    let mut last = None;
    while let Some(end) = stream.iter().position(|byte| b"\r\n".contains(byte)) {
        let (line, rest) = stream.split_at(end);
        stream = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        if line.is_empty() {
            last = json(&data.join(&b'\n'))?.or(last);
            data.clear();
        } else if line == b"data" {
            data.push(b"");
        } else if let Some(value) = line.strip_prefix(b"data:") {
            data.push(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
    Ok(last)
}
