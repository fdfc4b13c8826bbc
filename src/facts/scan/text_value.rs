//! A string of the text: counted, and perhaps an item.

use super::plain::PlainBytes;

/// A string that is being counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextValue {
    pub(super) len: u64,
    form: TextForm,
}

/// The form of a string as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextForm {
    Text,
    /// As many bytes of `data:`.
    Scheme(usize),
    /// Data, if it goes on like this.
    Data,
}

const SCHEME: &[u8] = b"data:";

impl TextValue {
    /// Begins a string, which is the value of a member for encoded data or any other.
    #[inline]
    pub(super) fn new(is_data: bool) -> Self {
        Self {
            len: 0,
            form: match is_data {
                true => TextForm::Data,
                false => TextForm::Scheme(0),
            },
        }
    }

    /// Returns the bytes that do not decide on the form, if the first of those to come is this one.
    ///
    /// Nearly all strings are text by their first byte.
    #[inline]
    pub(super) fn plain_bytes(&mut self, first: u8) -> PlainBytes {
        if self.form == TextForm::Scheme(0) && !matches!(first, b'd' | b'D' | b'\\') {
            self.form = TextForm::Text;
        }
        match self.form {
            TextForm::Text => PlainBytes::Text,
            TextForm::Scheme(_) | TextForm::Data => PlainBytes::Data,
        }
    }

    /// Reads decoded bytes without a space.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8], is_ascii: bool) {
        self.len += bytes.len() as u64;
        if self.form != TextForm::Text {
            self.read_form(bytes, is_ascii);
        }
    }

    fn read_form(&mut self, bytes: &[u8], is_ascii: bool) {
        if let TextForm::Scheme(seen) = self.form {
            let left = &SCHEME[seen..];
            let len = left.len().min(bytes.len());
            self.form = match left[..len].eq_ignore_ascii_case(&bytes[..len]) {
                true if seen + len == SCHEME.len() => TextForm::Data,
                true => TextForm::Scheme(seen + len),
                false => TextForm::Text,
            };
        }
        if !is_ascii {
            self.be_text();
        }
    }

    /// Reads a decoded character.
    #[inline]
    pub(super) fn read_char(&mut self, character: char) {
        if self.form == TextForm::Text || character <= ' ' {
            self.form = TextForm::Text;
            self.len += character.len_utf8() as u64;
        } else {
            let is_ascii = character.is_ascii();
            self.read(character.encode_utf8(&mut [0; 4]).as_bytes(), is_ascii);
        }
    }

    /// Makes it text, which data never becomes again.
    #[inline]
    pub(super) fn be_text(&mut self) {
        self.form = TextForm::Text;
    }

    /// Returns whether the string, which has ended, is an item.
    #[inline]
    pub(super) fn is_item(&self) -> bool {
        self.form == TextForm::Data
    }
}
