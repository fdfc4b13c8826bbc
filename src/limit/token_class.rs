//! The class of a request by the model whose tokens it uses.

/// The class of a request among the models whose tokens have a price or an estimate of their own. By default it is for
/// none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TokenClass(u32);

impl TokenClass {
    /// The request is for a model that is not named, or for none.
    pub(crate) const OTHERWISE: Self = Self(0);
    /// The model was not read.
    pub(crate) const UNREAD: Self = Self(1);

    /// Returns the class of the model with this number among those that are named.
    pub(crate) fn named(number: usize) -> Self {
        Self(u32::try_from(number).map_or(u32::MAX, |number| number.saturating_add(2)))
    }

    /// Returns the position of the class, counted from zero: others are the first, unread the second, and then come the
    /// models.
    #[inline]
    pub(crate) fn position(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}
