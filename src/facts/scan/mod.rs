//! Reads the facts of a request's body as it arrives, by the [rules](super#rules).
//!
//! A [`FactsScanner`] is fed the bytes in pieces, split anywhere. It stores no part of the body but two names of at
//! most 256 bytes, and its time is linear, whatever the input.
//!
//! All that serde_json refuses to read as a `Value` is malformed, invalid UTF-8 included: a scan that let more pass
//! would read facts where a server reads others or none.

mod escape;
mod exact_number;
mod member;
mod plain;
#[cfg(test)]
mod reference;
mod scanner;
#[cfg(test)]
mod tests;
mod text_value;
mod utf8;

pub(crate) use self::scanner::FactsScanner;
#[cfg(test)]
use super::{MaximumMember, RequestFacts};
