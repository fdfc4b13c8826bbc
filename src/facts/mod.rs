//! Facts that the body of a request to a model server states: the model, the size of the prompt, the largest answer.
//!
//! Such a body is one JSON object, as the APIs of OpenAI, Anthropic and Gemini have it. A handler finds the facts as
//! [`BodyFacts`] in the request's extensions.
//!
//! # Rules
//!
//! - Facts are members of the top-level object. Members of the same names inside others mean nothing. The counts of
//!   Gemini, Bedrock and Ollama are settings in `generationConfig`, `inferenceConfig` and `options`, each in its own.
//! - A name may be written with escapes. A member or setting that states a fact may be given only once, by either of the
//!   names that Gemini has for it: servers disagree on which of two counts. For the same reason its name may not differ
//!   in upper and lower case alone, nor by U+017F for `s` and U+212A for `k`: Go's parser takes it.
//! - `null` is like no member at all. A `model` or `service_tier` that is no string, a `stream` that is neither true
//!   nor false, and a count that is no number make the body [malformed](UnreadReason::Malformed), as does a string of
//!   more than 256 bytes as `model` or `service_tier`: shortened names of two models could be the same.
//! - Counts are those of [`max_output_tokens`](RequestFacts::max_output_tokens) and [`choices`](RequestFacts::choices).
//!   Of several the largest counts. A fraction is rounded up, a number above 2⁶⁴ − 1 counts as 2⁶⁴ − 1, and a number
//!   with a minus sign as no member at all, except that a maximum of less than one makes the output
//!   [unbounded](RequestFacts::is_output_unbounded).
//! - The text is all strings, at any depth, that are values in `messages`, `input`, `prompt`, `system`, `contents`,
//!   `instructions`, `tools`, `functions`, `system_instruction`, `systemInstruction`, `suffix`, `prediction`, `documents`,
//!   `query`, `inputs`, `message`, `chat_history` and `response_format`. Its bytes are counted in UTF-8, decoded, so
//!   that escapes make no difference. Names of members in `tools`, `functions` and `response_format` are text too.
//! - A string there that begins with `data:`, in upper or lower case, or is the value of a member `data`, `file_data`
//!   or `bytes` counts as one item instead, such as an image, audio or a file. One with a space, a control character or
//!   a character outside of ASCII is text nevertheless: encoded data has none of these, and a prompt has.
//! - Numbers in arrays, at any depth, in `prompt` and `input` are token ids.
//! - An empty body states nothing. Any other that is not a JSON object is malformed; so are lone surrogates, numbers
//!   out of the range of `f64`, and more than 127 levels of arrays and objects.

mod body_facts;
mod maximum_member;
mod request_facts;
mod scan;
mod unread_reason;

pub use self::{
    body_facts::BodyFacts, maximum_member::MaximumMember, request_facts::RequestFacts,
    unread_reason::UnreadReason,
};
pub(crate) use self::{maximum_member::MaximumMembers, scan::FactsScanner};
