//! No router to ask: the path decides.

use http::Extensions;

#[inline]
pub(super) fn template(_: &Extensions) -> Option<&str> {
    None
}

#[inline]
pub(super) fn original_path(_: &Extensions) -> Option<&str> {
    None
}
