//! What operators are told.

#[cfg(feature = "tracing")]
#[path = "tracing.rs"]
mod log;
#[cfg(not(feature = "tracing"))]
#[path = "silent.rs"]
mod log;

#[cfg(feature = "watch")]
pub(crate) use self::log::not_reloaded;
pub(crate) use self::log::{no_peer_address, reloaded};
