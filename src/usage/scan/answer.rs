//! One answer, or one event of it, while it is read.

use super::{
    counts::{TokenCount, TokenCounts},
    place::Container,
    tally::Tally,
};

/// The counts and the text that were read.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerReading {
    /// The counts of the answer itself.
    own: TokenCounts,
    /// The counts of `response` or `message` in it. They count if there are none of its own.
    nested: TokenCounts,
    /// The nested ones are of `message`, which begins an answer.
    is_start: bool,
    /// Bytes of text.
    pub(super) text: u64,
}

impl AnswerReading {
    #[inline]
    pub(super) fn clear(&mut self) {
        self.own.clear();
        self.nested.clear();
        self.text = 0;
    }

    /// Returns the counts that an object belongs to. `root` is the one in the answer on the way to it.
    fn counts(&mut self, root: Option<Container>) -> &mut TokenCounts {
        match root {
            Some(Container::Response | Container::Message) => &mut self.nested,
            _ => &mut self.own,
        }
    }

    /// Takes a count. `None`: it is not known any more.
    pub(super) fn set(&mut self, root: Option<Container>, count: TokenCount, value: Option<u64>) {
        self.counts(root).set(count, value);
        match root {
            Some(Container::Message) => self.is_start = true,
            Some(Container::Response) => self.is_start = false,
            _ => {}
        }
    }

    /// Forgets what an earlier object of the same name has reported, before it is entered again.
    pub(super) fn forget(&mut self, root: Option<Container>, container: Container) {
        match container {
            Container::Usage => self.counts(root).clear(),
            Container::Response | Container::Message => self.nested.clear(),
            _ => {}
        }
    }

    /// Adds the answer, which is complete, to the tally.
    #[inline]
    pub(super) fn end(&self, tally: &mut Tally) {
        tally.add_text(self.text);
        if !self.own.is_empty() {
            tally.add_report(&self.own, self.text > 0);
        } else if !self.nested.is_empty() {
            match self.is_start {
                true => tally.add_start(&self.nested),
                false => tally.add_report(&self.nested, self.text > 0),
            }
        }
    }
}
