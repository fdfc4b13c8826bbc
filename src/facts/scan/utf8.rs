//! UTF-8 that comes in pieces.

use std::str;

/// The beginning of a character that the end of a piece has cut.
#[derive(Debug, Clone, Default)]
pub(super) struct CutCharacter {
    bytes: [u8; 4],
    len: usize,
}

impl CutCharacter {
    /// Returns whether no character is cut.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.len == 0
    }

    /// Reads on in the same string, and returns whether it may still be UTF-8.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return true;
            };
            self.bytes[self.len] = byte;
            self.len += 1;
            match str::from_utf8(&self.bytes[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
            bytes = rest;
        }
        match str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                // Three bytes at most: one more would complete the character.
                let cut = &bytes[error.valid_up_to()..];
                self.bytes[..cut.len()].copy_from_slice(cut);
                self.len = cut.len();
                true
            }
            Err(_) => false,
        }
    }
}
