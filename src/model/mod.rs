//! Models: limits by the model that a request is for, beside those of its route and its client.
//!
//! ```text
//! Models          the settings, as users write them
//! ModelResolver   finds the class of a request
//! ```
//!
//! # Invariants
//!
//! - **Classes come from the rules.** A client chooses a class among those of the rules, and invents none.
//! - **Unread is a class of its own**, which the rules charge to every model unless they say otherwise: a request whose
//!   model was not read has never fewer limits than one whose model was.

mod models;
mod patterns;
mod resolver;

pub use self::models::Models;
pub(crate) use self::{
    models::ModelSource,
    patterns::{NamePatternError, NamePatterns},
    resolver::{ModelResolver, ModelResolverError, RequestClasses},
};
