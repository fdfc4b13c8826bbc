//! Arrays and objects that are open.

use super::DEPTH;

/// The arrays and objects that are open at a place in a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nesting {
    depth: u8,
    /// A bit for each of them, the innermost the lowest: set if it is an object.
    objects: u128,
}

impl Nesting {
    /// Returns the number of arrays and objects that are open.
    #[inline]
    pub(crate) fn depth(&self) -> u8 {
        self.depth
    }

    /// Returns whether the innermost is an object.
    #[inline]
    pub(crate) fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    /// Returns whether the innermost is an array.
    #[inline]
    pub(crate) fn in_array(&self) -> bool {
        self.depth > 0 && !self.in_object()
    }

    /// Returns whether the innermost is an object, and lies in an array.
    #[inline]
    pub(crate) fn in_object_of_array(&self) -> bool {
        self.depth > 1 && self.objects & 0b11 == 0b01
    }

    /// Returns whether one more may be opened.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.depth < DEPTH
    }

    #[inline]
    pub(crate) fn open(&mut self, is_object: bool) {
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
    }

    /// Returns whether the innermost ends with this bracket.
    #[inline]
    pub(crate) fn ends_with(&self, bracket: u8) -> bool {
        self.depth > 0 && self.in_object() == (bracket == b'}')
    }

    #[inline]
    pub(crate) fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }
}
