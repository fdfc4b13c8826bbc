//! The settings that only routes have.

use super::limits::Limits;

/// The settings of a route beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteSettings {
    /// The units that a request costs.
    pub(crate) cost: u64,
    /// Handlers may keep requests in flight beyond their answers.
    pub(crate) keeps: bool,
    /// Failures of the inner service are refunded.
    pub(crate) refunds: bool,
    /// Usage is read from answers, or is not. `None`: the throttle decides.
    pub(crate) reads_answers: Option<bool>,
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self {
            cost: 1,
            keeps: false,
            refunds: false,
            reads_answers: None,
        }
    }
}

impl RouteSettings {
    /// Returns the settings of these limits, and where they have none those of a `default`.
    pub(crate) fn of(limits: &Limits, default: Self) -> Self {
        Self {
            cost: limits.cost.unwrap_or(default.cost),
            keeps: limits.keep.unwrap_or(default.keeps),
            refunds: limits.refund_failures.unwrap_or(default.refunds),
            reads_answers: limits.usage_from_answers.or(default.reads_answers),
        }
    }
}
