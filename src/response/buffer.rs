//! Text in the making, on the stack as long as it is short.

use http::HeaderValue;

/// Appends text and numbers; moves to the heap past its inline size.
#[derive(Debug)]
pub(super) struct Buffer {
    inline: [u8; Self::INLINE],
    len: usize,
    spilled: Vec<u8>,
}

impl Buffer {
    const INLINE: usize = 128;

    pub(super) fn new() -> Self {
        Self {
            inline: [0; Self::INLINE],
            len: 0,
            spilled: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        let bytes = text.as_bytes();
        match self.inline.get_mut(self.len..self.len + bytes.len()) {
            Some(free) if self.spilled.is_empty() => {
                free.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => {
                if self.spilled.is_empty() {
                    self.spilled.extend_from_slice(&self.inline[..self.len]);
                }
                self.spilled.extend_from_slice(bytes);
            }
        }
    }

    pub(super) fn push_integer(&mut self, integer: u64) {
        self.push(itoa::Buffer::new().format(integer));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        if self.spilled.is_empty() {
            &self.inline[..self.len]
        } else {
            &self.spilled
        }
    }

    /// The text as a header value; nothing but visible ASCII and spaces is ever pushed for one.
    pub(super) fn to_header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.as_bytes()).ok()
    }
}

/// An integer as a header value.
pub(super) fn integer(integer: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let small = usize::try_from(integer)
        .ok()
        .and_then(|index| SMALL.get(index));
    match small {
        Some(digit) => HeaderValue::from_static(digit),
        None => HeaderValue::from_str(itoa::Buffer::new().format(integer))
            .unwrap_or(HeaderValue::from_static("0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_move_to_the_heap() {
        let mut buffer = Buffer::new();
        let mut expected = String::new();
        for integer in (0..40).map(|shift| u64::MAX >> shift) {
            buffer.push("x=");
            buffer.push_integer(integer);
            expected.push_str(&format!("x={integer}"));
            assert_eq!(buffer.as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn exactly_the_inline_size_stays_inline() {
        let mut buffer = Buffer::new();
        buffer.push(&"a".repeat(Buffer::INLINE));
        assert!(buffer.spilled.is_empty());
        buffer.push("");
        buffer.push("b");
        assert_eq!(buffer.as_bytes().len(), Buffer::INLINE + 1);
    }
}
