//! Model tokens: what a request is expected to cost, and what it has cost.

mod account;
mod estimate;

pub(crate) use self::estimate::{Estimator, NoField};
pub use self::{account::Usage, estimate::Estimate};
