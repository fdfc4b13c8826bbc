//! Reads what axum's router says about a request that it has matched.

use axum::extract::{MatchedPath, OriginalUri};
use http::Extensions;

/// The template of the matched route, nested prefixes included.
pub(super) fn template(extensions: &Extensions) -> Option<&str> {
    extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

/// The path as the outermost router saw it, before nested routers stripped their prefix.
pub(super) fn original_path(extensions: &Extensions) -> Option<&str> {
    extensions.get::<OriginalUri>().map(|uri| uri.0.path())
}
