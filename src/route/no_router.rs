//! No router to ask: the path decides.

use http::Extensions;

pub(super) fn template(_: &Extensions) -> Option<&str> {
    None
}

pub(super) fn original_path(_: &Extensions) -> Option<&str> {
    None
}
