//! Nobody to tell.

use crate::{
    clock::Nanos,
    decision::{Degraded, Denial},
    limiter::{
        limit_set::{BoundLimit, LimitSet},
        missing_reason::MissingReason,
    },
    rules::Changes,
    store::StoreError,
};

#[derive(Debug, Default)]
pub(crate) struct Log {}

#[expect(clippy::unused_self, reason = "as where somebody listens")]
impl Log {
    pub(crate) fn refused(&self, _: &Denial) {}

    #[inline]
    pub(crate) fn refused_by(&self, _: &BoundLimit, _: &LimitSet, _: Nanos, _: Nanos) {}

    pub(crate) fn degraded(&self, _: &Degraded, _: &LimitSet, _: Nanos) {}

    pub(crate) fn missing_usage(&self, _: &str, _: Nanos, _: MissingReason) {}

    pub(crate) fn implausible_usage(&self, _: &str, _: Nanos, _: u64, _: u64) {}

    pub(crate) fn expired(&self, _: &str, _: Nanos) {}

    pub(crate) fn no_peer_address(&self) {}

    pub(crate) fn unknown_plan(&self) {}

    pub(crate) fn no_body_read(&self) {}

    pub(crate) fn bucket_failed(&self, _: &StoreError, _: Nanos) {}

    pub(crate) fn store_down(&self, _: &StoreError) {}

    pub(crate) fn store_up(&self) {}
}

pub(crate) fn reloaded(_: &Changes) {}

#[cfg(feature = "watch")]
pub(crate) fn not_reloaded(_: &dyn std::error::Error) {}

#[cfg(feature = "watch")]
pub(crate) fn not_watched(_: &std::path::Path, _: &str) {}

#[cfg(feature = "watch")]
pub(crate) fn listener_panicked(_: &std::path::Path, _: &str) {}

#[cfg(feature = "watch")]
pub(crate) fn following_ended(_: &std::path::Path) {}
