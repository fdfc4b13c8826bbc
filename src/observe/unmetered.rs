//! Nobody counts.

use crate::{
    clock::Nanos,
    limiter::{limit_set::LimitSet, missing_reason::MissingReason},
};

#[derive(Debug, Clone)]
pub(crate) struct Meters;

#[expect(clippy::unused_self, reason = "as where somebody counts")]
impl Meters {
    pub(crate) fn of(_: &LimitSet) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn admitted(&self) {}

    pub(crate) fn refused(&self) {}

    pub(crate) fn degraded(&self) {}

    pub(crate) fn by_limit(&self, _: usize) {}

    pub(crate) fn waited(&self, _: Nanos) {}
}

pub(crate) fn missing_usage(_: &str, _: MissingReason) {}

pub(crate) fn expired(_: &str) {}

pub(crate) fn body_timed_out(_: &'static str) {}

pub(crate) fn unread_model(_: &'static str) {}

pub(crate) fn describe() {}

#[derive(Debug)]
pub(crate) struct StoreMeters {}

#[expect(clippy::unused_self, reason = "as where somebody counts")]
impl StoreMeters {
    pub(crate) fn new() -> Self {
        Self {}
    }

    pub(crate) fn failed(&self) {}

    pub(crate) fn is_up(&self, _: bool) {}

    pub(crate) fn admitted(&self) {}

    pub(crate) fn refused(&self) {}

    pub(crate) fn local(&self) {}
}
