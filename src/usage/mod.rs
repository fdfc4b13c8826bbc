//! What a request has used: a model's tokens.
//!
//! Handlers that know tell it themselves. For those that cannot be changed, [`Scan`] reads it from the
//! answer as it goes by.

mod scan;

pub(crate) use self::scan::{Kind, Scan};
