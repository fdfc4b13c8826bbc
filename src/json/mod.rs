//! Parts of JSON's grammar (RFC 8259) that every scanner of this crate reads: nesting, literal names, numbers, and the
//! names of members.
//!
//! A scanner is fed a text in pieces, split anywhere, so each part takes one byte after the other and has a fixed size.

mod literal;
mod name;
mod nesting;
mod number;
mod skip;
pub(crate) mod word;

pub(crate) use self::{
    literal::Literal,
    name::Name,
    nesting::Nesting,
    number::NumberPart,
    skip::{StringPart, digits_len, line_len, plain_len, string_part},
};

/// The most arrays and objects inside each other, which is also what serde_json reads.
pub(crate) const DEPTH: u8 = 127;
