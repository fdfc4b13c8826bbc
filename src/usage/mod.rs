//! Model tokens: the estimated and the true cost of a request.
//!
//! A handler settles the cost with [`Usage`]. The guide [Serving models](crate::guides::models#tokens) explains
//! reservation and settlement.

// A handler that knows the cost reports it itself. For handlers that cannot be changed, `UsageReader` reads the cost
// from the answer as it streams.

mod account;
mod body_estimate;
mod body_weights;
mod estimate;
mod reader;
mod scan;

pub(crate) use self::estimate::EstimateSource;
#[cfg(feature = "__bench")]
pub(crate) use self::scan::{MediaType, UsageScanner};
pub use self::{account::Usage, body_estimate::BodyEstimate, estimate::Estimate};
pub(crate) use self::{
    estimate::{EstimateError, Estimator},
    reader::{ReportListener, UsageReader},
};
pub use crate::limit::token_usage::TokenUsage;
