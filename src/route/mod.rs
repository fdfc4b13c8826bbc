//! Route keys, and the requests that they match.
//!
//! The guide [Limits](crate::guides::limits#route-keys) explains which key wins.

// A `Table` holds the declared keys and finds the most specific for a request; a `BoundedMap` keeps a bounded number of
// other routes apart. A request that its host may take for several routes has several `Readings`, and a route for each.

mod catch_all;
pub(crate) mod comparisons;
pub(crate) mod key;
pub(crate) mod overlap;
pub(crate) mod overlaps;
pub(crate) mod path_parameter;
pub(crate) mod readings;
mod spelling;
pub(crate) mod suffix;
pub(crate) mod table;
pub(crate) mod undeclared;

pub(crate) use self::spelling::normalize;
pub use self::{
    catch_all::CatchAll,
    key::{RouteKey, RouteKeyError},
};
