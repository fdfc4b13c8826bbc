//! A name of bounded length, while it is being read.

/// A name, if it has no more than `LONGEST` bytes.
#[derive(Debug, Clone)]
pub(crate) struct Name<const LONGEST: usize> {
    bytes: [u8; LONGEST],
    /// More than there is room for if it is longer than that.
    len: usize,
}

impl<const LONGEST: usize> Name<LONGEST> {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; LONGEST],
            len: 0,
        }
    }

    /// Begins another name.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        let end = self.len.saturating_add(more.len());
        match self.bytes.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(more);
                self.len = end;
            }
            None => self.spoil(),
        }
    }

    /// Makes it a name that nobody knows.
    pub(crate) fn spoil(&mut self) {
        self.len = usize::MAX;
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the name, unless it is too long.
    pub(crate) fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }
}
