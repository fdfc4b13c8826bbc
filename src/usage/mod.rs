//! Model tokens: what a request is expected to cost, and what it has cost.
//!
//! A handler settles its cost with [`Usage`]. The guide [Serving models](crate::guides::models#tokens) explains
//! reservation and settlement.

// Handlers that know the cost tell it themselves. For those that cannot be changed, `UsageReader` reads it from the
// answer as the answer goes by.

mod account;
mod estimate;
mod reader;
mod scan;

pub(crate) use self::estimate::EstimateSource;
#[cfg(feature = "__bench")]
pub(crate) use self::scan::{MediaType, UsageScanner};
pub use self::{account::Usage, estimate::Estimate};
pub(crate) use self::{
    estimate::{Estimator, InvalidFieldName},
    reader::{ReportListener, UsageReader},
};
