//! Limits as the gateways that people come from are configured.
//!
//! What is read becomes [`Rules`](crate::Rules) as if they had been written by hand. What cannot be kept is an error
//! that names it, with its line and column; what is kept in another way is a [`Warning`]. Nothing is left out in
//! silence that would limit somebody.

mod error;
mod imported;

pub mod api_management;

pub use self::{
    error::ConfigError,
    imported::{Imported, Warning},
};
