//! The class of a request among the models of the rules.

/// The class of a request: one of the models that the rules name, all others, or a model that was not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ModelClass(u32);

impl ModelClass {
    /// The request is not charged by model.
    pub(crate) const NONE: Self = Self(0);
    /// The model was not read.
    pub(crate) const UNREAD: Self = Self(1);
    /// The model is none of those that the rules name.
    pub(crate) const OTHER: Self = Self(2);

    /// Returns the class of the model with this number in the rules.
    pub(crate) fn named(number: usize) -> Self {
        Self(u32::try_from(number).map_or(u32::MAX, |number| number.saturating_add(3)))
    }

    /// Returns the position of the class, counted from zero: unread is the first, others the second, and then come the
    /// models. `None` for a request that is not charged by model.
    #[inline]
    pub(crate) fn position(self) -> Option<usize> {
        usize::try_from(self.0).ok()?.checked_sub(1)
    }
}
