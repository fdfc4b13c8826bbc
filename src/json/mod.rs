//! Parts of JSON's grammar (RFC 8259) that every scanner of this crate reads: nesting, literal names, numbers, and the
//! names of members.
//!
//! A scanner is fed a text in pieces, split anywhere, so each part takes one byte after the other and has a fixed size.

mod literal;
mod name;
mod nesting;
mod number;
pub(crate) mod word;

pub(crate) use self::{literal::Literal, name::Name, nesting::Nesting, number::NumberPart};

/// The most arrays and objects inside each other, which is also what serde_json reads.
pub(crate) const DEPTH: u8 = 127;

/// Returns whether a byte is white space between two tokens.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
