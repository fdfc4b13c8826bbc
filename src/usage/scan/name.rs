//! The name of a member, while it is being read.

/// A name, if it is short enough to be known.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    bytes: [u8; Self::LONGEST],
    /// More than there is room for if it is longer than that.
    len: usize,
}

impl Name {
    /// `completion_tokens`
    const LONGEST: usize = 17;

    pub(super) fn push(&mut self, more: &[u8]) {
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
    pub(super) fn spoil(&mut self) {
        self.len = usize::MAX;
    }

    pub(super) fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }
}
