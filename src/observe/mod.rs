//! What operators are told.

#[cfg(feature = "tracing")]
#[path = "tracing.rs"]
mod log;
#[cfg(not(feature = "tracing"))]
#[path = "silent.rs"]
mod log;
#[cfg(feature = "tracing")]
mod sampler;

#[cfg(feature = "watch")]
pub(crate) use self::log::not_reloaded;
pub(crate) use self::log::{Log, reloaded};

#[cfg(feature = "metrics")]
#[path = "metrics.rs"]
mod meters;
#[cfg(not(feature = "metrics"))]
#[path = "unmetered.rs"]
mod meters;

pub(crate) use self::meters::{Meters, describe};
