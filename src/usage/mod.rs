//! Model tokens: what a request is expected to cost, and what it has cost.
//!
//! Handlers that know tell it themselves. For those that cannot be changed, [`UsageScanner`] reads it from the answer as
//! it goes by.

mod account;
mod estimate;
mod scan;

pub(crate) use self::estimate::EstimateSource;
pub use self::{account::Usage, estimate::Estimate};
pub(crate) use self::{
    estimate::{Estimator, InvalidFieldName},
    scan::{MediaType, UsageScanner},
};
