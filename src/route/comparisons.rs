//! The number of comparisons of routes, for tests of how it grows.

#[cfg(test)]
thread_local! {
    /// The number of comparisons of routes in this thread.
    pub(crate) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts a comparison of routes.
#[inline(always)]
pub(super) fn compared() {
    #[cfg(test)]
    COMPARED.set(COMPARED.get() + 1);
}
