//! The literal names `true`, `false` and `null`.

/// The rest of a literal name, its next byte lowest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Literal(u32);

impl Literal {
    /// Returns the rest of the name that begins with this byte.
    pub(crate) fn after(first: u8) -> Option<Self> {
        match first {
            b't' => Some(Self(u32::from_le_bytes(*b"rue\0"))),
            b'f' => Some(Self(u32::from_le_bytes(*b"alse"))),
            b'n' => Some(Self(u32::from_le_bytes(*b"ull\0"))),
            _ => None,
        }
    }

    /// Returns whether this byte is next.
    pub(crate) fn begins_with(self, byte: u8) -> bool {
        self.0 & 0xFF == u32::from(byte)
    }

    /// Returns the rest after the next byte, if there is more.
    pub(crate) fn rest(self) -> Option<Self> {
        match self.0 >> 8 {
            0 => None,
            rest => Some(Self(rest)),
        }
    }
}
