//! Finds the rule under which a request falls.
//!
//! A [`RouteKey`] is a method and a path. A [`Table`](table::Table) holds the declared ones and finds
//! the most specific for a request; [`BoundedMap`](undeclared::BoundedMap) keeps a bounded number of
//! the others apart. A request that its host may take for several routes has several
//! [`Readings`](readings::Readings), and a route for each.

mod catch_all;
pub(crate) mod comparisons;
pub(crate) mod key;
pub(crate) mod overlap;
pub(crate) mod overlaps;
pub(crate) mod readings;
mod spelling;
pub(crate) mod table;
pub(crate) mod undeclared;

pub(crate) use self::spelling::normalize;
pub use self::{
    catch_all::CatchAll,
    key::{RouteKey, RouteKeyError},
};
