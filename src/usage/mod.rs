//! What a request has used: a model's tokens.
//!
//! Handlers that know tell it themselves. For those that cannot be changed, [`Scan`] reads it from the
//! answer as it goes by.

#[cfg_attr(
    not(any(test, feature = "__bench")),
    expect(dead_code, reason = "no body is read yet")
)]
mod scan;

#[cfg_attr(
    not(feature = "__bench"),
    expect(unused_imports, reason = "no body is read yet")
)]
pub(crate) use self::scan::{Kind, Scan};
